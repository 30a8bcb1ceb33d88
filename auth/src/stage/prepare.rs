//! `prepare`: waits for the job's turn, makes its private directories, then the user's own by the user.

use std::time::Duration;

use anyhow::Context;
use jacamar_contract::environment::RunnerEnvironment;
use jacamar_contract::exit::Ended as EndedBy;
use jacamar_plan::{Level, Outcome, Stage};
use jacamar_record::{Jobs, Prepared, pid_namespace};
use jacamar_sandbox::{JobDirectories, Own};
use nix::sys::signal::Signal;

use super::known::Known;
use super::turn::{Awaited, await_turn};
use super::user_side::{account_exists, host, open, parent, request, run_as_user, same_level, state};
use super::{StageEnd, StageError};

/// Another stage of the job may be ending.
pub(super) const LOCK_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn prepare(
    own: &Own,
    level: Level,
    environment: &RunnerEnvironment,
    known: &mut Known,
) -> Result<StageEnd, StageError> {
    let state = state(level)?;
    let jobs = Jobs::open(&state)?;
    let job = open(environment, &jobs)?;
    let record = job.record();
    known.record(record, &state)?;
    same_level(record, level)?;
    let _lock = job.begin_stage(LOCK_WITHIN)?;
    if let Awaited::AskedToEnd = await_turn(own, &jobs, &job, known)? {
        let outcome = Outcome::Signalled(Signal::SIGTERM as i32);
        return Ok(StageEnd { outcome, ended: EndedBy::ByTermination });
    }
    account_exists(record)?;
    let account = &record.grant.account;
    let host = host(record)?;
    let base = std::path::Path::new(&record.tmp_base);
    let directories = JobDirectories::make(base, job.name(), account.uid, account.gid, level)
        .context("could not make the job's directories")?;
    if host.ssh_config_files
        && level != Level::Root
        && let Some(path) = host.directories.get("/etc/ssh/ssh_config.d")
    {
        directories
            .copy_ssh_config(std::path::Path::new(path))
            .context("could not copy ssh's configuration")?;
    }
    let pid_namespace = pid_namespace().context("could not read our pid namespace")?;
    job.set_prepared(&Prepared { parent: parent()?, pid_namespace })?;
    let done = run_as_user(own, &job, &host, &request(&job, Stage::Prepare, &[]), &[])?;
    if let Some(usage) = &done.ended.usage {
        job.add_usage(usage)?;
    }
    let ended = if done.ended.terminated { EndedBy::ByTermination } else { EndedBy::ByItself };
    super::user_end(done.ended.outcome, ended)
}
