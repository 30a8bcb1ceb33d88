//! What needs a kernel of its own: control group v2 with the memory and pids controllers. `hack/vm-tests` runs this in the
//! virtual machine; on a host without the controllers it fails with the reason.

mod deaths;
mod limits;
mod rlimits;

use std::path::Path;

use testbed::host::{CI1, ControlGroup, Host, Level, PREFIX, Place, RUNNER, Start, Started, Surroundings};

pub(crate) const SLICE: &str = "/sys/fs/cgroup/jacamar.slice";

pub(crate) fn root() -> Place<'static> {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control").unwrap_or_default();
    for needed in ["memory", "pids"] {
        assert!(
            controllers.split_whitespace().any(|name| name == needed),
            "needs: cgroup-v2 with {needed}; run hack/vm-tests"
        );
    }
    Place { host: Host::shared(), level: Level::Root, surroundings: Surroundings::AsItIs }
}

/// `key` of /proc/meminfo in bytes.
pub(crate) fn meminfo(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = text.lines().find(|line| line.starts_with(key)).expect(key);
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

#[test]
fn limits_stand_on_the_job_before_it_runs() {
    let out = root().run("default", "p=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); cat ${p%/*}/memory.max ${p%/*}/pids.max; cat $p/cgroup.procs | wc -l");
    let text = out.ok();
    let mut lines = text.lines().map(|line| line.trim().parse::<u64>().expect("a number"));
    let memory = lines.next().expect("memory.max");
    assert_eq!(memory, meminfo("MemTotal") * 75 / 100 / 4096 * 4096);
    let pid_max: u64 = std::fs::read_to_string("/proc/sys/kernel/pid_max")
        .expect("pid_max")
        .trim()
        .parse()
        .expect("a number");
    let threads_max: u64 = std::fs::read_to_string("/proc/sys/kernel/threads-max")
        .expect("threads-max")
        .trim()
        .parse()
        .expect("a number");
    assert_eq!(lines.next(), Some(pid_max.min(threads_max) * 25 / 100));
    // Process 1, the shell, and cat or wc.
    assert!(lines.next().is_some_and(|count| count >= 2));
}

#[test]
fn a_job_that_takes_too_much_memory_is_killed_and_the_node_is_not() {
    // dd(1) fills a buffer of this size.
    let out = root().run("default", "dd if=/dev/zero of=/dev/null bs=1400M count=1 2>/dev/null; echo $?");
    assert_eq!(out.ok().trim(), "137");
}

/// Each change of ids sets "dumpable" to this value: 1 would let the user read process 1, which has our environment.
#[test]
fn process_1_cannot_be_read_whatever_suid_dumpable_is() {
    for value in ["0", "1", "2"] {
        std::fs::write("/proc/sys/fs/suid_dumpable", value).expect("a kernel of our own");
        let script = "cat /proc/1/environ; echo code=$?; ls -l /proc/1/fd; echo fd=$?";
        for level in [Level::Root, Level::Capabilities] {
            let place = Place { level, ..root() };
            let ran = place.run("default", script);
            assert!(ran.value("code") != "0" && ran.value("fd") != "0", "{level}, {value}: {ran}");
        }
    }
    std::fs::write("/proc/sys/fs/suid_dumpable", "0").expect("a kernel of our own");
}

/// `OOMScoreAdjust=-500` of the runner's unit is the runner's.
#[test]
fn a_job_is_not_kept_from_the_oom_killer() {
    for level in [Level::Root, Level::Capabilities, Level::User] {
        for (given, expected) in [("-500", "0"), ("300", "300")] {
            let line = format!("echo {given} > /proc/self/oom_score_adj && exec \"$@\"");
            let under = ["sh", "-c", &line, "sh"];
            let place = Place { level, ..root() };
            for profile in ["default", "compat"] {
                let read = "cat /proc/self/oom_score_adj; echo -500 2>/dev/null > /proc/self/oom_score_adj && echo back";
                let command = ["sh", "-c", read];
                let start = Start { profile, under: &under, command: &command, ..Start::default() };
                let ran = place.start(&start).finish();
                if level == Level::Capabilities && profile == "compat" {
                    // No control group is delegated here, so there is no floor.
                    assert_eq!(ran.code, 125, "{ran}");
                } else {
                    let mut lines = ran.out.lines();
                    assert_eq!(lines.next(), Some(expected), "{level}, {profile}, {given}: {ran}");
                    // The kernel keeps a process from going below what somebody with CAP_SYS_RESOURCE set last.
                    let back = lines.next() == Some("back");
                    assert!(!back || level != Level::Root, "{level}, {profile}, {given}: {ran}");
                }
            }
        }
    }
}

/// There the child is cloned with the runner's file system uid, and its file in /proc is the keeper's.
#[test]
fn nor_in_a_delegated_group() {
    let host = root().host;
    for (level, owner) in [(Level::Capabilities, RUNNER), (Level::User, CI1)] {
        let group = ControlGroup::make().expect("root can make a control group").expect("control group v2");
        group.delegate(host.accounts().get(owner)).expect("root can give it away");
        let enter = group.enter();
        let urgent = ["sh", "-c", "echo -500 > /proc/self/oom_score_adj && exec \"$@\"", "sh"];
        let under: Vec<&str> = enter.iter().map(String::as_str).chain(urgent).collect();
        for profile in ["default", "compat"] {
            let command = ["cat", "/proc/self/oom_score_adj"];
            let start = Start { profile, under: &under, command: &command, ..Start::default() };
            let ran = Place { level, ..root() }.start(&start).finish();
            assert_eq!(ran.out.trim(), "0", "{level}, {profile}: {ran}");
        }
    }
}

#[test]
fn nothing_of_a_job_is_left_below_the_slice() {
    assert_eq!(root().run("default", "setsid sleep 600 > /dev/null 2>&1 &").ok(), "");
    assert_eq!(root().run("compat", "setsid sleep 600 > /dev/null 2>&1 &").ok(), "");
    let left: Vec<_> = std::fs::read_dir(SLICE)
        .expect("the site's node stays")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(Path::new(SLICE).is_dir());
}

#[test]
fn explain_misses_nothing_on_this_kernel() {
    let program = format!("{PREFIX}/bin/jacamar-auth");
    let command = root().host.as_root(&[&program, "explain", "--user", "ci1", "--profile", "default"]);
    let out = Started::new(command).finish().ok();
    assert!(out.contains("set MemoryMax = ") && out.contains("set TasksMax = "), "{out}");
    assert!(!out.contains("without "), "{out}");
}
