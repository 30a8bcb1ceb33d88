//! The child's side: one function that never returns, one thread, no allocation.
//!
//! The order lives in types: `Child<Cloned>` can only be isolated, `Child<Isolated>` only worn, and so on. What each
//! phase does stands in the plan's steps: a phase takes the next step before it acts, and a failure is the number of
//! that step and the errno, on a pipe that exec closes. A step that is not the one which the phase expects ends the
//! child.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use jacamar_kernel::{Errno, Image, Instruction, exit_now};
use jacamar_plan::{Confine, Identity, Init, Step};
use nix::sys::resource::rlim_t;
use nix::sys::stat::Mode;
use nix::unistd::{read, write};

use crate::launch::Stdio;

/// What the child does and with what, all made before the clone.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
    /// For each step its paths and options as C strings.
    pub(crate) texts: Vec<Vec<CString>>,
    pub(crate) filter: Option<Vec<Instruction>>,
    pub(crate) image: Image,
    pub(crate) stdio: Stdio,
    pub(crate) identity: Identity,
    pub(crate) confine: Confine,
    pub(crate) init: Init,
    pub(crate) core: (rlim_t, rlim_t),
    pub(crate) umask: Mode,
    /// Uids of the supervisor, and root's.
    pub(crate) no_way_back: Vec<u32>,
    /// Opened sources of binds; room for all of them.
    pub(crate) sources: Vec<OwnedFd>,
    /// Room for the groups that the kernel tells, and one more.
    pub(crate) groups: Vec<u32>,
}

/// Ends of the three pipes between supervisor and child.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// One byte releases the child, later ones are signals for the command; end of file ends everything.
    pub(crate) control: OwnedFd,
    /// Number of the failed step and errno.
    pub(crate) failure: OwnedFd,
    /// How the command ended.
    pub(crate) report: OwnedFd,
    /// The supervisor's ends: control, failure, report. The child closes its copies first, or end of file on
    /// `control` would never come.
    pub(crate) of_supervisor: [OwnedFd; 3],
}

/// The byte that releases the child; no signal has this number on this pipe.
pub(crate) const RELEASE: u8 = 0xff;

/// A step that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) at: u32,
    pub(crate) errno: i32,
}

impl Failure {
    pub(crate) const BYTES: usize = 8;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (at, errno) = bytes.split_at_mut(4);
        at.copy_from_slice(&self.at.to_ne_bytes());
        errno.copy_from_slice(&self.errno.to_ne_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { at: u32::from_ne_bytes([a, b, c, d]), errno: i32::from_ne_bytes([e, f, g, h]) }
    }
}

// The states, in order.
pub(crate) struct Cloned;
pub(crate) struct Isolated;
pub(crate) struct Worn;
pub(crate) struct Viewed;
pub(crate) struct Become;
pub(crate) struct Confined;
pub(crate) struct Proved;

/// The child in one of its states.
pub(crate) struct Child<'a, S> {
    pub(crate) script: &'a mut Script,
    pub(crate) pipes: &'a Pipes,
    at: usize,
    state: PhantomData<S>,
}

/// The whole of the child's side, in one sentence.
pub(crate) fn run(script: &mut Script, pipes: &Pipes) -> Infallible {
    let child: Child<'_, Cloned> = Child { script, pipes, at: 0, state: PhantomData };
    let ended = child
        .isolate()
        .and_then(Child::wear)
        .and_then(Child::view)
        .and_then(Child::become_user)
        .and_then(Child::confine)
        .and_then(Child::prove)
        .and_then(Child::execute);
    let Err(failure) = ended;
    report(pipes, failure)
}

/// Tells the supervisor and ends. If even that fails, the supervisor sees a child that ended without a word.
pub(crate) fn report(pipes: &Pipes, failure: Failure) -> ! {
    match write(&pipes.failure, &failure.to_bytes()) {
        Ok(_) => exit_now(1),
        Err(_) => exit_now(2),
    }
}

impl<'a, S> Child<'a, S> {
    /// The step that is due.
    pub(crate) fn step(&self) -> Result<&Step, Failure> {
        self.script.steps.get(self.at).ok_or_else(|| self.failed(Errno::EPROTO))
    }

    /// The plan has another step here than this phase: closed, not half.
    pub(crate) fn disorder(&self) -> Failure {
        self.failed(Errno::EPROTO)
    }

    pub(crate) fn failed(&self, errno: Errno) -> Failure {
        Failure { at: u32::try_from(self.at).unwrap_or(u32::MAX), errno: errno as i32 }
    }

    /// The step that was due is done, or it failed.
    pub(crate) fn done<T>(&mut self, result: Result<T, Errno>) -> Result<T, Failure> {
        match result {
            Ok(value) => {
                self.at += 1;
                Ok(value)
            }
            Err(errno) => Err(self.failed(errno)),
        }
    }

    /// A text of the step that is due.
    pub(crate) fn text(&self, index: usize) -> Result<&CStr, Failure> {
        let texts = self.script.texts.get(self.at).ok_or_else(|| self.disorder())?;
        texts.get(index).map(CString::as_c_str).ok_or_else(|| self.disorder())
    }

    pub(crate) fn next<N>(self) -> Child<'a, N> {
        Child { script: self.script, pipes: self.pipes, at: self.at, state: PhantomData }
    }

    /// Does a step that has no arguments, if it is the one that is due and was planned.
    pub(crate) fn plain(&mut self, expected: &Step, act: fn() -> Result<(), Errno>) -> Result<(), Failure> {
        if self.step()? != expected {
            return Err(self.disorder());
        }
        self.done(act())
    }

    /// Whether a step that may be left out is due.
    pub(crate) fn is_due(&self, step: &Step) -> bool {
        self.script.steps.get(self.at) == Some(step)
    }

    /// Each change of ids sets it anew, by `fs.suid_dumpable`.
    pub(crate) fn undumpable(&mut self) -> Result<(), Failure> {
        self.plain(&Step::Undumpable, || nix::sys::prctl::set_dumpable(false))
    }

    /// Dies when the supervisor dies. The kernel clears this at each change of ids; a supervisor that died before
    /// is noticed as end of file on the control pipe.
    pub(crate) fn die_with_supervisor(&mut self) -> Result<(), Failure> {
        self.plain(&Step::DieWithSupervisor, || {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        })
    }
}

impl<'a> Child<'a, Cloned> {
    /// Waits for the release, then leaves the runner's session, keyring and mounts.
    fn isolate(mut self) -> Result<Child<'a, Isolated>, Failure> {
        if self.step()? != &Step::AwaitRelease {
            return Err(self.disorder());
        }
        let released = self.await_release();
        self.done(released)?;
        self.die_with_supervisor()?;
        self.plain(&Step::NewSession, || nix::unistd::setsid().map(drop))?;
        if self.is_due(&Step::OrdinaryNice) {
            self.plain(&Step::OrdinaryNice, jacamar_kernel::ordinary_nice)?;
        }
        if self.is_due(&Step::OrdinaryScheduling) {
            self.plain(&Step::OrdinaryScheduling, jacamar_kernel::ordinary_scheduling)?;
        }
        if self.is_due(&Step::OrdinaryIo) {
            self.plain(&Step::OrdinaryIo, jacamar_kernel::ordinary_io)?;
        }
        if self.is_due(&Step::SessionKeyring) {
            self.plain(&Step::SessionKeyring, jacamar_kernel::join_new_session_keyring)?;
        }
        if self.is_due(&Step::SlaveMounts) {
            self.plain(&Step::SlaveMounts, crate::view::slave_mounts)?;
        }
        Ok(self.next())
    }

    fn await_release(&self) -> Result<(), Errno> {
        for end in &self.pipes.of_supervisor {
            jacamar_kernel::close_copy(end.as_fd())?;
        }
        let mut byte = [0];
        if read(&self.pipes.control, &mut byte)? != 1 || byte != [RELEASE] {
            // End of file: the supervisor failed or died.
            return Err(Errno::ECANCELED);
        }
        // Not before: the map files of an undumpable process are root's.
        nix::sys::prctl::set_dumpable(false)
    }
}

impl Child<'_, Proved> {
    /// Process 1 stays and waits; its child becomes the command.
    fn execute(mut self) -> Result<Infallible, Failure> {
        if self.is_due(&Step::Subreaper) {
            self.plain(&Step::Subreaper, || nix::sys::prctl::set_child_subreaper(true))?;
        }
        if self.step()? != &Step::Fork {
            return Err(self.disorder());
        }
        let (fork, pipes) = (self.at, self.pipes);
        self.at += 1;
        if self.step()? != &Step::Execute {
            return Err(self.disorder());
        }
        let (execute, init) = (self.at, self.script.init);
        let at = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let script = &*self.script;
        let command = jacamar_kernel::clone_until_exec(|| {
            let errno = become_command(script);
            report(pipes, Failure { at: at(execute), errno: errno as i32 })
        });
        match command {
            Ok(pid) => crate::init::run(pipes, pid, init),
            Err(errno) => Err(Failure { at: at(fork), errno: errno as i32 }),
        }
    }
}

/// The command's process: own session, signals, umask, descriptors, exec. Returns only why not.
fn become_command(script: &Script) -> Errno {
    let prepared = || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        nix::unistd::setsid()?;
        match &script.stdio {
            Stdio::Inherit => {}
            Stdio::Descriptors(list) => {
                for (fd, number) in list.iter().zip(0..) {
                    jacamar_kernel::duplicate_to(fd.as_fd(), number)?;
                }
            }
            Stdio::Terminal(terminal) => {
                jacamar_kernel::make_controlling_terminal(terminal.as_fd())?;
                for number in 0..=2 {
                    jacamar_kernel::duplicate_to(terminal.as_fd(), number)?;
                }
            }
        }
        nix::sys::stat::umask(script.umask);
        jacamar_kernel::reset_signals()
    };
    match prepared() {
        Ok(()) => script.image.execute(),
        Err(errno) => errno,
    }
}

impl Script {
    /// Descriptors that must outlive "close all others"; exec closes them. Unused places hold -1.
    pub(crate) fn kept(&self, pipes: &Pipes) -> [i32; 3 + Stdio::DESCRIPTORS_MAX] {
        let mut kept = [-1; 3 + Stdio::DESCRIPTORS_MAX];
        let stdio = match &self.stdio {
            Stdio::Inherit => [].as_slice(),
            Stdio::Descriptors(list) => list.as_slice(),
            Stdio::Terminal(terminal) => std::slice::from_ref(terminal),
        };
        let ours = [&pipes.control, &pipes.failure, &pipes.report];
        for (place, fd) in kept.iter_mut().zip(ours.into_iter().chain(stdio)) {
            *place = fd.as_raw_fd();
        }
        kept
    }
}
