//! What a driver's exit means: golden/runner/exit-codes.toml.

use serde::Deserialize;
use serde_json::json;

use super::support::{Place, check_all, golden_cases, last_line, small_job};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    stage: String,
    exit: Option<u8>,
    signal: Option<String>,
    file: Option<String>,
    state: String,
    reason: Option<String>,
    code: Option<i64>,
    line: String,
    calls: Option<usize>,
}

#[test]
fn each_exit_of_a_driver_has_its_result() {
    check_all(
        &golden_cases::<Case>("exit-codes.toml"),
        |case| &case.name,
        |case| {
            let place = Place::new();
            let act = json!({"exit": case.exit, "signal": case.signal, "exit_code_file": case.file});
            place.plan(json!({ &case.stage: [act] }), false);
            let job = small_job().after_script(["true"]).cache("key", ["deps/"], "always").artifact(
                "result",
                ["out/"],
                "always",
            );
            let result = place.run(job);
            let log = result.plain_log();
            assert_eq!(
                format!("{:?}", result.state.unwrap()).to_lowercase(),
                case.state,
                "{}\n{log}",
                case.name
            );
            assert_eq!(result.failure_reason, case.reason, "{}\n{log}", case.name);
            assert_eq!(result.exit_code, case.code, "{}\n{log}", case.name);
            assert_eq!(last_line(&result), case.line, "{}", case.name);
            let calls = result.stages().iter().filter(|stage| **stage == case.stage).count();
            assert_eq!(calls, case.calls.unwrap_or(1), "{}\n{log}", case.name);
            assert_eq!(result.left_behind, Vec::<std::path::PathBuf>::new(), "{}", case.name);
        },
    );
}

/// The file is never reset: a later stage that exits 1 without writing gets the code of an earlier one.
#[test]
fn an_old_exit_code_file_counts_for_a_later_stage() {
    let place = Place::new();
    place.plan(
        json!({
            "build_script": [{"exit": 0, "exit_code_file": "9"}],
            "upload_artifacts_on_success": [{"exit": 1}],
        }),
        false,
    );
    let result = place.run(small_job().artifact("result", ["out/"], "always"));
    assert_eq!((result.exit_code, result.failure_reason.as_deref()), (Some(9), Some("script_failure")));
    let seen = place.seen();
    let later = seen.iter().find(|seen| seen.stage == "cleanup_file_variables").unwrap();
    assert_eq!(later.exit_code_file.as_deref(), Some("9"));
}

#[test]
fn a_driver_that_is_missing_is_a_system_failure_and_cleanup_still_comes() {
    let place = Place::new();
    place.plan(json!({}), false);
    let driver = env!("CARGO_BIN_EXE_fake-driver");
    let toml = place.config_toml("http://127.0.0.1:9", "", "");
    let toml = toml.replace(&format!("run_exec = \"{driver}\""), "run_exec = \"/nonexistent/driver\"");
    let result = testbed::runner::Runner::from_text(&toml).unwrap().run(small_job().build()).unwrap();
    assert_eq!(result.stages(), ["config", "prepare", "prepare_script", "cleanup"]);
    assert_eq!(
        last_line(&result),
        "ERROR: Job failed (system failure): prepare environment: failed to start command: fork/exec /nonexistent/driver: no such file or directory. Check https://docs.gitlab.com/runner/shells/#shell-profile-loading for more information"
    );
}

/// Linux refuses a single string of 128 KiB: not even cleanup can be called.
#[test]
fn a_variable_that_is_too_large_stops_every_call() {
    let place = Place::new();
    place.plan(json!({}), false);
    let result = place.run(small_job().variable("BIG", "x".repeat(131_072)));
    assert_eq!(result.failure_reason.as_deref(), Some("runner_system_failure"));
    assert!(result.calls.iter().all(|call| call.pid.is_none()), "{:?}", result.stages());
    assert_eq!(place.seen().len(), 0);
    assert!(last_line(&result).ends_with("argument list too long"), "{}", result.plain_log());
}
