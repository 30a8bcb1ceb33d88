//! Limits hold: judged by the kernel's files and counters, never by the clock.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testbed::host::{CI1, CI2, PATIENCE, PREFIX, Ran, Start, Started};

use crate::{SLICE, meminfo, root};

/// Makes a profile of the site's that limits, and does nothing else.
fn profile(name: &str, job: &str) {
    root().host.site_profile(name, &format!("description = \"a test\"\n[job]\n{job}\n"));
}

/// A script of bash(1) that knows the directories of its stage's and of its job's group, `$S` and `$J`.
fn script(text: &str) -> String {
    format!("S=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); J=${{S%/*}}; {text}")
}

pub(crate) fn start(profile: &str, user: &str, text: &str) -> Started {
    let text = script(text);
    let command = ["bash", "-c", &text];
    root().start(&Start { profile, user, command: &command, ..Start::default() })
}

fn run(profile: &str, text: &str) -> Ran {
    start(profile, CI1, text).finish()
}

/// `exec` with a configuration: the limits of site and user.
fn start_configured(configuration: &str, user: &str, profile: &str, text: &str) -> Started {
    let text = script(text);
    let program = format!("{PREFIX}/bin/jacamar-auth");
    let words = [
        "exec",
        "--configuration",
        configuration,
        "--user",
        user,
        "--profile",
        profile,
        "--",
        "bash",
        "-c",
        &text,
    ];
    let words: Vec<&str> = [program.as_str()].into_iter().chain(words).collect();
    Started::new(root().host.as_root(&words))
}

fn configuration(name: &str, limits: &str) -> String {
    let path = format!("/etc/jacamar/{name}.toml");
    let text = format!(
        "[general]\nexecutor = \"shell\"\ndata_dir = \"$HOME\"\ngitlab_server = \"https://gitlab.example.com\"\n\
         [auth]\ndownscope = \"setuid\"\n{limits}\n"
    );
    let wrote =
        Started::new(root().host.as_root(&["sh", "-c", "printf %s \"$2\" > \"$1\"", "sh", &path, &text]))
            .finish();
    assert_eq!(wrote.code, 0, "{wrote}");
    path
}

fn user_node(user: &str) -> PathBuf {
    PathBuf::from(format!("{SLICE}/jacamar-u{}.slice", root().host.accounts().get(user).uid))
}

/// The numbers of a file of `key value` lines.
fn counters(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn counter(file: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    *counters(&text).get(key).unwrap_or_else(|| panic!("no {key} in {text}"))
}

/// Waits until a fork was refused below a user's node; the job that counted it. Before Linux 6.11 it is counted where it
/// was tried, whichever group's limit was met.
fn wait_for_refused_fork(node: &Path) -> PathBuf {
    let deadline = Instant::now() + PATIENCE;
    let refused = |group: &PathBuf| {
        group.join("pids.events").exists() && counter(&group.join("pids.events"), "max") > 0
    };
    loop {
        let below = fs::read_dir(node).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut groups = below.filter(|path| path.is_dir()).chain([node.to_owned()]);
        if let Some(group) = groups.find(refused) {
            return group;
        }
        assert!(Instant::now() < deadline, "the limit was never met");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_value_is_in_its_file_before_the_job_runs() {
    profile(
        "every-value",
        "MemoryHigh = \"200M\"\nMemoryMax = \"25%\"\nMemorySwapMax = 0\nOOMPolicy = \"kill\"\nCPUQuota = \"50%\"\n\
         CPUQuotaPeriodSec = \"20ms\"\nCPUWeight = 50\nAllowedCPUs = \"0\"\nAllowedMemoryNodes = \"0\"\nTasksMax = 77",
    );
    let files = "memory.high memory.max memory.swap.max memory.oom.group cpu.max cpu.weight cpuset.cpus cpuset.mems pids.max";
    let ran = run("every-value", &format!("cd $J; for f in {files}; do echo \"$f $(cat $f)\"; done"));
    let memory = meminfo("MemTotal") / 4 / 4096 * 4096;
    let expected = format!(
        "memory.high 209715200\nmemory.max {memory}\nmemory.swap.max 0\nmemory.oom.group 1\ncpu.max 10000 20000\n\
         cpu.weight 50\ncpuset.cpus 0\ncpuset.mems 0\npids.max 77\n"
    );
    assert_eq!(ran.ok(), expected);
}

#[test]
fn site_and_user_have_their_limits_by_account_and_by_group() {
    let group = root().host.as_root(&["id", "-gn", CI1]);
    let group = Started::new(group).finish().ok();
    let path = configuration(
        "by-account",
        &format!(
            "[sandbox.site]\nTasksMax = 900\n[sandbox.user]\nTasksMax = 500\nMemoryMax = \"300M\"\n\
             [sandbox.user.group.{}]\nTasksMax = 400\n[sandbox.user.account.{CI2}]\nMemoryMax = \"100M\"",
            group.trim()
        ),
    );
    let read = "cat $J/../../pids.max $J/../pids.max $J/../memory.max";
    let of = |user| start_configured(&path, user, "compat", read).finish().ok();
    assert_eq!(of(CI1), format!("900\n400\n{}\n", 300 << 20));
    assert_eq!(of(CI2), format!("900\n500\n{}\n", 100 << 20));
    // Another configuration lifts what the site's node still has.
    let path = configuration("lifted", "[sandbox.site]\nTasksMax = \"infinity\"");
    assert_eq!(start_configured(&path, CI1, "compat", "cat $J/../../pids.max").finish().ok(), "max\n");
}

#[test]
fn a_quota_is_kept_to_in_every_period() {
    profile("half", "CPUQuota = \"50%\"");
    // Some fifty periods, and what was before them does not count.
    let burn = "cat $J/cpu.stat; echo; end=$((SECONDS + 6)); while [ $SECONDS -lt $end ]; do :; done; cat $J/cpu.stat";
    let out = run("half", burn).ok();
    let (before, after) = out.split_once("\n\n").expect("two readings");
    let (before, after) = (counters(before), counters(after));
    let between = |key: &str| after[key] - before[key];
    let allowed = between("nr_periods") * 100_000;
    let share = between("usage_usec") as f64 / allowed as f64;
    assert!((0.45..=0.55).contains(&share), "{share} of {allowed} us: {out}");
    assert!(between("nr_throttled") * 2 > between("nr_periods"), "{out}");
}

#[test]
fn a_fork_bomb_is_held_and_another_user_has_his_share_of_the_processors() {
    profile("few-tasks", "TasksMax = 40");
    profile("plain", "TasksMax = 4096");
    // Each is busy. The shell tries again and again when fork(2) refuses, so others count.
    let bomb = start(
        "few-tasks",
        CI1,
        "for i in $(seq 60); do (while :; do :; done) & done 2>/dev/null; echo over; wait",
    );
    let node = user_node(CI1);
    let job = wait_for_refused_fork(&node);
    let tasks: u64 =
        fs::read_to_string(job.join("pids.current")).expect("a file").trim().parse().expect("a number");
    assert!((35..=40).contains(&tasks), "{tasks} tasks");

    // Two users with the same weight: half for each, however many processes one has.
    let beside =
        start("plain", CI2, "echo ready; end=$((SECONDS + 6)); while [ $SECONDS -lt $end ]; do :; done");
    beside.wait_for("ready");
    let usage = |user| counter(&user_node(user).join("cpu.stat"), "usage_usec");
    let (bomb_before, beside_before) = (usage(CI1), usage(CI2));
    std::thread::sleep(Duration::from_secs(4));
    let (of_bomb, of_beside) = (usage(CI1) - bomb_before, usage(CI2) - beside_before);
    let share = of_beside as f64 / (of_bomb + of_beside) as f64;
    assert!((0.4..=0.6).contains(&share), "{share}: {of_bomb} us of the bomb, {of_beside} us beside it");
    assert_eq!(beside.finish().ok(), "ready\n");
    bomb.signal(Signal::SIGTERM);
    // 128 + SIGTERM, or what the shell makes of it.
    assert_ne!(bomb.finish().code, 0);
}

#[test]
fn the_user_level_holds_for_all_jobs_of_a_user_together() {
    profile("no-limit", "CPUWeight = 100");
    let path =
        configuration("four-jobs", "[sandbox.user]\nMemoryMax = \"96M\"\nMemorySwapMax = 0\nTasksMax = 100");
    // Each is far below the limit, four of them are above it.
    let hold =
        "echo ready; read -r x < <(head -c 40M /dev/zero | tail -c 40M | { sleep 8; wc -c; }); echo $x";
    let jobs: Vec<Started> = (0..4).map(|_| start_configured(&path, CI1, "no-limit", hold)).collect();
    for job in &jobs {
        job.wait_for("ready");
    }
    let node = user_node(CI1);
    let deadline = Instant::now() + PATIENCE;
    while counter(&node.join("memory.events"), "oom_kill") == 0 {
        assert!(Instant::now() < deadline, "the limit was never met");
        std::thread::sleep(Duration::from_millis(50));
    }
    let number =
        |file: &str| fs::read_to_string(node.join(file)).expect(file).trim().parse::<u64>().expect(file);
    // What there is now, on kernels that keep no peak.
    let most = |peak: &str, current: &str| number(if node.join(peak).exists() { peak } else { current });
    let memory = most("memory.peak", "memory.current");
    assert!(memory <= 96 << 20, "{memory}");
    let ended: Vec<Ran> = jobs.into_iter().map(Started::finish).collect();
    let whole = ended.iter().filter(|ran| ran.out.contains(&(40 << 20).to_string())).count();
    assert!((1..4).contains(&whole), "{ended:?}");

    let many = "n=0; for i in $(seq 40); do sleep 8 & n=$((n + 1)); done 2>/dev/null; echo started; wait";
    let jobs: Vec<Started> = (0..4).map(|_| start_configured(&path, CI1, "no-limit", many)).collect();
    wait_for_refused_fork(&node);
    let tasks = most("pids.peak", "pids.current");
    assert!(tasks <= 100, "{tasks}");
    for job in jobs {
        job.signal(Signal::SIGTERM);
        let ran = job.finish();
        assert_ne!(ran.code, 125, "{ran}");
    }
}

#[test]
fn a_limit_in_which_nothing_can_start_is_an_error_and_no_hang() {
    profile("nothing", "MemoryMax = \"64K\"");
    let ran = run("nothing", "echo started");
    assert!(ran.code != 0 && !ran.out.contains("started"), "{ran}");
    profile("nobody", "TasksMax = 1");
    let ran = run("nobody", "echo started");
    assert_eq!(ran.code, 125, "{ran}");
    assert!(ran.err.contains("TasksMax") || ran.err.contains("Resource temporarily unavailable"), "{ran}");
}

#[test]
fn a_disk_has_its_rate_and_swap_its_limit() {
    let disk = std::env::var("JACAMAR_VM_DISK").expect("needs: a scratch disk; run hack/vm-tests");
    profile("disk", &format!("IOWriteBandwidthMax = [\"{disk} 2M\"]"));
    let number = fs::read_to_string(format!("/sys/class/block/{}/dev", disk.trim_start_matches("/dev/")))
        .expect("a disk");
    let number = number.trim();
    let ran = run("disk", "cat $J/io.max");
    assert_eq!(ran.ok(), format!("{number} rbps=max wbps=2000000 riops=max wiops=max\n"));

    // Root fills the disk beside, without a limit, and a job cannot: the file belongs to the user.
    let prepared = Started::new(root().host.as_root(&["chmod", "666", &disk])).finish();
    assert_eq!(prepared.code, 0, "{prepared}");
    let write = format!(
        "cat $J/io.stat; echo; s=$(date +%s%N); dd if=/dev/zero of={disk} bs=1M count=8 oflag=direct 2>/dev/null; \
         e=$(date +%s%N); cat $J/io.stat; echo; echo $(((e - s) / 1000))"
    );
    let out = run("disk", &write).ok();
    let wrote = out
        .lines()
        .filter_map(|line| line.split_whitespace().find_map(|word| word.strip_prefix("wbytes=")))
        .next_back();
    assert_eq!(wrote, Some("8388608"), "{out}");
    // The kernel's own measure of the time: 8 MiB at 2 MB in a second are 4.2 s, never less.
    let micros: u64 = out.lines().next_back().expect("a line").parse().expect("a number");
    assert!(micros > 3_500_000, "8 MiB took {micros} us: {out}");

    let swap = |words: &[&str]| {
        let ran = Started::new(root().host.as_root(words)).finish();
        assert_eq!(ran.code, 0, "{ran}");
    };
    swap(&["mkswap", &disk]);
    swap(&["swapon", &disk]);
    profile("swap", "MemoryMax = \"64M\"\nMemorySwapMax = \"16M\"");
    profile("much-swap", "MemoryMax = \"64M\"\nMemorySwapMax = \"infinity\"");
    let hog = "head -c 100M /dev/zero | tail -c 100M | wc -c; cat $J/memory.events $J/memory.swap.events";
    let held = run("swap", hog);
    let swapped = run("much-swap", hog);
    swap(&["swapoff", &disk]);
    assert!(counters(&held.out)["oom_kill"] > 0, "{held}");
    assert!(
        swapped.out.contains(&(100 << 20).to_string()) && counters(&swapped.out)["oom_kill"] == 0,
        "{swapped}"
    );
}
