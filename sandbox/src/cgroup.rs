//! The job's control group: made, limited and read back before a process is in it; ended, emptied, removed. Directories,
//! joining and ending are ours; limits are written through cgroups-rs.

mod end;
mod limit;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use end::{freeze, has_process, kill_tree, populated, remove_tree};
use jacamar_kernel::Errno;
use jacamar_plan::{CgroupNode, DelegatedGroup, JobCgroup, Level, Manager, Step, StepError};
use limit::limit;
use nix::dir::Dir;
use nix::fcntl::{Flock, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, UnlinkatFlags, getuid, read, unlinkat, write};

use crate::LaunchError;
use crate::file_ids::FileIds;
use crate::systemd::{self, SystemdError};

/// A leaf with our processes in it, and the nodes above it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    plan: JobCgroup,
    /// None until systemd has made it.
    leaf: Option<OwnedFd>,
    owner: FileIds,
    /// While systemd makes it: nobody takes the slices above for empty.
    held: Option<Flock<OwnedFd>>,
}

/// At the capability level the delegated subtree belongs to the runner, not to the keeper.
pub(crate) fn owner(level: Level) -> FileIds {
    match level {
        Level::Capabilities => FileIds::Of(getuid(), None),
        Level::Root | Level::User => FileIds::Own,
    }
}

const DIRECTORY: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// How often the nodes of a job are made anew because another process removed an empty one.
const CREATE_TRIES: usize = 10;

/// Groups in groups that a job with a delegated group can have made.
const DEPTH_MAX: usize = 16;

/// The longest file is a list of processes: no kernel has more than 4 194 304 (`PID_MAX_LIMIT`), each with a line end.
const FILE_MAX_BYTES: usize = 8 * 4_194_304;

/// So many left-over processes are named.
const NAMED_MAX: usize = 100;

impl Cgroup {
    /// Makes the groups and writes the limits; where a step fails, what was made for this job is removed.
    pub(crate) fn create(plan: &JobCgroup, level: Level) -> Result<Self, LaunchError> {
        match plan.manager {
            Manager::Ourselves => Ok(Self::create_ours(plan, owner(level))?),
            Manager::Systemd => Self::create_slices(plan),
        }
    }

    fn create_slices(plan: &JobCgroup) -> Result<Self, LaunchError> {
        let step = |path: &str| by_systemd(Step::StartSlice { path: path.to_owned() });
        let held = systemd::hold().map_err(step(&plan.site.path))?;
        for node in [&plan.site, &plan.user] {
            systemd::ensure_slice(plan, node).map_err(step(&node.path))?;
            limit::without_property(node)?;
        }
        let created = systemd::start_job(plan).map_err(step(&plan.job.path));
        let cgroup = Self { plan: plan.clone(), leaf: None, owner: FileIds::Own, held: Some(held) };
        match created.and_then(|()| Ok(limit::without_property(&plan.job)?)) {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                cgroup.remove(true)?;
                Err(error)
            }
        }
    }

    fn create_ours(plan: &JobCgroup, owner: FileIds) -> Result<Self, StepError> {
        as_owner(owner, || {
            if let Some(DelegatedGroup { path, runner }) = &plan.delegated
                && !plan.controllers.is_empty()
            {
                match runner {
                    Some(leaf) => divide(path, leaf, &plan.controllers)?,
                    None => enable(path, &plan.controllers)?,
                }
            }
            make(&plan.site.path, Exists::Accept)?;
            limit(&plan.site)?;
            enable(&plan.site.path, &plan.controllers)?;
            // Whoever finds the user's node empty removes it, also between our mkdir(2) of it and of the job's.
            for _ in 0..CREATE_TRIES {
                match Self::create_once(plan, owner) {
                    Err(StepError { errno, .. }) if errno == Errno::ENOENT as i32 => {}
                    other => return other,
                }
            }
            Self::create_once(plan, owner)
        })
    }

    fn create_once(plan: &JobCgroup, owner: FileIds) -> Result<Self, StepError> {
        let made = make(&plan.user.path, Exists::Accept)
            .and_then(|_| limit(&plan.user))
            .and_then(|()| enable(&plan.user.path, &plan.controllers))
            .and_then(|()| make(&plan.job.path, Exists::Accept))
            .and_then(|_| limit(&plan.job))
            .and_then(|()| make(&plan.leaf, Exists::Refuse));
        match made {
            Ok(leaf) => Ok(Self { plan: plan.clone(), leaf: Some(leaf), owner, held: None }),
            Err(error) => {
                remove_empty(&plan.job.path)?;
                remove_empty(&plan.user.path)?;
                Err(error)
            }
        }
    }

    /// For CLONE_INTO_CGROUP.
    pub(crate) fn leaf(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.leaf.as_ref().map(AsFd::as_fd).ok_or(Errno::ENOENT)
    }

    /// Does something to which the kernel asks for the right to the group: CLONE_INTO_CGROUP. The child
    /// keeps the file system uid until it wears the user.
    pub(crate) fn as_its_owner<T>(&self, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        self.owner.during(act)?
    }

    /// Moves a waiting child into the leaf.
    pub(crate) fn join(&mut self, pid: Pid) -> Result<(), LaunchError> {
        let path = self.plan.leaf.clone();
        if self.plan.manager == Manager::Systemd {
            systemd::start_scope(&self.plan, pid)
                .map_err(by_systemd(Step::StartScope { path: path.clone() }))?;
            self.held = None;
            self.leaf = Some(open_any_group(&path).map_err(|e| step_of(Step::StartScope { path }, e))?);
            return Ok(());
        }
        Ok(as_owner(self.owner, || {
            self.leaf()
                .and_then(|leaf| write_file(leaf, c"cgroup.procs", pid.to_string().as_bytes()))
                .map_err(|e| step_of(Step::JoinCgroup { path }, e))
        })?)
    }

    /// Its nodes.
    pub(crate) fn plan(&self) -> &JobCgroup {
        &self.plan
    }

    /// Names of processes that are in the leaf, but for process 1; they are told to people, and decide nothing.
    pub(crate) fn others(&self, init: Pid) -> Vec<String> {
        let text = self.leaf().and_then(|leaf| read_file(leaf, c"cgroup.procs")).unwrap_or_default();
        let pids =
            text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid != init.as_raw());
        // One that ends meanwhile has no name any more.
        pids.filter_map(|pid| std::fs::read(format!("/proc/{pid}/comm")).ok())
            .map(|name| shown(&name))
            .take(NAMED_MAX)
            .collect()
    }

    /// Ends every process in the leaf and waits until the kernel says that it is empty.
    ///
    /// `cgroup.kill`, Linux 5.14; where that is missing, SIGKILL for each line of `cgroup.procs` until none is left.
    pub(crate) fn end(&self, within: Duration) -> Result<(), StepError> {
        let Some(leaf) = &self.leaf else { return Ok(()) };
        let leaf = leaf.as_fd();
        let failed = |e| step_of(Step::EndCgroup { path: self.plan.leaf.clone() }, e);
        as_owner(self.owner, || {
            let deadline = Instant::now() + within;
            loop {
                let killed = match write_file(leaf, c"cgroup.kill", b"1") {
                    Err(Errno::ENOENT) => freeze(leaf).and_then(|()| kill_tree(&self.plan.leaf, DEPTH_MAX)),
                    other => other,
                };
                match killed.and_then(|()| populated(leaf, &self.plan.leaf, deadline)) {
                    Ok(false) => return Ok(()),
                    Ok(true) => {}
                    // systemd removes a scope as soon as it is empty; a group below it may go while we look.
                    Err(Errno::ENOENT | Errno::ENODEV) => {
                        if !has_process(&self.plan.leaf, DEPTH_MAX).map_err(failed)? {
                            return Ok(());
                        }
                    }
                    Err(errno) => return Err(failed(errno)),
                }
                if Instant::now() >= deadline {
                    return Err(failed(Errno::ETIMEDOUT));
                }
            }
        })
    }

    /// Removes the leaf and what the job made below it, then each node above that is empty, but not the site's.
    pub(crate) fn remove(self, job_too: bool) -> Result<(), StepError> {
        let failed = |e| step_of(Step::EndCgroup { path: self.plan.job.path.clone() }, e);
        if self.plan.manager == Manager::Systemd {
            // What we hold would keep ourselves from stopping a slice.
            drop(self.held);
            let done = match job_too {
                false => systemd::wait_gone(&self.plan.leaf),
                // With the scope in it.
                true => systemd::stop_slice(&self.plan.job.path)
                    .and_then(|()| systemd::stop_empty(&self.plan.user.path)),
            };
            return done.map_err(|error| failed(error.errno()));
        }
        as_owner(self.owner, || {
            remove_tree(&self.plan.leaf, DEPTH_MAX).map_err(failed)?;
            if job_too {
                remove_tree(&self.plan.job.path, DEPTH_MAX).map_err(failed)?;
                remove_empty(&self.plan.user.path)?;
            }
            Ok(())
        })
    }
}

/// Ends whatever is left of a job whose stages are over or were killed, and removes its nodes. Nodes that are not there
/// are removed.
///
/// # Errors
/// [`StepError`] if processes do not end within the time, or a node cannot be removed.
pub fn remove_job_cgroup(
    site: &str,
    uid: u32,
    name: &str,
    level: Level,
    within: Duration,
) -> Result<(), StepError> {
    let (user, job) = JobCgroup::nodes(site, uid, name);
    let failed = |e| step_of(Step::EndCgroup { path: job.clone() }, e);
    let leaf = match open_any_group(&job) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.map_err(failed)?,
    };
    let node = |path: &str| CgroupNode { path: path.to_owned(), limits: Vec::new() };
    let plan = JobCgroup {
        delegated: None,
        site: node(site),
        user: node(&user),
        job: node(&job),
        leaf: job.clone(),
        controllers: Vec::new(),
        clone_into: false,
        manager: systemd::manager_of(site, level),
        version1: BTreeMap::new(),
    };
    let cgroup = Cgroup { plan, leaf: Some(leaf), owner: owner(level), held: None };
    cgroup.end(within)?;
    cgroup.remove(true)
}

/// Why systemd did not do a step.
fn by_systemd(step: Step) -> impl FnOnce(SystemdError) -> LaunchError {
    move |error| LaunchError::Systemd { step, reason: error.to_string() }
}

/// A process chooses its name: nothing in it may move a cursor.
fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.trim_end().chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

pub(crate) fn step_of(step: Step, errno: Errno) -> StepError {
    StepError { step, errno: errno as i32 }
}

pub(crate) fn as_owner<T>(
    owner: FileIds,
    act: impl FnOnce() -> Result<T, StepError>,
) -> Result<T, StepError> {
    owner.during(act).map_err(|errno| step_of(Step::AwaitEnd, errno))?
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Exists {
    Accept,
    Refuse,
}

/// rmdir(2) of a node that may be in use: by another job of this user, or by another stage of this job.
pub(crate) fn remove_empty(path: &str) -> Result<(), StepError> {
    match unlinkat(nix::fcntl::AT_FDCWD, path, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::EBUSY | Errno::ENOTEMPTY | Errno::ENOENT) => Ok(()),
        Err(e) => Err(step_of(Step::EndCgroup { path: path.to_owned() }, e)),
    }
}

fn make(path: &str, exists: Exists) -> Result<OwnedFd, StepError> {
    let failed = |e| step_of(Step::CreateCgroup { path: path.to_owned() }, e);
    // A job may read what its limits are; ours would be closed by our own umask.
    let umask = nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let made = nix::unistd::mkdir(path, Mode::from_bits_truncate(0o755));
    nix::sys::stat::umask(umask);
    match made {
        Ok(()) => {}
        Err(Errno::EEXIST) if exists == Exists::Accept => {}
        Err(e) => return Err(failed(e)),
    }
    open_group(path).map_err(failed)
}

/// A directory on a tmpfs takes every value and limits nothing.
fn open_group(path: &str) -> Result<OwnedFd, Errno> {
    let fd = nix::fcntl::open(path, DIRECTORY, Mode::empty())?;
    if jacamar_kernel::is_cgroup2(fd.as_fd())? { Ok(fd) } else { Err(Errno::EMEDIUMTYPE) }
}

/// The same, or one of systemd's own hierarchy of version 1, in which it alone makes groups.
fn open_any_group(path: &str) -> Result<OwnedFd, Errno> {
    let fd = nix::fcntl::open(path, DIRECTORY, Mode::empty())?;
    let is_group = jacamar_kernel::is_cgroup2(fd.as_fd())? || jacamar_kernel::is_cgroup1(fd.as_fd())?;
    if is_group { Ok(fd) } else { Err(Errno::EMEDIUMTYPE) }
}

/// How often a delegated group is emptied: its processes start others meanwhile, and each may be born in it.
const MOVE_TRIES: usize = 100;

/// Moves what is in a delegated group into a leaf of it, and enables controllers for its children, which the kernel refuses
/// as long as a process is left ("no internal processes", `admin-guide/cgroup-v2.rst`).
fn divide(path: &str, leaf: &str, controllers: &[String]) -> Result<(), StepError> {
    let failed = |e| step_of(Step::MoveRunner { from: path.to_owned(), to: leaf.to_owned() }, e);
    let to = make(leaf, Exists::Accept)?;
    let from = nix::fcntl::open(path, DIRECTORY, Mode::empty()).map_err(failed)?;
    for _ in 0..MOVE_TRIES {
        for line in read_file(from.as_fd(), c"cgroup.procs").map_err(failed)?.lines() {
            // A process of another pid namespace, which we cannot name: 0 would be ourselves.
            if line == "0" {
                return Err(failed(Errno::ESRCH));
            }
            match write_file(to.as_fd(), c"cgroup.procs", line.as_bytes()) {
                // It ended meanwhile.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        match enable(path, controllers) {
            Err(error) if error.errno == Errno::EBUSY as i32 => {}
            other => return other,
        }
    }
    Err(failed(Errno::EBUSY))
}

fn enable(path: &str, controllers: &[String]) -> Result<(), StepError> {
    if controllers.is_empty() {
        return Ok(());
    }
    let failed =
        |e| step_of(Step::EnableControllers { path: path.to_owned(), controllers: controllers.to_vec() }, e);
    let fd = nix::fcntl::open(path, DIRECTORY, Mode::empty()).map_err(failed)?;
    for name in controllers {
        write_file(fd.as_fd(), c"cgroup.subtree_control", format!("+{name}").as_bytes()).map_err(failed)?;
    }
    Ok(())
}

fn read_file(group: BorrowedFd<'_>, file: &std::ffi::CStr) -> Result<String, Errno> {
    let fd = openat(group, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while text.len() <= FILE_MAX_BYTES {
        match read(&fd, &mut buffer)? {
            0 => return String::from_utf8(text).map_err(|_| Errno::EILSEQ),
            length => text.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        }
    }
    Err(Errno::EFBIG)
}

fn write_file(group: BorrowedFd<'_>, file: &std::ffi::CStr, text: &[u8]) -> Result<(), Errno> {
    let fd = openat(group, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    // One write: a control group file takes each write as a whole.
    if write(&fd, text)? == text.len() { Ok(()) } else { Err(Errno::EIO) }
}

pub(crate) fn children(path: &str) -> Result<Vec<String>, Errno> {
    let mut dir = Dir::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name: CString = entry.file_name().to_owned();
        let is_directory = entry.file_type() == Some(nix::dir::Type::Directory);
        if is_directory && !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.into_string().map_err(|_| Errno::EILSEQ)?);
        }
    }
    Ok(names)
}
