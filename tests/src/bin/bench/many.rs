//! Supervisors at once: until all jobs run, what memory each has of its own, and that nothing of them is left.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::host::{Process, wait_gone, with_descendants};

use crate::{IDLE, milliseconds};

const NUMBERS: [usize; 3] = [1, 50, 200];
/// Of each number; the median counts.
const ROUNDS: usize = 3;
/// Nothing here takes longer.
const WITHIN: Duration = Duration::from_secs(60);
/// The goal for each supervisor.
const GOAL_KIB: u64 = 2048;

/// What one round found.
struct Round {
    started: Duration,
    ended: Duration,
    supervisors: Vec<Private>,
    inits: Vec<Private>,
}

/// Memory that no other process has at that moment, in KiB.
#[derive(Clone, Copy)]
struct Private {
    all: u64,
    /// Of that what is no file's, at most. Pages of the program's file are shared as soon as another one runs.
    anonymous: u64,
}

/// Prints a table; an error if something of the jobs is left.
pub(crate) fn measure(programs: &str, account: &str) -> Result<()> {
    let columns = ["all run", "each", "ended", "supervisor", "anonymous", "process 1"];
    let [run, each, ended, supervisor, anonymous, init] = columns;
    println!(
        "\n{:<16} {run:>10} {each:>8} {ended:>10} {supervisor:>18} {anonymous:>10} {init:>9}",
        "jobs at once"
    );
    for number in NUMBERS {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            std::thread::sleep(IDLE);
            rounds.push(round(programs, account, number)?);
        }
        rounds.sort_unstable_by_key(|round| round.started);
        let middle = rounds.get(ROUNDS / 2).context("there were rounds")?;
        let each = milliseconds(middle.started) / f64::from(u32::try_from(number)?);
        let all = |of: fn(&Round) -> &Vec<Private>, what: fn(&Private) -> u64| -> Vec<u64> {
            rounds.iter().flat_map(of).map(what).collect()
        };
        let most = |numbers: Vec<u64>| numbers.into_iter().max().unwrap_or_default();
        let supervisors = all(|round| &round.supervisors, |private| private.all);
        let least = supervisors.iter().min().copied().unwrap_or_default();
        let greatest = most(supervisors);
        println!(
            "{number:<16} {:>7.1} ms {each:>5.2} ms {:>7.1} ms {:>18} {:>6} KiB {:>5} KiB{}",
            milliseconds(middle.started),
            milliseconds(middle.ended),
            format!("{least} to {greatest} KiB"),
            most(all(|round| &round.supervisors, |private| private.anonymous)),
            most(all(|round| &round.inits, |private| private.all)),
            if greatest > GOAL_KIB { "  more than the goal, 2 MiB" } else { "" }
        );
    }
    Ok(())
}

fn round(programs: &str, account: &str, number: usize) -> Result<Round> {
    let before = names()?;
    let (mut running, says) = pipe().context("could not make a pipe")?;
    let mut jobs = Jobs(Vec::new());
    let begin = Instant::now();
    for _ in 0..number {
        let mut command = Command::new(format!("{programs}/jacamar-auth"));
        command.args(["exec", "--user", account, "--profile", "default", "--"]);
        command.args(["sh", "-c", "echo; exec sleep 77777"]);
        command.current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/");
        command.stdin(Stdio::null()).stdout(says.try_clone()?).stderr(Stdio::inherit());
        jobs.0.push(command.spawn().context("could not start a job")?);
    }
    drop(says);
    // One line end of each; a job that ends without it leaves too few.
    let mut lines = vec![0; number];
    running.read_exact(&mut lines).context("a job did not start")?;
    let started = begin.elapsed();
    let processes: Vec<Vec<Process>> = jobs.pids()?.into_iter().map(with_descendants).collect();
    let (mut supervisors, mut inits) = (Vec::new(), Vec::new());
    for of_job in &processes {
        let [supervisor, init, _command] = of_job.as_slice() else {
            bail!("three processes, not {of_job:?}")
        };
        supervisors.push(private(supervisor)?);
        inits.push(private(init)?);
    }
    let own: BTreeSet<String> = names()?.difference(&before).cloned().collect();
    if own.len() != number {
        bail!("{} private directories, and {number} jobs", own.len());
    }
    let begin = Instant::now();
    jobs.end()?;
    let ended = begin.elapsed();
    let processes: Vec<Process> = processes.into_iter().flatten().collect();
    let alive = wait_gone(&processes, Duration::ZERO);
    let left = left(&own)?;
    if !alive.is_empty() || !left.is_empty() {
        bail!("of {number} jobs is left: {alive:?} {left:?}");
    }
    Ok(Round { started, ended, supervisors, inits })
}

/// Killed, if an error comes before they are ended.
struct Jobs(Vec<Child>);

impl Jobs {
    fn pids(&self) -> Result<Vec<Pid>> {
        self.0.iter().map(|child| Ok(Pid::from_raw(i32::try_from(child.id())?))).collect()
    }

    /// SIGTERM to each, and the end of each.
    fn end(&mut self) -> Result<()> {
        for pid in self.pids()? {
            kill(pid, Signal::SIGTERM).context("a job ended by itself")?;
        }
        let deadline = Instant::now() + WITHIN;
        for child in &mut self.0 {
            while child.try_wait().context("our own child")?.is_none() {
                if Instant::now() >= deadline {
                    bail!("a job does not end");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.0.clear();
        Ok(())
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        for child in &mut self.0 {
            if let (Ok(()), Ok(_)) = (child.kill(), child.wait()) {}
        }
    }
}

fn private(process: &Process) -> Result<Private> {
    let path = format!("/proc/{}/smaps_rollup", process.pid);
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    let of = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.with_context(|| format!("{path} has no {name}"))?;
        value.trim().trim_end_matches(" kB").parse().with_context(|| format!("{path}: {value:?}"))
    };
    let all = of("Private_Clean:")? + of("Private_Dirty:")?;
    Ok(Private { all, anonymous: of("Anonymous:")?.min(all) })
}

/// Where `exec` has its private directories, each named as its job.
const PRIVATE: &str = "/var/lib/jacamar/tmp";

/// Names of the commands that have something there.
fn names() -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(PRIVATE).with_context(|| format!("could not list {PRIVATE}"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Private directories and control groups of these commands.
fn left(of: &BTreeSet<String>) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("could not read the mounts")?;
    let groups = mounts.lines().filter(|line| line.contains(" - cgroup2 "));
    let groups = groups.filter_map(|line| line.split(' ').nth(4));
    let mut ways: Vec<PathBuf> = groups.map(|root| Path::new(root).join("jacamar.slice")).collect();
    let mut found: Vec<PathBuf> =
        of.intersection(&names()?).map(|name| Path::new(PRIVATE).join(name)).collect();
    while let Some(way) = ways.pop() {
        // One that goes meanwhile is not left.
        for entry in fs::read_dir(&way).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if of.iter().any(|known| name.to_string_lossy().contains(known)) {
                found.push(path);
            } else if path.is_dir() {
                ways.push(path);
            }
        }
    }
    Ok(found)
}
