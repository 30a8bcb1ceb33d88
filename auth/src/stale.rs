//! Whether a record's job is over although nobody said so. Between stages no process of ours lives, so it takes proof.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use jacamar_record::{OpenJob, RecordError, boot_id, is_young, pid_namespace};

/// The runner starts `prepare` at once after `config`; its own limit for either is an hour.
const PREPARED_WITHIN: Duration = Duration::from_secs(3600);
/// The runner starts no later clean-up than this after one began.
const CLEANED_WITHIN: Duration = Duration::from_secs(3600);
/// What a runner needs before and after the time that GitLab limits.
const BEYOND_TIMEOUT: Duration = Duration::from_secs(3600);

/// Why a job is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Restarted,
    RunnerGone,
    NotPrepared,
    CleanupFailed,
    Overdue,
}

impl Why {
    /// For the audit log.
    pub(crate) fn rule(self) -> &'static str {
        match self {
            Self::Restarted => "restarted",
            Self::RunnerGone => "runner_gone",
            Self::NotPrepared => "not_prepared",
            Self::CleanupFailed => "cleanup_failed",
            Self::Overdue => "overdue",
        }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Restarted => "the host restarted",
            Self::RunnerGone => "its runner is gone",
            Self::NotPrepared => "config was killed before it answered, or prepare never came",
            Self::CleanupFailed => "its clean-up began and did not end",
            Self::Overdue => "its time limit has passed and nobody cleaned up",
        })
    }
}

/// This host, as records name it.
#[derive(Debug)]
pub(crate) struct Here {
    boot_id: String,
    pid_namespace: String,
}

impl Here {
    pub(crate) fn look() -> anyhow::Result<Self> {
        Ok(Self {
            boot_id: boot_id().context("could not read the boot id")?,
            pid_namespace: pid_namespace().context("could not read our pid namespace")?,
        })
    }

    /// Why a job of this host is over; `None`: it may go on. Its lock is looked at by the caller.
    pub(crate) fn why(&self, job: &OpenJob) -> anyhow::Result<Option<Why>> {
        match self.judge(job) {
            // Cleaned up meanwhile.
            Err(error) if matches!(error.downcast_ref(), Some(RecordError::Missing(_))) => Ok(None),
            other => other,
        }
    }

    fn judge(&self, job: &OpenJob) -> anyhow::Result<Option<Why>> {
        let record = job.record();
        let written = job.written()?;
        if record.boot_id != self.boot_id {
            return Ok(Some(Why::Restarted));
        }
        // From there on no stage starts.
        if job.closed()?.is_some_and(|begin| passed(begin, CLEANED_WITHIN)) {
            return Ok(Some(Why::CleanupFailed));
        }
        let runner = record.runner;
        let Some(prepared) = job.prepared()? else {
            return Ok(match runner.is_gone()? {
                // It may have been a wrapper of config's alone, and prepare be about to come.
                true if !is_young(written) => Some(Why::RunnerGone),
                false if passed(written, PREPARED_WITHIN) => Some(Why::NotPrepared),
                true | false => None,
            });
        };
        // A wrapper for each stage proves nothing by its end; a process of another pid namespace has another number here.
        let known = prepared.parent == runner && prepared.pid_namespace == self.pid_namespace;
        if known && runner.is_gone()? {
            return Ok(Some(Why::RunnerGone));
        }
        let limit = Duration::from_secs(record.timeout_s) + BEYOND_TIMEOUT;
        if passed(written, limit) && !runner.is_alive()? && !prepared.parent.is_alive()? {
            return Ok(Some(Why::Overdue));
        }
        Ok(None)
    }
}

fn passed(since: SystemTime, time: Duration) -> bool {
    SystemTime::now().duration_since(since).is_ok_and(|age| age > time)
}
