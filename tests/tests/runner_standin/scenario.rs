//! One recording of a real runner, and its replay by the stand-in.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::gitlab::{Job, Step, Variable};
use testbed::runner::{JobResult, Pauses, Runner, Running, Shutdown, Version};

use super::support::PATIENCE;

pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) root: PathBuf,
    pub(crate) summary: Value,
    pub(crate) calls: Vec<Value>,
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .unwrap()
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Takes what differs from run to run out of a text.
pub(crate) fn neutral(text: &str) -> String {
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
    pub(crate) fn read(directory: &Path, name: &str) -> Scenario {
        let root = directory.join(name);
        let Value::Array(calls) = read_json(&root.join("calls.json")) else {
            panic!("{name}: no list of calls")
        };
        let summary = read_json(&root.join("scenario.json"));
        Scenario { name: name.to_owned(), root, summary, calls }
    }

    /// Whether the environment of the first call was kept; elsewhere only its size and what changes later.
    pub(crate) fn has_environment(&self) -> bool {
        self.calls[0]["env"].is_array()
    }

    /// The environment of each call, the changes applied; where the first was not kept, to the one of the
    /// scenario that stands for it.
    pub(crate) fn environments(&self) -> Vec<BTreeMap<String, String>> {
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

    pub(crate) fn job(&self, first: &BTreeMap<String, String>) -> Job {
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

    pub(crate) fn version(&self) -> Version {
        match text(&self.summary, "runner") {
            runner if runner.contains("17.3") => Version::V17_3,
            runner if runner.contains("17.4") => Version::V17_4,
            _ => Version::V19_4,
        }
    }

    pub(crate) fn scripts(&self, call: &Value) -> Option<String> {
        let own = self.root.join(format!("{}.script", text(call, "call")));
        let other = call["script_same_as"].as_str().map(|name| self.root.parent().unwrap().join(name));
        fs::read_to_string(own).ok().or_else(|| fs::read_to_string(other?).ok())
    }

    pub(crate) fn replay(&self, environments: &[BTreeMap<String, String>]) -> (JobResult, Value) {
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
}
