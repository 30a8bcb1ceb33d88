//! A job from the first line of its log to the last report.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::clock::go_duration;
use super::context::Context;
use super::executor::Executor;
use super::failure::{Cause, Failure, Reason};
use super::outcome::{JobResult, Report, State};
use super::scripts::stage_of;
use super::shared::{Pauses, Shared};
use super::stage::SubStage;
use crate::gitlab::entries;

const PREPARATION_ATTEMPTS: usize = 3;

/// `CI_JOB_STATUS`, and the failure as it is reported.
fn runtime_state(shared: &Shared, result: Result<(), Failure>) -> (&'static str, Result<(), Failure>) {
    match result {
        Ok(()) => ("success", Ok(())),
        Err(failure) => match failure.cause {
            Some(Cause::Canceled | Cause::JobCanceled) => ("canceled", Err(canceled())),
            Some(Cause::Deadline | Cause::ScriptTimeout) => {
                let limit = go_duration(shared.build().timeout());
                let message = format!("execution took longer than {limit} seconds");
                ("timedout", Err(Failure::build(Reason::JobExecutionTimeout, message)))
            }
            Some(Cause::PrepareTimeout | Cause::GetSourcesTimeout) | None => ("failed", Err(failure)),
        },
    }
}

fn canceled() -> Failure {
    Failure::build(Reason::JobCanceled, "canceled").by(Cause::JobCanceled)
}

/// The failure of a job whose whole context ended.
fn ended(shared: &Shared, context: &Context) -> Failure {
    let failure = match context.cause() {
        Some(cause @ (Cause::PrepareTimeout | Cause::GetSourcesTimeout)) => {
            Failure::system("a limit of a stage was exceeded").by(cause)
        }
        Some(cause) => Failure::system("the job ended").by(cause),
        None => Failure::system("the job ended"),
    };
    runtime_state(shared, Err(failure)).1.err().unwrap_or_else(canceled)
}

/// Runs the job to its end.
pub(crate) fn run(shared: &Arc<Shared>) -> JobResult {
    header(shared);
    let job = Context::root().with_timeout(shared.build().timeout(), Cause::Deadline);
    shared.set_cancel(&job);
    shared.set_abort(&job);
    for complaint in &shared.build().settings().complaints {
        shared.log.warn(complaint);
    }
    let prepare_limit = shared.build().limit(shared.config.prepare_timeout);
    let prepare = job.with_timeout(prepare_limit, Cause::PrepareTimeout);

    let mut left_behind = Vec::new();
    let result = match create_executor(shared, &prepare, &mut left_behind) {
        Ok(executor) => {
            let executor = Arc::new(executor);
            let result = run_build(shared, &job, &prepare, &executor);
            executor.cleanup(shared);
            left_behind.push(executor.temp_dir().to_owned());
            result
        }
        Err(_) if prepare.cause() == Some(Cause::PrepareTimeout) => {
            let message = format!("prepare timeout: exceeded timeout of {}", go_duration(prepare_limit));
            Err(Failure::build(Reason::JobExecutionTimeout, message))
        }
        Err(failure) => Err(failure),
    };
    left_behind.retain(|path| path.exists());
    shared.log.close_own();
    let mut outcome = report(shared, result);
    outcome.left_behind = left_behind;
    outcome
}

fn header(shared: &Shared) {
    let build = shared.build();
    let log = &shared.log;
    log.print(&format!(
        "Running with gitlab-runner {} ({})",
        build.version.number(),
        build.version.revision()
    ));
    let short = shared.config.short_token();
    if !short.is_empty() {
        log.print(&format!("  on {} {short}, system ID: {}", shared.config.name, shared.system_id));
    }
    let unusual = build.settings().flags.unusual();
    if !unusual.is_empty() {
        log.print(&format!("  feature flags: {}", unusual.join(", ")));
    }
    log.close_own();
}

/// Up to three attempts; a build failure, a cancel or a timeout ends them at once.
fn create_executor(
    shared: &Shared,
    context: &Context,
    left_behind: &mut Vec<std::path::PathBuf>,
) -> Result<Executor, Failure> {
    shared.log.section("prepare_executor", "Preparing the \"custom\" executor", || {
        let mut last = Failure::system("no attempt was made");
        for attempt in 1..=PREPARATION_ATTEMPTS {
            let mut executor = Executor::new(attempt);
            let failure = match executor.prepare(shared, context) {
                Ok(()) => return Ok(executor),
                Err(failure) => failure,
            };
            executor.cleanup(shared);
            left_behind.push(executor.temp_dir().to_owned());
            if failure.build.is_some() {
                return Err(failure);
            }
            if context.ended().is_some() {
                return Err(ended(shared, context));
            }
            shared.log.soft_error(&format!("Preparation failed: {}", failure.message));
            shared
                .log
                .info(&format!("Will be retried in {} ...", go_duration(Pauses::default().preparation)));
            if !context.sleep(shared.pauses.preparation) {
                return Err(ended(shared, context));
            }
            last = failure;
        }
        Err(last)
    })
}

/// Runs the scripts in a thread of their own and watches for what ends a job from outside.
fn run_build(
    shared: &Arc<Shared>,
    job: &Context,
    prepare: &Context,
    executor: &Arc<Executor>,
) -> Result<(), Failure> {
    let run = job.child();
    let (to_us, finished) = mpsc::channel();
    let (theirs, their_run, their_prepare) = (Arc::clone(shared), run.clone(), prepare.clone());
    let their_executor = Arc::clone(executor);
    thread::spawn(move || {
        let result = execute(&theirs, &their_run, &their_prepare, &their_executor);
        // After the time limit below nobody waits any more.
        to_us.send(result).ok();
    });
    let failure = loop {
        if job.ended().is_some() {
            break ended(shared, job);
        }
        if let Some(signal) = shared.interrupted() {
            break Failure::build(Reason::RunnerInterrupted, format!("aborted: {signal}"));
        }
        match finished.recv_timeout(Duration::from_millis(4)) {
            Ok(_) if job.ended().is_some() => return Err(ended(shared, job)),
            Ok(result) => return result,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Failure::system("panic: the thread of a job died"));
            }
        }
    };
    run.cancel();
    if finished.recv_timeout(shared.pauses.build_finish).is_err() {
        shared.log.warn("Timed out waiting for the build to finish");
    }
    Err(failure)
}

/// All scripts of a job.
fn execute(shared: &Shared, run: &Context, prepare: &Context, executor: &Executor) -> Result<(), Failure> {
    let stage = |stage: SubStage, context: &Context| executor.run_stage(shared, &stage, context);
    if let Err(failure) = stage(SubStage::PrepareScript, prepare) {
        if prepare.cause() == Some(Cause::PrepareTimeout) {
            let limit = go_duration(shared.build().limit(shared.config.prepare_timeout));
            let message = format!("prepare timeout: exceeded timeout of {limit}");
            return Err(Failure::build(Reason::JobExecutionTimeout, message));
        }
        let message = format!(
            "prepare environment: {}. Check https://docs.gitlab.com/runner/shells/#shell-profile-loading for more information",
            failure.message
        );
        return Err(Failure { message, ..failure });
    }
    let limit = shared.build().limit(shared.config.get_sources_timeout);
    let sources = run.with_timeout(limit, Cause::GetSourcesTimeout);
    let attempts = shared.build().settings().get_sources_attempts;
    let mut result = attempt(shared, attempts, |number| {
        if number == 1 {
            stage(SubStage::ClearWorktree, &sources)?;
        }
        stage(SubStage::GetSources, &sources)
    });
    if result.is_err() && sources.cause() == Some(Cause::GetSourcesTimeout) {
        let message = format!("get sources timeout: exceeded timeout of {}", go_duration(limit));
        return Err(Failure::build(Reason::JobExecutionTimeout, message));
    }
    if result.is_ok() {
        let attempts = shared.build().settings().restore_cache_attempts;
        result = attempt(shared, attempts, |_| stage(SubStage::RestoreCache, run));
    }
    if result.is_ok() {
        let attempts = shared.build().settings().download_attempts;
        result = attempt(shared, attempts, |_| stage(SubStage::DownloadArtifacts, run));
    }
    if result.is_ok() {
        result = user_scripts(shared, run, executor);
    }
    let (cache, upload) = if result.is_ok() {
        (SubStage::ArchiveCache, SubStage::UploadArtifactsOnSuccess)
    } else {
        (SubStage::ArchiveCacheOnFailure, SubStage::UploadArtifactsOnFailure)
    };
    let cached = stage(cache, run);
    let uploaded = stage(upload, run);
    if let Err(failure) = stage(SubStage::CleanupFileVariables, run) {
        shared.log.note(
            super::job_log::Level::Warning,
            &format!("Error while executing file based variables removal script: {}", failure.message),
        );
    }
    result.and(cached).and(uploaded)
}

/// Repeats a stage, with pauses that double.
fn attempt(
    shared: &Shared,
    attempts: i64,
    mut work: impl FnMut(i64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let exponential = shared.build().is_on("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY");
    let (mut pause, longest) = if exponential {
        (shared.pauses.stage_retry_min, shared.pauses.stage_retry_max)
    } else {
        (shared.pauses.stage_retry_min / 5, shared.pauses.stage_retry_min)
    };
    for number in 0.. {
        let result = work(number);
        if result.is_ok() || number + 1 >= attempts {
            return result;
        }
        shared.log.warn("Retrying...");
        // Not shortened by a cancel: the runner sleeps here whatever happens.
        thread::sleep(pause);
        pause = (pause * 2).min(longest);
    }
    Ok(())
}

/// A limit that a job variable sets on some scripts.
fn script_limit(shared: &Shared, run: &Context, name: &str, default: Option<Duration>) -> Option<Duration> {
    let setting = shared.build().timeout_variable(name);
    match setting {
        None => default,
        Some(Err(text)) => {
            shared.log.warn(&format!("Ignoring malformed {name} timeout: {text}"));
            default
        }
        Some(Ok(limit)) if run.remaining().is_some_and(|left| limit > left) => {
            let text = shared.build().variables().value(name);
            shared
                .log
                .warn(&format!("{name} timeout: {text} is longer than job timeout. Setting to job timeout"));
            default
        }
        Some(Ok(limit)) => {
            if limit.is_zero() {
                default
            } else {
                Some(limit)
            }
        }
    }
}

fn limited(parent: &Context, limit: Option<Duration>) -> Context {
    limit.map_or_else(|| parent.child(), |limit| parent.with_timeout(limit, Cause::Deadline))
}

/// Script, release and after_script.
fn user_scripts(shared: &Shared, run: &Context, executor: &Executor) -> Result<(), Failure> {
    let script_time = script_limit(shared, run, "RUNNER_SCRIPT_TIMEOUT", None);
    let after_time =
        script_limit(shared, run, "RUNNER_AFTER_SCRIPT_TIMEOUT", Some(shared.pauses.after_script));
    let script = limited(run, script_time);
    // A cancel from here on ends the script alone, and once it is over, nothing.
    shared.set_cancel(&script);
    let steps: Vec<String> = {
        let build = shared.build();
        let steps = entries(&build.job.steps).iter().filter(|step| step.name != "after_script");
        steps.map(stage_of).collect()
    };
    let mut result = Ok(());
    for step in steps {
        result = executor.run_stage(shared, &SubStage::Step(step), &script);
        if result.is_err() {
            break;
        }
    }
    let (outer, inner) = (run.ended(), script.ended());
    if outer.is_none() && inner == Some(Cause::Canceled) {
        result = Err(canceled());
        shared.log.warn("script canceled externally (UI, API)");
    } else if outer != Some(Cause::Deadline) && inner == Some(Cause::Deadline) {
        let message = "script timeout: context deadline exceeded";
        result = Err(Failure::build(Reason::JobExecutionTimeout, message).by(Cause::ScriptTimeout));
    }

    let after = limited(run, after_time);
    let status = runtime_state(shared, result.clone()).0;
    shared.build().set_job_status(status);
    let after_result = executor.run_stage(shared, &SubStage::AfterScript, &after);
    if let Err(failure) = after_result
        && run.ended() != Some(Cause::Deadline)
    {
        if shared.build().settings().after_script_ignore_errors {
            shared
                .log
                .warn(&format!("after_script failed, but job will continue unaffected: {}", failure.message));
        } else if result.is_ok() {
            result = Err(failure);
        }
    }
    result
}

/// GitLab is told the reasons it knows.
fn reason_for_gitlab(shared: &Shared, reason: Reason) -> &'static str {
    let build = shared.build();
    let listed = |reason: Reason| {
        let always = matches!(
            reason,
            Reason::ScriptFailure | Reason::RunnerSystemFailure | Reason::JobExecutionTimeout
        );
        always || entries(&build.job.features.failure_reasons).iter().any(|name| name == reason.name())
    };
    match reason {
        reason if listed(reason) => reason.name(),
        Reason::RunnerConfiguration => Reason::ScriptFailure.name(),
        _ => "unknown_failure",
    }
}

fn report(shared: &Shared, result: Result<(), Failure>) -> JobResult {
    let log = &shared.log;
    let (state, reason, exit_code) = match result {
        Ok(()) => {
            log.info("Job succeeded");
            (State::Success, None, 0)
        }
        Err(Failure { message, build: Some((reason, code)), .. }) => {
            log.soft_error(&format!("Job failed: {message}"));
            (State::Failed, Some(reason_for_gitlab(shared, reason)), code)
        }
        Err(Failure { message, build: None, .. }) => {
            log.error(&format!("Job failed (system failure): {message}"));
            (State::Failed, Some(Reason::RunnerSystemFailure.name()), 0)
        }
    };
    log.close_own();
    JobResult {
        state: Some(state),
        failure_reason: reason.map(str::to_owned),
        exit_code: (exit_code != 0).then_some(exit_code),
        report: if shared.was_aborted() { Report::Refused } else { Report::Accepted },
        job_log: log.text(),
        runner_log: log.runner_lines(),
        calls: shared.recorder.calls(),
        took: shared.recorder.elapsed(),
        left_behind: Vec::new(),
    }
}
