//! Resource limits of the caller, each at 0 and at 1: the launch works whole, or nothing runs.

use testbed::host::{Start, marked, wait_gone};

use crate::{STATUS, assert_whole, places};

/// Options of prlimit(1), one for each RLIMIT_* of getrlimit(2).
const LIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

#[test]
fn each_limit_fails_closed_or_works() {
    for place in places() {
        let mut worked = Vec::new();
        for limit in LIMITS {
            for value in [0, 1] {
                let mark = format!("MARK_{}_{limit}_{value}_{}", std::process::id(), place.level);
                // Set by the shell that becomes the launcher, on itself, as the last thing before.
                let before = format!("prlimit --pid $$ --{limit}={value}:{value}");
                let script = format!("export {mark}=1; {STATUS}; echo done=1");
                let start = Start { before: &before, command: &["sh", "-c", &script], ..Start::default() };
                let ran = place.start(&start).finish();
                // The kernel may kill a job whose time is up in the middle of its lines.
                let cut_off = limit == "cpu" && !ran.out.contains("done=1");
                if ran.out.is_empty() || cut_off {
                    assert_ne!(ran.code, 0, "{place}: {limit}={value}: {ran}");
                } else {
                    // The job's first line came, so all of the sandbox is there.
                    assert_whole(&ran, &place);
                    worked.push(format!("{limit}={value}"));
                }
                // The kernel may kill a launcher whose time is up at any moment: that is closed, too.
                if ran.out.contains("done=1") && limit != "cpu" {
                    assert_eq!(ran.code, 0, "{place}: {limit}={value}: {ran}");
                }
                let left = wait_gone(&marked(&mark), std::time::Duration::from_secs(5));
                assert!(left.is_empty(), "{place}: {limit}={value}: {left:?}");
            }
        }
        // Those that no launch depends on; else the test would pass with a launcher that never works.
        for harmless in ["core=0", "locks=0", "rtprio=0", "nice=1", "msgqueue=0", "rss=0"] {
            assert!(
                worked.iter().any(|name| name == harmless),
                "{place}: {harmless} is not among {worked:?}"
            );
        }
    }
}
