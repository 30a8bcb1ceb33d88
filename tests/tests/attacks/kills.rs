//! SIGKILL of the supervisor, of process 1, of both, and SIGTERM: no process of a stage is left.

use std::fs;
use std::time::{Duration, Instant};

use jacamar_plan::Level;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::host::{
    LEVELS, Place, Process, Start, Started, marked, of_namespace, wait_gone, with_descendants,
};

use crate::places;

/// How long the kernel may take.
const SOON: Duration = Duration::from_secs(5);

/// A job with children, a daemon that left its session, and one that ignores every signal that can be ignored.
const JOB: &str = "sleep 77777 & (setsid sh -c '(trap \"\" HUP TERM INT; exec </dev/null >/dev/null 2>&1; sleep 77777) &' &); \
                   until [ $(ls -d /proc/[0-9]* | wc -l) -ge 5 ]; do :; done; echo up; sleep 77777; sleep 77777";

struct Running {
    started: Started,
    init: Pid,
    all: Vec<Process>,
}

fn start(place: &Place<'_>, profile: &str, mark: &str) -> Running {
    let script = format!("export {mark}=1; {JOB}");
    let started = place.start(&Start { profile, command: &["sh", "-c", &script], ..Start::default() });
    started.wait_for("up");
    let supervisor = started.pid();
    let children = with_descendants(supervisor);
    let init = Pid::from_raw(children.get(1).unwrap_or_else(|| panic!("{place}: no child")).pid);
    let mut all = children;
    if profile == "default" {
        all.extend(of_namespace(init));
    }
    all.extend(marked(mark));
    all.sort_by_key(|process| process.pid);
    all.dedup();
    assert!(all.len() >= 5, "{place}: {all:?}");
    Running { started, init, all }
}

fn mark(what: &str, level: Level) -> String {
    format!("MARK_{}_{what}_{level}", std::process::id())
}

#[track_caller]
fn assert_gone(place: &Place<'_>, all: &[Process], mark: &str) {
    let left = wait_gone(all, SOON);
    assert!(left.is_empty(), "{place}: {left:?}");
    assert!(wait_gone(&marked(mark), SOON).is_empty(), "{place}: {:?}", marked(mark));
}

#[test]
fn sigkill_of_the_supervisor_leaves_nothing() {
    for place in places() {
        let mark = mark("SUPERVISOR", place.level);
        let running = start(&place, "default", &mark);
        running.started.signal(Signal::SIGKILL);
        assert_gone(&place, &running.all, &mark);
    }
}

#[test]
fn sigkill_of_process_1_leaves_nothing_and_is_a_failure() {
    for place in places() {
        let mark = mark("INIT", place.level);
        let running = start(&place, "default", &mark);
        kill(running.init, Signal::SIGKILL).expect("root may");
        let ran = running.started.finish_within(SOON);
        assert_eq!(ran.code, 125, "{place}: {ran}");
        assert!(!ran.err.is_empty(), "{place}: it says why");
        assert_gone(&place, &running.all, &mark);
    }
}

#[test]
fn sigkill_of_both_leaves_nothing() {
    for place in places() {
        for first_init in [true, false] {
            let mark = mark(if first_init { "BOTH1" } else { "BOTH2" }, place.level);
            let running = start(&place, "default", &mark);
            // Stopped: neither sees the other's end.
            kill(running.started.pid(), Signal::SIGSTOP).expect("root may");
            kill(running.init, Signal::SIGSTOP).expect("root may");
            let mut both = [running.started.pid(), running.init];
            if first_init {
                both.reverse();
            }
            for pid in both {
                kill(pid, Signal::SIGKILL).expect("root may");
            }
            assert_gone(&place, &running.all, &mark);
        }
    }
}

#[test]
fn a_stopped_process_1_does_not_outlive_the_supervisor() {
    for place in places() {
        let mark = mark("STOPPED", place.level);
        let running = start(&place, "default", &mark);
        kill(running.init, Signal::SIGSTOP).expect("root may");
        running.started.signal(Signal::SIGKILL);
        assert_gone(&place, &running.all, &mark);
    }
}

#[test]
fn sigterm_ends_a_job_that_obeys_at_once() {
    for place in places() {
        for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129)] {
            let mark = mark("OBEYS", place.level);
            let script = format!("export {mark}=1; echo up; exec sleep 77777");
            let started = place.start(&Start { command: &["sh", "-c", &script], ..Start::default() });
            started.wait_for("up");
            let all = with_descendants(started.pid());
            started.signal(signal);
            let ran = started.finish_within(SOON);
            assert_eq!(ran.code, code, "{place}, {signal}: {ran}");
            assert_gone(&place, &all, &mark);
        }
    }
}

/// `exec` gives a job 10 s after SIGTERM.
#[test]
fn a_job_that_ignores_sigterm_is_ended_after_the_kill_timeout() {
    let begun = Instant::now();
    let jobs: Vec<(Place<'_>, String, Running)> = places()
        .into_iter()
        .map(|place| {
            let mark = mark("IGNORES", place.level);
            let script = format!("trap '' TERM; export {mark}=1; {JOB}");
            let started = place.start(&Start { command: &["sh", "-c", &script], ..Start::default() });
            started.wait_for("up");
            let all = with_descendants(started.pid());
            let init = Pid::from_raw(all[1].pid);
            started.signal(Signal::SIGTERM);
            (place, mark, Running { started, init, all })
        })
        .collect();
    for (place, mark, running) in jobs {
        let ran = running.started.finish_within(Duration::from_secs(20));
        assert_ne!(ran.code, 0, "{place}: {ran}");
        assert!(begun.elapsed() >= Duration::from_secs(10), "{place}: {:?}", begun.elapsed());
        assert_gone(&place, &running.all, &mark);
    }
    assert!(begun.elapsed() < Duration::from_secs(18), "{:?}", begun.elapsed());
}

/// Without a pid namespace (`compat`, root level, with a control group) the supervisor ends the group.
#[test]
fn compat_process_1_killed_and_the_group_ends() {
    let [place, ..] = places();
    assert_eq!(place.level, LEVELS[0]);
    let mark = mark("COMPAT", place.level);
    let running = start(&place, "compat", &mark);
    if leaf(running.init).is_none() {
        return;
    }
    kill(running.init, Signal::SIGKILL).expect("root may");
    let ran = running.started.finish_within(SOON);
    assert_eq!(ran.code, 125, "{ran}");
    assert_gone(&place, &running.all, &mark);
}

/// A killed supervisor cannot end the group: what left the job's session stays until `cleanup` or `gc` kills the group.
/// So nothing of it may be outside of the group, and the group's kill must end it all.
#[test]
fn compat_supervisor_killed_and_the_group_holds_the_rest() {
    let [place, ..] = places();
    let mark = mark("COMPATKILL", place.level);
    let running = start(&place, "compat", &mark);
    let Some(leaf) = leaf(running.init) else { return };
    running.started.signal(Signal::SIGKILL);
    // Process 1 and the command die with it; their end is waited for.
    let ends = [running.started.pid().as_raw(), running.init.as_raw()];
    let with_it: Vec<Process> =
        running.all.iter().filter(|process| ends.contains(&process.pid)).cloned().collect();
    assert!(wait_gone(&with_it, SOON).is_empty(), "{with_it:?}");
    let members = fs::read_to_string(format!("{leaf}/cgroup.procs")).expect("the group stays");
    let members: Vec<i32> = members.lines().map(|line| line.parse().expect("a pid")).collect();
    let left = testbed::host::alive(&running.all);
    let outside: Vec<&Process> = left.iter().filter(|process| !members.contains(&process.pid)).collect();
    // A process that died meanwhile is in neither list.
    assert!(
        testbed::host::alive(&outside.into_iter().cloned().collect::<Vec<_>>()).is_empty(),
        "{left:?} {members:?}"
    );
    fs::write(format!("{leaf}/cgroup.kill"), "1").expect("root may");
    assert_gone(&place, &running.all, &mark);
    let group = leaf.rsplit_once('/').expect("below the job's").0;
    for path in [leaf.as_str(), group] {
        let deadline = Instant::now() + SOON;
        while let Err(error) = fs::remove_dir(path) {
            assert!(Instant::now() < deadline, "{path}: {error}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The control group of a process, if it is one of ours.
fn leaf(pid: Pid) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let root = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?.to_owned();
    path.ends_with(".scope").then(|| format!("{root}{path}"))
}
