//! A check for developers: replays recordings of a real GitLab Runner and compares calls, environments, scripts,
//! job log and result, field by field. It needs a directory of recordings, which is not part of this tree:
//! `TESTBED_RECORDINGS=DIR cargo test -p testbed --test runner_standin recordings -- --nocapture`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;
use testbed::runner::{Exit, JobResult, Version};

use super::scenario::{Scenario, neutral, text};

/// Scenarios that say nothing about one job's calls, need another runner process or account, or (the old cancel)
/// show a life cycle that is not stood in for.
const NOT_REPLAYED: [&str; 9] = [
    "big-variable",
    "canceled-at-start",
    "old-17.4-cancel",
    "run-exit-1-fifo",
    "runner-sigkill",
    "two-jobs",
    "two-jobs-shared",
    "user-cancel-eperm",
    "user-cancel-mixed",
];

#[test]
fn developers_check_of_the_stand_in_against_recordings_of_a_real_runner() {
    let Some(directory) = std::env::var_os("TESTBED_RECORDINGS").map(PathBuf::from) else {
        println!("TESTBED_RECORDINGS names no directory of recordings: nothing to compare with");
        return;
    };
    let mut names: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().join("calls.json").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !NOT_REPLAYED.contains(&name.as_str()))
        .collect();
    names.sort();
    let total = names.len();
    let (queue, failures) = (Mutex::new(names), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some(name) = queue.lock().unwrap().pop() else { return };
                    let differences = Scenario::read(&directory, &name).compare();
                    if !differences.is_empty() {
                        failures.lock().unwrap().push(format!("{name}:\n  {}", differences.join("\n  ")));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    println!("{total} scenarios replayed, {} differ", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

impl Scenario {
    /// Everything in which recording and replay differ.
    fn compare(&self) -> Vec<String> {
        let environments = self.environments();
        let (mut result, driver) = self.replay(&environments);
        // A driver that cannot be started records nothing.
        result.calls.retain(|call| !matches!(call.exit, Exit::NotStarted(_)));
        let mut differences = Vec::new();
        let mut same = |what: &str, recorded: String, ours: String| {
            if recorded != ours {
                differences.push(format!("{what}: recorded {recorded:?}, ours {ours:?}"));
            }
        };
        let stages: Vec<&str> =
            self.calls.iter().map(|call| text(call, "call").split_once('-').unwrap().1).collect();
        same("calls", stages.join(" "), result.stages().join(" "));
        let last = &self.summary["final"];
        if last["state"].is_string() {
            let word = |value: &Value| value.as_str().unwrap_or("none").to_owned();
            same("state", word(&last["state"]), format!("{:?}", result.state.unwrap()).to_lowercase());
            same(
                "reason",
                word(&last["failure_reason"]),
                result.failure_reason.clone().unwrap_or("none".into()),
            );
            same("exit code", format!("{:?}", last["exit_code"].as_i64()), format!("{:?}", result.exit_code));
        } else {
            same("state", "None".into(), format!("{:?}", result.state));
        }
        let old = self.version() != Version::V19_4;
        let response = fs::read_to_string(self.root.join("response.json")).ok();
        if let Some(recorded) = response.filter(|_| !old) {
            let ours = self.job(&environments[0]).response_json().unwrap();
            same("response.json", recorded, String::from_utf8(ours).unwrap());
        }
        if !old && !self.has_environment() {
            self.compare_changes(&result, &mut same);
        }
        for ((recorded, env), ours) in self.calls.iter().zip(&environments).zip(&result.calls) {
            let what = |field: &str| format!("{} {field}", text(recorded, "call"));
            let argv: Vec<String> = recorded["argv"]
                .as_array()
                .unwrap()
                .iter()
                .map(|word| word.as_str().unwrap().to_owned())
                .collect();
            let argv = argv.join(" ").replace("/srv/rec/bin/record_driver", driver.as_str().unwrap());
            same(&what("argv"), neutral(&argv), neutral(&ours.argv.join(" ")));
            if let Some(code) = recorded["times"]["exit"].as_i64()
                && self.name != "runner-sigterm-slow-cleanup"
            {
                same(
                    &what("exit"),
                    format!("{:?}", Exit::Code(i32::try_from(code).unwrap())),
                    format!("{:?}", ours.exit),
                );
            }
            let terms = |count: usize| if count > 0 { "SIGTERM" } else { "" }.to_owned();
            same(
                &what("signals"),
                terms(recorded["times"]["signals"].as_array().unwrap().len()),
                terms(ours.signals.len()),
            );
            if let Some(script) = self.scripts(recorded) {
                let ours = ours.script.clone().unwrap_or_default();
                if self.name == "shell-pwsh" {
                    continue;
                }
                // Of the old runners the frame alone is the stand-in's.
                let frame = |script: &str| script.split_once("eval ").unwrap().0.to_owned();
                let (recorded_text, our_text) =
                    if old { (frame(&script), frame(&ours)) } else { (script, ours) };
                let differing =
                    recorded_text.split("\\n").zip(our_text.split("\\n")).find(|(a, b)| a != b).map_or_else(
                        || ("(length)".to_owned(), String::new()),
                        |(a, b)| (a.to_owned(), b.to_owned()),
                    );
                if recorded_text != our_text {
                    same(&what("script"), differing.0, differing.1);
                }
            }
            if old {
                continue;
            }
            let ours: BTreeMap<&str, &str> =
                ours.env.iter().map(|variable| (variable.name.as_str(), variable.value.as_str())).collect();
            same(&what("environment size"), recorded["env_count"].to_string(), ours.len().to_string());
            if !self.has_environment() {
                continue;
            }
            let names = |names: Vec<&str>| names.join(" ");
            same(
                &what("environment names"),
                names(env.keys().map(String::as_str).collect()),
                names(ours.keys().copied().collect()),
            );
            for (name, value) in env {
                let our_value = ours.get(name.as_str()).copied().unwrap_or("(not there)");
                same(&what(name), neutral(value), neutral(our_value));
            }
        }
        if !old {
            self.compare_log(&result, &mut differences);
        }
        differences
    }

    /// What changes in the environment from one call to the next.
    fn compare_changes(&self, result: &JobResult, same: &mut impl FnMut(&str, String, String)) {
        for ((recorded, before), after) in
            self.calls.iter().skip(1).zip(&result.calls).zip(result.calls.iter().skip(1))
        {
            let changes = &recorded["env_changes"];
            let set = |kind: &str| changes[kind].as_object().into_iter().flatten();
            let removed = changes["removed"].as_array().into_iter().flatten();
            let theirs: BTreeMap<String, String> = set("added")
                .chain(set("changed"))
                .map(|(name, value)| (name.clone(), neutral(value.as_str().unwrap())))
                .chain(removed.map(|name| (name.as_str().unwrap().to_owned(), "(removed)".to_owned())))
                .collect();
            let mut ours: BTreeMap<String, String> = BTreeMap::new();
            for variable in &after.env {
                if before.env(&variable.name) != Some(&variable.value) {
                    ours.insert(variable.name.clone(), neutral(&variable.value));
                }
            }
            for variable in &before.env {
                if after.env(&variable.name).is_none() {
                    ours.insert(variable.name.clone(), "(removed)".to_owned());
                }
            }
            same(&format!("{} changes", text(recorded, "call")), format!("{theirs:?}"), format!("{ours:?}"));
        }
    }

    /// The runner's own lines of the job log; what scripts print is not replayed.
    fn compare_log(&self, result: &JobResult, differences: &mut Vec<String>) {
        let Ok(recorded) = fs::read(self.root.join("job.log")) else { return };
        let own_lines = |log: &str| -> Vec<String> {
            let lines = log.lines().filter_map(|line| line.get(28..));
            // Both streams of a call are copied side by side: their order is chance.
            let mut own: Vec<String> = lines
                .filter(|line| line.starts_with("00") && !line.contains("text on std"))
                .map(neutral)
                .collect();
            own.retain(|line| !line.is_empty());
            own
        };
        let recorded = own_lines(&String::from_utf8_lossy(&recorded));
        let ours = own_lines(&result.job_log);
        let cut = result.state.is_none()
            || self.name == "output-limit"
            || self.summary["final"]["gitlab_status"] == "canceled" && self.name.contains("canceled")
            || self.name == "slow-death"
            || self.name == "debug-trace";
        for (number, line) in recorded.iter().enumerate() {
            let our_line = ours.get(number).map_or("(not there)", String::as_str);
            if line != our_line {
                differences.push(format!("job log: recorded {line:?}, ours {our_line:?}"));
                return;
            }
        }
        if !cut && recorded.len() != ours.len() {
            differences.push(format!("job log: ours goes on with {:?}", ours.get(recorded.len())));
        }
    }
}
