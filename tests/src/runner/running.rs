//! A job that runs: what a test may watch, and how it is ended from outside.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Runner;
use super::config::CustomConfig;
use super::job_log::{JobLog, LogOptions};
use super::lifecycle;
use super::mask::Masker;
use super::outcome::{Call, JobResult, Report};
use super::shared::Shared;
use crate::gitlab::{Job, entries};

/// A signal to the runner process that makes it stop at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGTERM
    Terminate,
    /// SIGINT
    Interrupt,
}

/// A job under way.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    result: mpsc::Receiver<JobResult>,
    shutdown_timeout: Duration,
    give_up: Option<Instant>,
}

impl Running {
    pub(super) fn start(runner: &Runner, custom: CustomConfig, job: Job) -> Running {
        let build = runner.build(job);
        let prefixes = entries(&build.job.features.token_mask_prefixes);
        let masker =
            Masker::new(&build.variables().masked(), prefixes, build.is_on("FF_MASK_ALL_DEFAULT_TOKENS"));
        let log = JobLog::new(LogOptions {
            masker,
            timestamps: build.is_on("FF_TIMESTAMPS"),
            sections: build.job.features.trace_sections,
            limit_kib: runner.config.output_limit,
        });
        let shared = Arc::new(Shared::new(runner, custom, build, log));
        let (to_us, result) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        // Nobody may wait for the result: a test that only looks at what is left.
        thread::spawn(move || {
            let sent = to_us.send(lifecycle::run(&theirs));
            theirs.set_over();
            sent.ok()
        });
        Running { shared, result, shutdown_timeout: runner.shutdown_timeout, give_up: None }
    }

    /// Somebody cancels the job in GitLab: `canceling`. The script ends, what follows a script still runs; before
    /// and after the script it is another matter. A real runner hears of it up to 30 s later.
    pub fn cancel(&self) {
        self.shared.cancel();
    }

    /// GitLab answers `canceled`: everything ends but `cleanup_exec`.
    pub fn abort(&self) {
        self.shared.abort();
    }

    /// The runner itself is told to stop. After its `shutdown_timeout` it gives up.
    pub fn shut_down(&mut self, how: Shutdown) {
        self.shared.interrupt(match how {
            Shutdown::Terminate => "terminated",
            Shutdown::Interrupt => "interrupt",
        });
        self.give_up = Some(Instant::now() + self.shutdown_timeout);
    }

    /// Whether the job has ended.
    pub fn is_over(&self) -> bool {
        self.shared.is_over()
    }

    /// Whether the runner was told to stop.
    pub fn is_shutting_down(&self) -> bool {
        self.give_up.is_some()
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.recorder.calls()
    }

    /// The job log so far.
    pub fn log(&self) -> String {
        self.shared.log.text()
    }

    /// Waits until something is there, and no longer than `limit`.
    fn watch<T>(&self, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let until = Instant::now() + limit;
        loop {
            if let Some(found) = look() {
                return Some(found);
            }
            if Instant::now() >= until {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the driver has been started for this stage.
    ///
    /// # Errors
    /// If it was not within `limit`.
    pub fn wait_for_call(&self, stage: &str, limit: Duration) -> Result<Call> {
        let started = || self.calls().into_iter().find(|call| call.stage == stage && call.pid.is_some());
        match self.watch(limit, started) {
            Some(call) => Ok(call),
            None => bail!("no call of {stage} within {limit:?}; the job log:\n{}", self.log()),
        }
    }

    /// Waits until this text stands in the job log.
    ///
    /// # Errors
    /// If it did not within `limit`.
    pub fn wait_for_log(&self, text: &str, limit: Duration) -> Result<()> {
        match self.watch(limit, || self.log().contains(text).then_some(())) {
            Some(()) => Ok(()),
            None => bail!("no {text:?} within {limit:?}; the job log:\n{}", self.log()),
        }
    }

    /// Waits for the end of the job, or of the runner's patience after [`Running::shut_down`].
    pub fn wait(self) -> JobResult {
        let result = match self.give_up {
            None => self.result.recv().ok(),
            Some(at) => self.result.recv_timeout(at.saturating_duration_since(Instant::now())).ok(),
        };
        result.unwrap_or_else(|| JobResult {
            state: None,
            failure_reason: None,
            exit_code: None,
            report: Report::Missing,
            job_log: self.shared.log.text(),
            runner_log: self.shared.log.runner_lines(),
            calls: self.shared.recorder.calls(),
            took: self.shared.recorder.elapsed(),
            left_behind: self
                .shared
                .recorder
                .calls()
                .into_iter()
                .map(|call| call.cwd)
                .filter(|path| path.exists())
                .take(1)
                .collect(),
        })
    }
}
