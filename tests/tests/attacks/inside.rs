//! The job against its own process 1.

use testbed::host::{CI1, Host, Ran, Start, Started, compile};

use crate::places;

const EACCES: &str = "13";
const EPERM: &str = "1";
const ENOENT: &str = "2";
const ESRCH: &str = "3";

/// Files of /proc and calls by which a process is read or traced, as `attack` names them.
const WAYS: [&str; 11] = [
    "fd",
    "environ",
    "mem",
    "maps",
    "cwd",
    "root",
    "exe",
    "auxv",
    "ptrace",
    "process_vm_readv",
    "pidfd_getfd",
];

/// All of them were refused.
#[track_caller]
fn assert_closed(ran: &Ran, prefix: &str, whom: &str) {
    for what in WAYS {
        let answer = ran.value(&format!("{prefix}{what}"));
        assert!([EACCES, EPERM, ENOENT, ESRCH].contains(&answer), "{whom}: {prefix}{what}={answer}");
    }
}

#[test]
fn a_job_cannot_trace_read_or_end_its_process_1() {
    let attack = compile(Host::shared(), "attack");
    for place in places() {
        // A hidden /proc says that there is no such file.
        let script = format!(
            "{attack} once 1; sleep 0.2; echo alive=yes; unshare -Ur {attack} once 1 | sed s/^/nested-/"
        );
        let ran = place.run("default", &script);
        // Process 1 has blocked all that can be blocked, and the kernel keeps SIGKILL and SIGSTOP from it.
        assert_eq!((ran.code, ran.value("alive")), (0, "yes"), "{place}: {ran}");
        for prefix in ["", "nested-"] {
            assert_closed(&ran, prefix, &place.to_string());
        }
    }
}

/// CVE-2025-4598 (systemd-coredump): no dump and no file of /proc of a process that was privileged.
#[test]
fn launcher_and_process_1_are_not_dumpable_and_have_no_core_limit() {
    let attack = compile(Host::shared(), "attack");
    for place in places() {
        let job = place.start(&Start {
            before: "ulimit -S -c 1000",
            command: &["sh", "-c", "ulimit -c; echo up; exec sleep 77777"],
            ..Start::default()
        });
        let core = job.wait_for("up").lines().next().unwrap_or_default().to_owned();
        let processes = testbed::host::with_descendants(job.pid());
        for process in processes.iter().take(1) {
            let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid)).expect("root may");
            let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
            assert_eq!(line.split_whitespace().nth(4), Some("0"), "{place}: {line}");
        }
        // The job has the caller's limit back.
        assert_eq!(core, "1000", "{place}");
        // From outside, as the same user: neither of the two can be read or traced.
        for process in processes.iter().take(2) {
            let pid = process.pid.to_string();
            let ran = Started::new(place.host.as_user(CI1, &[&attack, "read", &pid])).finish();
            assert_closed(&ran, "", &format!("{place}: {}", process.name));
        }
    }
}
