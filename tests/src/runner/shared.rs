//! What the threads of one job share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::build::Build;
use super::config::{CustomConfig, RunnerConfig};
use super::context::Context;
use super::job_log::JobLog;
use super::recorder::Recorder;

/// The runner's fixed pauses. Tests may shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// After each failed preparation, the third included.
    pub preparation: Duration,
    /// Before the second attempt of a stage; it doubles from there.
    pub stage_retry_min: Duration,
    /// The longest pause between attempts of a stage.
    pub stage_retry_max: Duration,
    /// How long an aborted job may go on before `cleanup_exec` comes.
    pub build_finish: Duration,
    /// The limit of `after_script` without `RUNNER_AFTER_SCRIPT_TIMEOUT`.
    pub after_script: Duration,
}

impl Default for Pauses {
    /// Those of GitLab Runner 19.4.
    fn default() -> Pauses {
        Pauses {
            preparation: Duration::from_secs(3),
            stage_retry_min: Duration::from_secs(5),
            stage_retry_max: Duration::from_secs(300),
            build_finish: Duration::from_secs(300),
            after_script: Duration::from_secs(300),
        }
    }
}

/// What GitLab's word to cancel or to abort would end.
#[derive(Debug, Default)]
struct Handles {
    cancel: Option<Context>,
    abort: Option<Context>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: RunnerConfig,
    pub(crate) custom: CustomConfig,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) temp_root: PathBuf,
    pub(crate) pauses: Pauses,
    pub(crate) system_id: String,
    pub(crate) log: JobLog,
    pub(crate) recorder: Recorder,
    build: Mutex<Build>,
    handles: Mutex<Handles>,
    interrupted: Mutex<Option<&'static str>>,
    aborted: Mutex<bool>,
    over: AtomicBool,
}

impl Shared {
    pub(crate) fn new(runner: &super::Runner, custom: CustomConfig, build: Build, log: JobLog) -> Shared {
        Shared {
            config: build.runner.clone(),
            custom,
            environment: runner.environment.clone(),
            temp_root: runner.temp_root.clone(),
            pauses: runner.pauses,
            system_id: runner.system_id.clone(),
            log,
            recorder: Recorder::new(),
            build: Mutex::new(build),
            handles: Mutex::default(),
            interrupted: Mutex::default(),
            aborted: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    pub(crate) fn build(&self) -> MutexGuard<'_, Build> {
        self.build.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn search_path(&self) -> String {
        let path = self.environment.iter().rev().find(|(name, _)| name == "PATH");
        path.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    pub(crate) fn warn_timeout(&self, subject: &str) {
        self.log.warn(&format!(
            "{subject} could not run to completion because the timeout was exceeded. For more control over job and script timeouts see: https://docs.gitlab.com/ci/runners/configure_runners/#set-script-and-after_script-timeouts"
        ));
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a cancel ends this; it is used up by the first one.
    pub(crate) fn set_cancel(&self, context: &Context) {
        self.handles().cancel = Some(context.clone());
    }

    pub(crate) fn set_abort(&self, context: &Context) {
        self.handles().abort = Some(context.clone());
    }

    pub(crate) fn cancel(&self) {
        if let Some(context) = self.handles().cancel.take() {
            context.cancel();
        }
    }

    pub(crate) fn abort(&self) {
        *self.aborted.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let mut handles = self.handles();
        handles.cancel = None;
        if let Some(context) = handles.abort.take() {
            context.cancel();
        }
    }

    pub(crate) fn set_over(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(crate) fn was_aborted(&self) -> bool {
        *self.aborted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn interrupt(&self, signal: &'static str) {
        *self.interrupted.lock().unwrap_or_else(PoisonError::into_inner) = Some(signal);
    }

    pub(crate) fn interrupted(&self) -> Option<&'static str> {
        *self.interrupted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
