//! On control groups of version 2.

use std::fs;

use testbed::host::Level;
use testbed::runner::{JobResult, State};

use crate::machine::{
    CI1, CI2, Service, capabilities, done, profile, property, root, text, wait, wait_for_refused_fork,
};
use crate::{LEVELS, UNIT, WAITS, go_on};

const DEFAULT: &str = "[sandbox]\nprofile = \"default\"\n[sandbox.user]\nMemoryMax = \"600M\"\nTasksMax = 300\n\
    [sandbox.site]\nMemoryMax = \"900M\"";
#[test]
fn all_stages_pass_and_the_tree_is_as_designed() {
    for level in LEVELS {
        let script = format!("ulimit -Sn; ulimit -Hn; id -un; cat /proc/self/cgroup; {WAITS}");
        let service = Service::start(level, UNIT, DEFAULT, &[(CI1, &script)]);
        let (user, jobs) = service.running(CI1, 1);
        // Site, user and job, each with its limit; the job's is a part of the user's.
        assert_eq!(text(&service.node().join("memory.max")), (900_u64 << 20).to_string(), "{level}");
        assert_eq!(text(&user.join("memory.max")), (600_u64 << 20).to_string(), "{level}");
        assert_eq!(text(&user.join("pids.max")), "300", "{level}");
        assert_eq!(text(&jobs[0].join("memory.max")), (450_u64 << 20).to_string(), "{level}");
        let tree = root(&["systemd-cgls", "--no-pager", "--full"]).ok();
        assert!(tree.contains("jacamar.slice") && tree.contains("jacamar-u4001.slice"), "{tree}");
        match level {
            // The lasting nodes are slices of systemd's, the stage's is a scope.
            Level::Root => {
                let unit = jobs[0].file_name().expect("a name").to_string_lossy().into_owned();
                assert_eq!(property(&unit, "ActiveState"), "active");
                assert_eq!(property(&unit, "MemoryMax"), (450_u64 << 20).to_string());
                let units =
                    root(&["systemctl", "list-units", "--no-legend", "--plain", "jacamar-u4001-*.scope"])
                        .ok();
                assert_eq!(units.lines().count(), 1, "{units}");
                assert!(text(&service.group().join("cgroup.procs")).lines().count() > 1);
            }
            // What was delegated is divided: the runner in a leaf, ours beside it.
            _ => {
                assert_eq!(text(&service.group().join("cgroup.procs")), "");
                assert!(text(&service.group().join("runner/cgroup.procs")).lines().count() > 1);
            }
        }
        let result = go_on(&service, CI1).remove(0);
        let log = result.plain_log();
        assert_eq!(result.state, Some(State::Success), "{level}: {log}");
        assert!(log.contains("\n2048\n4096\nci1\n"), "{level}: {log}");
        assert!(log.contains("went on") && log.contains("after"), "{level}: {log}");
        assert!(log.contains("memory") && log.contains("450"), "{level}: {log}");
        service.assert_nothing_left();
    }
}

/// What an administrator changes while a job runs stands at once, and stays with the job over systemd's reloads.
#[test]
fn set_property_takes_effect_and_reloads_lose_nothing() {
    for level in LEVELS {
        let service = Service::start(level, UNIT, DEFAULT, &[(CI1, WAITS)]);
        let (user, jobs) = service.running(CI1, 1);
        let unit = if level == Level::Root { "jacamar-u4001.slice" } else { service.unit.as_str() };
        let changed = if level == Level::Root { user.clone() } else { service.group() };
        done(&["systemctl", "set-property", "--runtime", unit, "MemoryMax=640M"]);
        let stands = |when: &str| {
            assert_eq!(text(&changed.join("memory.max")), (640_u64 << 20).to_string(), "{level}, {when}");
            assert_eq!(text(&jobs[0].join("memory.max")), (450_u64 << 20).to_string(), "{level}, {when}");
            assert_eq!(text(&user.join("pids.max")), "300", "{level}, {when}");
        };
        stands("set-property");
        done(&["systemctl", "daemon-reload"]);
        stands("daemon-reload");
        done(&["systemctl", "daemon-reexec"]);
        stands("daemon-reexec");
        let result = go_on(&service, CI1).remove(0);
        assert_eq!(result.state, Some(State::Success), "{level}: {}", result.plain_log());
        service.assert_nothing_left();
        if level == Level::Root {
            assert_eq!(root(&["systemctl", "revert", unit]).code, 0);
        }
    }
}

/// `systemctl stop`, and a runner that is killed: nothing of any job goes on, and `gc` alone removes what is left.
#[test]
fn a_service_that_ends_takes_its_jobs_along() {
    for level in LEVELS {
        for words in [["systemctl", "stop"].as_slice(), &["systemctl", "kill", "--signal=KILL"]] {
            let hides = format!("(setsid sleep 77777 >/dev/null 2>&1 &); trap \"\" TERM; {WAITS}");
            let service = Service::start(level, UNIT, DEFAULT, &[(CI1, &hides), (CI2, &hides)]);
            service.running(CI1, 1);
            service.running(CI2, 1);
            done(&words.iter().copied().chain([service.unit.as_str()]).collect::<Vec<_>>());
            wait("the service ends", || property(&service.unit, "ActiveState") != "active");
            for user in [CI1, CI2] {
                wait("the jobs end", || root(&["pgrep", "-u", user]).out.is_empty());
            }
            service.gc();
            service.assert_nothing_left();
            // The next one starts and works.
            let next = Service::start(level, UNIT, DEFAULT, &[(CI1, "echo works")]);
            let result = next.finish().remove(0);
            assert_eq!(result.state, Some(State::Success), "{level}, {words:?}: {}", result.plain_log());
            next.assert_nothing_left();
        }
    }
}

/// Memory of one job: the message names its limit, the rest of the job runs, and so do the job beside and the runner.
#[test]
fn a_hog_dies_of_its_own_limit_alone() {
    profile("hog", "MemoryMax = \"64M\"\nMemorySwapMax = 0\nTasksMax = 60");
    for level in LEVELS {
        let hog = "head -c 200M /dev/zero | tail -c 200M | wc -c; echo not reached";
        let service =
            Service::start(level, UNIT, "[sandbox]\nprofile = \"hog\"", &[(CI1, hog), (CI2, WAITS)]);
        service.running(CI2, 1);
        let result = service.result_of(0);
        let log = result.plain_log();
        assert_eq!(result.state, Some(State::Failed), "{level}: {log}");
        assert!(log.contains("MemoryMax") && log.contains("64") && log.contains("after"), "{level}: {log}");
        assert_eq!(property(&service.unit, "ActiveState"), "active");
        let results = go_on(&service, CI2);
        assert_eq!(results[1].state, Some(State::Success), "{level}: {}", results[1].plain_log());
        service.assert_nothing_left();
    }
}

/// However many services start a user's jobs, as root they share one node, and another user is not touched by it.
#[test]
fn the_user_level_holds_over_two_services() {
    // The job's own would be a part of the user's.
    profile("unlimited", "CPUWeight = 100");
    let limits = "[sandbox]\nprofile = \"unlimited\"\n[sandbox.user]\nTasksMax = 120";
    let forks = format!("for i in $(seq 60); do sleep 77777 & done; {WAITS}; kill $(jobs -p)");
    let one = Service::start(Level::Root, UNIT, limits, &[(CI1, &forks), (CI1, &forks)]);
    let two = Service::start(Level::Root, UNIT, limits, &[(CI1, &forks), (CI1, &forks), (CI2, WAITS)]);
    let (beside, _) = two.running(CI2, 1);
    let user = one.node().join("jacamar-u4001.slice");
    wait_for_refused_fork(&user);
    let peak: u64 = text(&user.join("pids.peak")).parse().expect("a number");
    // A limit of tasks refuses a fork, not the first process of a stage, which is moved there (pids.rst).
    assert!((100..=120 + 4).contains(&peak), "{peak}");
    assert!(text(&beside.join("pids.current")).parse::<u64>().expect("a number") < 20);
    fs::write("/home/ci1/go", "").expect("root");
    let beside = go_on(&two, CI2).pop().expect("its last");
    assert_eq!(beside.state, Some(State::Success), "{}", beside.plain_log());
    one.finish();
    fs::remove_file("/home/ci1/go").expect("root");
    for service in [one, two] {
        service.gc();
        service.assert_nothing_left();
    }
}

/// The kernel takes the soft stack limit of the unit from a program with file capabilities, and a job has it nevertheless;
/// `set_stack_size` makes it the hard one. With one capability more a profile raises a hard limit above the unit's.
#[test]
fn limits_of_processes_go_through_file_capabilities() {
    let unit = "Delegate=yes\nLimitSTACK=16M:64M\nLimitNOFILE=2048:4096";
    let report = "ulimit -Ss; ulimit -Hs; ulimit -Sn; ulimit -Hn";
    profile("raises", "LimitNOFILE = \"3000:6000\"");
    let log = |more: &str, ends: State| {
        let service = Service::start(Level::Capabilities, unit, more, &[(CI1, report)]);
        let result = service.finish().remove(0);
        let log = result.plain_log();
        assert_eq!(result.state, Some(ends), "{log}");
        service.assert_nothing_left();
        log
    };
    let plain = log("[sandbox]\nprofile = \"default\"", State::Success);
    assert!(plain.contains("\n16384\n65536\n2048\n4096\n"), "{plain}");
    let raised = log("set_stack_size = true\n[sandbox]\nprofile = \"default\"", State::Success);
    assert!(raised.contains("\n65536\n65536\n2048\n4096\n"), "{raised}");
    let refused = log("[sandbox]\nprofile = \"raises\"", State::Failed);
    assert!(refused.contains("LimitNOFILE") && refused.contains("CAP_SYS_RESOURCE"), "{refused}");
    capabilities("cap_setuid,cap_setgid,cap_sys_resource=ep");
    let higher = log("[sandbox]\nprofile = \"raises\"", State::Success);
    assert!(higher.contains("\n16384\n65536\n3000\n6000\n"), "{higher}");
    capabilities("cap_setuid,cap_setgid=ep");
}
