//! How a "no" and a breakage of `config` look from the runner's side.

use testbed::gitlab::JobBuilder;
use testbed::host::Ran;
use testbed::runner::{JobResult, State};

use crate::direct::Direct;
use crate::golden;
use crate::left;
use crate::place::Place;

/// A refusal: the driver alone, then a whole job. Standard output is empty, the runner tries once, the audit line names
/// the rule, and the job log is the checked-in one.
#[track_caller]
pub(crate) fn refused(place: &Place, name: &str, rule: &str, job: JobBuilder) {
    let job = place.gitlab.admit(job);
    let ran = Direct::new(place, &job).config();
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{name}: {ran}");
    audited(place, name, rule);

    let result = place.run_job(job);
    let log = result.plain_log();
    assert_eq!(
        (result.state, result.failure_reason.as_deref()),
        (Some(State::Failed), Some("script_failure")),
        "{log}"
    );
    // No script ran, so there is no number of one: what is told is the runner's own 1.
    assert_eq!(result.exit_code, Some(1), "{name}: {log}");
    assert!(result.calls.iter().all(|call| call.exit_code_file.is_none()), "{name}: {log}");
    assert_eq!(result.stages(), ["config", "cleanup"], "{name}: {log}");
    nothing_is_left(place, &result);
    golden::check(place, name, &golden::log_of(&result));
}

/// The last decision in the audit log.
#[track_caller]
pub(crate) fn audited(place: &Place, name: &str, rule: &str) {
    let audit = place.audit();
    let line = audit.iter().rev().find(|line| line["event"] == "refused");
    let line = line.unwrap_or_else(|| panic!("{name}: no refusal in {audit:?}"));
    assert_eq!(line["rule"], rule, "{name}: {line}");
    for field in ["object", "cause", "stage"] {
        assert!(line[field].as_str().is_some_and(|text| !text.is_empty()), "{name}: {line}");
    }
    // Which job it was can be found, also where its token said nothing.
    let job = line["job_id"].as_u64().or_else(|| line["unverified_job_id"].as_str()?.parse().ok());
    assert!(job.is_some(), "{name}: {line}");
}

/// A breakage of `config`: standard output is empty, three attempts, and the message in the job log.
#[track_caller]
pub(crate) fn broken(place: &Place, name: &str, job: JobBuilder) -> Ran {
    let job = place.gitlab.admit(job);
    let ran = Direct::new(place, &job).config();
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{name}: {ran}");

    let result = place.run_job(job);
    let log = result.plain_log();
    assert_eq!(
        (result.state, result.failure_reason.as_deref(), result.exit_code),
        (Some(State::Failed), Some("runner_system_failure"), None),
        "{name}: {log}"
    );
    assert_eq!(result.stages(), ["config", "cleanup"].repeat(3), "{name}: {log}");
    nothing_is_left(place, &result);
    // All three say the same.
    golden::check(place, name, &ran.err);
    let first = ran.err.lines().next().expect("a message");
    let plain: String = first.replace("\x1b[31;1m", "").replace("\x1b[0;m", "");
    assert_eq!(log.matches(&plain).count(), 3, "{name}: {plain}\n{log}");
    ran
}

/// `config` had no effect at all.
#[track_caller]
fn nothing_is_left(place: &Place, result: &JobResult) {
    assert!(result.calls.iter().all(|call| call.env("JACAMAR_CI_RECORD").is_none()), "{:?}", result.stages());
    assert!(result.left_behind.is_empty(), "{:?}", result.left_behind);
    let ours = left::records_of(place);
    assert!(ours.is_empty(), "{ours:?}");
}
