//! What a job came to, and what the runner did with the driver on the way.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::job_log::RunnerLine;

/// The state of a job as GitLab is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "GitLab's own names")]
pub enum State {
    Success,
    Failed,
}

/// What became of the last report to GitLab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Report {
    /// GitLab took it.
    Accepted,
    /// The job was aborted in GitLab before: refused, and with it the end of the log.
    Refused,
    /// The runner gave up at its `shutdown_timeout`: nothing was sent.
    Missing,
}

/// Which layer of the environment gave a variable its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The runner's own environment.
    Runner,
    /// The five names the executor sets.
    Executor,
    /// `job_env` of `config_exec`.
    JobEnv,
    /// `CUSTOM_ENV_*`.
    Job,
}

/// A variable of a driver call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The layer whose value won.
    pub layer: Layer,
}

/// How a driver call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It runs.
    Running,
    /// It exited with this code.
    Code(i32),
    /// It died by this signal.
    Signal(i32),
    /// It could not be started.
    NotStarted(String),
}

/// A signal that the runner sent to a driver's process group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentSignal {
    /// `SIGTERM` or `SIGKILL`.
    pub name: String,
    /// When, since the job began.
    pub at: Duration,
    /// Why it could not be sent.
    pub error: Option<String>,
}

/// One call of the driver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// `config`, `prepare`, `cleanup`, or the sub-stage of `run`.
    pub stage: String,
    /// Which attempt of preparation it belongs to, from 1.
    pub attempt: usize,
    /// The arguments, the program first.
    pub argv: Vec<String>,
    /// The working directory: the job's temporary directory.
    pub cwd: PathBuf,
    /// The environment, without duplicates.
    pub env: Vec<EnvVar>,
    /// The text of the script of a `run`.
    pub script: Option<String>,
    /// The process, which is also its process group.
    pub pid: Option<u32>,
    /// When it began, since the job began.
    pub started: Duration,
    /// When it was over and its pipes closed.
    pub ended: Option<Duration>,
    /// How it ended.
    pub exit: Exit,
    /// What was sent to it.
    pub signals: Vec<SentSignal>,
    /// The runner stopped waiting for it.
    pub abandoned: bool,
    /// The first line of `BUILD_EXIT_CODE_FILE`, if it was read.
    pub exit_code_file: Option<String>,
}

impl Call {
    /// The value of a variable.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|variable| variable.name == name).map(|variable| variable.value.as_str())
    }

    /// The names that got their values from this layer.
    pub fn names(&self, layer: Layer) -> Vec<&str> {
        self.env.iter().filter(|variable| variable.layer == layer).map(|variable| &*variable.name).collect()
    }
}

/// What a job came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobResult {
    /// Success or failure; nothing if the runner gave up.
    pub state: Option<State>,
    /// `script_failure`, `runner_system_failure`, ...
    pub failure_reason: Option<String>,
    /// What `allow_failure:exit_codes` sees; GitLab is sent none for 0.
    pub exit_code: Option<i64>,
    /// What became of the last report.
    pub report: Report,
    /// The job log as GitLab shows it, with times, sections and colours.
    pub job_log: String,
    /// The runner's own log.
    pub runner_log: Vec<RunnerLine>,
    /// The driver calls in the order of their start.
    pub calls: Vec<Call>,
    /// How long the job took.
    pub took: Duration,
    /// Temporary directories that were left behind.
    pub left_behind: Vec<PathBuf>,
}

impl JobResult {
    /// The stages of the calls, in order.
    pub fn stages(&self) -> Vec<&str> {
        self.calls.iter().map(|call| call.stage.as_str()).collect()
    }

    /// The first call of a stage.
    pub fn call(&self, stage: &str) -> Option<&Call> {
        self.calls.iter().find(|call| call.stage == stage)
    }

    /// The job log without times, stream marks and colours.
    pub fn plain_log(&self) -> String {
        plain(&self.job_log)
    }
}

/// Takes times, stream marks, section lines and colours out of a job log.
pub(crate) fn plain(log: &str) -> String {
    let mut out = String::with_capacity(log.len());
    for line in log.lines() {
        let text = line.get(32..).filter(|_| has_stamp(line)).unwrap_or(line);
        if text.starts_with("section_") {
            continue;
        }
        let mut rest = text;
        while let Some(at) = rest.find("\x1b[") {
            out.push_str(rest.get(..at).unwrap_or_default());
            let after = rest.get(at + 2..).unwrap_or_default();
            let end = after.find(|c: char| c.is_ascii_alphabetic()).map_or(after.len(), |end| end + 1);
            rest = after.get(end..).unwrap_or_default();
        }
        out.push_str(rest);
        out.push('\n');
    }
    out
}

/// `2026-01-05T10:00:00.123456Z 00O ` is 32 bytes.
fn has_stamp(line: &str) -> bool {
    let bytes = line.as_bytes();
    bytes.len() >= 32 && bytes.get(10) == Some(&b'T') && bytes.get(26) == Some(&b'Z')
}
