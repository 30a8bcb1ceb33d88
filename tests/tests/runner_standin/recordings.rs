//! A check for developers: replays recordings of a real GitLab Runner and compares calls, environments, scripts,
//! job log and result, field by field. It needs a directory of recordings, which is not part of this tree:
//! `TESTBED_RECORDINGS=DIR cargo test -p testbed --test runner_standin recordings -- --nocapture`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::gitlab::{Job, Step, Variable};
use testbed::runner::{Exit, JobResult, Pauses, Runner, Running, Shutdown, Version};

use super::support::PATIENCE;

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

struct Scenario {
    name: String,
    root: PathBuf,
    summary: Value,
    calls: Vec<Value>,
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Takes what differs from run to run out of a text.
fn neutral(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    while let Some((at, word)) = ["custom-executor", "section_start:", "section_end:", "/script"]
        .iter()
        .filter_map(|word| Some((rest.find(word)?, *word)))
        .min()
    {
        let end = at + word.len();
        out.push_str(&rest[..end]);
        rest = &rest[end..];
        let number = digits(rest);
        if number > 0 {
            out.push('N');
        }
        rest = &rest[number..];
    }
    out + rest
}

impl Scenario {
    fn read(directory: &Path, name: &str) -> Scenario {
        let root = directory.join(name);
        let Value::Array(calls) = read_json(&root.join("calls.json")) else {
            panic!("{name}: no list of calls")
        };
        let summary = read_json(&root.join("scenario.json"));
        Scenario { name: name.to_owned(), root, summary, calls }
    }

    /// Whether the environment of the first call was kept; elsewhere only its size and what changes later.
    fn has_environment(&self) -> bool {
        self.calls[0]["env"].is_array()
    }

    /// The environment of each call, the changes applied; where the first was not kept, to the one of the
    /// scenario that stands for it.
    fn environments(&self) -> Vec<BTreeMap<String, String>> {
        let pairs = |call: &Value| -> Option<BTreeMap<String, String>> {
            let pairs = call["env"].as_array()?.iter();
            let word = |word: &Value| word.as_str().unwrap().to_owned();
            Some(pairs.map(|pair| (word(&pair[0]), word(&pair[1]))).collect())
        };
        let standard = read_json(&self.root.parent().unwrap().join("script-fails-42/calls.json"));
        let mut current = pairs(&standard[0]).unwrap();
        let mut all = Vec::new();
        for call in &self.calls {
            current = pairs(call).unwrap_or(current);
            let changes = &call["env_changes"];
            for kind in ["added", "changed"] {
                for (key, value) in changes[kind].as_object().into_iter().flatten() {
                    current.insert(key.clone(), value.as_str().unwrap().to_owned());
                }
            }
            for key in changes["removed"].as_array().into_iter().flatten() {
                current.remove(key.as_str().unwrap());
            }
            all.push(current.clone());
        }
        all
    }

    fn job(&self, first: &BTreeMap<String, String>) -> Job {
        let own = self.root.join("response.json");
        if own.exists() {
            return serde_json::from_str(&fs::read_to_string(own).unwrap()).unwrap();
        }
        // The other payloads differ from this one in what job.json says.
        let base = self.root.parent().unwrap().join("script-fails-42/response.json");
        let mut raw = fs::read_to_string(base).unwrap();
        if text(&self.summary, "title").contains("URLS_WITHOUT_TOKENS") {
            raw = raw
                .replace("http://127.0.0.1:8080", "https://gitlab.example.com")
                .replace("http://gitlab-ci-token", "https://gitlab-ci-token")
                .replace("127.0.0.1:8080", "gitlab.example.com");
        }
        let mut job: Job = serde_json::from_str(&raw).unwrap();
        let wanted = read_json(&self.root.join("job.json"));
        let timeout = wanted["timeout"].as_i64().unwrap();
        job.runner_info.timeout = timeout;
        if let Some(sha) = wanted["sha"].as_str() {
            job.git_info.sha = sha.into();
        }
        let lines = |key: &str| -> Option<Vec<String>> { serde_json::from_value(wanted[key].clone()).ok() };
        let step = |name: &str, key: &str| Step {
            name: name.into(),
            script: lines(key),
            timeout,
            ..Step::default()
        };
        let mut steps = vec![step("script", "script")];
        if lines("after_script").is_some() {
            steps.push(step("after_script", "after_script"));
        }
        job.steps = Some(steps);
        for variable in wanted["variables"].as_array().into_iter().flatten() {
            let variable: Variable = serde_json::from_value(variable.clone()).unwrap();
            job.variables.get_or_insert_default().push(variable);
        }
        job.cache = serde_json::from_value(wanted["cache"].clone()).ok();
        job.artifacts = serde_json::from_value(wanted["artifacts"].clone()).ok();
        let started = self.calls.iter().filter_map(|call| self.scripts(call)).find_map(|script| {
            let (_, rest) = script.split_once("CI_JOB_STARTED_AT=")?;
            Some(
                rest.chars()
                    .filter(|c| !"$\\'\"".contains(*c))
                    .take("2026-01-05T10:00:00Z".len())
                    .collect::<String>(),
            )
        });
        for variable in job.variables.iter_mut().flatten() {
            if variable.key == "CI_JOB_STARTED_AT" {
                let kept = self.has_environment().then(|| first["CUSTOM_ENV_CI_JOB_STARTED_AT"].clone());
                variable.value = kept.or(started.clone()).unwrap_or_default();
            }
        }
        job
    }

    /// What the recording driver answered to `config`.
    fn config_output(&self, environments: &[BTreeMap<String, String>]) -> Value {
        // The last call shows what `config` answered.
        let (before, after) = (&environments[0], &environments[environments.len() - 1]);
        let value = |name: &str| after.get(name).cloned().unwrap_or_default();
        let builds = match value("CUSTOM_ENV_CI_BUILDS_DIR") {
            // Set by the job, or not there because `config` failed.
            builds if self.name == "override-variables" || builds.is_empty() => "/srv/rec/builds".to_owned(),
            builds => builds,
        };
        let mut job_env = serde_json::Map::new();
        for (name, value) in after {
            let new = before.get(name) != Some(value) && !name.starts_with("CUSTOM_ENV_");
            if new && !value.starts_with("/tmp/custom-executor") {
                job_env.insert(name.clone(), json!(value));
            }
        }
        let shell = match self.name.as_str() {
            "shell-sh" => "sh",
            "shell-pwsh" => "pwsh",
            "shell-unknown" => "fish",
            _ => "bash",
        };
        let hostname =
            if self.name == "hostname-injection" { "h$(echo INJECTED)`echo TICKS`\"q" } else { "login1" };
        json!({
            "driver": {"name": "recorder", "version": "1.0"},
            "hostname": hostname,
            "builds_dir": builds,
            "cache_dir": builds.replace("/srv/rec/builds", "/srv/rec/cache"),
            "builds_dir_is_shared": value("CUSTOM_ENV_CI_PROJECT_DIR").contains("/recorder0/"),
            "shell": shell,
            "job_env": job_env,
        })
    }

    /// What the driver is to do: the same exits, at most about a second after one another.
    fn acts(&self) -> Value {
        let mut acts: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for call in &self.calls {
            let stage = text(call, "call").split_once('-').unwrap().1.to_owned();
            let nth = acts.get(&stage).map_or(0, Vec::len);
            let times = &call["times"];
            let wanted = match &self.summary["driver_acts"][&stage] {
                Value::Array(list) => list.get(nth).cloned().unwrap_or_default(),
                other => other.clone(),
            };
            let mut act = serde_json::Map::new();
            match &times["exit"] {
                Value::Number(code) => drop(act.insert("exit".into(), json!(code))),
                Value::String(words) => {
                    if let Some(signal) = words.strip_prefix("signal ") {
                        act.insert("signal".into(), json!(format!("SIG{signal}")));
                    }
                }
                _ => {}
            }
            let code = times["job_code"].as_i64().map(|code| json!(code.to_string()));
            let code = Some(wanted["exit_code_file"].clone()).filter(|code| !code.is_null()).or(code);
            act.extend(code.map(|code| ("exit_code_file".to_owned(), code)));
            let (start, gone) = (times["start"].as_f64().unwrap(), times["gone"].as_f64().unwrap());
            let term = times["signals"][0][1].as_f64();
            match term {
                // Until SIGTERM, or to its death.
                Some(at) => {
                    act.insert("sleep_ms".into(), json!(12_000));
                    let lingered = gone - at;
                    if times["exit"].is_string() || lingered > 4.0 {
                        act.insert("ignore_term".into(), json!(true));
                    }
                }
                None if gone - start > 1.2 => drop(act.insert("sleep_ms".into(), json!(800))),
                None => {}
            }
            if self.name == "stdout-held" && stage == "build_script" {
                act.insert("hold_stdout_ms".into(), json!(1500));
            }
            let said = |name: &str| match stage.as_str() {
                "config" if name == "stderr" => json!("config: text on stderr\n"),
                "prepare" if name == "stdout" => {
                    wanted.get("stdout").cloned().unwrap_or(json!("prepare: text on stdout\n"))
                }
                "prepare" => json!("prepare: text on stderr\n"),
                "cleanup" if name == "stderr" => json!("cleanup: text on stderr\n"),
                "config" | "cleanup" => wanted["stdout"].clone(),
                _ => Value::Null,
            };
            act.insert("stdout".into(), said("stdout"));
            act.insert("stderr".into(), said("stderr"));
            acts.entry(stage).or_default().push(Value::Object(act));
        }
        json!(acts)
    }

    fn version(&self) -> Version {
        match text(&self.summary, "runner") {
            runner if runner.contains("17.3") => Version::V17_3,
            runner if runner.contains("17.4") => Version::V17_4,
            _ => Version::V19_4,
        }
    }

    fn scripts(&self, call: &Value) -> Option<String> {
        let own = self.root.join(format!("{}.script", text(call, "call")));
        let other = call["script_same_as"].as_str().map(|name| self.root.parent().unwrap().join(name));
        fs::read_to_string(own).ok().or_else(|| fs::read_to_string(other?).ok())
    }

    fn replay(&self, environments: &[BTreeMap<String, String>]) -> (JobResult, Value) {
        let place = tempfile::tempdir().unwrap();
        let plan = json!({
            "config_output": self.config_output(environments).to_string(),
            "record": place.path().join("record"),
            "calls": self.acts(),
        });
        let plan_path = place.path().join("plan.json");
        fs::write(&plan_path, plan.to_string()).unwrap();
        // Same argv, same environment: what the driver is to do stands in this file.
        let driver = place.path().join("driver");
        let command =
            format!("#!/bin/sh\nexec {} {} \"$@\"\n", env!("CARGO_BIN_EXE_fake-driver"), plan_path.display());
        fs::write(&driver, command).unwrap();
        fs::set_permissions(&driver, fs::Permissions::from_mode(0o755)).unwrap();
        let config = fs::read_to_string(self.root.join("config.toml")).unwrap();
        let config = config.replace("/srv/rec/bin/record_driver", &driver.display().to_string());

        let first = &environments[0];
        let scripts: Vec<String> = self.calls.iter().filter_map(|call| self.scripts(call)).collect();
        let correlation = scripts.iter().find_map(|script| {
            let (_, rest) = script.split_once("X-Gitaly-Correlation-ID: ")?;
            rest.split('"').next()
        });
        let own: Vec<(String, String)> = first
            .iter()
            .filter(|(name, _)| !name.starts_with("CUSTOM_ENV_"))
            .filter(|(name, _)| {
                !name.ends_with("_EXIT_CODE") && !name.ends_with("_FILE") && *name != "TMPDIR"
            })
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut runner = Runner::from_text(&config)
            .unwrap()
            .environment(own)
            .version(self.version())
            .correlation_id(correlation.unwrap_or_default())
            .pauses(Pauses {
                preparation: Duration::from_millis(30),
                stage_retry_min: Duration::from_millis(30),
                stage_retry_max: Duration::from_millis(60),
                build_finish: Duration::from_millis(if self.name == "slow-death" { 1500 } else { 300_000 }),
                ..Pauses::default()
            });
        if let Some(chain) =
            first.get("CUSTOM_ENV_CI_SERVER_TLS_CA_FILE").filter(|pem| pem.starts_with("---"))
        {
            runner = runner.ca_chain(chain);
        }
        let mut running = runner.start(self.job(first)).unwrap();
        self.send_events(&mut running);
        (running.wait(), json!(driver))
    }

    /// Cancels and signals when the same call is under way.
    fn send_events(&self, running: &mut Running) {
        for event in self.summary["events"].as_array().into_iter().flatten() {
            let at = event["t"].as_f64().unwrap();
            let under_way = self.calls.iter().find(|call| {
                let times = &call["times"];
                times["start"].as_f64().unwrap() <= at && at <= times["gone"].as_f64().unwrap() + 0.02
            });
            let Some(call) = under_way else { continue };
            let stage = text(call, "call").split_once('-').unwrap().1;
            running.wait_for_call(stage, PATIENCE).unwrap();
            thread::sleep(Duration::from_millis(250));
            match (text(event, "status"), text(event, "what")) {
                ("canceling", _) => running.cancel(),
                ("canceled", _) => running.abort(),
                (_, what) if what.starts_with("SIGTERM") => running.shut_down(Shutdown::Terminate),
                (_, what) if what.starts_with("SIGINT") => running.shut_down(Shutdown::Interrupt),
                _ => {}
            }
        }
    }

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
