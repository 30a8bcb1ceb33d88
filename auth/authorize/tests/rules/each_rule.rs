//! Each rule alone: what it refuses, what it lets through.

use jacamar_authorize::{Downscope, Lookup, Nologin, Rule};

use crate::samples::{Case, account};

#[test]
fn a_person_with_an_account_is_granted() {
    let case = Case::alice();
    let grant = case.ask().expect("granted");
    assert_eq!(grant.account, account("alice", 1001));
    assert_eq!(grant.rule, "no_allowlist");
    assert_eq!(grant.claims_digest.len(), 64);
}

#[test]
fn words_are_unique() {
    let mut words: Vec<_> = Rule::ALL.iter().map(|rule| rule.word()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Rule::ALL.len());
}

#[test]
fn another_runner() {
    Case::alice().with(|c| c.claims.runner_id = 4).is_refused_by(Rule::RunnerMismatch);
    let unset = Case::alice().with(|c| c.claims.runner_id = 4).with(|c| c.policy.runner_id = None);
    unset.is_granted_by(Rule::NoAllowlist);
}

#[test]
fn nologin_counts_only_where_the_site_says_so() {
    let nologin = Nologin { path: "/etc/nologin".to_owned(), text: "Maintenance\nuntil 12:00\n".to_owned() };
    let case = Case::alice().with(|c| c.facts.nologin = Some(nologin));
    case.is_granted_by(Rule::NoAllowlist);
    let case = case.with(|c| c.policy.enforce_nologin = true);
    case.is_refused_by(Rule::Nologin);
    let said = case.refused().to_string();
    assert_eq!(said, "/etc/nologin: this host takes no jobs now: Maintenance until 12:00");
}

#[test]
fn pipeline_sources() {
    let case = Case::alice().with(|c| c.policy.pipeline_source_allowlist = vec!["push".into(), "web".into()]);
    case.is_granted_by(Rule::NoAllowlist);
    case.with(|c| c.claims.pipeline_source = "schedule".into()).is_refused_by(Rule::PipelineSource);
}

#[test]
fn a_login_that_is_no_account_name() {
    for login in ["12345", ".hidden", &"a".repeat(65)] {
        Case::user(login).is_refused_by(Rule::AccountName);
    }
    for login in ["a", "_svc", "Alice", "first.last", "a-b", "4ti2", "x1", &"a".repeat(64)] {
        Case::user(login).is_granted_by(Rule::NoAllowlist);
    }
}

#[test]
fn the_account_has_exactly_the_logins_name() {
    // Directory servers answer for `Alice` with `alice`, and some for an alias.
    for name in ["Alice", "alice2", "alice ", "root"] {
        Case::alice().with(|c| c.found().account.name = name.into()).is_refused_by(Rule::AccountName);
    }
}

#[test]
fn no_account() {
    Case::alice().with(|c| c.facts.lookup = Lookup::NoSuchAccount).is_refused_by(Rule::NoAccount);
}

#[test]
fn shells() {
    let case = Case::alice().with(|c| c.policy.shell_allowlist = vec!["/bin/bash".into()]);
    case.is_granted_by(Rule::NoAllowlist);
    case.with(|c| c.found().account.shell = "/usr/sbin/nologin".into()).is_refused_by(Rule::Shell);
}

#[test]
fn the_lowest_uid() {
    for (uid, granted) in
        [(1, false), (999, false), (1000, true), (1001, true), (65_533, true), (65_536, true)]
    {
        let case = Case::alice().with(|c| c.found().account.uid = uid);
        if granted { case.is_granted_by(Rule::NoAllowlist) } else { case.is_refused_by(Rule::MinimumUid) }
    }
    let lower = Case::alice().with(|c| c.policy.minimum_uid = 500).with(|c| c.found().account.uid = 500);
    lower.is_granted_by(Rule::NoAllowlist);
}

#[test]
fn root_never() {
    let root = Case::user("root").with(|c| c.found().account.uid = 0);
    root.is_refused_by(Rule::RootAccount);
    let toor = Case::alice().with(|c| c.found().account.uid = 0).with(|c| c.policy.minimum_uid = 0);
    toor.is_refused_by(Rule::RootAccount);
    let listed = root.with(|c| c.policy.user_allowlist = vec!["root".into()]);
    listed.is_refused_by(Rule::RootAccount);
    listed.with(|c| c.policy.downscope = Downscope::None).is_refused_by(Rule::RootAccount);
}

#[test]
fn roots_group_never() {
    Case::alice().with(|c| c.found().account.gid = 0).is_refused_by(Rule::RootGroup);
    Case::alice().with(|c| c.found().account.groups = vec![0, 1001]).is_refused_by(Rule::RootGroup);
}

#[test]
fn the_runners_account_and_our_own() {
    Case::alice().with(|c| c.found().account.uid = 1900).is_refused_by(Rule::RunnerAccount);
    for own in [1901, 1902] {
        Case::alice().with(|c| c.found().account.uid = own).is_refused_by(Rule::RunnerAccount);
    }
    for downscope in [Downscope::Sudo, Downscope::Su] {
        let case = Case::alice().with(|c| c.policy.downscope = downscope);
        case.is_granted_by(Rule::NoAllowlist);
        case.with(|c| c.found().account.uid = 1900).is_refused_by(Rule::RunnerAccount);
    }
}

#[test]
fn without_downscope_the_runners_account_is_granted() {
    let none = Case::alice().with(|c| c.policy.downscope = Downscope::None);
    let grant = none.ask().expect("granted");
    assert_eq!(grant.account, account("gitlab-runner", 1900), "nobody changes the user");
    assert_eq!(grant.rule, "no_allowlist");
    let same = none.clone().with(|c| c.found().account.uid = 1900);
    assert_eq!(same.ask().expect("granted").account, account("alice", 1900));
    // The user still has to pass every rule, and the runner's account those on ids.
    let blocked = none.clone().with(|c| c.policy.user_blocklist = vec!["alice".into()]);
    blocked.is_refused_by(Rule::UserBlocklist);
    none.clone().with(|c| c.facts.lookup = Lookup::NoSuchAccount).is_refused_by(Rule::NoAccount);
    none.clone().with(|c| c.facts.host.runner.uid = 0).is_refused_by(Rule::RootAccount);
    none.clone().with(|c| c.facts.host.runner.uid = 990).is_refused_by(Rule::MinimumUid);
    none.with(|c| c.facts.host.runner.groups = vec![0]).is_refused_by(Rule::RootGroup);
}

#[test]
fn the_first_rule_of_the_order_is_the_one_that_is_named() {
    let nologin = Nologin { path: "/etc/nologin".to_owned(), text: String::new() };
    // Everything is wrong at once; one thing after the other is mended.
    let mut case = Case::user("project_1_bot").with(|c| {
        c.claims.runner_id = 4;
        c.claims.composite_identity = true;
        c.facts.nologin = Some(nologin);
        c.policy.enforce_nologin = true;
        c.policy.pipeline_source_allowlist = vec!["web".into()];
        c.policy.user_blocklist = vec!["alice".into()];
        c.policy.shell_allowlist = vec!["/bin/zsh".into()];
        c.facts.host.runner.uid = 0;
        let found = c.found();
        found.account.uid = 0;
        found.account.gid = 0;
    });
    type Mend = fn(&mut Case);
    let order: [(Rule, Mend); 13] = [
        (Rule::RunnerMismatch, |c| c.claims.runner_id = 3),
        (Rule::Nologin, |c| c.facts.nologin = None),
        (Rule::BotAccount, |c| c.claims.user_login = "alice".into()),
        (Rule::CompositeIdentity, |c| c.claims.composite_identity = false),
        (Rule::PipelineSource, |c| c.policy.pipeline_source_allowlist.clear()),
        (Rule::AccountName, |c| c.found().account.name = "alice".into()),
        (Rule::UserBlocklist, |c| c.policy.user_blocklist.clear()),
        (Rule::Shell, |c| c.policy.shell_allowlist.clear()),
        (Rule::RootAccount, |c| c.found().account.uid = u32::MAX),
        (Rule::ReservedId, |c| c.found().account.uid = 5),
        (Rule::RootGroup, |c| c.found().account.gid = 1001),
        (Rule::MinimumUid, |c| c.found().account.uid = 1901),
        (Rule::RunnerAccount, |c| c.found().account.uid = 1001),
    ];
    for (rule, mend) in order {
        case.is_refused_by(rule);
        mend(&mut case);
    }
    case.is_granted_by(Rule::NoAllowlist);
}
