//! A stand-in for GitLab Runner with a custom executor: it reads a `config.toml`, takes a job in the process, and
//! calls a driver as GitLab Runner 19.4 does.
//!
//! Temporary directory, arguments, environment, scripts, order, signals and results follow the real program.
//! What it leaves out: asking GitLab for jobs, the delay with which a real runner hears of a cancel, the masking
//! of parameters in URLs, secrets from a vault, caches on object storage, PowerShell.

mod build;
mod call;
pub(crate) mod clock;
mod config;
mod config_output;
mod context;
mod executor;
mod failure;
mod flags;
mod go;
mod job_log;
mod lifecycle;
mod mask;
mod outcome;
mod recorder;
mod running;
mod scripts;
mod settings;
mod shared;
mod stage;
mod variables;
mod version;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use config::{ArtifactConfig, Config, CustomBuildDir, CustomConfig, RunnerConfig};
pub use failure::Reason;
pub use job_log::{Level, RunnerLine};
pub use outcome::{Call, EnvVar, Exit, JobResult, Layer, Report, SentSignal, State};
pub use running::{Running, Shutdown};
pub use shared::Pauses;
pub use version::Version;

use crate::gitlab::Job;

/// The limit of a runner's own shutdown where none is configured.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// One runner of a configuration file.
#[derive(Clone, Debug)]
pub struct Runner {
    config: RunnerConfig,
    shutdown_timeout: Duration,
    environment: Vec<(String, String)>,
    temp_root: PathBuf,
    pauses: Pauses,
    version: Version,
    system_id: String,
    slot: (u32, u32),
    ca_chain: Option<String>,
    correlation_id: String,
}

impl Runner {
    /// The first runner of the configuration with a custom executor, or the one of this name. Its environment is
    /// `PATH` of this process and a root user's `HOME`, `USER`, `LOGNAME`, `SHELL` and `LANG`; its temporary
    /// directories go to `/tmp`.
    ///
    /// # Errors
    /// If there is no such runner.
    pub fn new(config: &Config, name: Option<&str>) -> Result<Runner> {
        let runner = config.runner(name)?.clone();
        let seconds = u64::try_from(config.shutdown_timeout).unwrap_or(0);
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into());
        let environment = [
            ("HOME", "/root"),
            ("USER", "root"),
            ("LOGNAME", "root"),
            ("SHELL", "/bin/bash"),
            ("LANG", "C.UTF-8"),
            ("PATH", &path),
        ];
        Ok(Runner {
            config: runner,
            shutdown_timeout: if seconds == 0 { SHUTDOWN_TIMEOUT } else { Duration::from_secs(seconds) },
            environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            temp_root: PathBuf::from("/tmp"),
            pauses: Pauses::default(),
            version: Version::default(),
            system_id: "s_0123456789ab".into(),
            slot: (0, 0),
            ca_chain: None,
            correlation_id: "0123456789abcdef0123456789abcdef".into(),
        })
    }

    /// Reads a configuration from text.
    ///
    /// # Errors
    /// As [`Config::parse`] and [`Runner::new`].
    pub fn from_text(text: &str) -> Result<Runner> {
        Runner::new(&Config::parse(text, |name| std::env::var(name).ok())?, None)
    }

    /// The entry of the configuration file.
    pub fn config(&self) -> &RunnerConfig {
        &self.config
    }

    /// Sets one variable of the runner's own environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Runner {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Replaces the runner's own environment. `TMPDIR` in it decides where temporary directories go.
    #[must_use]
    pub fn environment(mut self, all: impl IntoIterator<Item = (String, String)>) -> Runner {
        self.environment = all.into_iter().collect();
        let tmp = self.environment.iter().rev().find(|(name, value)| name == "TMPDIR" && !value.is_empty());
        self.temp_root = tmp.map_or_else(|| PathBuf::from("/tmp"), |(_, value)| PathBuf::from(value));
        self
    }

    /// Puts a directory in front of the runner's `PATH`, such as the one with the helper.
    #[must_use]
    pub fn path_first(self, directory: &Path) -> Runner {
        let old = self.environment.iter().rev().find(|(name, _)| name == "PATH");
        let old = old.map(|(_, value)| value.clone()).unwrap_or_default();
        self.env("PATH", &format!("{}:{old}", directory.display()))
    }

    /// Where the temporary directories go.
    #[must_use]
    pub fn temp_root(mut self, directory: &Path) -> Runner {
        self.temp_root = directory.to_owned();
        self
    }

    /// Other pauses than the runner's.
    #[must_use]
    pub fn pauses(mut self, pauses: Pauses) -> Runner {
        self.pauses = pauses;
        self
    }

    /// Another version than 19.4.
    #[must_use]
    pub fn version(mut self, version: Version) -> Runner {
        self.version = version;
        self
    }

    /// `CI_CONCURRENT_ID` and `CI_CONCURRENT_PROJECT_ID`.
    #[must_use]
    pub fn slot(mut self, concurrent_id: u32, concurrent_project_id: u32) -> Runner {
        self.slot = (concurrent_id, concurrent_project_id);
        self
    }

    /// The certificates by which GitLab was reached; jobs get them in `CI_SERVER_TLS_CA_FILE`.
    #[must_use]
    pub fn ca_chain(mut self, pem: &str) -> Runner {
        self.ca_chain = Some(pem.to_owned());
        self
    }

    /// The id by which Gitaly finds the job's requests in its log.
    #[must_use]
    pub fn correlation_id(mut self, id: &str) -> Runner {
        self.correlation_id = id.to_owned();
        self
    }

    /// Starts a job.
    ///
    /// # Errors
    /// If the configuration has no `[runners.custom]` with `run_exec`.
    pub fn start(&self, job: Job) -> Result<Running> {
        let custom = self.config.custom.clone().context("custom executor not configured")?;
        anyhow::ensure!(!custom.run_exec.is_empty(), "custom executor is missing RunExec");
        Ok(Running::start(self, custom, job))
    }

    /// Runs a job to its end.
    ///
    /// # Errors
    /// As [`Runner::start`].
    pub fn run(&self, job: Job) -> Result<JobResult> {
        Ok(self.start(job)?.wait())
    }

    fn build(&self, job: Job) -> build::Build {
        let mut build = build::Build::new(job, self.config.clone(), self.version);
        (build.concurrent_id, build.concurrent_project_id) = self.slot;
        build.ca_chain.clone_from(&self.ca_chain);
        build.correlation_id.clone_from(&self.correlation_id);
        build.expand_images();
        build
    }
}
