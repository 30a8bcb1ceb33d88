//! Why a call, a stage or a job did not succeed, in the words of GitLab Runner.

/// `failure_reason` of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "GitLab's own names")]
pub enum Reason {
    ScriptFailure,
    RunnerSystemFailure,
    JobExecutionTimeout,
    JobCanceled,
    RunnerInterrupted,
    /// The runner's own word; GitLab is told `script_failure` unless it lists this one.
    RunnerConfiguration,
}

impl Reason {
    /// As GitLab writes it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::ScriptFailure => "script_failure",
            Reason::RunnerSystemFailure => "runner_system_failure",
            Reason::JobExecutionTimeout => "job_execution_timeout",
            Reason::JobCanceled => "job_canceled",
            Reason::RunnerInterrupted => "runner_interrupted",
            Reason::RunnerConfiguration => "runner_configuration_error",
        }
    }
}

/// Where a failure comes from, if it is not the driver's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A context was cancelled.
    Canceled,
    /// A context ran out of time.
    Deadline,
    /// The job was cancelled in GitLab.
    JobCanceled,
    /// `RUNNER_SCRIPT_TIMEOUT`
    ScriptTimeout,
    /// `prepare_timeout`
    PrepareTimeout,
    /// `get_sources_timeout`
    GetSourcesTimeout,
}

/// A failure on its way up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// Reason and exit code of what the runner calls a build error; none: a system failure.
    pub(crate) build: Option<(Reason, i64)>,
    pub(crate) cause: Option<Cause>,
}

impl Failure {
    pub(crate) fn system(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), build: None, cause: None }
    }

    pub(crate) fn build(reason: Reason, message: impl Into<String>) -> Failure {
        Failure { message: message.into(), build: Some((reason, 0)), cause: None }
    }

    pub(crate) fn exit(code: i64, message: impl Into<String>) -> Failure {
        Failure { message: message.into(), build: Some((Reason::ScriptFailure, code)), cause: None }
    }

    #[must_use]
    pub(crate) fn by(mut self, cause: Cause) -> Failure {
        self.cause = Some(cause);
        self
    }
}
