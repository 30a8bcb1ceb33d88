//! Whether a good token is the token of this job: what stops the use of somebody else's.

use jacamar_contract::claims::ClaimFields;
use jacamar_contract::verify::{VerifyRefused, VerifyRequest, VerifyRule};

use super::response::Response;
use super::statement::refused;

/// Compares the claims with the response file and with the configured runner.
pub(super) fn check(
    claims: &ClaimFields,
    request: &VerifyRequest,
    response: &Response<'_>,
) -> Result<(), VerifyRefused> {
    same(VerifyRule::JobMismatch, "job_id", claims.job_id, Some(response.job_id()))?;
    // In a merge request from a fork `project_id` is the fork; the job runs in `job_project_id`.
    let (name, project) = match claims.job_project_id {
        Some(id) => ("job_project_id", id),
        None => ("project_id", claims.project_id),
    };
    same(VerifyRule::ProjectMismatch, name, project, Some(response.project_id()))?;
    same(VerifyRule::PipelineMismatch, "pipeline_id", claims.pipeline_id, response.pipeline_id())?;
    same(VerifyRule::UserMismatch, "user_id", claims.user_id, response.user_id())?;
    if let Some(sha) = response.sha()
        && sha != claims.sha
    {
        let cause = format!("says {}, the job is of commit {sha}", claims.sha);
        return Err(refused(VerifyRule::JobMismatch, "sha", &cause));
    }
    if let Some(expected) = request.runner_id
        && expected != claims.runner_id
    {
        let cause = format!("says {}, this site expects {expected}", claims.runner_id);
        return Err(refused(VerifyRule::RunnerMismatch, "runner_id", &cause));
    }
    Ok(())
}

/// `None`: the runner did not send it.
fn same(rule: VerifyRule, claim: &str, says: u64, job: Option<u64>) -> Result<(), VerifyRefused> {
    match job {
        Some(job) if job != says => Err(refused(rule, claim, &format!("says {says}, the job has {job}"))),
        Some(_) | None => Ok(()),
    }
}
