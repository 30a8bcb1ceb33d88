//! `run`: one script of the job, as the user, in the sandbox.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, anyhow};
use jacamar_contract::environment::RunnerEnvironment;
use jacamar_contract::exit::Ended as EndedBy;
use jacamar_contract::stage_request::SCRIPT_MAX_BYTES;
use jacamar_contract::{joblog, stage_report};
use jacamar_plan::{AskedToEnd, Level, Outcome, Stage, Step, StepError, SubStage, explain_death};
use jacamar_record::{Jobs, OpenJob};
use jacamar_sandbox::Own;

use super::known::Known;
use super::prepare::LOCK_WITHIN;
use super::user_side::{UserSide, account_exists, host, open, request, run_as_user, same_level, state};
use super::{StageEnd, StageError, tell};

pub(super) fn run(
    own: &Own,
    level: Level,
    environment: &RunnerEnvironment,
    script: &Path,
    sub_stage: SubStage,
    known: &mut Known,
) -> Result<StageEnd, StageError> {
    // First of all: it lies in the runner's private directory, which nobody else can enter.
    let script = read_script(script)?;
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
    let stage = Stage::Run(sub_stage.clone());
    let done = run_as_user(own, &job, &host(record)?, &request(&job, stage.clone(), &script), &script)?;
    let outcome = match stage_report::believed(&done.ended.outcome, done.report) {
        // Process 1 ends without a word when it ends the stage for us: a script that ignores SIGTERM.
        Some(Outcome::Broken(StepError { step: Step::AwaitEnd, .. })) if done.ended.terminated => None,
        outcome => outcome,
    };
    let of_memory = explain(&job, &sub_stage, &done, outcome.as_ref())?;
    // Where memory ran out for the whole stage, process 1 and the user's side died with the script: the job's own doing.
    let outcome = match outcome {
        None | Some(Outcome::Broken(StepError { step: Step::AwaitEnd, .. })) if of_memory => {
            Some(Outcome::Signalled(nix::sys::signal::Signal::SIGKILL as i32))
        }
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

/// The last script of a job whose output the user sees; the runner leaves it out after an abort.
const LAST_VISIBLE: &str = "cleanup_file_variables";

/// Says in the job log of what the script died, and, there and at the end, what the job used. Whether it died of memory.
fn explain(
    job: &OpenJob,
    sub_stage: &SubStage,
    done: &UserSide,
    outcome: Option<&Outcome>,
) -> Result<bool, StageError> {
    let record = job.record();
    let usage = done.ended.usage.as_ref();
    let sum = usage.map(|usage| job.add_usage(usage)).transpose()?;
    let death = explain_death(&done.plan, outcome, asked_to_end(job, done)?, usage);
    if let Some(death) = &death {
        tell(&joblog::message(&death.refusal, &record.support_contact));
    }
    let wanted = record.usage_report && (death.is_some() || sub_stage.as_str() == LAST_VISIBLE);
    if let Some(sum) = sum.filter(|_| wanted) {
        tell(&joblog::usage_report(&sum, &record.profile.name));
    }
    Ok(death.is_some_and(|death| death.of_memory))
}

/// The runner does not say why it ends a stage; the time does.
fn asked_to_end(job: &OpenJob, done: &UserSide) -> Result<AskedToEnd, StageError> {
    if !done.ended.terminated {
        return Ok(AskedToEnd::No);
    }
    let timeout_s = job.record().timeout_s;
    // A clock that was set back tells nothing.
    let age = std::time::SystemTime::now().duration_since(job.written()?).unwrap_or_default();
    // `config` came a moment after the runner's clock was started.
    Ok(if age.as_secs().saturating_add(5) >= timeout_s {
        AskedToEnd::Timeout(timeout_s)
    } else {
        AskedToEnd::Cancelled
    })
}

fn read_script(path: &Path) -> anyhow::Result<Vec<u8>> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let open = || std::fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = jacamar_sandbox::as_starter(open)?
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
