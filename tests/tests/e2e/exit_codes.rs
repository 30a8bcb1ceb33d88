//! From the script's end to the job's state, through the runner's real script frames.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::host::{Process, Started, with_descendants};
use testbed::runner::{Exit, JobResult, Running, State, Version};

use crate::direct::Direct;
use crate::left;
use crate::place::{PATIENCE, Place, STATE, Setup, finish, record_of};

const VERSIONS: [Version; 3] = [Version::V17_3, Version::V17_4, Version::V19_4];
const LEGACY_EVAL: &str = "FF_USE_LEGACY_BASH_EVAL_STRATEGY";

/// State, reason and exit code as GitLab is told.
fn told(result: &JobResult) -> (Option<State>, Option<&str>, Option<i64>) {
    (result.state, result.failure_reason.as_deref(), result.exit_code)
}

#[test]
fn the_scripts_code_is_the_jobs() {
    for version in VERSIONS {
        for legacy in ["false", "true"] {
            let place = Place::new(Setup { version, ..Setup::default() });
            let job = place.small(["exit 42"]).variable(LEGACY_EVAL, legacy).after_script(["echo after-it"]);
            let result = place.run(job);
            let log = result.plain_log();
            // Before 17.9 there was no file for the number: the runner says its own 1.
            let code = if version == Version::V19_4 { 42 } else { 1 };
            let expected = (Some(State::Failed), Some("script_failure"), Some(code));
            assert_eq!(told(&result), expected, "{version:?}, legacy {legacy}: {log}");
            assert!(log.contains("\nafter-it\n"), "{version:?}, legacy {legacy}: {log}");
            left::assert_nothing(Path::new(STATE), &record_of(&result), &[]);
        }
    }
}

#[test]
fn other_ends_of_a_script() {
    let place = Place::usual();
    for (line, code) in [
        ("exit 1", 1),
        ("exit 2", 2),
        ("exit 125", 125),
        ("exit 255", 255),
        ("false; true", 0),
        ("kill -9 $$; sleep 77777", 137),
        ("no-such-command-of-a-test", 127),
        ("(exit 7); echo not-reached", 7),
    ] {
        let result = place.run(place.small([line]));
        let log = result.plain_log();
        // `set -e` of the runner's frame: `false;` in the middle of a line ends it.
        let code = if line.starts_with("false") { 1 } else { code };
        assert_eq!(told(&result), (Some(State::Failed), Some("script_failure"), Some(code)), "{line}: {log}");
    }
}

/// The supervisor asks whether process 1 is dead, and reads its signals: an end between the two must not be lost. The
/// output ends before process 1 is dead, for it takes the whole namespace along; and here each answer takes longer.
#[test]
fn an_end_between_two_looks_is_seen() {
    let place = Place::usual();
    let direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).prepared();
    let words = direct.script("for n in {1..300}; do sleep 77777 >/dev/null 2>&1 & done; exit 3\n");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let slow = ["strace", "-o", "/dev/null", "-e", "inject=wait4:delay_exit=700ms"];
    for _ in 0..3 {
        let ran = Started::new(direct.command_under(&slow, &words)).finish_within(Duration::from_secs(20));
        assert_eq!((ran.code, direct.exit_code_file().as_deref()), (1, Some("3\n")), "{ran}");
    }
    assert_eq!(direct.cleanup().code, 0);
}

/// Starts a job and waits for a line of its script; the processes of that stage.
fn under_way(place: &Place, script: &[&str], after: &[&str], line: &str) -> (Running, u32, Vec<Process>) {
    let job = place.small(script.iter().copied()).after_script(after.iter().copied());
    let running = place.start(job);
    running.wait_for_log(line, PATIENCE).unwrap_or_else(|e| panic!("{e:#}"));
    let call = running.wait_for_call("build_script", PATIENCE).expect("a call");
    let driver = call.pid.expect("started");
    let processes = with_descendants(Pid::from_raw(i32::try_from(driver).expect("a pid")));
    (running, driver, processes)
}

/// The driver's own processes: pid 1 of the stage, and `jacamar run` below it.
fn ours(processes: &[Process]) -> (i32, i32) {
    let [_, init, run, ..] = processes else { panic!("driver, pid 1, jacamar run, bash: {processes:?}") };
    assert_eq!(run.name, "jacamar", "{processes:?}");
    (init.pid, run.pid)
}

#[test]
fn a_killed_child_of_the_driver_is_a_system_failure() {
    for victim in ["jacamar run", "pid 1"] {
        let place = Place::usual();
        let (running, _, processes) =
            under_way(&place, &["echo be\"gun\"", "sleep 77777"], &["true"], "begun");
        let (init, run) = ours(&processes);
        kill(Pid::from_raw(if victim == "pid 1" { init } else { run }), Signal::SIGKILL).expect("alive");
        let result = finish(running);
        let log = result.plain_log();
        assert_eq!(told(&result).1, Some("runner_system_failure"), "{victim}: {log}");
        assert_eq!(result.call("build_script").expect("a call").exit, Exit::Code(2), "{victim}: {log}");
        left::assert_nothing(Path::new(STATE), &record_of(&result), &processes);
    }
}

#[test]
fn a_cancel_ends_the_script_and_after_script_runs() {
    let grace = Duration::from_secs(20);
    for version in VERSIONS {
        let place = Place::new(Setup { version, graceful: grace.as_secs(), ..Setup::default() });
        let (running, _, processes) =
            under_way(&place, &["echo be\"gun\"", "sleep 77777"], &["echo after-it"], "begun");
        running.cancel();
        let result = finish(running);
        let log = result.plain_log();
        let call = result.call("build_script").expect("a call");
        let signals: Vec<&str> = call.signals.iter().map(|signal| signal.name.as_str()).collect();
        assert_eq!(signals, ["SIGTERM"], "{version:?}: {log}");
        assert_eq!(call.exit, Exit::Code(1), "{version:?}: {log}");
        let term = call.signals.first().expect("one").at;
        let took = call.ended.expect("over") - term;
        assert!(took < Duration::from_secs(5), "{version:?}: {took:?}");
        assert!(log.contains("\nafter-it\n"), "{version:?}: {log}");
        assert_eq!(told(&result).1, Some("job_canceled"), "{version:?}: {log}");
        left::assert_nothing(Path::new(STATE), &record_of(&result), &processes);
    }
}

/// Where the runner's own limit for a call strikes, exit 0 would be success.
#[test]
fn a_script_that_makes_a_success_of_sigterm_fails() {
    let place = Place::usual();
    let script = ["trap 'exit 0' TERM", "echo be\"gun\"", "while :; do sleep 0.05; done"];
    let (running, _, processes) = under_way(&place, &script, &["true"], "begun");
    running.cancel();
    let result = finish(running);
    let log = result.plain_log();
    let call = result.call("build_script").expect("a call");
    // The frame's own shell has a trap, which makes it 1.
    assert_eq!((&call.exit, call.exit_code_file.as_deref()), (&Exit::Code(1), Some("1")), "{log}");
    left::assert_nothing(Path::new(STATE), &record_of(&result), &processes);
}

/// The same script without the runner's frame: it is its exit code 0 that does not count.
#[test]
fn exit_0_after_sigterm_is_143() {
    let place = Place::usual();
    let direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).prepared();
    let script = direct.run("trap 'exit 0' TERM\necho up\nwhile :; do sleep 0.05; done\n");
    script.wait_for("up");
    script.signal(Signal::SIGTERM);
    let ran = script.finish();
    assert_eq!((ran.code, direct.exit_code_file().as_deref()), (1, Some("143\n")), "{ran}");
    // What an earlier stage wrote does not speak for the next one.
    let ran = direct.run("true\n").finish();
    assert_eq!((ran.code, direct.exit_code_file()), (0, None), "{ran}");
    assert_eq!(direct.cleanup().code, 0);
}

#[test]
fn a_script_that_ignores_sigterm_ends_within_kill_timeout() {
    let place = Place::new(Setup { general: "kill_timeout = \"2s\"".into(), ..Setup::default() });
    let script =
        ["trap '' TERM", "(trap '' TERM; sleep 77777) &", "echo be\"gun\"", "while :; do sleep 1; done"];
    let (running, _, processes) = under_way(&place, &script, &["echo after-it"], "begun");
    running.cancel();
    let result = finish(running);
    let log = result.plain_log();
    let call = result.call("build_script").expect("a call");
    let signals: Vec<&str> = call.signals.iter().map(|signal| signal.name.as_str()).collect();
    assert_eq!((signals.as_slice(), &call.exit), (["SIGTERM"].as_slice(), &Exit::Code(1)), "{log}");
    let took = call.ended.expect("over") - call.signals.first().expect("one").at;
    assert!((Duration::from_millis(1900)..Duration::from_secs(5)).contains(&took), "{took:?}\n{log}");
    assert!(log.contains("\nafter-it\n"), "{log}");
    left::assert_nothing(Path::new(STATE), &record_of(&result), &processes);
}

#[test]
fn a_background_process_that_holds_the_output_does_not_hold_the_stage() {
    let place = Place::usual();
    let result = place.run(place.small(["(setsid sleep 77777 &) ; sleep 77777 & echo started"]));
    let log = result.plain_log();
    assert_eq!(result.state, Some(State::Success), "{log}");
    assert!(log.contains("\nstarted\n") && result.took < Duration::from_secs(20), "{:?}: {log}", result.took);
    left::assert_nothing(Path::new(STATE), &record_of(&result), &[]);
}
