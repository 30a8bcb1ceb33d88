//! Whole jobs that die of a limit: the message names it, after_script and cleanup run, others go on.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::host::{BIN, CI1, CI2, Ran, Started};
use testbed::runner::{JobResult, State};

use crate::{limits, root};

/// A job starts some hundred processes, and each takes an emulated processor ten times as long.
const MANY_STARTS: Duration = Duration::from_secs(200);

fn profile(name: &str, job: &str) {
    let text = format!("description = \"a test\"\n[job]\n{job}\n[processes]\nPrivatePIDs = true\n");
    root().host.site_profile(name, &text);
}

fn start(wish: &Value) -> Started {
    start_under(&[], wish)
}

/// A whole job whose runner is started by `under`. Login shells of an emulated processor take seconds, and none of it is
/// tested here.
fn start_under(under: &[&str], wish: &Value) -> Started {
    let mut wish = wish.clone();
    let quick = json!(["JACAMAR_NO_BASH_PROFILE", "1"]);
    match wish.get_mut("variables").and_then(Value::as_array_mut) {
        Some(variables) => variables.push(quick),
        None => wish["variables"] = json!([quick]),
    }
    let program = format!("{BIN}/job");
    let words: Vec<&str> = under.iter().copied().chain([program.as_str()]).collect();
    let mut command: Command = root().host.as_root(&words);
    command.stdin(Stdio::piped());
    let mut started = Started::new(command);
    started.feed(wish.to_string().as_bytes());
    started
}

/// The result of a whole job, and its log.
fn job(wish: &Value) -> (JobResult, String) {
    result(start(wish).finish_within(MANY_STARTS))
}

fn result(ran: Ran) -> (JobResult, String) {
    let result: JobResult = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran}"));
    let log = result.plain_log();
    (result, log)
}

/// Nothing of a job is left: no record, no directory, no group.
fn nothing_left() {
    let script = "ls /var/lib/jacamar/jobs /var/lib/jacamar/tmp | grep -v : | grep -c . || true; \
                  find /sys/fs/cgroup/jacamar.slice -mindepth 1 -type d | wc -l";
    let ran = Started::new(root().host.as_root(&["sh", "-c", script])).finish();
    assert_eq!(ran.ok(), "0\n0\n");
}

/// Dies of memory: tail(1) keeps what it may have to print.
const HOG: &str = "head -c 200M /dev/zero | tail -c 200M | wc -c";

#[test]
fn a_memory_hog_dies_by_its_own_limit_and_the_message_names_it() {
    profile("small", "MemoryMax = \"64M\"\nMemorySwapMax = 0");
    profile("roomy", "MemoryMax = \"400M\"");
    // Not a whole job: two of them on one host would need two configurations, for two servers.
    let beside = limits::start("roomy", CI2, "sleep 6; echo whole");
    let (result_of_hog, log) = job(&json!({
        "profile": "small",
        "script": ["echo begun", HOG, "echo not reached"],
        "after_script": ["echo after; cat usage.json"],
        "variables": [["JACAMAR_REPORT", "usage.json"]],
    }));
    assert_eq!(result_of_hog.state, Some(State::Failed), "{log}");
    assert!(log.contains("1 process was ended because this job may use no more than 64 MiB"), "{log}");
    assert!(
        log.contains("MemoryMax (/etc/jacamar/profiles.d/small.toml:3; this job has profile small)"),
        "{log}"
    );
    assert!(log.contains("after") && !log.contains("not reached\n"), "{log}");
    // Before Linux 5.19 the peak is of looks a second apart.
    assert!(log.contains(" of 64 MiB") && log.contains("; 1 process was ended for lack of it"), "{log}");
    // The file is written as the user, after each script of his.
    assert!(log.contains("\"oom_kills\": 1") && log.contains("\"max_bytes\": 67108864"), "{log}");
    assert_eq!(beside.finish().ok(), "whole\n");
    nothing_left();
}

#[test]
fn where_the_whole_stage_dies_it_is_a_failure_of_the_job_and_not_of_the_system() {
    profile("all-die", "MemoryMax = \"64M\"\nMemorySwapMax = 0\nOOMPolicy = \"kill\"");
    let (result, log) =
        job(&json!({ "profile": "all-die", "script": [HOG], "after_script": ["echo after"] }));
    assert_eq!(result.state, Some(State::Failed), "{log}");
    assert!(log.contains("ended because this job may use no more than 64 MiB"), "{log}");
    assert!(!log.contains("system failure") && log.contains("after"), "{log}");
    nothing_left();
}

#[test]
fn the_users_limit_is_told_from_the_jobs() {
    profile("no-limit", "CPUWeight = 100");
    let sandbox = "[sandbox.user]\nMemoryMax = \"64M\"\nMemorySwapMax = 0";
    let (_, log) = job(&json!({ "profile": "no-limit", "sandbox": sandbox, "script": [HOG] }));
    assert!(log.contains("because all of your jobs together may use no more than 64 MiB"), "{log}");
    assert!(log.contains("/etc/jacamar/config.toml:"), "{log}");
}

#[test]
fn a_refused_fork_is_explained_also_where_only_the_shell_says_so() {
    profile("few", "TasksMax = 30");
    let bomb = "for i in $(seq 60); do sleep 4 & done; wait";
    let (result, log) = job(&json!({ "profile": "few", "script": [bomb, "false"] }));
    assert_eq!(result.state, Some(State::Failed), "{log}");
    assert!(log.contains("this job may have no more than 30 processes and threads"), "{log}");
    assert!(log.contains("fork: Resource temporarily unavailable"), "{log}");
    assert!(log.contains("TasksMax (/etc/jacamar/profiles.d/few.toml:3"), "{log}");
}

#[test]
fn limits_of_processes_and_a_cancelled_job_are_told_apart() {
    profile("files", "LimitFSIZE = \"1M\"");
    let (_, log) = job(&json!({ "profile": "files", "script": ["head -c 2M /dev/zero > /tmp/file"] }));
    assert!(log.contains("file size limit") && log.contains("LimitFSIZE = 1048576"), "{log}");

    profile("seconds", "LimitCPU = \"1:20\"");
    let (_, log) = job(&json!({ "profile": "seconds", "script": ["perl -e '1 while 1'"] }));
    assert!(log.contains("processor time limit") && log.contains("LimitCPU = 1 "), "{log}");

    profile("plain", "TasksMax = 4096");
    // One process that says so and is asked to end: Bash with a trap that is asked between two commands runs the next one.
    let script = "perl -e '$|=1; print \"ready \", 6*7, \"\\n\"; sleep 60'";
    let (_, log) = job(&json!({ "profile": "plain", "script": [script], "cancel_at": "ready 42" }));
    assert!(log.contains("it was cancelled, or the runner is being stopped"), "{log}");

    let (_, log) = job(&json!({ "profile": "plain", "script": ["kill -9 $BASHPID"] }));
    assert!(log.contains("neither the job's memory limit nor its time did it"), "{log}");

    // A script that fails by itself is not explained.
    let (_, log) = job(&json!({ "profile": "plain", "script": ["exit 3"] }));
    assert!(!log.contains("hint:") && log.contains("Used by this job"), "{log}");
}

#[test]
fn what_was_left_running_is_named_at_the_end() {
    profile("plain", "TasksMax = 4096");
    let script =
        "(exec -a daemon sleep 300) > /dev/null 2>&1 & setsid sleep 301 > /dev/null 2>&1 & sleep 0.2";
    let (result, log) = job(&json!({ "user": CI1, "profile": "plain", "script": [script] }));
    assert_eq!(result.state, Some(State::Success), "{log}");
    assert!(log.contains("2 processes still ran at the end of a script: sleep, sleep"), "{log}");
    let (_, log) = job(&json!({ "profile": "plain", "script": ["true"], "sandbox": "usage_report = false" }));
    assert!(!log.contains("Used by this job"), "{log}");
    nothing_left();
}

/// Jacamar's key: builds of Fortran need it.
#[test]
fn set_stack_size_gives_a_job_all_that_the_service_allows() {
    profile("plain", "TasksMax = 4096");
    let under = ["prlimit", "--stack=8388608:33554432", "--"];
    let stack = |general: &str| {
        let wish = json!({ "profile": "plain", "general": general, "script": ["grep 'Max stack' /proc/self/limits"] });
        let (_, log) = result(start_under(&under, &wish).finish_within(MANY_STARTS));
        let line = log.lines().find(|line| line.starts_with("Max stack size")).expect("a line").to_owned();
        line.split_whitespace().skip(3).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(stack(""), ["8388608", "33554432"]);
    assert_eq!(stack("set_stack_size = true"), ["33554432", "33554432"]);
}
