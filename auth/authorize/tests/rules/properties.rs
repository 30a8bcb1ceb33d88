//! What holds for any input.

use jacamar_authorize::{AccountFacts, Downscope, FoundAccount, HostAccounts, Lookup, Nologin, Policy, Rule};
use jacamar_plan::Account;
use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::samples::{Case, claims};

/// Few names, so that lists, logins and accounts meet.
fn name() -> impl Strategy<Value = String> {
    let names = ["alice", "Alice", "bob", "root", "hpc", "users", "project_1_bot", "ghost", "0", "nobody"];
    select(names.to_vec()).prop_map(str::to_owned)
}

fn names() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![Just(vec![]), vec(name(), 0..4)]
}

fn id() -> impl Strategy<Value = u32> {
    let edges =
        vec![0, 1, 99, 999, 1000, 1001, 1900, 1901, 65_533, 65_534, 65_535, 65_536, u32::MAX - 1, u32::MAX];
    prop_oneof![2 => select(edges), 1 => 1000..100_000_u32, 1 => any::<u32>()]
}

fn account() -> impl Strategy<Value = Account> {
    let shell = select(vec!["/bin/bash".to_owned(), "/usr/sbin/nologin".to_owned()]);
    (name(), id(), id(), vec(id(), 0..4), shell).prop_map(|(name, uid, gid, groups, shell)| Account {
        home: format!("/home/{name}"),
        name,
        uid,
        gid,
        groups,
        shell,
    })
}

fn facts() -> impl Strategy<Value = AccountFacts> {
    let found = (account(), names())
        .prop_map(|(account, group_names)| Lookup::Found(FoundAccount { account, group_names }));
    let lookup = prop_oneof![1 => Just(Lookup::NoSuchAccount), 9 => found];
    let nologin = proptest::option::of(Just(Nologin { path: "/etc/nologin".into(), text: "down".into() }));
    (lookup, nologin, account(), vec(id(), 0..3)).prop_map(|(lookup, nologin, runner, own_uids)| {
        AccountFacts { lookup, nologin, host: HostAccounts { runner, own_uids } }
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let downscope = select(vec![Downscope::Setuid, Downscope::Sudo, Downscope::Su, Downscope::None]);
    let lists = (names(), names(), names(), names());
    let shells = prop_oneof![Just(vec![]), Just(vec!["/bin/bash".to_owned()])];
    let minimum = select(vec![0, 1, 500, 1000, 100_000, u32::MAX]);
    (lists, shells, any::<bool>(), weighted(0.2), minimum, downscope).prop_map(
        |(lists, shell_allowlist, allow_bot_accounts, enforce_nologin, minimum_uid, downscope)| Policy {
            user_allowlist: lists.0,
            user_blocklist: lists.1,
            groups_blocklist: lists.2,
            groups_allowlist: lists.3,
            shell_allowlist,
            pipeline_source_allowlist: vec![],
            allow_bot_accounts,
            enforce_nologin,
            minimum_uid,
            downscope,
            runner_id: None,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    // Most logins are the found account's name, else hardly anything would be granted.
    (name(), weighted(0.9), weighted(0.1), policy(), facts()).prop_map(
        |(login, same, composite, policy, facts)| {
            let login = match &facts.lookup {
                Lookup::Found(found) if same => found.account.name.clone(),
                Lookup::Found(_) | Lookup::NoSuchAccount => login,
            };
            let mut claims = claims(&login);
            claims.composite_identity = composite;
            Case { claims, policy, facts }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_is_granted_is_never_root_nor_below_the_minimum(case in case()) {
        let Ok(grant) = case.ask() else { return Ok(()) };
        let account = &grant.account;
        prop_assert_ne!(account.uid, 0);
        prop_assert!(account.uid >= case.policy.minimum_uid);
        prop_assert!(![65_534, 65_535, u32::MAX].contains(&account.uid));
        let mut gids = account.groups.iter().chain([&account.gid]);
        prop_assert!(gids.all(|gid| ![0, u32::MAX].contains(gid)));
    }

    #[test]
    fn what_is_granted_is_the_users_account_or_the_runners_by_configuration(case in case()) {
        let Ok(grant) = case.ask() else { return Ok(()) };
        let Lookup::Found(found) = &case.facts.lookup else { panic!("granted without an account") };
        prop_assert_eq!(&found.account.name, &case.claims.user_login);
        prop_assert_ne!(found.account.uid, 0, "root's job, as whomever");
        let runner = &case.facts.host.runner;
        if case.policy.downscope == Downscope::None {
            prop_assert!(grant.account == found.account || grant.account == *runner);
            prop_assert_eq!(grant.account.uid, runner.uid);
        } else {
            prop_assert_eq!(&grant.account, &found.account);
            prop_assert_ne!(grant.account.uid, runner.uid);
            prop_assert!(!case.facts.host.own_uids.contains(&grant.account.uid));
        }
    }

    #[test]
    fn who_is_on_a_blocklist_is_granted_by_user_allowlist_alone(case in case()) {
        let Ok(grant) = case.ask() else { return Ok(()) };
        let Lookup::Found(found) = &case.facts.lookup else { panic!("granted without an account") };
        let blocked = case.policy.user_blocklist.contains(&found.account.name)
            || case.policy.groups_blocklist.iter().any(|group| found.group_names.contains(group));
        prop_assert!(!blocked || grant.rule == Rule::UserAllowlist.word());
        prop_assert!(case.facts.nologin.is_none() || !case.policy.enforce_nologin);
    }

    #[test]
    fn every_answer_names_a_rule_and_every_refusal_says_why(case in case()) {
        let word = |word: &str| Rule::ALL.into_iter().find(|rule| rule.word() == word).expect("a rule");
        match case.ask() {
            Ok(grant) => prop_assert!(word(&grant.rule).grants()),
            Err(refusal) => {
                prop_assert!(!word(&refusal.rule).grants());
                prop_assert!(!refusal.object.is_empty() && !refusal.cause.is_empty() && !refusal.hint.is_empty());
            }
        }
    }
}
