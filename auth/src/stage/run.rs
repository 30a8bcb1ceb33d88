//! `run`: one script of the job, as the user, in the sandbox.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, anyhow};
use jacamar_contract::environment::RunnerEnvironment;
use jacamar_contract::exit::Ended as EndedBy;
use jacamar_contract::stage_report;
use jacamar_contract::stage_request::SCRIPT_MAX_BYTES;
use jacamar_plan::{Outcome, Stage, Step, StepError, SubStage};
use jacamar_record::Jobs;
use jacamar_sandbox::Own;

use super::known::Known;
use super::prepare::LOCK_WITHIN;
use super::user_side::{account_exists, host, open, request, run_as_user, same_level, state};
use super::{StageEnd, StageError, tell};

pub(super) fn run(
    own: &Own,
    environment: &RunnerEnvironment,
    script: &Path,
    sub_stage: SubStage,
    known: &mut Known,
) -> Result<StageEnd, StageError> {
    // First of all: it lies in the runner's private directory, which nobody else can enter.
    let script = read_script(script)?;
    let level = jacamar_sandbox::level().map_err(anyhow::Error::from)?;
    let state = state(level)?;
    let jobs = Jobs::open(&state)?;
    let job = open(environment, &jobs)?;
    let record = job.record();
    known.record(record, &state)?;
    same_level(record, level)?;
    if !record.run_stage_allowlist.is_empty() && !record.run_stage_allowlist.contains(&sub_stage) {
        known.skipped();
        tell(&format!("jacamar-auth: this site does not run {sub_stage}, it is skipped\n"));
        return Ok(StageEnd::done());
    }
    account_exists(record)?;
    let _lock = job.begin_stage(LOCK_WITHIN)?;
    let stage = Stage::Run(sub_stage);
    let done = run_as_user(own, &job, &host(record)?, &request(record, stage.clone(), &script), &script)?;
    let outcome = match stage_report::believed(&done.ended.outcome, done.report) {
        // Process 1 ends without a word when it ends the stage for us: a script that ignores SIGTERM.
        Some(Outcome::Broken(StepError { step: Step::AwaitEnd, .. })) if done.ended.terminated => None,
        outcome => outcome,
    };
    let ended = if done.ended.terminated { EndedBy::ByTermination } else { EndedBy::ByItself };
    match outcome {
        Some(outcome) => Ok(StageEnd { outcome, ended }),
        // Ended by us before it could report: that is how a stage ends that ignores SIGTERM.
        None if done.ended.terminated => {
            Ok(StageEnd { outcome: Outcome::Signalled(nix::sys::signal::Signal::SIGTERM as i32), ended })
        }
        None => Err(StageError::Broken(anyhow!(
            "the user's side of {stage} ended without a report ({:?})",
            done.ended.outcome
        ))),
    }
}

fn read_script(path: &Path) -> anyhow::Result<Vec<u8>> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .with_context(|| format!("could not open the script {}", path.display()))?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(anyhow!("the script {} is no regular file", path.display()));
    }
    let mut script = Vec::new();
    file.take(SCRIPT_MAX_BYTES as u64 + 1)
        .read_to_end(&mut script)
        .with_context(|| format!("could not read the script {}", path.display()))?;
    if script.len() > SCRIPT_MAX_BYTES {
        return Err(anyhow!("the script {} is larger than {SCRIPT_MAX_BYTES} bytes", path.display()));
    }
    Ok(script)
}
