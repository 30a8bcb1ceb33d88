//! On control groups of version 1, as Enterprise Linux 8 boots (`hack/vm-tests --systemd --v1 version1`), and with version 2
//! beside them (`--hybrid`).

use std::fs;
use std::path::{Path, PathBuf};

use testbed::host::Level;
use testbed::runner::State;

use crate::machine::{CI1, CI2, Service, done, profile, property, root, text, wait, wait_for_refused_fork};
use crate::{UNIT, WAITS, go_on};

/// What of a node is in the hierarchy of a controller.
fn file(controller: &str, path: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(controller).join("jacamar.slice").join(path)
}

fn number(path: &Path) -> u64 {
    text(path).parse().unwrap_or_else(|_| panic!("{}: {}", path.display(), text(path)))
}

fn keyed(path: &Path, key: &str) -> u64 {
    let all = text(path);
    let value = all.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {key} in {all}"))
}

/// Directories of jobs in every hierarchy.
fn left() -> Vec<String> {
    let found = root(&["find", "/sys/fs/cgroup", "-type", "d", "-name", "jacamar-u*"]).ok();
    found.lines().map(str::to_owned).collect()
}

#[test]
fn limits_of_site_user_and_job_are_systemds_to_write_and_hold() {
    profile("limits", "MemoryMax = \"64M\"\nCPUQuota = \"50%\"\nCPUWeight = 50\nTasksMax = 60");
    let limits = "[sandbox]\nprofile = \"limits\"\n[sandbox.user]\nMemoryMax = \"200M\"\nTasksMax = 100\n\
        [sandbox.site]\nMemoryMax = \"400M\"\nTasksMax = 400";
    let script = format!("{WAITS}; head -c 200M /dev/zero | tail -c 200M | wc -c; echo not reached");
    let burns = format!("while :; do :; done & {WAITS}; kill %1");
    let service = Service::start(Level::Root, UNIT, limits, &[(CI1, &script), (CI2, &burns)]);
    let (_, jobs) = service.running(CI1, 1);
    let (_, burning) = service.running(CI2, 1);
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let job = format!("jacamar-u4001.slice/{}", name(&jobs[0]));
    assert_eq!(number(&file("memory", "memory.limit_in_bytes")), 400 << 20);
    assert_eq!(number(&file("memory", "jacamar-u4001.slice/memory.limit_in_bytes")), 200 << 20);
    assert_eq!(number(&file("memory", &format!("{job}/memory.limit_in_bytes"))), 64 << 20);
    assert_eq!(number(&file("pids", "pids.max")), 400);
    assert_eq!(number(&file("pids", "jacamar-u4001.slice/pids.max")), 100);
    assert_eq!(number(&file("pids", &format!("{job}/pids.max"))), 60);
    assert_eq!(number(&file("cpu", &format!("{job}/cpu.cfs_quota_us"))), 50_000);
    assert_eq!(number(&file("cpu", &format!("{job}/cpu.shares"))), 512);

    // The quota, by the kernel's own counters.
    let burning = format!("jacamar-u4002.slice/{}", name(&burning[0]));
    let (usage, stat) =
        (file("cpuacct", &format!("{burning}/cpuacct.usage")), file("cpu", &format!("{burning}/cpu.stat")));
    let read = || (number(&usage) / 1000, keyed(&stat, "nr_periods"), keyed(&stat, "nr_throttled"));
    let before = read();
    std::thread::sleep(std::time::Duration::from_secs(6));
    let after = read();
    let share = (after.0 - before.0) as f64 / ((after.1 - before.1) * 100_000) as f64;
    assert!((0.45..=0.55).contains(&share), "{share}: {before:?} {after:?}");
    assert!(after.2 > before.2);
    let other = {
        fs::write("/home/ci2/go", "").expect("root");
        service.result_of(1)
    };
    assert_eq!(other.state, Some(State::Success), "{}", other.plain_log());
    fs::remove_file("/home/ci2/go").expect("root");

    let result = go_on(&service, CI1).remove(0);
    let log = result.plain_log();
    assert_eq!(result.state, Some(State::Failed), "{log}");
    assert!(log.contains("MemoryMax") && log.contains("64") && log.contains("after"), "{log}");
    assert_eq!(left(), Vec::<String>::new());
    service.assert_nothing_left();
    // What the configuration says of the site stays with its slice.
    assert_eq!(root(&["systemctl", "revert", "jacamar.slice"]).code, 0);
}

/// The tasks of a user, over two jobs; what version 1 lacks is told.
#[test]
fn a_fork_bomb_is_held_and_what_is_missing_is_told() {
    profile("lacks", "CPUWeight = 100");
    let limits = "[sandbox]\nprofile = \"lacks\"\n[sandbox.user]\nTasksMax = 80\nMemoryHigh = \"100M\"\n\
        AllowedCPUs = \"0\"\nprefer = [\"MemoryHigh\", \"AllowedCPUs\"]";
    let forks = format!("for i in $(seq 60); do sleep 77777 & done; {WAITS}; kill $(jobs -p)");
    let service = Service::start(Level::Root, UNIT, limits, &[(CI1, &forks), (CI1, &forks)]);
    let user = file("pids", "jacamar-u4001.slice");
    wait_for_refused_fork(&user);
    let tasks = number(&user.join("pids.current"));
    // The first process of a stage is moved there, not forked.
    assert!((60..=80 + 2).contains(&tasks), "{tasks}");
    for result in go_on(&service, CI1) {
        let log = result.plain_log();
        // Whoever was refused a fork may end of it, and then the log says why.
        assert!(result.state == Some(State::Success) || log.contains("TasksMax"), "{log}");
    }
    let journal = service.journal();
    assert!(journal.contains("control groups of version 1 have no MemoryHigh"), "{journal}");
    assert!(journal.contains("has no cpuset controller"), "{journal}");
    service.gc();
    assert_eq!(left(), Vec::<String>::new());
}

/// systemd delegates no controller of version 1 to an ordinary account: limits are a `without`, and a job still ends.
#[test]
fn at_the_capability_level_all_stages_pass_without_limits() {
    let hides = format!("(setsid sleep 77777 >/dev/null 2>&1 &); {WAITS}");
    let unit = "Delegate=yes\nLimitNOFILE=2048:4096";
    let default = "[sandbox]\nprofile = \"default\"";
    let service = Service::start(Level::Capabilities, unit, default, &[(CI1, &hides)]);
    service.running(CI1, 1);
    let result = go_on(&service, CI1).remove(0);
    assert_eq!(result.state, Some(State::Success), "{}", result.plain_log());
    wait("the job ends", || root(&["pgrep", "-u", CI1]).out.is_empty());
    assert!(service.journal().contains("MemoryMax: "), "{}", service.journal());
    service.assert_nothing_left();

    let ignores = format!("trap \"\" TERM; {hides}");
    let service = Service::start(Level::Capabilities, unit, default, &[(CI1, &ignores)]);
    service.running(CI1, 1);
    done(&["systemctl", "kill", "--signal=KILL", &service.unit]);
    wait("the service ends", || property(&service.unit, "ActiveState") != "active");
    wait("the job ends", || root(&["pgrep", "-u", CI1]).out.is_empty());
    service.gc();
    service.assert_nothing_left();
}

/// As root the same: a runner that is killed leaves nothing.
#[test]
fn a_killed_service_takes_its_jobs_along() {
    for sandbox in ["[sandbox]\nprofile = \"default\"", "[sandbox]\nprofile = \"compat\""] {
        let hides = format!("(setsid sleep 77777 >/dev/null 2>&1 &); trap \"\" TERM; {WAITS}");
        let service = Service::start(Level::Root, UNIT, sandbox, &[(CI1, &hides)]);
        service.running(CI1, 1);
        done(&["systemctl", "kill", "--signal=KILL", &service.unit]);
        wait("the service ends", || property(&service.unit, "ActiveState") != "active");
        service.gc();
        wait("the job ends", || root(&["pgrep", "-u", CI1]).out.is_empty());
        assert_eq!(left(), Vec::<String>::new());
        service.assert_nothing_left();
    }
}
