//! What does not work: the server, the response file, the script, an account of ours.

use std::fs;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use testbed::gitlab::{KeySet, entries};
use testbed::host::{BIN, Started, VERIFY};

use crate::direct::Direct;
use crate::golden;
use crate::place::{Place, Setup, write};
use crate::refusal::{audited, broken};

#[test]
fn a_server_without_keys_is_a_breakage() {
    let mut place = Place::usual();
    for (name, keys) in [
        ("keys-hang-up", KeySet::HangUp),
        ("keys-status", KeySet::Status(502)),
        ("keys-large", KeySet::Large(2 << 20)),
        ("keys-redirect", KeySet::Redirect("http://127.0.0.1:9/".into())),
    ] {
        place.gitlab.set_key_set(keys);
        broken(&place, name, place.small(["true"]));
    }
    let audit = place.audit();
    let lines = audit.iter().filter(|line| line["event"] == "broken");
    let causes: Vec<&str> = lines.map(|line| line["cause"].as_str().expect("text")).collect();
    assert_eq!(causes.len(), 4 * (1 + 3), "{audit:?}");
    assert!(causes.iter().all(|cause| cause.contains("/oauth/discovery/keys")), "{causes:?}");

    // Nothing of that was taken for keys: the next job is as good as the first.
    place.gitlab.set_key_set(KeySet::Good);
    let mut direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"])));
    let ran = direct.config();
    assert_eq!((ran.code, direct.cleanup().code), (0, 0), "{ran}");

    let job = place.small(["true"]);
    forget_keys(&place);
    place.gitlab.close();
    broken(&place, "keys-refused", job);
}

fn forget_keys(place: &Place) {
    let part: String = place.gitlab.url().bytes().map(|byte| format!("{byte:02x}")).collect();
    for entry in fs::read_dir("/var/lib/jacamar/keys").expect("a directory").filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().contains(&part) {
            fs::remove_file(entry.path()).expect("root");
        }
    }
}

/// Slow as a whole, or byte by byte: 20 seconds are the limit of both.
#[test]
fn a_slow_server_is_waited_for_in_vain_but_not_long() {
    let places =
        [KeySet::Slow(Duration::from_secs(25)), KeySet::Drip(Duration::from_millis(400))].map(|keys| {
            let place = Place::usual();
            place.gitlab.set_key_set(keys);
            place
        });
    let begin = Instant::now();
    let started: Vec<Started> = places
        .iter()
        .map(|place| {
            let direct = Direct::new(place, &place.gitlab.admit(place.small(["true"])));
            Started::new(direct.command(&["config", "--configuration", &place.path("config.toml")]))
        })
        .collect();
    for (started, place) in started.into_iter().zip(&places) {
        let ran = started.finish_within(Duration::from_secs(35));
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
        golden::check(place, "keys-slow", &ran.err);
    }
    let took = begin.elapsed();
    assert!((Duration::from_secs(18)..Duration::from_secs(32)).contains(&took), "{took:?}");
}

#[test]
fn a_response_file_that_is_not_one() {
    let place = Place::usual();
    let job = place.gitlab.admit(place.small(["true"]));
    let good = job.response_json().expect("JSON");
    let mut large = good.clone();
    large.resize(64 << 20, b' ');
    let deep = "[".repeat(100_000);
    for (name, rule, bytes) in [
        ("response-truncated", "response_unreadable", good.get(..good.len() / 2).expect("half")),
        ("response-empty", "response_unreadable", b"".as_slice()),
        ("response-no-json", "response_unreadable", b"\xff\xfe\0".as_slice()),
        ("response-nested", "response_unreadable", deep.as_bytes()),
        ("response-large", "response_too_large", &large),
    ] {
        let mut direct = Direct::new(&place, &job);
        direct.respond(bytes);
        let ran = direct.config();
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{name}: {ran}");
        audited(&place, name, rule);
        golden::check(&place, name, &ran.err);
    }
    for (name, prepare) in [
        ("response-missing", "rm $JOB_RESPONSE_FILE"),
        ("response-directory", "rm $JOB_RESPONSE_FILE; mkdir $JOB_RESPONSE_FILE"),
        ("response-pipe", "rm $JOB_RESPONSE_FILE; mkfifo $JOB_RESPONSE_FILE"),
        ("response-link", "mv $JOB_RESPONSE_FILE other; ln -s $PWD/other $JOB_RESPONSE_FILE"),
    ] {
        let mut direct = Direct::new(&place, &job);
        assert_eq!(Started::new(direct.any(&["sh", "-c", prepare])).finish().code, 0);
        let ran = direct.config();
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{name}: {ran}");
        golden::check(&place, name, &ran.err);
    }
    let mut direct = Direct::new(&place, &job);
    direct.unset("JOB_RESPONSE_FILE");
    let ran = direct.config();
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
    golden::check(&place, "response-unset", &ran.err);
}

#[test]
fn a_script_that_is_not_one() {
    let place = Place::usual();
    let direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).prepared();
    for (name, prepare) in [
        ("script-missing", "rm -f script"),
        ("script-directory", "rm -f script; mkdir script"),
        ("script-pipe", "rmdir script; mkfifo script"),
        ("script-link", "rm -f script; ln -s /etc/shadow script"),
    ] {
        assert_eq!(Started::new(direct.any(&["sh", "-c", prepare])).finish().code, 0);
        let script = direct.directory.join("script").display().to_string();
        let ran = Started::new(direct.command(&["run", &script, "build_script"])).finish();
        assert_eq!((ran.code, ran.out.as_str(), direct.exit_code_file()), (2, "", None), "{name}: {ran}");
        golden::check(&place, name, &ran.err);
    }
    assert_eq!(direct.cleanup().code, 0);
}

/// Who checks tokens must be an account of its own.
#[test]
fn a_missing_account_of_ours() {
    let place = Place::usual();
    let text = fs::read_to_string("/etc/passwd").expect("readable");
    let without: String =
        text.lines().filter(|line| !line.starts_with(VERIFY)).flat_map(|line| [line, "\n"]).collect();
    write(&place.path("passwd"), without.as_bytes(), 0o644);
    // For this thread and what it starts.
    unshare(CloneFlags::CLONE_NEWNS).expect("root");
    let slave = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).expect("root");
    let file = place.path("passwd");
    mount(Some(file.as_str()), "/etc/passwd", None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("root");
    let ran = broken(&place, "no-verify-account", place.small(["true"]));
    assert!(ran.err.contains("useradd --system"), "{ran}");
}

/// A helper has handled what strangers wrote: what it says is a part of our own message, never the job log itself.
#[test]
fn a_helper_that_talks_and_does_not_answer() {
    for (name, script) in [
        (
            "helper-talks",
            r"printf 'section_start:0:x\r\033[0Knews\033[2J from \342\200\256nowhere\nand more\n' >&2; exit 3",
        ),
        ("helper-shouts", "exec yes shouted >&2"),
        ("helper-is-silent", "exit 0"),
    ] {
        let mut place = Place::usual();
        place.setup.auth = format!("jacamar_path = \"{}\"", place.path("helper"));
        write(&place.path("helper"), format!("#!/bin/sh\n{script}\n").as_bytes(), 0o755);
        place.configure(&place.configuration());
        let mut direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"])));
        let ran = direct.config();
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{name}: {ran}");
        golden::check(&place, name, &ran.err);
    }
}

/// The runner gives up long before; whoever has raised the limit of his stack does not.
#[test]
fn a_hundred_thousand_variables() {
    for downscope in ["setuid", "none"] {
        let place = Place::new(Setup { downscope, ..Setup::default() });
        let job = place.gitlab.admit(place.small(["true"]));
        let mut direct = Direct::new(&place, &job);
        let job = format!("{BIN}/job");
        let under = ["prlimit", "--stack=unlimited", &job, "--many-variables"];
        let config = ["config", "--configuration", &place.path("config.toml")];
        let ran = Started::new(direct.command_under(&under, &config)).finish();
        assert_eq!(ran.code, 0, "{downscope}: {ran}");
        let answer: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
        direct.set_record(answer["job_env"]["JACAMAR_CI_RECORD"].as_str().expect("a name"));
        let words = direct.script("env | grep -c CUSTOM_ENV; echo done\n");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for (call, out) in [(vec!["prepare"], "Running as"), (words, "0\ndone\n"), (vec!["cleanup"], "")] {
            let ran = Started::new(direct.command_under(&under, &call)).finish();
            assert!(ran.code == 0 && ran.out.starts_with(out), "{downscope}: {call:?}: {ran}");
        }
    }
}

/// The job's own variables reach the response file alone: nothing there is too much for `verify`.
#[test]
fn a_job_with_many_variables() {
    let place = Place::usual();
    let job = (0..5000).fold(place.small(["true"]), |job, n| job.variable(&format!("V{n}"), "x".repeat(100)));
    let job = place.gitlab.admit(job);
    assert!(entries(&job.variables).len() > 5000);
    let mut direct = Direct::new(&place, &job);
    for n in 0..5000 {
        direct.unset(&format!("CUSTOM_ENV_V{n}"));
    }
    let ran = direct.config();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran}");
    assert_eq!(direct.cleanup().code, 0);
}
