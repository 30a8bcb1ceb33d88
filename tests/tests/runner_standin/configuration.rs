//! What config_exec may answer (golden/runner/config-json.toml), and what config.toml alone says.

use serde::Deserialize;
use serde_json::json;
use testbed::runner::Runner;

use super::support::{Place, check_all, golden_cases, last_line, small_job};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    output: String,
    project: Option<String>,
    refusal: Option<String>,
    error: Option<String>,
}

#[test]
fn each_answer_of_config_has_its_effect() {
    check_all(
        &golden_cases::<Case>("config-json.toml"),
        |case| &case.name,
        |case| {
            let place = Place::new();
            let fill = |text: &str| {
                text.replace("%B", &place.builds()).replace("%C", &place.path("cache").display().to_string())
            };
            place.plan(json!({"config": [{"stdout": fill(&case.output)}]}), false);
            let result = place.run(small_job());
            let log = result.plain_log();
            if let Some(project) = &case.project {
                let call = result.call("prepare").unwrap_or_else(|| panic!("{}: {log}", case.name));
                assert_eq!(
                    call.env("CUSTOM_ENV_CI_PROJECT_DIR"),
                    Some(fill(project).as_str()),
                    "{}",
                    case.name
                );
                assert_eq!(result.failure_reason, None, "{}", case.name);
            }
            if let Some(refusal) = &case.refusal {
                assert_eq!(result.stages(), ["config", "cleanup"], "{}", case.name);
                assert_eq!(last_line(&result), format!("ERROR: Job failed: {refusal}"), "{}", case.name);
                assert_eq!(result.failure_reason.as_deref(), Some("script_failure"), "{}", case.name);
                assert_eq!(result.exit_code, None, "{}", case.name);
            }
            if let Some(error) = &case.error {
                assert_eq!(result.stages().len(), 6, "{}\n{log}", case.name);
                let line = format!("ERROR: Job failed (system failure): {error}");
                assert_eq!(last_line(&result), line, "{}", case.name);
            }
        },
    );
}

#[test]
fn what_config_says_besides_json_goes_to_the_job_log() {
    let place = Place::new();
    place.plan(json!({"config": [{"stderr": "a word to the user\n"}]}), false);
    let result = place.run(small_job());
    let line = result.job_log.lines().find(|line| line.ends_with("a word to the user")).unwrap();
    assert!(line.contains("Z 00E "), "{line}");
    assert!(result.plain_log().contains("Using Custom executor with driver fake 1.0..."));
}

#[test]
fn without_config_exec_the_directories_of_config_toml_count() {
    let place = Place::new();
    place.plan(json!({}), false);
    let builds = place.builds();
    let runner = format!("builds_dir = \"{builds}\"\ncache_dir = \"{builds}-cache\"");
    let toml = place.config_toml("http://127.0.0.1:9", &runner, "");
    let kept: Vec<&str> = toml.lines().filter(|line| !line.starts_with("config_")).collect();
    let result = Runner::from_text(&kept.join("\n")).unwrap().run(small_job().build()).unwrap();
    assert_eq!(result.stages().first(), Some(&"prepare"));
    let project = format!("{builds}/group/proj");
    assert_eq!(result.call("prepare").unwrap().env("CUSTOM_ENV_CI_PROJECT_DIR"), Some(project.as_str()));
    assert!(result.plain_log().contains("Using Custom executor...\n"));
}

#[test]
fn two_jobs_of_a_project_get_numbers_of_their_own() {
    let place = Place::new();
    let mut output = place.config_output();
    output["builds_dir_is_shared"] = json!(true);
    place.plan_with(json!({}), false, output);
    let directory = |slot: u32| {
        let runner = place.runner("http://127.0.0.1:9", "", "").slot(slot, slot);
        let result = runner.run(small_job().build()).unwrap();
        result.call("prepare").unwrap().env("CUSTOM_ENV_CI_PROJECT_DIR").unwrap().to_owned()
    };
    assert_eq!(directory(0), format!("{}/standin00/0/group/proj", place.builds()));
    assert_eq!(directory(1), format!("{}/standin00/1/group/proj", place.builds()));
}

/// GIT_CLONE_PATH needs `custom_build_dir`, and must lie below builds_dir.
#[test]
fn a_clone_path_of_the_authors_must_be_allowed() {
    let place = Place::new();
    place.plan(json!({}), false);
    let run = |runner: &str, path: &str| {
        let job = small_job().variable("GIT_CLONE_PATH", path).build();
        place.runner("http://127.0.0.1:9", runner, "").run(job).unwrap()
    };
    let allowed = "custom_build_dir = { enabled = true }";
    let inside = format!("{}/mine", place.builds());
    assert!(last_line(&run("", &inside)).contains("setting GIT_CLONE_PATH is not allowed"));
    assert!(last_line(&run(allowed, "/etc")).contains("has to be within"));
    let result = run(allowed, &inside);
    assert_eq!(result.call("prepare").unwrap().env("CUSTOM_ENV_CI_PROJECT_DIR"), Some(inside.as_str()));
}
