//! The supervisor's side: prepare everything that can fail, contain, clone once, release.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use jacamar_kernel::{Errno, Image};
use jacamar_plan::{
    CheckedPlan, IdMap, IdMaps, Identity, JobCgroup, Level, Mount, Plan, Stage, Step, StepError,
};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, pipe2, write};

use crate::cgroup::Cgroup;
use crate::child::{self, Pipes, Script};
use crate::own::{Own, own_uids};
use crate::rlimit::{pair, resource};
use crate::supervise::Supervisor;
use crate::{FilterError, compile};

/// What is executed. Not part of the plan: arguments and environment may hold secrets.
#[derive(Debug)]
pub struct Command {
    /// Paths of the program, tried in turn by the user's process: ours could see more than the user may.
    pub paths: Vec<CString>,
    /// Arguments, the program's name first.
    pub arguments: Vec<CString>,
    /// The whole environment.
    pub environment: Vec<CString>,
    /// Descriptors 0, 1 and 2.
    pub stdio: Stdio,
}

/// Descriptors of the command; all others are closed.
#[derive(Debug)]
pub enum Stdio {
    /// Our own 0, 1 and 2.
    Inherit,
    /// These, from 0 on: at least three, at most [`Stdio::DESCRIPTORS_MAX`].
    Descriptors(Vec<OwnedFd>),
    /// A terminal of its own as 0, 1 and 2, which controls the command's session.
    Terminal(OwnedFd),
}

impl Stdio {
    /// Most descriptors that a command can be given.
    pub const DESCRIPTORS_MAX: usize = 6;

    /// Descriptors of ours that live beside them have at least this number.
    const FIRST_OF_OURS: i32 = 64;

    /// Moves descriptors out of the way of the numbers that they will get: duplicating one must not close the next.
    fn out_of_the_way(self) -> Result<Self, Errno> {
        let Self::Descriptors(list) = self else { return Ok(self) };
        if list.len() < 3 || list.len() > Self::DESCRIPTORS_MAX {
            return Err(Errno::EINVAL);
        }
        let moved: Result<Vec<OwnedFd>, Errno> = list
            .into_iter()
            .map(|fd| jacamar_kernel::duplicate_above(fd.as_fd(), Self::FIRST_OF_OURS))
            .collect();
        Ok(Self::Descriptors(moved?))
    }
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// systemd did not do what a step is.
    #[error("could not {step}: {reason}")]
    Systemd {
        /// The step.
        step: Step,
        /// What it answered.
        reason: String,
    },
    /// The filter cannot be compiled.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A path of the plan has a NUL in it.
    #[error("a path of the plan has a NUL character in it")]
    Nul(#[from] std::ffi::NulError),
    /// Our own ids, pipes.
    #[error("could not {what}: {}", errno.desc())]
    Own {
        /// What.
        what: &'static str,
        /// errno(3)
        errno: Errno,
    },
}

/// A launch in one of its states: [`Prepared`], then [`Contained`].
#[derive(Debug)]
pub struct Launch<S> {
    plan: CheckedPlan,
    script: Script,
    state: S,
}

/// Everything that can fail or allocate is made; nothing has happened yet.
#[derive(Debug)]
pub struct Prepared(());

/// The control group stands with its limits.
#[derive(Debug)]
pub struct Contained {
    cgroup: Option<Cgroup>,
}

impl Launch<Prepared> {
    /// Makes all that the child needs: after the clone it allocates nothing.
    ///
    /// # Errors
    /// [`LaunchError`]: nothing has happened.
    pub fn prepare(plan: CheckedPlan, command: Command, own: &Own) -> Result<Self, LaunchError> {
        let data = plan.plan();
        let filter = data.confine.filter.as_ref().map(compile).transpose()?;
        let steps = data.child_steps();
        let texts = steps.iter().map(texts).collect::<Result<Vec<_>, _>>()?;
        let sources = steps.iter().filter(|step| matches!(step, Step::OpenSource { .. })).count();
        let groups = match &data.identity {
            Identity::Become(wear) => wear.groups.len(),
            Identity::Own { .. } => 0,
        };
        let uids = own_uids().map_err(|errno| LaunchError::Own { what: "read our own ids", errno })?;
        let no_way_back: BTreeSet<u32> = uids.into_iter().chain([0]).collect();
        let script = Script {
            steps,
            texts,
            filter,
            image: Image::new(command.paths, command.arguments, command.environment),
            stdio: command
                .stdio
                .out_of_the_way()
                .map_err(|errno| LaunchError::Own { what: "pass descriptors on", errno })?,
            identity: data.identity.clone(),
            confine: data.confine.clone(),
            init: data.execute.init,
            core: own.core,
            umask: own.umask,
            no_way_back: no_way_back.into_iter().collect(),
            sources: Vec::with_capacity(sources),
            groups: vec![0; groups + 1],
        };
        Ok(Self { plan, script, state: Prepared(()) })
    }

    /// Makes the control group and writes its limits.
    ///
    /// # Errors
    /// [`StepError`]: no process was started.
    pub fn contain(self) -> Result<Launch<Contained>, LaunchError> {
        let plan = self.plan.plan();
        let cgroup = match &plan.contain.cgroup {
            Some(cgroup) => Some(Cgroup::create(cgroup, plan.level)?),
            None => None,
        };
        Ok(Launch { plan: self.plan, script: self.script, state: Contained { cgroup } })
    }
}

impl Launch<Contained> {
    /// Clones once, writes the maps, releases the child. The child never returns here.
    ///
    /// # Errors
    /// [`LaunchError`]: the child, if there is one, ends by itself, because nobody will release it; its control group is
    /// removed.
    pub fn spawn(self) -> Result<Supervisor, LaunchError> {
        let Self { plan, script, state: Contained { cgroup } } = self;
        let data = plan.plan();
        let waits_dumpable = waits_dumpable(data);
        // The map files of an undumpable process are root's. The keeper's uid is what keeps the runner
        // and the user out meanwhile (E6); at user level there is nobody to keep out.
        let started = dumpable(waits_dumpable).and_then(|()| start(data, script, cgroup.as_ref()));
        let Started { pid, control, failure, report } = match started {
            Ok(started) => started,
            Err(error) => {
                dumpable(false)?;
                if let Some(cgroup) = cgroup {
                    cgroup.remove(true)?;
                }
                return Err(error);
            }
        };
        let (steps, has_pid) = (data.child_steps(), data.contain.namespaces.pid);
        let mut supervisor = Supervisor::new(pid, control, failure, report, cgroup, steps, has_pid);
        if data.stage != Stage::Exec {
            supervisor.count();
        }
        let released = ready(data, &mut supervisor)
            .and_then(|()| if waits_dumpable { dumpable(false) } else { Ok(()) })
            .and_then(|()| supervisor.release().map_err(|e| LaunchError::Step(failed(Step::Release, e))));
        match released {
            Ok(()) => Ok(supervisor),
            Err(error) => {
                dumpable(false)?;
                supervisor.abandon()?;
                Err(error)
            }
        }
    }
}

/// Whether the child must be dumpable until it is released: its files in /proc are root's otherwise, and we open some.
fn waits_dumpable(plan: &Plan) -> bool {
    plan.contain.id_maps.is_some() || (plan.isolate.urgency.oom_score && plan.level != Level::Root)
}

/// Whether others with our uid may trace us, and whose /proc/PID/uid_map of our child is.
fn dumpable(on: bool) -> Result<(), LaunchError> {
    nix::sys::prctl::set_dumpable(on)
        .map_err(|errno| LaunchError::Own { what: "change who may trace us", errno })
}

/// The waiting child, and our ends of its pipes.
struct Started {
    pid: Pid,
    control: OwnedFd,
    failure: OwnedFd,
    report: OwnedFd,
}

fn start(plan: &Plan, mut script: Script, cgroup: Option<&Cgroup>) -> Result<Started, LaunchError> {
    let own = |errno| LaunchError::Own { what: "make a pipe", errno };
    // Above the numbers that the command's descriptors get.
    let pipe = || {
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC).map_err(own)?;
        let above =
            |fd: OwnedFd| jacamar_kernel::duplicate_above(fd.as_fd(), Stdio::FIRST_OF_OURS).map_err(own);
        Ok::<_, LaunchError>((above(read_end)?, above(write_end)?))
    };
    let (control, failure, report) = (pipe()?, pipe()?, pipe()?);
    // A process 1 that its user has stopped must not stop us.
    jacamar_kernel::set_nonblocking(control.1.as_fd())
        .map_err(|errno| LaunchError::Own { what: "prepare a pipe", errno })?;
    let pipes = Pipes {
        control: control.0,
        failure: failure.1,
        report: report.1,
        of_supervisor: [control.1, failure.0, report.0],
    };
    let clone_into = plan.contain.cgroup.as_ref().is_some_and(|cgroup: &JobCgroup| cgroup.clone_into);
    let into = cgroup.filter(|_| clone_into);
    let pid = clone(plan, into, || child::run(&mut script, &pipes))?;
    let Pipes { of_supervisor: [control, failure, report], .. } = pipes;
    Ok(Started { pid, control, failure, report })
}

fn failed(step: Step, errno: Errno) -> StepError {
    StepError { step, errno: errno as i32 }
}

fn clone(plan: &Plan, into: Option<&Cgroup>, child: impl FnOnce() -> Infallible) -> Result<Pid, LaunchError> {
    let namespaces = plan.contain.namespaces;
    let flags = namespaces.clone_flags();
    let result = match into {
        Some(cgroup) => cgroup.as_its_owner(|| {
            if waits_dumpable(plan) {
                // Each change of the file system uid clears it.
                nix::sys::prctl::set_dumpable(true)?;
            }
            jacamar_kernel::clone_into(flags, cgroup.leaf()?, child)
        }),
        None => jacamar_kernel::clone(flags, child),
    };
    result.map_err(|e| LaunchError::Step(failed(Step::Clone { namespaces, cgroup: None }, e)))
}

/// What the waiting child needs before it may go on.
fn ready(plan: &Plan, supervisor: &mut Supervisor) -> Result<(), LaunchError> {
    if plan.contain.cgroup.as_ref().is_some_and(|cgroup| !cgroup.clone_into) {
        supervisor.join_cgroup()?;
    }
    if let Some(maps) = &plan.contain.id_maps {
        let pid = supervisor.pid();
        if maps.deny_setgroups {
            write_proc(pid, "setgroups", "deny").map_err(|e| failed(Step::DenySetgroups, e))?;
        }
        map(pid, "uid_map", &maps.uids).map_err(|e| failed(Step::MapUids { map: maps.uids.clone() }, e))?;
        map(pid, "gid_map", &maps.gids).map_err(|e| failed(Step::MapGids { map: maps.gids.clone() }, e))?;
    }
    if plan.isolate.urgency.oom_score {
        write_proc(supervisor.pid(), "oom_score_adj", "0").map_err(|e| failed(Step::OrdinaryOomScore, e))?;
    }
    for limit in plan.confine.limits.iter().filter(|limit| limit.raise) {
        let (soft, hard) = pair(limit);
        // It is our child and not yet reaped, so its number is still its own.
        jacamar_kernel::set_limit_of(supervisor.pid(), resource(limit.resource), soft, hard)
            .map_err(|e| failed(Step::RaiseLimit { limit: limit.clone() }, e))?;
    }
    Ok(())
}

fn map(pid: Pid, file: &str, ranges: &[IdMap]) -> Result<(), Errno> {
    write_proc(pid, file, &IdMaps::text(ranges))
}

/// Writes a file of our own waiting child; it cannot be another's, for we have not reaped it.
pub(crate) fn write_proc(pid: Pid, file: &str, text: &str) -> Result<(), Errno> {
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let proc = nix::fcntl::open(c"/proc", directory, Mode::empty())?;
    if !jacamar_kernel::is_procfs(proc.as_fd())? {
        return Err(Errno::EMEDIUMTYPE);
    }
    let fd =
        openat(&proc, format!("{pid}/{file}").as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    // The kernel takes one write.
    if write(&fd, text.as_bytes())? == text.len() { Ok(()) } else { Err(Errno::EIO) }
}

/// The texts of a step as the kernel wants them, in the order in which the child uses them.
fn texts(step: &Step) -> Result<Vec<CString>, std::ffi::NulError> {
    let list: Vec<&str> = match step {
        Step::OpenSource { path } | Step::ChangeDirectory { path } => vec![path],
        Step::Mount(mount) => match mount {
            Mount::Bind { target, .. } | Mount::Mqueue { target } => vec![target],
            Mount::ReadOnly { mounts } => mounts.iter().map(|m| m.target.as_str()).collect(),
            Mount::Tmpfs { target, options, .. } => vec![target, options],
            Mount::Proc { options } => vec![options],
        },
        _ => Vec::new(),
    };
    list.into_iter().map(CString::new).collect()
}
