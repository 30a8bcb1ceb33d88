//! Accounts and pipelines that the site does not take.

use std::fs;

use testbed::host::{CI1, RUNNER};

use crate::direct::Direct;
use crate::golden;
use crate::place::{Place, Setup, write};
use crate::refusal::refused;

fn with(auth: &str) -> Place {
    Place::new(Setup { auth: auth.into(), ..Setup::default() })
}

#[test]
fn each_rule_of_the_site_refuses_by_name() {
    for (name, rule, auth) in [
        ("minimum-uid", "minimum_uid", "minimum_uid = 60000"),
        ("user-blocklist", "user_blocklist", "user_blocklist = [\"ci1\"]"),
        ("user-allowlist", "not_allowlisted", "user_allowlist = [\"ci2\"]"),
        ("groups-blocklist", "groups_blocklist", "groups_blocklist = [\"proj-a\"]"),
        ("groups-allowlist", "not_allowlisted", "groups_allowlist = [\"proj-other\"]"),
        ("shell-allowlist", "shell_allowlist", "shell_allowlist = [\"/bin/zsh\"]"),
        (
            "pipeline-source",
            "pipeline_source_allowlist",
            "pipeline_source_allowlist = [\"web\", \"schedule\"]",
        ),
        ("runner-id", "runner_mismatch", "runner_id = 4"),
    ] {
        let place = with(auth);
        refused(&place, name, rule, place.small(["true"]));
    }
}

#[test]
fn users_who_are_nobody_here() {
    let place = Place::usual();
    for (name, rule, login) in [
        ("no-account", "no_account", "alice"),
        ("root", "root_account", "root"),
        ("bot", "bot_account", "project_20_bot_0123456789abcdef"),
        ("deleted-user", "deleted_user", "ghost"),
        ("number", "account_name", "12345"),
        ("system-account", "minimum_uid", "daemon"),
        ("verify-account", "runner_account", "jacamar-verify"),
    ] {
        let mut facts = place.facts();
        facts.user.login = login.into();
        refused(&place, name, rule, place.job_of(&facts).without_sources());
    }
}

/// With `downscope = "none"` every job runs as the caller, and root is nobody's.
#[test]
fn a_runner_of_roots_without_downscope() {
    let place = Place::new(Setup { downscope: "none", ..Setup::default() });
    let result = place.run(place.small(["true"]));
    assert_eq!(result.failure_reason.as_deref(), Some("runner_system_failure"), "{}", result.plain_log());
    assert_eq!(result.stages(), ["config", "cleanup"].repeat(3));
    golden::check(&place, "root-without-downscope", &golden::log_of(&result));
}

/// A file of the host's, there for a moment: every other test's site does not look at it.
#[test]
fn a_nologin_file_closes_the_host() {
    let place = with("enforce_nologin = true");
    write("/etc/nologin", b"Maintenance of the file system until Friday, 12:00\n", 0o644);
    refused(&place, "nologin", "nologin", place.small(["true"]));
    fs::remove_file("/etc/nologin").expect("there");
    let ran = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).config();
    assert_eq!(ran.code, 0, "{ran}");
}

/// Two allowlists: one of them is enough, and the grant says which.
#[test]
fn a_grant_names_its_rule() {
    for (auth, rule) in [
        ("user_allowlist = [\"ci1\"]", "user_allowlist"),
        ("groups_allowlist = [\"proj-a\"]", "groups_allowlist"),
        ("", "no_allowlist"),
    ] {
        let place = with(auth);
        let ran = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).config();
        assert_eq!(ran.code, 0, "{auth}: {ran}");
        let audit = place.audit();
        let line = audit.iter().find(|line| line["event"] == "granted").expect("granted");
        assert_eq!((&line["rule"], &line["account"]), (&rule.into(), &CI1.into()), "{line}");
        assert_eq!(line["runner_id_required"], "not compared", "{line}");
        assert!(line["audience_required"].is_string(), "{line}");
        assert!(!line.to_string().contains(RUNNER), "{line}");
    }
}
