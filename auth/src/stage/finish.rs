//! The end of a job: what still runs is ended, what is left is removed. `cleanup` does it when the runner asks, `gc` when
//! nobody will.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jacamar_contract::stage_report::exit_code;
use jacamar_kernel::{Errno, pidfd_open, pidfd_send_signal};
use jacamar_plan::{Host, Level, Outcome, Stage};
use jacamar_record::{JobLock, Jobs, OpenJob, ProcessId, Record, RecordError, boot_id};
use jacamar_sandbox::Own;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::StageError;
use super::user_side::{account_exists, directories, host, host_of_this_boot, request, run_as_user};

/// Processes that were killed end within this, or the job is not clean.
pub(crate) const END_WITHIN: Duration = Duration::from_secs(4);

/// What became of the runner's files in the user's own directories.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserFiles {
    Removed,
    /// The user made it impossible, and the user's side has said which.
    Left,
}

/// Ends and removes a job, for `cleanup` and for `gc`, which holds its lock already.
pub(crate) fn finish(
    own: &Own,
    job: OpenJob,
    held: Option<JobLock>,
    jobs: &Jobs,
    level: Level,
) -> anyhow::Result<UserFiles> {
    let record = job.record();
    let same_boot = record.boot_id == boot_id().context("could not read the boot id")?;
    // What fails is told at the end: each step is done whatever became of the one before.
    let mut trouble = Vec::new();
    let mut attempt =
        |result: anyhow::Result<()>| trouble.extend(result.err().map(|error| format!("{error:#}")));
    // No stage starts any more. (On a full disk one could; the rest is done all the same.)
    attempt(job.mark_closing().map_err(anyhow::Error::from));
    if same_boot {
        let running = job.running().unwrap_or_else(|error| {
            attempt(Err(error.into()));
            None
        });
        if let Some(running) = running {
            // The supervisor first: it would take the end of its child for the job's. Its death is end of file for
            // process 1, which ends the stage; not waited for in vain.
            attempt(end(running.supervisor).and_then(Signalled::or_fail));
            // Without a user namespace it is the CI user's alone: then it ends at the end of file of its supervisor's pipe, and
            // what does not is ended with the control group, which that level cannot be without.
            attempt(end(running.init).and_then(|ended| match (level, &record.host_facts.cgroup.node) {
                (Level::Capabilities, Ok(_)) => Ok(()),
                (Level::Root | Level::Capabilities | Level::User, _) => ended.or_fail(),
            }));
        }
    }
    attempt(end_cgroup(record, &record.host_facts, job.name(), level));
    let mut user_files = UserFiles::Removed;
    let host = is_in_its_place(record).and_then(|here| match same_boot && here {
        true => host(record),
        false => host_of_this_boot(record),
    });
    match host {
        Ok(host) => {
            attempt(remove_secrets(own, &job, &host).map(|became| user_files = became));
            attempt(end_cgroup(record, &host, job.name(), level));
        }
        Err(error) => attempt(Err(error)),
    }
    // A free lock alone is no proof, so it comes last.
    let lock = match held {
        Some(lock) => lock,
        None => match job.lock(END_WITHIN) {
            // Another has ended the job meanwhile, perhaps before we made its directories anew.
            Err(RecordError::Missing(_)) => {
                directories(&job).remove().context("could not remove the job's directories")?;
                return Ok(user_files);
            }
            other => other?,
        },
    };
    attempt(directories(&job).remove().context("could not remove the job's directories"));
    if trouble.is_empty() {
        job.remove(jobs)?;
        return Ok(user_files);
    }
    drop(lock);
    // The record stays where something is left: another clean-up finds it.
    bail!("{}", trouble.join("; "))
}

/// Whether we are below the group that was delegated to the job's runner, as `cleanup` is and a `gc` of another service is
/// not: who has no right to the groups above both cannot start a process there.
fn is_in_its_place(record: &Record) -> anyhow::Result<bool> {
    match &record.host_facts.cgroup.delegated {
        Some(delegated) => Ok(jacamar_sandbox::is_in_group(&delegated.path)?),
        None => Ok(true),
    }
}

fn end_cgroup(record: &Record, host: &Host, name: &str, level: Level) -> anyhow::Result<()> {
    let Ok(node) = &host.cgroup.node else { return Ok(()) };
    let uid = record.grant.account.uid;
    Ok(jacamar_sandbox::remove_job_cgroup(node, uid, name, level, END_WITHIN)?)
}

/// After an abort the runner does not run `cleanup_file_variables`: file variables and tokens stay in
/// `<project>.tmp`. They are the user's, so the user's side removes them, in the sandbox.
fn remove_secrets(own: &Own, job: &OpenJob, host: &Host) -> anyhow::Result<UserFiles> {
    let record = job.record();
    // Then no script of the job has run.
    if job.prepared()?.is_none() || account_exists(record).is_err() {
        return Ok(UserFiles::Removed);
    }
    directories(job).mend().context("could not make the job's directories anew")?;
    let mut request = request(job, Stage::Cleanup, &[]);
    request.report = false;
    request.remove = vec![format!("{}/{}.tmp", record.builds_dir, record.project.project_path)];
    let done = run_as_user(own, job, host, &request, &[]).map_err(StageError::into_error)?;
    match done.ended.outcome {
        Outcome::Exited(0) => Ok(UserFiles::Removed),
        // A link in the way, more files than are removed in bounded time: his own directory and his own doing. A record
        // that stays would do no better and hold his build directory.
        Outcome::Exited(code) if code == i32::from(exit_code::REFUSED) => Ok(UserFiles::Left),
        Outcome::Broken(error) => Err(error.into()),
        Outcome::Refused(refusal) => Err(refusal.into()),
        Outcome::Exited(code) => {
            bail!("the job's temporary files could not be removed: exit code {code} of the user's side")
        }
        Outcome::Signalled(signal) => {
            bail!("the job's temporary files could not be removed: signal {signal} ended the user's side")
        }
    }
}

/// Whether a process could be signalled.
enum Signalled {
    /// It could, and has ended.
    Ended,
    /// The kernel does not let us.
    NotOurs(Pid),
}

impl Signalled {
    fn or_fail(self) -> anyhow::Result<()> {
        match self {
            Self::Ended => Ok(()),
            Self::NotOurs(pid) => bail!("could not end process {pid}: {}", Errno::EPERM.desc()),
        }
    }
}

/// SIGKILL for exactly this process, and its end awaited.
fn end(process: ProcessId) -> anyhow::Result<Signalled> {
    let deadline = Instant::now() + END_WITHIN;
    let pid = Pid::from_raw(process.pid);
    match pidfd_open(pid) {
        Ok(fd) => {
            // Opened first, compared then: from here on it cannot be another.
            if !process.is_alive()? {
                return Ok(Signalled::Ended);
            }
            match pidfd_send_signal(std::os::fd::AsFd::as_fd(&fd), Signal::SIGKILL) {
                Ok(()) => {}
                Err(Errno::ESRCH) => return Ok(Signalled::Ended),
                Err(Errno::EPERM) => return Ok(Signalled::NotOurs(pid)),
                Err(errno) => bail!("could not end process {pid}: {}", errno.desc()),
            }
            let timeout = PollTimeout::try_from(END_WITHIN).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(&fd), PollFlags::POLLIN)], timeout) {
                Ok(1..) => Ok(Signalled::Ended),
                Ok(_) => bail!("process {pid} does not end"),
                Err(errno) => bail!("could not wait for process {pid}: {}", errno.desc()),
            }
        }
        Err(Errno::ESRCH) => Ok(Signalled::Ended),
        // Linux before 5.3: the start time is all there is.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            while process.is_alive()? {
                match kill(pid, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(Errno::EPERM) => return Ok(Signalled::NotOurs(pid)),
                    Err(errno) => bail!("could not end process {pid}: {}", errno.desc()),
                }
                if Instant::now() >= deadline {
                    bail!("process {pid} does not end");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(Signalled::Ended)
        }
        Err(errno) => bail!("could not look at process {pid}: {}", errno.desc()),
    }
}
