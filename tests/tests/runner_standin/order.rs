//! Which calls a job makes, and how each of them looks: golden/runner/{order,call,environment}.toml.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use testbed::gitlab::JobBuilder;
use testbed::runner::{Call, JobResult, Layer};

use super::support::{Place, Seen, check_all, golden, golden_cases, small_job};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    fails: Vec<String>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    calls: String,
}

fn full_job() -> JobBuilder {
    small_job()
        .release(["echo release"])
        .after_script(["true"])
        .cache("key", ["deps/"], "always")
        .artifact("result", ["out/"], "always")
        .dependency(301, "build", "glcbt-64_DEPENDENCYxTOKEN")
}

#[test]
fn calls_come_in_the_runners_order_whatever_fails() {
    check_all(
        &golden_cases::<Case>("order.toml"),
        |case| &case.name,
        |case| {
            let place = Place::new();
            let acts: serde_json::Map<String, Value> =
                case.fails.iter().map(|stage| (stage.clone(), json!([{"exit": 1}]))).collect();
            place.plan(Value::Object(acts), false);
            let job = case.variables.iter().fold(full_job(), |job, (key, value)| job.variable(key, value));
            let result = place.run(job);
            assert_eq!(result.stages().join(" "), case.calls, "{}\n{}", case.name, result.plain_log());
            let seen: Vec<String> = place.seen().into_iter().map(|seen| seen.stage).collect();
            assert_eq!(seen.join(" "), case.calls, "{}", case.name);
        },
    );
}

/// Temporary directory and numbers as in the golden files.
fn neutral(text: &str, temp: &Path) -> String {
    let text = text.replace(&temp.display().to_string(), "%T");
    match text.split_once("/script") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}/script%N{after}")
        }
        None => text,
    }
}

#[test]
fn a_driver_finds_itself_as_the_runner_starts_it() {
    #[derive(Deserialize)]
    struct Golden {
        argv: BTreeMap<String, String>,
        process: toml::Table,
        modes: toml::Table,
    }
    let golden: Golden = toml::from_str(&golden("call.toml")).unwrap();
    let place = Place::new();
    place.plan(json!({}), false);
    let result = place.run(small_job());
    let all = place.seen();
    assert_eq!(all.len(), result.calls.len());
    let inherited = inheritable_here();
    let own_session = nix::unistd::getsid(None).unwrap().as_raw();
    for (seen, call) in all.iter().zip(&result.calls) {
        let temp = &seen.cwd;
        let stage = if call.script.is_some() { "run" } else { seen.stage.as_str() };
        let plan = place.path("plan.json").display().to_string();
        let argv: Vec<String> = seen.argv.iter().skip(1).map(|word| neutral(word, temp)).collect();
        let expected = golden.argv[stage].replace("%P", &plan).replace("STAGE", &seen.stage);
        assert_eq!(argv.join(" "), expected);
        assert_eq!(Some(u32::try_from(seen.pid).unwrap()), call.pid);
        assert_eq!(seen.parent, i32::try_from(std::process::id()).unwrap());
        assert_eq!((seen.group, seen.session), (seen.pid, own_session));
        assert_eq!(seen.blocked, golden.process["blocked"].as_str().unwrap());
        assert_eq!(*temp, call.cwd);
        assert!(seen.umask.starts_with('0'));
        // What this process ignores is passed on, and nothing more. SIGPIPE is ignored by every Rust program, by itself.
        assert_eq!(standard_signals(&seen.ignored), standard_signals(&ignored_here()));
        let own = seen.fds.iter().filter(|(number, _)| !inherited.contains(*number));
        let fds: BTreeMap<&str, &str> =
            own.map(|(number, to)| (number.as_str(), to.split(':').next().unwrap())).collect();
        let expected: BTreeMap<&str, &str> = golden.process["descriptors"]
            .as_table()
            .unwrap()
            .iter()
            .map(|(number, to)| (number.as_str(), to.as_str().unwrap()))
            .collect();
        assert_eq!(fds, expected, "{}", seen.stage);
        check_modes(seen, temp, &golden.modes);
    }
    let last = all.last().unwrap();
    let scripts = last.modes.keys().filter(|name| name.ends_with("/script")).count();
    assert_eq!(i64::try_from(scripts).unwrap(), golden.modes["scripts"].as_integer().unwrap());
}

/// Signals 1 to 31 of a mask: those above belong to the C library.
fn standard_signals(mask: &str) -> u64 {
    u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff
}

/// Descriptors above 2 that this process was given and passes on; a runner started by systemd has none.
fn inheritable_here() -> Vec<String> {
    let close_on_exec = |number: &str| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("02000000");
        u32::from_str_radix(flags.trim(), 8).unwrap() & 0o2_000_000 != 0
    };
    let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let names = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|number| number.parse::<u32>().unwrap() > 2 && !close_on_exec(number)).collect()
}

fn ignored_here() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim().to_owned()
}

fn check_modes(seen: &Seen, temp: &Path, modes: &toml::Table) {
    let owner = nix::unistd::getuid();
    for (name, mode) in &seen.modes {
        let name = neutral(&format!("/{name}"), temp);
        let expected = modes[name.trim_start_matches('/')].as_str().unwrap();
        assert_eq!(*mode, format!("{expected} {owner}"), "{name} in {}", seen.stage);
    }
}

#[derive(Deserialize)]
struct Environment {
    executor: BTreeMap<String, String>,
    job: Names,
    #[serde(rename = "override")]
    overridden: Override,
    status: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Names {
    flags: usize,
    before: Vec<String>,
    own: Vec<String>,
    after: Vec<String>,
}

#[derive(Deserialize)]
struct Override {
    wins: Vec<String>,
    loses: Vec<String>,
}

fn environment() -> Environment {
    toml::from_str(&golden("environment.toml")).unwrap()
}

fn layered_job(place: &Place) -> JobResult {
    place.plan(json!({}), false);
    let runner = place
        .runner("https://gitlab.example.com", "environment = [\"SITE_NAME=here\"]", "")
        .env("RUNNERS_OWN", "yes")
        .ca_chain("-----BEGIN CERTIFICATE-----\n");
    let facts = testbed::gitlab::Facts::new("https://gitlab.example.com");
    let job = JobBuilder::new(facts)
        .predefined(testbed::gitlab::Predefined::Few)
        .id_token_value("SITE_ID_TOKEN", "a.b.c")
        .without_sources()
        .image("tools/gcc:13")
        .build();
    runner.run(job).unwrap()
}

#[test]
fn the_environment_has_four_layers() {
    let golden = environment();
    let place = Place::new();
    let result = layered_job(&place);
    for (call, seen) in result.calls.iter().zip(place.seen()) {
        let temp = call.cwd.display().to_string();
        assert_eq!(
            call.names(Layer::Runner),
            ["HOME", "USER", "LOGNAME", "SHELL", "LANG", "PATH", "RUNNERS_OWN"]
        );
        let executor: BTreeMap<String, String> = call
            .names(Layer::Executor)
            .iter()
            .map(|name| ((*name).to_owned(), call.env(name).unwrap().replace(&temp, "%T")))
            .collect();
        assert_eq!(executor, golden.executor);
        let job_env: &[&str] = if call.stage == "config" { &[] } else { &["DRIVER_STATE"] };
        assert_eq!(call.names(Layer::JobEnv), job_env);
        let names: Vec<String> = call
            .names(Layer::Job)
            .iter()
            .map(|name| name.strip_prefix("CUSTOM_ENV_").unwrap().to_owned())
            .collect();
        assert!(names.iter().take(golden.job.flags).all(|name| name.starts_with("FF_")));
        let rest: Vec<String> = names.into_iter().skip(golden.job.flags).collect();
        let expected = [golden.job.before.clone(), golden.job.own.clone(), golden.job.after.clone()].concat();
        assert_eq!(rest, expected, "{}", call.stage);
        // What the runner says it gave is what the driver got.
        let given: BTreeMap<String, String> =
            call.env.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect();
        assert_eq!(seen.env, given, "{}", call.stage);
    }
}

#[test]
fn the_first_config_knows_no_directories() {
    let place = Place::new();
    let result = layered_job(&place);
    let value = |call: &Call, name: &str| call.env(&format!("CUSTOM_ENV_{name}")).unwrap().to_owned();
    let config = result.call("config").unwrap();
    assert_eq!(value(config, "CI_BUILDS_DIR"), "");
    assert_eq!(value(config, "CI_PROJECT_DIR"), "");
    assert_eq!(value(config, "RUNNER_TEMP_PROJECT_DIR"), ".tmp");
    let prepare = result.call("prepare").unwrap();
    assert_eq!(value(prepare, "CI_PROJECT_DIR"), format!("{}/group/proj", place.builds()));
    assert_eq!(value(prepare, "RUNNER_TEMP_PROJECT_DIR"), format!("{}/group/proj.tmp", place.builds()));
}

#[test]
fn an_author_overrides_some_names_and_others_not() {
    let golden = environment().overridden;
    let place = Place::new();
    place.plan(json!({}), false);
    let all = golden.wins.iter().chain(&golden.loses);
    let job = all.fold(small_job(), |job, name| job.variable(name, "planted"));
    let result = place.run(job);
    let prepare = result.call("prepare").unwrap();
    let value = |name: &String| prepare.env(&format!("CUSTOM_ENV_{name}")).unwrap_or_default().to_owned();
    for name in &golden.wins {
        assert_eq!(value(name), "planted", "{name}");
    }
    for name in &golden.loses {
        assert_ne!(value(name), "planted", "{name}");
    }
    assert_ne!(prepare.env("TMPDIR"), Some("planted"));
}

#[test]
fn job_env_overrides_the_runner_and_the_executor_but_not_the_job() {
    let place = Place::new();
    let mut output = place.config_output();
    output["job_env"] = json!({"PATH": "/usr/bin:/bin", "TMPDIR": "/nowhere", "BUILD_FAILURE_EXIT_CODE": "77",
        "CUSTOM_ENV_CI_JOB_ID": "999", "A=B": "x", "LINES": "a\nb"});
    place.plan_with(json!({"build_script": [{"exit": 1}]}), false, output);
    let result = place.run(small_job());
    let call = result.call("build_script").unwrap();
    assert_eq!(call.env("PATH"), Some("/usr/bin:/bin"));
    assert_eq!(call.env("TMPDIR"), Some("/nowhere"));
    assert_eq!(call.env("BUILD_FAILURE_EXIT_CODE"), Some("77"));
    assert_eq!(call.env("CUSTOM_ENV_CI_JOB_ID"), Some("302"));
    assert_eq!(call.env("A"), Some("B=x"));
    assert_eq!(call.env("LINES"), Some("a\nb"));
    // The runner keeps to its own directory and its own codes.
    assert!(call.cwd.starts_with(place.path("tmp")));
    assert_eq!((result.exit_code, result.failure_reason.as_deref()), (Some(1), Some("script_failure")));
}

#[test]
fn the_job_status_changes_after_the_script() {
    let status = environment().status;
    for (acts, expected) in
        [(json!({}), &status["success"]), (json!({"build_script": [{"exit": 1}]}), &status["failed"])]
    {
        let place = Place::new();
        place.plan(acts, false);
        let result = place.run(small_job().after_script(["true"]));
        let states: Vec<String> = result
            .calls
            .iter()
            .map(|call| format!("{}={}", call.stage, call.env("CUSTOM_ENV_CI_JOB_STATUS").unwrap()))
            .collect();
        assert_eq!(states.join(" "), *expected);
    }
}

#[test]
fn the_response_file_is_the_job_in_one_line() {
    let place = Place::new();
    place.plan_with(json!({"prepare": [{"exit": 2}]}), false, place.config_output());
    let job = small_job().variable("HTML", "<a> & \"b\"").build();
    let expected = String::from_utf8(job.response_json().unwrap()).unwrap();
    assert!(expected.contains(r#""value":"\u003ca\u003e \u0026 \"b\"""#), "{expected}");
    assert!(expected.contains(r#""inputs":{},"#) && expected.ends_with("}\n"));
    assert_eq!(expected.lines().count(), 1);
    // Each attempt has a directory of its own; after the job all are gone.
    let result = place.runner("http://127.0.0.1:9", "", "").run(job).unwrap();
    let directories: std::collections::BTreeSet<_> =
        result.calls.iter().map(|call| call.cwd.clone()).collect();
    assert_eq!(directories.len(), 3);
    assert!(directories.iter().all(|path| !path.exists()));
    assert_eq!(
        result.stages().join(" "),
        "config prepare cleanup config prepare cleanup config prepare cleanup"
    );
}
