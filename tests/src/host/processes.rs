//! Processes as /proc shows them, told apart from their successors by their start time.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// A process that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    parent: i32,
    start: u64,
    /// Its name in /proc/PID/stat.
    pub name: String,
    state: char,
}

/// Every process.
#[must_use]
fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Fields of proc(5)'s stat, from the last `)` on: the name may hold anything.
fn read(pid: i32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (front, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Process {
        pid,
        name: front.split_once('(')?.1.to_owned(),
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// A process and everything below it.
#[must_use]
pub fn with_descendants(root: Pid) -> Vec<Process> {
    let all = all();
    let mut found: Vec<Process> =
        all.iter().filter(|process| process.pid == root.as_raw()).cloned().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|process| process.pid) {
        found.extend(all.iter().filter(|process| process.parent == parent).cloned());
        next += 1;
    }
    found
}

/// Every process in the pid namespace of another one.
#[must_use]
pub fn of_namespace(pid: Pid) -> Vec<Process> {
    let namespace = |pid: i32| fs::read_link(Path::new("/proc").join(pid.to_string()).join("ns/pid")).ok();
    let wanted = namespace(pid.as_raw());
    all().into_iter().filter(|process| wanted.is_some() && namespace(process.pid) == wanted).collect()
}

/// Every process with a word in its environment or arguments.
#[must_use]
pub fn marked(mark: &str) -> Vec<Process> {
    let has = |pid: i32, file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
    };
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    all().into_iter().filter(|p| p.pid != own && (has(p.pid, "environ") || has(p.pid, "cmdline"))).collect()
}

/// Those that still live; a zombie does not.
#[must_use]
pub fn alive(processes: &[Process]) -> Vec<Process> {
    let lives = |process: &&Process| {
        read(process.pid).is_some_and(|now| now.start == process.start && !matches!(now.state, 'Z' | 'X'))
    };
    processes.iter().filter(lives).cloned().collect()
}

/// Waits until none of them lives, and returns those that still do when time is up.
#[must_use]
pub fn wait_gone(processes: &[Process], within: Duration) -> Vec<Process> {
    let deadline = Instant::now() + within;
    loop {
        let left = alive(processes);
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        // They are no children of ours, so there is no event to wait for.
        std::thread::sleep(Duration::from_millis(1));
    }
}
