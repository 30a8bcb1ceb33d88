//! `cleanup`: ends what still runs, removes what is left. It works without a record: then there is nothing to undo.
//!
//! Its output goes to the runner's own log, unmasked: nothing of the job is printed.

use jacamar_contract::environment::{RecordVariable, RunnerEnvironment};
use jacamar_plan::Level;
use jacamar_record::{Jobs, RecordError};
use jacamar_sandbox::Own;

use super::finish::{UserFiles, finish};
use super::known::Known;
use super::user_side::{same_level, state};
use super::{StageEnd, StageError, tell};

pub(super) fn cleanup(
    own: &Own,
    level: Level,
    environment: &RunnerEnvironment,
    known: &mut Known,
) -> Result<StageEnd, StageError> {
    let name = match &environment.record {
        RecordVariable::Named(name) => name,
        RecordVariable::Unset => {
            tell("jacamar-auth: nothing to clean up: config did not get far enough to leave a record\n");
            return Ok(StageEnd::done());
        }
        RecordVariable::Invalid => {
            return Err(StageError::Broken(anyhow::anyhow!("JACAMAR_CI_RECORD is not the name of a record")));
        }
    };
    let state = state(level)?;
    let jobs = Jobs::open(&state)?;
    let job = match jobs.find(name.as_str()) {
        // Up to three cleanups come for one job.
        Err(RecordError::Missing(_)) => return Ok(StageEnd::done()),
        other => other?,
    };
    // Cleaned up is what can be, also where that cannot be told.
    let told = known.record(job.record(), &state);
    same_level(job.record(), level)?;
    if finish(own, job, None, &jobs, level)? == UserFiles::Left {
        known.user_files_left();
    }
    told?;
    Ok(StageEnd::done())
}
