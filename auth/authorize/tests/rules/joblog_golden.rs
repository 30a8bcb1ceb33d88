//! Every refusal as it stands in the job log.
//!
//! `UPDATE_GOLDEN=1 cargo test -p jacamar-authorize` writes the files anew and fails, so that it is never a green
//! run; read the difference before it is committed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jacamar_authorize::{Downscope, Lookup, Nologin, Rule};
use jacamar_contract::joblog::message;

use crate::samples::Case;

/// A case that each refusing rule refuses.
fn case(rule: Rule) -> Option<Case> {
    let alice = Case::alice();
    Some(match rule {
        Rule::UserAllowlist | Rule::GroupsAllowlist | Rule::NoAllowlist => return None,
        Rule::RunnerMismatch => alice.with(|c| c.claims.runner_id = 4),
        Rule::Nologin => alice.with(|c| {
            c.policy.enforce_nologin = true;
            c.facts.nologin = Some(Nologin {
                path: "/etc/nologin".to_owned(),
                text: "Maintenance of the file system\nuntil Friday, 12:00\n".to_owned(),
            });
        }),
        Rule::DeletedUser => Case::user("ghost"),
        Rule::BotAccount => Case::user("project_20_bot_0123456789abcdef"),
        Rule::CompositeIdentity => alice.with(|c| c.claims.composite_identity = true),
        Rule::PipelineSource => alice.with(|c| {
            c.claims.pipeline_source = "schedule".to_owned();
            c.policy.pipeline_source_allowlist = vec!["push".to_owned(), "web".to_owned()];
        }),
        Rule::AccountName => alice.with(|c| c.claims.user_login = "Alice".to_owned()),
        Rule::NoAccount => alice.with(|c| c.facts.lookup = Lookup::NoSuchAccount),
        Rule::UserBlocklist => alice.with(|c| c.policy.user_blocklist = vec!["alice".to_owned()]),
        Rule::GroupsBlocklist => alice.with(|c| c.policy.groups_blocklist = vec!["hpc".to_owned()]),
        Rule::NotAllowlisted => alice.with(|c| c.policy.groups_allowlist = vec!["ci".to_owned()]),
        Rule::Shell => alice.with(|c| {
            c.policy.shell_allowlist = vec!["/bin/bash".to_owned(), "/bin/zsh".to_owned()];
            c.found().account.shell = "/usr/sbin/nologin".to_owned();
        }),
        Rule::RootAccount => Case::user("root").with(|c| c.found().account.uid = 0),
        Rule::RootGroup => alice.with(|c| c.found().account.groups.push(0)),
        Rule::ReservedId => Case::user("nobody").with(|c| c.found().account.uid = 65_534),
        Rule::MinimumUid => Case::user("daemon").with(|c| c.found().account.uid = 2),
        Rule::RunnerAccount => Case::user("gitlab-runner").with(|c| c.found().account.uid = 1900),
    })
}

/// The same rule in other words.
fn variants() -> Vec<(&'static str, Case)> {
    let alice = Case::alice();
    vec![
        ("account_name-number", Case::user("12345")),
        (
            "bot_account-address",
            alice.clone().with(|c| {
                c.claims.user_email = Some("service_account_0123@noreply.gitlab.example.com".to_owned());
            }),
        ),
        (
            "not_allowlisted-both",
            alice.clone().with(|c| {
                c.policy.user_allowlist = vec!["bob".to_owned()];
                c.policy.groups_allowlist = vec!["ci".to_owned()];
            }),
        ),
        (
            "root_account-runner",
            alice.with(|c| {
                c.policy.downscope = Downscope::None;
                c.facts.host.runner.name = "root".to_owned();
                c.facts.host.runner.uid = 0;
            }),
        ),
    ]
}

#[test]
fn each_refusal_in_the_job_log() {
    let refusing = Rule::ALL.into_iter().filter_map(|rule| case(rule).map(|case| (rule, case)));
    let mut messages = Vec::new();
    for (rule, case) in refusing {
        case.is_refused_by(rule);
        messages.push((rule.word().to_owned(), case.refused()));
    }
    messages.extend(variants().into_iter().map(|(name, case)| (name.to_owned(), case.refused())));

    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/joblog"));
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut names = BTreeSet::new();
    for (name, refusal) in messages {
        let text = message(&refusal, "HPC support, support@hpc.example.org");
        let name = format!("authorize-{name}.txt");
        let file = folder.join(&name);
        if update {
            std::fs::create_dir_all(&folder).expect("folder");
            std::fs::write(&file, &text).expect("file");
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(text, expected, "{name}");
        names.insert(name);
    }
    for entry in std::fs::read_dir(&folder).expect("folder") {
        let name = entry.expect("entry").file_name().into_string().expect("text");
        assert!(!name.starts_with("authorize-") || names.contains(&name), "{name} belongs to no message");
    }
    assert!(!update, "the files were written; run the tests again without UPDATE_GOLDEN");
}
