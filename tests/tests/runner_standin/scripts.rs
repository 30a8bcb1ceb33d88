//! The generated scripts: frames of the versions (golden/runner/prepare_script.*.sh), and that bash takes them.

use std::process::{Command, Stdio};

use serde_json::json;
use testbed::runner::{JobResult, Version};

use super::support::{Place, golden, small_job};

fn script<'a>(result: &'a JobResult, stage: &str) -> &'a str {
    result
        .call(stage)
        .and_then(|call| call.script.as_deref())
        .unwrap_or_else(|| panic!("no script of {stage}"))
}

#[test]
fn each_version_has_its_frame() {
    let cases = [
        (Version::V19_4, false, "prepare_script.19.4.sh"),
        (Version::V19_4, true, "prepare_script.19.4-legacy-eval.sh"),
        (Version::V17_4, false, "prepare_script.17.4.sh"),
        (Version::V17_3, false, "prepare_script.17.3.sh"),
    ];
    for (version, legacy, name) in cases {
        let place = Place::new();
        place.plan(json!({}), false);
        let job = small_job().variable("FF_USE_LEGACY_BASH_EVAL", legacy.to_string()).build();
        let result = place.runner("http://127.0.0.1:9", "", "").version(version).run(job).unwrap();
        assert_eq!(script(&result, "prepare_script"), golden(name).replace("%B", &place.builds()), "{name}");
        let path = result.call("prepare_script").unwrap().argv.iter().rev().nth(1).unwrap().clone();
        let file = if version == Version::V17_3 { "script." } else { "script" };
        assert_eq!(path.rsplit('/').next(), Some(file));
        let has_file = result.call("prepare").unwrap().env("BUILD_EXIT_CODE_FILE").is_some();
        assert_eq!(has_file, version == Version::V19_4);
    }
}

#[test]
fn bash_takes_every_script() {
    let place = Place::new();
    place.plan(json!({}), false);
    let job = || {
        small_job()
            .variable("GIT_STRATEGY", "fetch")
            .variable("GIT_SUBMODULE_STRATEGY", "recursive")
            .variable("QUOTES", "it's \"$5\" `ticks` \\ ü\u{1b}")
            .file("A_FILE", "line 1\nline 2\n")
            .release(["echo release"])
            .after_script(["echo 'after'"])
            .hook("pre_get_sources_script", ["echo before"])
            .cache("key", ["deps/"], "always")
            .artifact("result", ["out/"], "always")
            .dependency(301, "build", "glcbt-64_DEPENDENCY")
    };
    for flags in [
        vec![],
        vec!["FF_GIT_URLS_WITHOUT_TOKENS"],
        vec!["FF_USE_GIT_NATIVE_CLONE", "FF_ENABLE_JOB_CLEANUP", "FF_ENABLE_BASH_EXIT_CODE_CHECK"],
        vec!["FF_USE_GIT_PROACTIVE_AUTH", "FF_HASH_CACHE_KEYS", "FF_CLEAN_UP_FAILED_CACHE_EXTRACT"],
    ] {
        let strategy = if flags.len() == 3 { "clone" } else { "fetch" };
        let job = flags.iter().fold(job(), |job, flag| job.variable(flag, "true"));
        let result = place.run(job.variable("GIT_STRATEGY", strategy));
        let scripts: Vec<&str> = result.calls.iter().filter_map(|call| call.script.as_deref()).collect();
        assert_eq!(scripts.len(), 10, "{}", result.plain_log());
        for text in scripts {
            check_syntax(text);
            // What eval is given must be a script too.
            check_syntax(&format!("f() {{\n{}\n}}", decoded(text)));
        }
    }
}

/// The string that `eval` gets.
fn decoded(script: &str) -> String {
    let (_, rest) = script.split_once("eval ").unwrap();
    let end = rest.rfind("\nexit 0").unwrap();
    let word = rest[..end].trim_end_matches(") < /dev/null");
    let printed = Command::new("bash").args(["-c", &format!("printf %s {word}")]).output().unwrap();
    String::from_utf8(printed.stdout).unwrap()
}

fn check_syntax(script: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("script");
    std::fs::write(&path, script).unwrap();
    let output = Command::new("bash").arg("-n").arg(&path).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}\n{script}", String::from_utf8_lossy(&output.stderr));
}

/// The runner puts the host name between double quotes as it is. A driver must not let a job write it.
#[test]
fn a_host_name_is_run() {
    let place = Place::new();
    let mut output = place.config_output();
    output["hostname"] = json!("h$(echo INJECTED)`echo TICKS`\"q");
    place.plan_with(json!({}), true, output);
    let result = place.run(small_job());
    let log = result.plain_log();
    assert!(log.contains("via hINJECTEDTICKS\"q..."), "{log}");
}

/// `FF_POSIXLY_CORRECT_ESCAPES`, which a job may set, leaves `;` unquoted: the value runs in every stage that
/// exports variables.
#[test]
fn posix_escapes_let_a_value_run_in_every_stage() {
    let place = Place::new();
    place.plan(json!({}), true);
    let job = small_job().variable("FF_POSIXLY_CORRECT_ESCAPES", "true").variable("EVIL", "a;id");
    let result = place.run(job);
    let ran = result.plain_log().lines().filter(|line| line.starts_with("uid=")).count();
    assert_eq!(ran, 3, "{}", result.plain_log());
    let pinned =
        place.runner("http://127.0.0.1:9", "feature_flags = { FF_POSIXLY_CORRECT_ESCAPES = false }", "");
    let job = small_job().variable("FF_POSIXLY_CORRECT_ESCAPES", "true").variable("EVIL", "a;id");
    let result = pinned.run(job.build()).unwrap();
    assert!(!result.plain_log().lines().any(|line| line.starts_with("uid=")));
}

#[test]
fn every_variable_reaches_the_script_as_it_was() {
    let place = Place::new();
    place.plan(json!({}), true);
    let value = "it's \"$5\" `ticks` \\ back\ttab ünïcode";
    let script =
        ["printf '<%s>\\n' \"$RAW\"", "cat \"$A_FILE\"", "echo \"$GREETING\"", "echo X=1 >> $GITLAB_ENV"];
    let job = small_job()
        .script(script)
        .after_script(["echo after: $X, status $CI_JOB_STATUS"])
        .raw("RAW", value)
        .file("A_FILE", "line 1\nline 2\n")
        .variable("GREETING", "job $CI_JOB_ID costs $5");
    let result = place.run(job);
    let log = result.plain_log();
    assert!(log.contains(&format!("<{value}>\n")), "{log}");
    assert!(log.contains("\nline 1\nline 2\n"), "{log}");
    assert!(log.contains("\njob 302 costs \n"), "{log}");
    assert!(log.contains("\nafter: 1, status success\n"), "{log}");
    assert_eq!(result.failure_reason, None);
}

#[test]
fn powershell_is_named_and_not_written() {
    let place = Place::new();
    let mut output = place.config_output();
    output["shell"] = json!("pwsh");
    place.plan_with(json!({}), false, output);
    let result = place.run(small_job());
    let path = result.call("build_script").unwrap().argv.iter().rev().nth(1).unwrap().clone();
    assert!(path.ends_with("/script.ps1"), "{path}");
}
