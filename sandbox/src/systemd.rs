//! systemd makes slices and scopes for us, where it has booted the host: whoever else writes into its tree is undone by it.
//!
//! It is asked by busctl(1), with fixed arguments and no environment of ours, so that no code of D-Bus runs in a privileged
//! process. What it answers is not believed but looked for in the kernel's files. org.freedesktop.systemd1(5).

mod properties;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jacamar_kernel::Errno;
use jacamar_plan::{CgroupNode, JobCgroup, Level, Manager};
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use self::properties::{Property, accounting, of_limits};
use crate::cgroup::children;
use crate::version1;

/// systemd's own program, of its package.
const BUSCTL: &str = "/usr/bin/busctl";
/// The directory that tells who has booted the host, sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// Held by who makes slices, and alone by who removes empty ones: to stop a slice is to stop what is in it.
const LOCK: &str = "/run/jacamar-slices.lock";
/// A manager that is busy with a reload answers late.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);
/// Another may hold the lock for as long as it waits for an answer.
const LOCKED_WITHIN: Duration = Duration::from_secs(120);
/// What systemd has begun is to be seen in the kernel's files within this.
const DONE_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What became of a question to systemd.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SystemdError {
    /// It said no, or did not answer.
    #[error("{0}")]
    Refused(String),
    /// What it began was not to be seen.
    #[error("it was not done within {} s", DONE_WITHIN.as_secs())]
    NotDone,
    /// A call of ours.
    #[error("{}", .0.desc())]
    Call(#[from] Errno),
}

impl SystemdError {
    /// For who has room for a number alone.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::Refused(_) => Errno::EREMOTEIO,
            Self::NotDone => Errno::ETIMEDOUT,
            Self::Call(errno) => *errno,
        }
    }
}

/// Whether systemd has booted this host, and can be asked.
pub(crate) fn is_manager() -> bool {
    Path::new(BOOTED).is_dir() && Path::new(BUSCTL).exists()
}

/// Who makes groups in a site's node: systemd where that is a slice of its own, at the top of its tree, and we are root.
pub(crate) fn manager_of(site: &str, level: Level) -> Manager {
    if level == Level::Root && is_top_slice(site) { Manager::Systemd } else { Manager::Ourselves }
}

fn is_top_slice(site: &str) -> bool {
    let top = || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let parent = Path::new(site).parent().and_then(Path::to_str).unwrap_or_default().to_owned();
        mounts
            .lines()
            .any(|line| line.contains(" - cgroup") && line.split(' ').nth(4) == Some(parent.as_str()))
    };
    Path::new(site).ends_with(JobCgroup::SITE) && is_manager() && top()
}

/// Its version, the first number of what it calls itself.
pub(crate) fn version() -> Option<u32> {
    let words = ["get-property", MANAGER[0], MANAGER[1], MANAGER[2], "Version"].map(str::to_owned);
    // s "252.39-1~deb12u1"
    let answer = busctl(words).ok()?;
    let digits: String = answer
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

/// As long as it lives nobody stops a slice for being empty.
pub(crate) fn hold() -> Result<Flock<std::os::fd::OwnedFd>, SystemdError> {
    lock(FlockArg::LockSharedNonblock, LOCKED_WITHIN)
}

fn lock(kind: FlockArg, within: Duration) -> Result<Flock<std::os::fd::OwnedFd>, SystemdError> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let deadline = Instant::now() + within;
    let mut file = nix::fcntl::open(LOCK, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    loop {
        match Flock::lock(file, kind) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = back,
            Err((_, errno)) => return Err(errno.into()),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Starts the slice of a node with its limits, or gives one that stands the values that it has not got. Files that no
/// property stands for are left to the caller.
pub(crate) fn ensure_slice(plan: &JobCgroup, node: &CgroupNode) -> Result<(), SystemdError> {
    let stands = || Path::new(&node.path).is_dir() && has_limits(plan, node);
    if node.limits.is_empty() || stands() {
        return Ok(());
    }
    let properties = of_limits(&node.limits);
    match start(CgroupNode::unit(&node.path), &properties) {
        Err(SystemdError::Refused(message)) if already(&message) => {
            set(CgroupNode::unit(&node.path), &properties)?;
            // A unit with a file of its own may have been stopped.
            ask("StartUnit", "ss", [CgroupNode::unit(&node.path).to_owned(), "replace".to_owned()])?;
        }
        other => other?,
    }
    until(stands)
}

/// Starts the slice of a new job.
pub(crate) fn start_job(plan: &JobCgroup) -> Result<(), SystemdError> {
    let job = &plan.job;
    if Path::new(&job.path).is_dir() {
        // An earlier stage of this job made it: what has changed since then, an administrator wanted.
        return Ok(());
    }
    let properties: Vec<Property> =
        of_limits(&job.limits).into_iter().chain(accounting(&plan.controllers)).collect();
    start(CgroupNode::unit(&job.path), &properties)?;
    until(|| Path::new(&job.path).is_dir() && has_limits(plan, job))
}

/// A waiting child becomes the first process of a scope in the job's slice.
pub(crate) fn start_scope(plan: &JobCgroup, pid: Pid) -> Result<(), SystemdError> {
    let unit = CgroupNode::unit(&plan.leaf);
    let properties = properties::of_scope(CgroupNode::unit(&plan.job.path), pid);
    let deadline = Instant::now() + DONE_WITHIN;
    loop {
        match start(unit, &properties) {
            // The same sub-stage was tried before, and systemd has not yet forgotten that scope.
            Err(SystemdError::Refused(message)) if already(&message) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => {
                other?;
                break;
            }
        }
    }
    until(|| is_in(pid, plan))
}

/// Stops a slice, with whatever is still in it.
pub(crate) fn stop_slice(path: &str) -> Result<(), SystemdError> {
    if !Path::new(path).is_dir() {
        return Ok(());
    }
    stop(CgroupNode::unit(path))?;
    wait_gone(path)
}

/// Stops the slice of a user without jobs.
pub(crate) fn stop_empty(user: &str) -> Result<(), SystemdError> {
    let _alone = match lock(FlockArg::LockExclusiveNonblock, DONE_WITHIN) {
        // Others begin without pause: one of them will find it empty.
        Err(SystemdError::Call(Errno::EWOULDBLOCK)) => return Ok(()),
        other => other?,
    };
    match children(user) {
        Ok(children) if children.is_empty() => match stop_slice(user) {
            // It is done for the job all the same, and `gc` stops what is empty.
            Err(SystemdError::NotDone) => Ok(()),
            other => other,
        },
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until systemd has removed a unit's group, as that of a scope without processes, and what a job made below it.
pub(crate) fn wait_gone(path: &str) -> Result<(), SystemdError> {
    until(|| !Path::new(path).is_dir())
}

fn until(done: impl Fn() -> bool) -> Result<(), SystemdError> {
    let deadline = Instant::now() + DONE_WITHIN;
    while !done() {
        if Instant::now() >= deadline {
            return Err(SystemdError::NotDone);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Whether the kernel has the values that have a property.
fn has_limits(plan: &JobCgroup, node: &CgroupNode) -> bool {
    let mut limits = node.limits.iter().map(|planned| &planned.limit);
    limits.all(|limit| {
        if let Some(group) = version1::directory(plan, &node.path, limit.control().controller()) {
            return version1::holds(&group, limit);
        }
        let text = crate::group_files::text(Path::new(&node.path), &limit.file());
        !has_property(limit) || text.is_some_and(|text| limit.is_in(&text))
    })
}

/// Whether a process is in the leaf: `0::/path`, or where systemd has a hierarchy of version 1 alone
/// `1:name=systemd:/path`, cgroups(7).
fn is_in(pid: Pid, plan: &JobCgroup) -> bool {
    let (leaf, job) = (version1::within(plan, &plan.leaf), version1::within(plan, &plan.job.path));
    let (Some(leaf), Some(job)) = (leaf, job) else { return false };
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = |line: &'_ str| {
        let (_, rest) = line.split_once(':')?;
        let own = rest.strip_prefix(":/").or_else(|| rest.strip_prefix("name=systemd:/"))?;
        Some(Path::new(own).to_owned())
    };
    let mut groups = text.lines().filter_map(path);
    groups.any(|group| group == leaf) && plan.version1.keys().all(|name| is_below(&text, name, job))
}

/// Whether the hierarchy of a controller of version 1 has the process in the job's slice: `4:memory:/path`.
fn is_below(groups: &str, controller: &str, job: &Path) -> bool {
    groups.lines().any(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let here = parts.next().is_some_and(|names| names.split(',').any(|name| name == controller));
        here && parts.next().is_some_and(|path| Path::new(path.trim_start_matches('/')).starts_with(job))
    })
}

/// Whether a slice can be given this limit.
pub(crate) fn has_property(limit: &jacamar_plan::Limit) -> bool {
    properties::of(limit).is_some()
}

fn already(message: &str) -> bool {
    message.contains("already loaded") || message.contains("already exists")
}

fn start(unit: &str, properties: &[Property]) -> Result<(), SystemdError> {
    let words = [unit.to_owned(), "fail".to_owned()];
    ask(
        "StartTransientUnit",
        "ssa(sv)a(sa(sv))",
        words.into_iter().chain(words_of(properties)).chain(["0".into()]),
    )
}

/// Until the next boot.
fn set(unit: &str, properties: &[Property]) -> Result<(), SystemdError> {
    let words = [unit.to_owned(), "true".to_owned()];
    ask("SetUnitProperties", "sba(sv)", words.into_iter().chain(words_of(properties)))
}

fn stop(unit: &str) -> Result<(), SystemdError> {
    ask("StopUnit", "ss", [unit.to_owned(), "replace".to_owned()])
}

fn words_of(properties: &[Property]) -> impl Iterator<Item = String> {
    let all = properties.iter().flat_map(|property| property.words.clone());
    std::iter::once(properties.len().to_string()).chain(all).collect::<Vec<_>>().into_iter()
}

/// Service, object and interface.
const MANAGER: [&str; 3] =
    ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];

/// A call of the manager's.
fn ask(method: &str, signature: &str, words: impl IntoIterator<Item = String>) -> Result<(), SystemdError> {
    let head = ["--quiet", "call", MANAGER[0], MANAGER[1], MANAGER[2], method, signature, "--"];
    busctl(head.map(str::to_owned).into_iter().chain(words)).map(drop)
}

/// What it prints.
fn busctl(words: impl IntoIterator<Item = String>) -> Result<String, SystemdError> {
    let mut command = Command::new(BUSCTL);
    command.args(["--system", &format!("--timeout={}", ANSWER_WITHIN.as_secs())]).args(words);
    command.env_clear().env("LC_ALL", "C").current_dir("/");
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let output = command.stdin(Stdio::null()).output().map_err(errno)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let message: String = message.trim().chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect();
    Err(SystemdError::Refused(format!("systemd answered: {message}")))
}

/// Characters of one line.
const MESSAGE_MAX: usize = 1000;
