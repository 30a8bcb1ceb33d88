//! The four stages that GitLab Runner calls, each one short function, and how each becomes an exit code.

mod cleanup;
mod config;
pub(crate) mod finish;
pub(crate) mod known;
mod prepare;
mod run;
mod site;
mod turn;
pub(crate) mod user_side;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
pub(crate) use config::{audit_settings, hostname};
use jacamar_contract::driver::{Call, InvalidCall, Invocation};
use jacamar_contract::environment::RunnerEnvironment;
use jacamar_contract::exit::{CodeFile, Ended, Verdict, verdict};
use jacamar_contract::joblog;
use jacamar_plan::{Level, Outcome, Refusal, Stage};
use jacamar_record::RecordError;
use jacamar_sandbox::{Own, SessionError};
use known::Known;
pub(crate) use site::{choice, level, limits, mend, profile, settings};

/// Why a stage did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum StageError {
    /// A rule says no: a build failure, no retry.
    Refused(Refusal),
    /// Something does not work: a system failure.
    Broken(anyhow::Error),
}

impl StageError {
    /// As an error of ours, where a refusal is one as well.
    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Refused(refusal) => refusal.into(),
            Self::Broken(error) => error,
        }
    }
}

impl From<anyhow::Error> for StageError {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<SessionError>() {
            Ok(session) => session.into(),
            Err(error) => Self::Broken(error),
        }
    }
}

impl From<SessionError> for StageError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Refused(refusal) => Self::Refused(refusal),
            other => Self::Broken(other.into()),
        }
    }
}

impl From<RecordError> for StageError {
    fn from(error: RecordError) -> Self {
        Self::Broken(error.into())
    }
}

/// How a stage ended, with what the messages need.
pub(crate) struct StageEnd {
    pub(crate) outcome: Outcome,
    pub(crate) ended: Ended,
}

impl StageEnd {
    pub(crate) fn done() -> Self {
        Self { outcome: Outcome::Exited(0), ended: Ended::ByItself }
    }
}

/// Runs one stage; the exit code for GitLab Runner. Standard output of `config` is JSON alone, on every path.
pub(crate) fn stage(own: &Own, level: anyhow::Result<Level>, invocation: Invocation) -> u8 {
    let environment = match RunnerEnvironment::read(std::env::vars_os()) {
        Ok(environment) => environment,
        Err(error) => {
            broken_call(&error.to_string());
            return error.exit_code.get();
        }
    };
    if invocation.flags.no_auth {
        broken_call("--no-auth is an option of jacamar, which authorizes nothing; it is not built yet");
        return environment.exit_codes.system_failure.get();
    }
    let stage = invocation.call.stage();
    let level = match level {
        Ok(level) => level,
        Err(error) => {
            tell(&broken(&stage, &error, ""));
            return environment.exit_codes.system_failure.get();
        }
    };
    let mut known = Known::default();
    known.unverified_job(std::env::var("CUSTOM_ENV_CI_JOB_ID").ok());
    let result = match invocation.call {
        Call::Config { configuration } => {
            config::config(own, level, &environment, configuration.as_deref(), &mut known)
        }
        Call::Prepare => prepare::prepare(own, level, &environment, &mut known),
        Call::Run { script, sub_stage } => run::run(own, level, &environment, &script, sub_stage, &mut known),
        Call::Cleanup { .. } => cleanup::cleanup(own, level, &environment, &mut known),
    };
    // To the runner 0 is success, also where its own time limit sent a signal that nobody waited for.
    let result = match (own.asked_to_end(), result) {
        (Ok(true), Ok(end)) => Ok(StageEnd { ended: Ended::ByTermination, ..end }),
        (Ok(_), result) => result,
        (Err(error), _) => Err(StageError::Broken(error.into())),
    };
    let audited = known.end(&stage, &result);
    let mut verdict = conclude(&stage, result, &environment, &known.contact);
    if let Err(error) = audited {
        tell(&broken(&stage, &error, &known.contact));
        verdict = broken_verdict(&environment);
    }
    match write_code_file(&environment, verdict.code_file) {
        Ok(()) => verdict.exit_code,
        Err(error) => {
            // A stale number would become the job's exit code.
            tell(&format!("jacamar-auth: {error:#}\n"));
            environment.exit_codes.system_failure.get()
        }
    }
}

/// A call that is none of the four: the runner's configuration is wrong, a system failure.
pub(crate) fn invalid(call: &InvalidCall) -> u8 {
    broken_call(&call.to_string());
    match RunnerEnvironment::read(std::env::vars_os()) {
        Ok(environment) => environment.exit_codes.system_failure.get(),
        Err(error) => error.exit_code.get(),
    }
}

/// A call that is none of a stage, told to whoever reads and to the log.
fn broken_call(cause: &str) {
    tell(&format!("jacamar-auth: {cause}\n"));
    let fields = vec![("cause", cause.into())];
    if let Err(unwritten) = Known::default().line(crate::audit::Priority::Error, "broken", fields) {
        // The call has failed either way.
        tell(&format!("jacamar-auth: {unwritten:#}\n"));
    }
}

fn conclude(
    stage: &Stage,
    result: Result<StageEnd, StageError>,
    environment: &RunnerEnvironment,
    contact: &str,
) -> Verdict {
    let codes = environment.exit_codes;
    match result {
        Ok(StageEnd { outcome, ended }) => {
            if let Outcome::Broken(error) = &outcome {
                tell(&broken(stage, &anyhow::Error::from(error.clone()), contact));
            }
            verdict(stage, &outcome, ended, codes)
        }
        Err(StageError::Refused(refusal)) => {
            tell(&joblog::message(&refusal, contact));
            verdict(stage, &Outcome::Refused(refusal), Ended::ByItself, codes)
        }
        Err(StageError::Broken(error)) => {
            tell(&broken(stage, &error, contact));
            broken_verdict(environment)
        }
    }
}

fn broken_verdict(environment: &RunnerEnvironment) -> Verdict {
    let exit_code = environment.exit_codes.system_failure.get();
    Verdict { exit_code, code_file: CodeFile::Removed }
}

/// The end of a user-side stage that runs no text of the job: the numbers that it shares with us.
pub(crate) fn user_end(outcome: Outcome, ended: Ended) -> Result<StageEnd, StageError> {
    use jacamar_contract::stage_report::exit_code;
    match outcome {
        Outcome::Exited(code) if code == i32::from(exit_code::REFUSED) => {
            // The user's side has said in the job log what it refuses.
            Ok(StageEnd { outcome: Outcome::Refused(refused_by_user_side()), ended })
        }
        outcome => Ok(StageEnd { outcome, ended }),
    }
}

fn refused_by_user_side() -> Refusal {
    Refusal {
        rule: "user_side".into(),
        object: "the user's side".into(),
        cause: "refused, see above".into(),
        hint: String::new(),
    }
}

/// What `cleanup` says is read by the administrators themselves: in the runner's log.
fn broken(stage: &Stage, error: &anyhow::Error, contact: &str) -> String {
    let hint = error.downcast_ref::<Refusal>().map(|refusal| refusal.hint.as_str()).unwrap_or_default();
    let hint = if hint.is_empty() { String::new() } else { format!("hint: {hint}\n") };
    let ask = match (stage, contact) {
        (Stage::Cleanup | Stage::Exec, _) => String::new(),
        (Stage::Config | Stage::Prepare | Stage::Run(_), "") => {
            "ask: the administrators of this runner\n".to_owned()
        }
        (Stage::Config | Stage::Prepare | Stage::Run(_), contact) => format!("ask: {contact}\n"),
    };
    format!("jacamar-auth: {stage} failed: {error:#}\n{hint}{ask}")
}

/// Standard output of `config`: the JSON, nothing else, not even a line end.
fn print(json: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout();
    output.write_all(json.as_bytes()).and_then(|()| output.flush()).context("could not write the answer")
}

/// The job log, or in `cleanup` the runner's.
pub(crate) fn tell(text: &str) {
    match std::io::stderr().write_all(text.as_bytes()) {
        // Nobody reads it: the exit code is all that is left to say.
        Ok(()) | Err(_) => {}
    }
}

/// `BUILD_EXIT_CODE_FILE` lies in the runner's private directory, so the supervisor writes it; a file of an earlier
/// stage must not speak for this one. Runners before 17.9 name none.
fn write_code_file(environment: &RunnerEnvironment, code: CodeFile) -> anyhow::Result<()> {
    let Some(path) = &environment.exit_code_file else { return Ok(()) };
    jacamar_sandbox::as_starter(|| {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("could not remove {}", path.display())),
        }
        match code.content() {
            None => Ok(()),
            Some(text) => write_new(path, &text),
        }
    })?
}

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("could not make {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("could not write {}", path.display()))
}
