//! Below systemd: whole jobs of runners that are services, in a machine that systemd has booted. `hack/vm-tests --systemd`
//! runs this; elsewhere it fails with the reason.
#![expect(clippy::indexing_slicing, reason = "what a test does not find fails it")]

mod machine;

use std::fs;

use testbed::host::Level;
use testbed::runner::{JobResult, State};

use crate::machine::{CI1, Service, property, root, text};

const LEVELS: [Level; 2] = [Level::Root, Level::Capabilities];
/// What a unit for a runner has.
const UNIT: &str = "Delegate=yes\nLimitNOFILE=2048:4096\nTasksMax=500\nMemoryMax=1200M";
const DEFAULT: &str = "[sandbox]\nprofile = \"default\"\n[sandbox.user]\nMemoryMax = \"600M\"\nTasksMax = 300\n\
    [sandbox.site]\nMemoryMax = \"900M\"";
/// A script that says that it is up, and goes on when a file is there.
const WAITS: &str = "touch ~/up.$CI_JOB_ID; while [ ! -e ~/go ]; do sleep 0.2; done; echo went on";

/// Lets the waiting scripts of a user's go on, and waits for the end of the service.
fn go_on(service: &Service, user: &str) -> Vec<JobResult> {
    let path = format!("/home/{user}/go");
    fs::write(&path, "").expect("root");
    let results = service.finish();
    fs::remove_file(path).expect("root");
    results
}

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
