//! The custom executor: a temporary directory, and calls of the driver from it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::call::{self, Outputs, Request};
use super::config::{CustomConfig, seconds_or};
use super::config_output::ConfigOutput;
use super::context::Context;
use super::failure::{Cause, Failure};
use super::outcome::{EnvVar, Layer};
use super::scripts::SHELLS;
use super::shared::Shared;
use super::stage::SubStage;

const CALL_TIMEOUT: Duration = Duration::from_secs(3600);
const GRACEFUL: Duration = Duration::from_secs(600);
const FORCE: Duration = Duration::from_secs(10);

/// One attempt of preparation and, if it succeeds, the job's executor.
#[derive(Debug, Default)]
pub(crate) struct Executor {
    attempt: usize,
    temp_dir: PathBuf,
    job_env: Vec<(String, String)>,
    shell: Mutex<String>,
}

/// `os.MkdirTemp`: the name and a random number, mode 0700.
fn make_temp_dir(parent: &Path, prefix: &str) -> Result<PathBuf, Failure> {
    loop {
        let random = std::hash::RandomState::new().build_hasher().finish() % (1 << 32);
        let path = parent.join(format!("{prefix}{random}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::system(format!("mkdir {}: {error}", path.display()))),
        }
    }
}

fn write_new(path: &Path, mode: u32, content: &[u8]) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(content))
        .map_err(|error| Failure::system(format!("open {}: {error}", path.display())))
}

impl Executor {
    pub(crate) fn new(attempt: usize) -> Executor {
        Executor { attempt, ..Executor::default() }
    }

    pub(crate) fn temp_dir(&self) -> &Path {
        &self.temp_dir
    }

    fn shell(&self) -> String {
        self.shell.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `config_exec` and `prepare_exec`, and what the runner fixes between them.
    pub(crate) fn prepare(&mut self, shared: &Shared, context: &Context) -> Result<(), Failure> {
        let custom = &shared.custom;
        self.temp_dir = make_temp_dir(&shared.temp_root, "custom-executor")?;
        let response = shared.build().job.response_json();
        let response =
            response.map_err(|error| Failure::system(format!("encoding job response file: {error}")))?;
        write_new(&self.temp_dir.join("response.json"), 0o600, &response)?;

        let mut answer = ConfigOutput::default();
        if !custom.config_exec.is_empty() {
            let timeout = seconds_or(custom.config_exec_timeout, CALL_TIMEOUT);
            shared.build().refresh();
            let call_context = context.with_timeout(timeout, Cause::Deadline);
            let what = (custom.config_exec.as_str(), custom.config_args.as_slice());
            let request = self.request(shared, "config", what, Outputs::Config);
            let (result, output) = call::run(request, &call_context, &shared.log, &shared.recorder);
            result?;
            answer = ConfigOutput::parse(&output)
                .map_err(|error| Failure::system(format!("error while parsing JSON output: {error}")))?;
        }
        self.start(shared, &answer)?;

        if custom.prepare_exec.is_empty() {
            return Ok(());
        }
        let timeout = seconds_or(custom.prepare_exec_timeout, CALL_TIMEOUT);
        let call_context = context.with_timeout(timeout, Cause::Deadline);
        let what = (custom.prepare_exec.as_str(), custom.prepare_args.as_slice());
        let request = self.request(shared, "prepare", what, Outputs::Prepare);
        call::run(request, &call_context, &shared.log, &shared.recorder).0
    }

    /// Takes the answer of `config_exec` in, and computes directories and shell.
    fn start(&mut self, shared: &Shared, answer: &ConfigOutput) -> Result<(), Failure> {
        let mut build = shared.build();
        // Each attempt begins with the configuration file's values; the host name alone stays.
        build.runner = shared.config.clone();
        if let Some(hostname) = &answer.hostname {
            build.hostname.clone_from(hostname);
        }
        if let Some(directory) = &answer.builds_dir {
            build.runner.builds_dir.clone_from(directory);
        }
        if let Some(directory) = &answer.cache_dir {
            build.runner.cache_dir.clone_from(directory);
        }
        if let Some(env) = &answer.job_env {
            self.job_env = env.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        }
        let driver = match (&answer.driver_name, &answer.driver_version) {
            (None, _) => String::new(),
            (Some(name), None) => format!(" with driver {name}"),
            (Some(name), Some(version)) => format!(" with driver {name} {version}"),
        };
        shared.log.print(&format!("Using Custom executor{driver}..."));
        build.start(answer.builds_dir_is_shared == Some(true))?;
        let configured = Some(build.runner.shell.clone()).filter(|shell| !shell.is_empty());
        let shell = answer.shell.clone().or(configured).filter(|shell| !shell.is_empty());
        let shell = shell.unwrap_or_else(|| "bash".into());
        if !SHELLS.contains(&shell.as_str()) && !is_powershell(&shell) {
            return Err(Failure::system(format!("shell {shell} not found")));
        }
        *self.shell.lock().unwrap_or_else(PoisonError::into_inner) = shell;
        Ok(())
    }

    /// One sub-stage; nothing is called if its script is empty.
    pub(crate) fn run_stage(
        &self,
        shared: &Shared,
        stage: &SubStage,
        context: &Context,
    ) -> Result<(), Failure> {
        context.check()?;
        let result = self.run_script(shared, stage, context);
        if context.ended().is_some_and(|cause| cause != Cause::Canceled) {
            shared.warn_timeout(stage.name());
        }
        result
    }

    fn run_script(&self, shared: &Shared, stage: &SubStage, context: &Context) -> Result<(), Failure> {
        let shell = self.shell();
        let script = if is_powershell(&shell) {
            super::scripts::exists(&shared.build(), stage)
                .then(|| "# the stand-in writes no PowerShell\n".to_owned())
        } else {
            super::scripts::generate(&mut shared.build(), stage, &shell)?
        };
        let Some(script) = script else { return Ok(()) };
        shared
            .log
            .section(stage.name(), &stage.description(), || self.call_run(shared, stage, script, context))
    }

    fn call_run(
        &self,
        shared: &Shared,
        stage: &SubStage,
        script: String,
        context: &Context,
    ) -> Result<(), Failure> {
        let directory = make_temp_dir(&self.temp_dir, "script")?;
        let name =
            if is_powershell(&self.shell()) { "script.ps1" } else { shared.build().version.script_file() };
        let path = directory.join(name);
        write_new(&path, 0o700, script.as_bytes())?;
        if stage.name() != stage.driver_name() {
            shared.log.warn(
                "Starting with version 17.0 the 'build_script' stage will be replaced with 'step_script': https://gitlab.com/groups/gitlab-org/-/epics/6112",
            );
        }
        let custom = &shared.custom;
        let mut arguments = custom.run_args.clone();
        arguments.push(path.display().to_string());
        arguments.push(stage.driver_name().to_owned());
        let what = (custom.run_exec.as_str(), arguments.as_slice());
        let mut request = self.request(shared, stage.driver_name(), what, Outputs::Run);
        request.script = Some(script);
        call::run(request, context, &shared.log, &shared.recorder).0
    }

    /// `cleanup_exec`, with no limit but its own; then the temporary directory goes.
    pub(crate) fn cleanup(&self, shared: &Shared) {
        let custom = &shared.custom;
        if !custom.cleanup_exec.is_empty() {
            let timeout = seconds_or(custom.cleanup_exec_timeout, CALL_TIMEOUT);
            let context = Context::root().with_timeout(timeout, Cause::Deadline);
            let what = (custom.cleanup_exec.as_str(), custom.cleanup_args.as_slice());
            let request = self.request(shared, "cleanup", what, Outputs::Cleanup);
            if let Err(failure) = call::run(request, &context, &shared.log, &shared.recorder).0 {
                shared.log.warn(&format!("Cleanup script failed: {}", failure.message));
            }
        }
        // Like the runner, it says nothing if that fails: the result lists what is left.
        fs::remove_dir_all(&self.temp_dir).ok();
    }

    fn request(
        &self,
        shared: &Shared,
        stage: &str,
        (program, arguments): (&str, &[String]),
        outputs: Outputs,
    ) -> Request {
        let CustomConfig { graceful_kill_timeout, force_kill_timeout, .. } = shared.custom;
        let exit_code_file = self.temp_dir.join("build_exit_code");
        Request {
            stage: stage.to_owned(),
            attempt: self.attempt,
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            directory: self.temp_dir.clone(),
            env: self.environment(shared, &exit_code_file),
            search_path: shared.search_path(),
            script: None,
            exit_code_file,
            outputs,
            graceful: seconds_or(graceful_kill_timeout, GRACEFUL),
            force: seconds_or(force_kill_timeout, FORCE),
        }
    }

    /// The four layers; a later one wins.
    fn environment(&self, shared: &Shared, exit_code_file: &Path) -> Vec<EnvVar> {
        let build = shared.build();
        let mut all: Vec<EnvVar> = Vec::new();
        let mut add = |layer: Layer, name: &str, value: &str| {
            // A name with an equals sign ends at it: the list is of `NAME=value`.
            let joined = format!("{name}={value}");
            let (name, value) = joined.split_once('=').unwrap_or((&joined, ""));
            all.push(EnvVar { name: name.to_owned(), value: value.to_owned(), layer });
        };
        for (name, value) in &shared.environment {
            add(Layer::Runner, name, value);
        }
        if build.version.exports_config_file() {
            add(Layer::Runner, "CONFIG_FILE", "/etc/gitlab-runner/config.toml");
        }
        let path = |path: &Path| path.display().to_string();
        add(Layer::Executor, "TMPDIR", &path(&self.temp_dir));
        add(Layer::Executor, "BUILD_FAILURE_EXIT_CODE", &call::BUILD_FAILURE.to_string());
        add(Layer::Executor, "SYSTEM_FAILURE_EXIT_CODE", &call::SYSTEM_FAILURE.to_string());
        if build.version.has_exit_code_file() {
            add(Layer::Executor, "BUILD_EXIT_CODE_FILE", &path(exit_code_file));
        }
        add(Layer::Executor, "JOB_RESPONSE_FILE", &path(&self.temp_dir.join("response.json")));
        for (name, value) in &self.job_env {
            add(Layer::JobEnv, name, value);
        }
        for variable in build.variables().iter() {
            add(Layer::Job, &format!("CUSTOM_ENV_{}", variable.key), &variable.value);
        }
        add(Layer::Job, "CUSTOM_ENV_CI_JOB_SERVICES", &build.services_json());
        last_of_each(all)
    }
}

fn is_powershell(shell: &str) -> bool {
    matches!(shell, "pwsh" | "powershell")
}

/// Keeps the last entry of each name, in the order of those.
fn last_of_each(all: Vec<EnvVar>) -> Vec<EnvVar> {
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<EnvVar> =
        all.into_iter().rev().filter(|variable| seen.insert(variable.name.clone())).collect();
    kept.reverse();
    kept
}
