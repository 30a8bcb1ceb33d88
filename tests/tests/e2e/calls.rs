//! Calls that GitLab Runner does not make: arguments, descriptors and an argv that are not as they should be.

use std::fs;

use serde_json::Value;
use testbed::host::{BIN, PREFIX, Started};

use crate::direct::Direct;
use crate::golden;
use crate::left;
use crate::place::Place;

fn direct(place: &Place) -> Direct<'_> {
    Direct::new(place, &place.gitlab.admit(place.small(["true"])))
}

/// They are the site's mistake, so the runner is told that the system failed: its code 2.
#[test]
fn unknown_arguments() {
    let place = Place::usual();
    let direct = direct(&place);
    for (name, arguments) in [
        ("argument-unknown", ["config", "--confguration", "/x"].as_slice()),
        ("argument-missing", &["config", "--configuration"]),
        ("argument-of-prepare", &["prepare", "now"]),
        ("argument-run-alone", &["run"]),
        ("argument-run-script-alone", &["run", "/x"]),
        ("argument-sub-stage", &["run", "/x", "../build"]),
    ] {
        let ran = Started::new(direct.command(arguments)).finish();
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}: {ran}");
        golden::check(&place, name, &ran.err);
    }
    // Those that are no stage at all are a person's mistake: neither the runner's 1 nor its 2.
    for arguments in [["Config"].as_slice(), &[], &["--no-such"], &["exec"]] {
        let ran = Started::new(direct.command(arguments)).finish();
        assert!(![0, 1, 2].contains(&ran.code) && ran.out.is_empty(), "{arguments:?}: {ran}");
        assert!(ran.err.contains("Usage"), "{arguments:?}: {ran}");
    }
}

/// CVE-2021-4034: an empty argument list.
#[test]
fn an_empty_argv() {
    let place = Place::usual();
    let direct = direct(&place);
    let words = [&format!("{BIN}/job"), "--empty-argv", &format!("{PREFIX}/bin/jacamar-auth")];
    let ran = Started::new(direct.any(&words)).finish();
    assert!(![0, 1, 2].contains(&ran.code) && ran.out.is_empty(), "{ran}");
    assert!(!ran.err.contains("panicked") && !ran.err.contains("could not execute"), "{ran}");
}

/// A descriptor that the starter closed is not taken by a file of ours: nothing is written into that file, and
/// nothing is read from it.
#[test]
fn closed_descriptors() {
    let place = Place::usual();
    let config = place.path("config.toml");
    for closed in ["0<&-", "1>&-", "2>&-", "0<&- 1>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"] {
        let mut direct = direct(&place);
        let line = format!("exec \"$@\" {closed}");
        let under = ["sh", "-c", &line, "sh"];
        let before = names(&direct);
        let ran =
            Started::new(direct.command_under(&under, &["config", "--configuration", &config])).finish();
        assert!(ran.err.is_empty(), "{closed}: {ran}");
        if closed.contains("1>&-") {
            // Nobody can read the answer.
            assert!(ran.out.is_empty(), "{closed}: {ran}");
        } else {
            assert_eq!(ran.code, 0, "{closed}: {ran}");
            let answer: Value = serde_json::from_str(&ran.out).expect("JSON");
            direct.set_record(answer["job_env"]["JACAMAR_CI_RECORD"].as_str().expect("a name"));
            let run = direct.script("echo out; echo err >&2; cat; exit 3\n");
            let run: Vec<&str> = run.iter().map(String::as_str).collect();
            for (call, code) in [(vec!["prepare"], 0), (run, 1), (vec!["cleanup"], 0)] {
                let ran = Started::new(direct.command_under(&under, &call)).finish();
                assert_eq!(ran.code, code, "{closed}, {call:?}: {ran}");
            }
            left::assert_nothing(&direct.state(), direct.record(), &[]);
        }
        // Audit lines and records are whole: no output of ours went into a file that got number 1 or 2.
        for line in place.audit() {
            assert!(line["event"].is_string(), "{line}");
        }
        for name in names(&direct).iter().filter(|name| !before.contains(name)) {
            let text = fs::read_to_string(direct.state().join("jobs").join(name).join("record.json"));
            let text = text.unwrap_or_default();
            assert!(text.is_empty() || serde_json::from_str::<Value>(&text).is_ok(), "{closed}: {text}");
        }
    }
}

fn names(direct: &Direct<'_>) -> Vec<String> {
    let entries = fs::read_dir(direct.state().join("jobs")).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A `config` that was cancelled at its end has failed, and the runner calls `cleanup` without a name.
#[test]
fn a_config_that_is_cancelled_leaves_no_record() {
    let place = Place::usual();
    let mut first = direct(&place);
    // Later calls know the server's keys, so the record is all that is written to disk.
    assert_eq!((first.config().code, first.cleanup().code), (0, 0));
    let config = place.path("config.toml");
    let under =
        ["strace", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:signal=SIGTERM:when=1"];
    let direct = direct(&place);
    let ran = Started::new(direct.command_under(&under, &["config", "--configuration", &config])).finish();
    assert_eq!(ran.code, 2, "{ran}");
    let ours = left::records_of(&place);
    assert!(ours.is_empty(), "{ours:?}");
}

/// Who could not read the answer gets no record that nobody would clean up.
#[test]
fn an_answer_that_cannot_be_written_leaves_no_record() {
    let place = Place::usual();
    let direct = direct(&place);
    let config = place.path("config.toml");
    let under = ["sh", "-c", "exec \"$@\" > /dev/full", "sh"];
    let ran = Started::new(direct.command_under(&under, &["config", "--configuration", &config])).finish();
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
    assert!(ran.err.contains("could not write the answer"), "{ran}");
    let ours = left::records_of(&place);
    assert!(ours.is_empty(), "{ours:?}");
}
