//! What a stage has learned so far: whom people ask, and what each audit line says beside its event.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jacamar_contract::claims::Claims;
use jacamar_plan::{Grant, Outcome, Refusal, Stage};
use jacamar_record::{AuditLocation, AuditSettings, Jobs, Project, Record};
use serde_json::Value;

use super::user_side::state;
use super::{Ended, StageEnd, StageError};
use crate::audit::{Audit, Priority};
use crate::debug::{self, Unwritten};

/// Filled by a stage as it learns it.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Whom people ask.
    pub(crate) contact: String,
    audit: Option<Arc<Audit>>,
    unwritten: Unwritten,
    skipped: bool,
    fields: Vec<(&'static str, Value)>,
}

impl Known {
    /// Opens what the site asked for: before anything is decided or done, so that nothing is that cannot be told.
    pub(crate) fn open_audit(&mut self, settings: &AuditSettings, state: &Path) -> anyhow::Result<()> {
        let audit = self.open_lines(settings, state)?;
        self.unwritten = debug::follow(&audit)?;
        Ok(())
    }

    /// The same without debug lines, for `gc`: a process has one place for those, and its jobs may be of several sites.
    pub(crate) fn open_lines(
        &mut self,
        settings: &AuditSettings,
        state: &Path,
    ) -> anyhow::Result<Arc<Audit>> {
        let audit = Arc::new(Audit::open(settings, state)?);
        self.audit = Some(Arc::clone(&audit));
        if !settings.name.is_empty() {
            self.fields.push(("name", settings.name.clone().into()));
        }
        Ok(audit)
    }

    /// A number of the runner's environment, by which a refusal is found again whose token said nothing.
    pub(crate) fn unverified_job(&mut self, job_id: Option<String>) {
        let job_id = job_id.filter(|text| text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit()));
        self.fields.extend(job_id.map(|text| ("unverified_job_id", text.into())));
    }

    pub(crate) fn claims(&mut self, claims: &Claims) {
        let fields = claims.fields();
        let project = super::config::project(claims);
        self.project(&project);
        self.fields
            .extend([("user_id", fields.user_id.into()), ("user_login", fields.user_login.clone().into())]);
    }

    fn project(&mut self, project: &Project) {
        self.fields.retain(|(name, _)| *name != "unverified_job_id");
        self.fields.extend([
            ("job_id", project.job_id.into()),
            ("pipeline_id", project.pipeline_id.into()),
            ("project_id", project.project_id.into()),
            ("project_path", project.project_path.clone().into()),
        ]);
    }

    pub(crate) fn grant(&mut self, grant: &Grant) {
        self.fields
            .extend([("account", grant.account.name.clone().into()), ("uid", grant.account.uid.into())]);
    }

    /// All that a later stage needs.
    pub(crate) fn record(&mut self, record: &Record, state: &Path) -> anyhow::Result<()> {
        self.job(record);
        self.open_audit(&record.audit, state)
    }

    /// Whose job it is.
    pub(crate) fn job(&mut self, record: &Record) {
        self.contact.clone_from(&record.support_contact);
        self.project(&record.project);
        self.grant(&record.grant);
    }

    /// The site does not run this sub-stage.
    pub(crate) fn skipped(&mut self) {
        self.skipped = true;
    }

    /// So long the job waited for its turn.
    pub(crate) fn waited(&mut self, time: Duration) {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.fields.push(("waited_ms", milliseconds.into()));
    }

    /// The end of the job had to leave files of the runner in the user's own directories.
    pub(crate) fn user_files_left(&mut self) {
        self.fields.push(("user_files", "left".into()));
    }

    /// One line; also where the site's own wish is not known yet.
    pub(crate) fn line(
        &self,
        priority: Priority,
        event: &str,
        more: Vec<(&'static str, Value)>,
    ) -> anyhow::Result<()> {
        let fields: Vec<(&str, Value)> = self.fields.iter().cloned().chain(more).collect();
        match &self.audit {
            Some(audit) => audit.line(priority, event, &fields),
            None => {
                let state = state(jacamar_sandbox::level()?)?;
                // Makes the directory.
                Jobs::open(&state)?;
                let settings = AuditSettings {
                    location: Some(AuditLocation::Auto),
                    priority_max: Priority::Info as u8,
                    name: String::new(),
                };
                Audit::open(&settings, &state)?.line(priority, event, &fields)
            }
        }
    }

    /// The line of a stage's end; the error is also that of a debug line before it.
    pub(crate) fn end(&self, stage: &Stage, result: &Result<StageEnd, StageError>) -> anyhow::Result<()> {
        self.line_of_end(stage, result)?;
        self.unwritten.take()
    }

    fn line_of_end(&self, stage: &Stage, result: &Result<StageEnd, StageError>) -> anyhow::Result<()> {
        let stage_name = || ("stage", stage.to_string().into());
        let refused = |refusal: &Refusal| {
            let Refusal { rule, object, cause, hint: _ } = refusal.clone();
            let said = [("rule", rule), ("object", object), ("cause", cause)];
            let said = said.into_iter().map(|(name, text)| (name, text.into()));
            self.line(Priority::Warning, "refused", said.chain([stage_name()]).collect())
        };
        let broken =
            |cause: String| self.line(Priority::Error, "broken", vec![("cause", cause.into()), stage_name()]);
        let StageEnd { outcome, ended } = match result {
            Err(StageError::Refused(refusal)) => return refused(refusal),
            Err(StageError::Broken(error)) => return broken(format!("{error:#}")),
            Ok(end) => end,
        };
        let mut fields = match outcome {
            Outcome::Refused(refusal) => return refused(refusal),
            Outcome::Broken(error) => return broken(error.to_string()),
            Outcome::Exited(code) => vec![("outcome", "exited".into()), ("exit_code", (*code).into())],
            Outcome::Signalled(signal) => vec![("outcome", "signalled".into()), ("signal", (*signal).into())],
        };
        let event = match stage {
            // Its line is the grant, written before the record that it speaks of.
            Stage::Config | Stage::Exec => return Ok(()),
            Stage::Run(_) if self.skipped => {
                return self.line(Priority::Info, "skipped", vec![stage_name()]);
            }
            Stage::Prepare => "prepare",
            Stage::Run(_) => "run",
            // There was no record.
            Stage::Cleanup if self.audit.is_none() => return Ok(()),
            Stage::Cleanup => "cleanup",
        };
        fields.extend([("terminated", matches!(ended, Ended::ByTermination).into()), stage_name()]);
        self.line(Priority::Info, event, fields)
    }
}
