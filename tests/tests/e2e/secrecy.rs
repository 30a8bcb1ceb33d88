//! Nothing of ours puts a token, a script or a variable where another user can read it.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde::Deserialize;
use testbed::gitlab::IdToken;
use testbed::host::{BIN, CI2, Started};
use testbed::runner::State;

use crate::place::{Place, Setup};
use crate::user_level;

const MASKED: &str = "MASKED-VALUE-OF-THE-E2E-TEST";
const SCRIPT: &str = "MARKER-IN-THE-SCRIPT-OF-THE-E2E-TEST";
const CANARY: &str = "CANARY-THAT-ANYONE-CAN-SEE";

#[derive(Debug, Deserialize)]
struct Report {
    rounds: u128,
    took_ms: u128,
    longest_ms: u128,
    programs: Vec<String>,
    files: u64,
    found: Vec<(String, String, String)>,
}

/// Runs a whole job with another user watching, at the root level and at the user level.
fn watch(downscope: &'static str, profile: Option<&'static str>) {
    let place = Place::new(Setup { downscope, profile, ..Setup::default() });
    let facts = place.facts();
    let token = IdToken::new(&facts, place.gitlab.url()).sign().expect("a key");
    let job = testbed::gitlab::JobBuilder::new(facts.clone())
        .id_token_value("SITE_ID_TOKEN", &token)
        .masked("SECRET", MASKED)
        .file("SECRET_FILE", format!("{MASKED}\n"))
        .script([
            format!(": {SCRIPT}"),
            "test -n \"$SECRET\" && test -s \"$SECRET_FILE\"".into(),
            // Large enough that the helper takes a while to send it.
            "mkdir -p out deps; head -c 3000000 /dev/urandom > out/result; echo cached > deps/file".into(),
            // What a job itself puts into its arguments, everyone sees: so the observer can see.
            format!("sh -c 'sleep 0.2' {CANARY}"),
        ])
        .after_script(["sleep 0.1"])
        .cache("key", ["deps/"], "always")
        .artifact("result", ["out/"], "always");

    let words = format!(
        "job_token={}\nid_token={token}\nmasked={MASKED}\nscript={SCRIPT}\ncanary={CANARY}\n",
        facts.job_token
    );
    let runner = place.path("runner");
    let program = format!("{BIN}/job");
    let directories = ["/var/lib/jacamar", "/tmp", "/var/tmp", "/dev/shm", &runner, &place.account().home];
    let words_of: Vec<&str> = [program.as_str(), "--observe"].into_iter().chain(directories).collect();
    let mut command = place.host.as_user(CI2, &words_of);
    command.stdin(Stdio::piped());
    let mut observer = Started::new(command);
    observer.feed(words.as_bytes());
    observer.wait_for("ready");

    let result = if downscope == "none" { user_level::run(&place, job) } else { place.run(job) };
    assert_eq!(result.state, Some(State::Success), "{}", result.plain_log());
    observer.signal(Signal::SIGTERM);
    let ran = observer.finish();
    let json = ran.out.strip_prefix("ready\n").unwrap_or_else(|| panic!("{ran}"));
    let report: Report = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {ran}"));

    // It had eyes, and was fast.
    for program in ["jacamar-auth", "jacamar", "bash", "gitlab-runner", "git"] {
        assert!(report.programs.iter().any(|seen| seen == program), "{program} was not seen: {report:?}");
    }
    assert!(report.took_ms / report.rounds <= 12, "a round every few milliseconds: {report:?}");
    eprintln!(
        "{downscope}: {} rounds in {} ms, the longest {} ms, {} files, found {:?}",
        report.rounds, report.took_ms, report.longest_ms, report.files, report.found
    );
    let (allowed, ours): (Vec<_>, Vec<_>) = report.found.into_iter().partition(|(word, place, program)| {
        place == "cmdline"
            && match word.as_str() {
                "canary" => program == "sh",
                // The runner's own scripts pass --token to the helper, and a URL with it to Git (cured later).
                "job_token" => ["gitlab-runner", "git", "git-remote-http"].contains(&program.as_str()),
                _ => false,
            }
    });
    assert!(ours.is_empty(), "{downscope}: seen by another user: {ours:?}");
    for (word, program) in [("canary", "sh"), ("job_token", "gitlab-runner")] {
        let seen = allowed.iter().any(|(found, _, whose)| found == word && whose == program);
        assert!(seen, "{word} of {program} was not seen: {allowed:?}");
    }
    // And nothing of it is left anywhere where root would find it later.
    for line in place.audit() {
        for secret in [facts.job_token.as_str(), &token, MASKED, SCRIPT] {
            assert!(!line.to_string().contains(secret), "{line}");
        }
    }
}

#[test]
fn at_the_root_level() {
    watch("setuid", Some("default"));
}

#[test]
fn at_the_root_level_under_compat() {
    watch("setuid", None);
}

#[test]
fn at_the_user_level() {
    watch("none", Some("default"));
}
