//! Explained calls against traced ones.

use crate::trace::Call;

/// Nothing of these happens in the child without being explained.
const EXPLAINED: [&str; 41] = [
    "add_key",
    "capset",
    "chdir",
    "chroot",
    "clone",
    "clone3",
    "fchdir",
    "fork",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "ioprio_set",
    "keyctl",
    "mkdir",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "personality",
    "pivot_root",
    "prctl",
    "prlimit64",
    "request_key",
    "sched_setscheduler",
    "seccomp",
    "setfsgid",
    "setfsuid",
    "setgid",
    "setgroups",
    "setpgid",
    "setpriority",
    "setregid",
    "setresgid",
    "setresuid",
    "setreuid",
    "setrlimit",
    "setsid",
    "setuid",
    "umount2",
    "unshare",
];

/// What else the child does: beginnings of calls, each with its reason. Reading changes nothing.
const ALSO: [(&str, &str); 3] = [
    ("prctl(PR_CAPBSET_READ, ", "the proof reads the bounding set, one capability after the other"),
    ("prctl(PR_GET_DUMPABLE", "the proof reads it back"),
    ("prctl(PR_GET_NO_NEW_PRIVS, ", "the proof reads it back"),
];

/// Calls of the proof: each must fail, with the supervisor's own ids as well as with root's.
const PROOF: [&str; 3] = ["setresuid(-1, 0, -1)", "setresuid(0, 0, 0)", "setuid(0)"];

/// All explained calls of the child, in order, and no others of their kind.
pub(crate) fn child(name: &str, explained: &[String], traced: &[Call]) {
    let mut due = explained.iter().peekable();
    for call in traced {
        if due
            .peek()
            .is_some_and(|words| same(words, &call.text) && call.failed() == PROOF.contains(&words.as_str()))
        {
            due.next();
            continue;
        }
        let proving = call.failed() && ["setresuid", "setuid"].contains(&call.name());
        let also = ALSO.iter().any(|(words, _)| call.text.starts_with(words));
        let silent = EXPLAINED.contains(&call.name()) && !proving && !also;
        assert!(!silent, "{name}: not explained: {} = {}\ndue: {:?}", call.text, call.result, due.peek());
    }
    let left: Vec<&String> = due.collect();
    assert!(left.is_empty(), "{name}: explained, but never asked: {left:#?}\nasked: {:#?}", texts(traced));
}

/// All explained calls of the parent, in order, and nothing else that touches control groups, or /proc after the clone.
pub(crate) fn parent(name: &str, explained: &[String], traced: &[Call]) {
    let cloned = traced.iter().rposition(|call| call.name().starts_with("clone") && !call.failed());
    let cloned = cloned.expect("a clone");
    let mut due = explained.iter().peekable();
    for (at, call) in traced.iter().enumerate() {
        // The clone of the plan is the last one; earlier ones probe, or give directories away.
        let early = at < cloned && explained.iter().position(|words| words.starts_with("clone")) == Some(0);
        let exists = call.name() == "mkdir" && call.result.contains("EEXIST");
        if !early && due.peek().is_some_and(|words| same(words, &call.text)) && (!call.failed() || exists) {
            due.next();
            continue;
        }
        let of_groups =
            ["mkdir(\"/sys/fs/cgroup", "write(/sys/fs/cgroup"].iter().any(|w| call.text.starts_with(w));
        let of_child = at > cloned && call.text.starts_with("write(/proc/");
        assert!(!of_groups && !of_child, "{name}: not explained: {}\ndue: {:?}", call.text, due.peek());
    }
    let left: Vec<&String> = due.collect();
    assert!(left.is_empty(), "{name}: explained, but never asked: {left:#?}\nasked: {:#?}", texts(traced));
}

/// For a message: what changes something, shortened.
fn texts(traced: &[Call]) -> Vec<String> {
    let changing = traced.iter().filter(|call| !["read", "openat"].contains(&call.name()));
    changing.map(|call| call.text.chars().take(160).collect()).collect()
}

/// Whether a call is as explained; a `_` that stands alone stands for anything.
fn same(explained: &str, traced: &str) -> bool {
    let alone = |at: usize| {
        let bytes = explained.as_bytes();
        let word = |at: Option<usize>| {
            at.and_then(|at| bytes.get(at)).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
        };
        !word(at.checked_sub(1)) && !word(Some(at + 1))
    };
    let mut parts = Vec::new();
    let mut begin = 0;
    for (at, _) in explained.match_indices('_').filter(|(at, _)| alone(*at)) {
        parts.push(&explained[begin..at]);
        begin = at + 1;
    }
    let end = &explained[begin..];
    let Some((first, middle)) = parts.split_first() else { return explained == traced };
    let Some(mut rest) = traced.strip_prefix(first) else { return false };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(end)
}

#[test]
fn a_wildcard_stands_alone() {
    assert!(same("prctl(PR_SET_PDEATHSIG, SIGKILL)", "prctl(PR_SET_PDEATHSIG, SIGKILL)"));
    assert!(!same("prctl(PR_SET_PDEATHSIG, SIGKILL)", "prctl(PR_SETxPDEATHSIG, SIGKILL)"));
    assert!(same("write(/proc/_/uid_map, \"a\", 1)", "write(/proc/12/uid_map, \"a\", 1)"));
    assert!(!same("write(/proc/_/uid_map, \"a\", 1)", "write(/proc/12/gid_map, \"a\", 1)"));
    assert!(same("execve(_, _, _)", "execve(\"/bin/true\", [\"true\"], [\"A=_\"])"));
    assert!(!same("close_range(_, _, 0)", "close_range(3, 4, 1)"));
}
