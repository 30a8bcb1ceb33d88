//! How a job is ended from outside (golden/runner/ends.toml), and what outlives a call.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use testbed::gitlab::{Facts, JobBuilder, Predefined};
use testbed::runner::{Level, Report, Shutdown};

use super::support::{PATIENCE, Place, check_all, golden_cases, last_line, small_job};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    event: String,
    stage: String,
    exit: Option<u8>,
    #[serde(default)]
    ignore: bool,
    sleep_ms: Option<u64>,
    #[serde(default)]
    custom: String,
    #[serde(default)]
    runner: String,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    job_timeout_s: Option<i64>,
    signals: String,
    calls: String,
    state: Option<String>,
    reason: Option<String>,
    report: Option<String>,
    line: Option<String>,
}

fn job(case: &Case) -> JobBuilder {
    let mut facts = Facts::new("http://127.0.0.1:9");
    facts.timeout_s = case.job_timeout_s.unwrap_or(facts.timeout_s);
    let job = JobBuilder::new(facts).predefined(Predefined::Few).without_sources().after_script(["true"]);
    case.variables.iter().fold(job, |job, (key, value)| job.variable(key, value))
}

#[test]
fn each_end_from_outside_has_its_signals_and_its_result() {
    check_all(
        &golden_cases::<Case>("ends.toml"),
        |case| &case.name,
        |case| {
            let place = Place::new();
            let act = json!({"sleep_ms": case.sleep_ms.unwrap_or(20_000), "exit": case.exit, "ignore_term": case.ignore});
            place.plan(json!({ &case.stage: [act] }), false);
            let runner = place.runner("http://127.0.0.1:9", &case.runner, &case.custom);
            let mut running = runner.start(job(case).build()).unwrap();
            running.wait_for_call(&case.stage, PATIENCE).unwrap();
            thread::sleep(Duration::from_millis(150));
            match case.event.as_str() {
                "cancel" => running.cancel(),
                "abort" => running.abort(),
                "terminate" => running.shut_down(Shutdown::Terminate),
                "interrupt" => running.shut_down(Shutdown::Interrupt),
                "timeout" => {}
                other => panic!("{other} is no event"),
            }
            let result = running.wait();
            let log = result.plain_log();
            assert_eq!(result.stages().join(" "), case.calls, "{}\n{log}", case.name);
            let signals: Vec<&str> =
                result.call(&case.stage).unwrap().signals.iter().map(|signal| signal.name.as_str()).collect();
            assert_eq!(signals.join(" "), case.signals, "{}\n{log}", case.name);
            let state = result.state.map(|state| format!("{state:?}").to_lowercase());
            assert_eq!(state, case.state, "{}\n{log}", case.name);
            assert_eq!(result.failure_reason, case.reason, "{}\n{log}", case.name);
            assert_eq!(result.exit_code, None, "{}", case.name);
            let report = format!("{:?}", result.report).to_lowercase();
            assert_eq!(report, case.report.as_deref().unwrap_or("accepted"), "{}", case.name);
            if let Some(line) = &case.line {
                assert_eq!(last_line(&result), *line, "{}", case.name);
            }
        },
    );
}

#[test]
fn the_second_signal_comes_after_the_grace() {
    let place = Place::new();
    place.plan(json!({"build_script": [{"sleep_ms": 20_000, "ignore_term": true}]}), false);
    let runner = place.runner("http://127.0.0.1:9", "", "graceful_kill_timeout = 1");
    let running = runner.start(small_job().build()).unwrap();
    place.wait_for("build_script");
    running.cancel();
    let result = running.wait();
    let times: Vec<Duration> =
        result.call("build_script").unwrap().signals.iter().map(|signal| signal.at).collect();
    let [term, kill] = times.as_slice() else { panic!("{times:?}") };
    let grace = *kill - *term;
    assert!(grace >= Duration::from_secs(1) && grace < Duration::from_secs(3), "{grace:?}");
}

/// A job timeout with a driver that is slow to die: cleanup comes beside it.
#[test]
fn cleanup_does_not_wait_for_ever() {
    let place = Place::new();
    place.plan(json!({"build_script": [{"sleep_ms": 3_000, "ignore_term": true, "exit": 1}]}), false);
    let mut pauses = super::support::short_pauses();
    pauses.build_finish = Duration::from_millis(300);
    let running =
        place.runner("http://127.0.0.1:9", "", "").pauses(pauses).start(small_job().build()).unwrap();
    place.wait_for("build_script");
    running.abort();
    let result = running.wait();
    assert_eq!(result.stages().last(), Some(&"cleanup"));
    let script = result.call("build_script").unwrap();
    assert_eq!(script.ended, None);
    assert!(result.plain_log().contains("WARNING: Timed out waiting for the build to finish"));
    assert_eq!((result.report, result.failure_reason.as_deref()), (Report::Refused, Some("job_canceled")));
}

/// A call is over when all have closed its output, not when the driver has ended.
#[test]
fn who_holds_the_output_open_holds_the_stage() {
    let place = Place::new();
    place.plan(json!({"build_script": [{"hold_stdout_ms": 900}]}), false);
    let result = place.run(small_job());
    let call = result.call("build_script").unwrap();
    let took = call.ended.unwrap() - call.started;
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(result.failure_reason, None);
}

/// A driver that cannot be signalled any more: the runner gives up and goes on.
#[test]
fn a_runner_gives_up_on_what_it_cannot_end() {
    let place = Place::new();
    // The group leader ends, its child lives on in a session of its own and holds the pipe.
    let script = ["setsid sleep 4 & sleep 20"];
    place.plan(json!({}), true);
    let runner = place.runner("http://127.0.0.1:9", "", "graceful_kill_timeout = 1\nforce_kill_timeout = 1");
    let running = runner.start(small_job().script(script).build()).unwrap();
    running.wait_for_log("sleep 20", PATIENCE).unwrap();
    thread::sleep(Duration::from_millis(200));
    running.cancel();
    let result = running.wait();
    let call = result.call("build_script").unwrap();
    assert!(call.abandoned, "{:?}", call.exit);
    assert_eq!(result.stages().last(), Some(&"cleanup"));
    assert_eq!(result.failure_reason.as_deref(), Some("job_canceled"));
}

#[test]
fn what_cleanup_says_goes_to_the_runners_own_log_and_is_not_masked() {
    let place = Place::new();
    let act = json!({"stdout": "out: s3cret-value\n", "stderr": "err: s3cret-value\n"});
    place.plan(json!({"cleanup": [act]}), false);
    let result = place.run(small_job().masked("SECRET", "s3cret-value"));
    assert!(!result.job_log.contains("s3cret-value"));
    let line = |name: &str| {
        let found = result.runner_log.iter().find(|line| line.cleanup_std.as_deref() == Some(name)).unwrap();
        (found.level, found.message.clone())
    };
    assert_eq!(line("out"), (Level::Debug, "out: s3cret-value".into()));
    assert_eq!(line("err"), (Level::Warning, "err: s3cret-value".into()));
}

#[test]
fn masked_values_and_tokens_do_not_reach_the_job_log() {
    let place = Place::new();
    place.plan(json!({}), true);
    let script =
        ["echo secret: $SECRET", "echo token: $CI_JOB_TOKEN", "printf s3cr; sleep 0.1; echo et-value"];
    let result = place.run(small_job().script(script).masked("SECRET", "s3cret-value"));
    let log = result.plain_log();
    assert!(log.contains("secret: [MASKED]\n"), "{log}");
    assert!(log.contains("token: [MASKED]\n"), "{log}");
    assert!(!log.contains("s3cret-value") && !log.contains("TESTBEDxTOKEN"), "{log}");
}

#[test]
fn the_job_log_is_cut_at_its_limit_and_the_job_goes_on() {
    let place = Place::new();
    place.plan(json!({}), true);
    let runner = place.runner("http://127.0.0.1:9", "output_limit = 4", "");
    let job = small_job().script(["seq 20000", "exit 3"]).build();
    let result = runner.run(job).unwrap();
    assert_eq!((result.exit_code, result.failure_reason.as_deref()), (Some(3), Some("script_failure")));
    let tail = "\n\u{1b}[33;1mJob's log exceeded limit of 4096 bytes.\nJob execution will continue but no more output will be collected.\u{1b}[0;m\n";
    assert_eq!(result.job_log.len(), 4096 + tail.len());
    assert!(result.job_log.ends_with(tail));
}

/// The stand-in as a process of its own: a runner that is killed leaves its driver behind and cleans nothing up.
#[test]
fn a_killed_runner_orphans_its_driver() {
    let place = Place::new();
    place.plan(json!({"build_script": [{"sleep_ms": 1500, "exit": 0}]}), false);
    let (config, job) = (place.path("config.toml"), place.path("job.json"));
    std::fs::write(&config, place.config_toml("http://127.0.0.1:9", "", "")).unwrap();
    std::fs::write(&job, small_job().build().response_json().unwrap()).unwrap();
    std::fs::create_dir(place.path("tmp")).unwrap();
    let mut runner = Command::new(env!("CARGO_BIN_EXE_runner-standin"))
        .arg("--quiet")
        .arg("--config")
        .arg(&config)
        .arg("--job")
        .arg(&job)
        .env("TMPDIR", place.path("tmp"))
        .spawn()
        .unwrap();
    let seen = place.wait_for("build_script");
    let until = Instant::now() + PATIENCE;
    assert_eq!(seen.parent, i32::try_from(runner.id()).unwrap());
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{}", seen.pid)).exists(), "the driver died with the runner");
    assert!(seen.cwd.join("response.json").exists());
    assert!(place.seen().iter().all(|seen| seen.stage != "cleanup"));
    while std::path::Path::new(&format!("/proc/{}", seen.pid)).exists() {
        assert!(Instant::now() < until, "the driver did not end");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The program reports by its exit code and a file, and passes signals on.
#[test]
fn the_program_reports_a_cancel() {
    let place = Place::new();
    place.plan(json!({"build_script": [{"sleep_ms": 20_000, "exit": 1}]}), false);
    let (config, job, result) =
        (place.path("config.toml"), place.path("job.json"), place.path("result.json"));
    std::fs::write(&config, place.config_toml("http://127.0.0.1:9", "", "")).unwrap();
    std::fs::write(&job, small_job().build().response_json().unwrap()).unwrap();
    let mut runner = Command::new(env!("CARGO_BIN_EXE_runner-standin"))
        .arg("--config")
        .arg(&config)
        .arg("--job")
        .arg(&job)
        .arg("--result")
        .arg(&result)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    place.wait_for("build_script");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(runner.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
    assert_eq!(runner.wait().unwrap().code(), Some(1));
    let result: testbed::runner::JobResult =
        serde_json::from_str(&std::fs::read_to_string(result).unwrap()).unwrap();
    assert_eq!(result.failure_reason.as_deref(), Some("job_canceled"));
    assert_eq!(result.call("build_script").unwrap().signals[0].name, "SIGTERM");
}
