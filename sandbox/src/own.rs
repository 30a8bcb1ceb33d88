//! Our own process, made clean before anything else: nothing inherited is trusted or passed on.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use jacamar_kernel::Errno;
use jacamar_plan::Level;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getegid, geteuid, getgid, getresuid, getuid};

use crate::file_ids::FileIds;

use crate::supervise::Parent;

/// What is left of the process that started us, and how signals arrive from now on.
#[derive(Debug)]
pub struct Own {
    /// Signals that end or inform a supervisor.
    pub(crate) signals: SignalFd,
    /// The core limit that the job gets back: soft, hard.
    pub(crate) core: (rlim_t, rlim_t),
    /// The umask that the job gets back: the service's, or a login's.
    pub(crate) umask: Mode,
}

impl Own {
    /// Whether a signal that asks for the end has arrived and nobody has waited for it. It is taken.
    ///
    /// # Errors
    /// Whatever read(2) of the signal descriptor answers.
    pub fn asked_to_end(&self) -> Result<bool, OwnError> {
        let mut asked = false;
        while let Some(info) = or("read signals", self.signals.read_signal())? {
            let signal = i32::try_from(info.ssi_signo).map(Signal::try_from);
            let ends = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
            asked |= matches!(signal, Ok(Ok(signal)) if ends.contains(&signal));
        }
        Ok(asked)
    }

    /// Waits so long, or until a signal asks for our end or our parent dies; whether one of the two did.
    ///
    /// # Errors
    /// Whatever poll(2), or read(2) of the signal descriptor, answers.
    pub fn asked_to_end_within(&self, parent: &Parent, time: Duration) -> Result<bool, OwnError> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let watched = [Some(self.signals.as_fd()), parent.pidfd()];
            let mut fds: Vec<PollFd<'_>> =
                watched.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            // A rest below a millisecond would be none.
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(OwnError { what: "wait for signals", errno }),
            }
            let died = parent.is_dead(fds.get(1).is_some_and(|fd| fd.any() == Some(true)));
            if self.asked_to_end()? || died {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }
}

/// A thing about our own process that could not be made clean.
#[derive(Debug, thiserror::Error)]
#[error("could not {what}: {}", errno.desc())]
pub struct OwnError {
    what: &'static str,
    errno: Errno,
}

fn or<T>(what: &'static str, result: Result<T, Errno>) -> Result<T, OwnError> {
    result.map_err(|errno| OwnError { what, errno })
}

/// Makes our own process clean: descriptors 0 to 2 exist, nobody can trace or dump us, all signals arrive at a
/// descriptor. Call it first in `main`, with one thread.
///
/// # Errors
/// [`OwnError`]: nothing was started.
pub fn own_process() -> Result<Own, OwnError> {
    open_standard_descriptors()?;
    // Secrets of a job are in our memory soon. exec reset it, unless the caller holds our capabilities.
    or("forbid tracing", nix::sys::prctl::set_dumpable(false))?;
    let core = or("read the core limit", getrlimit(Resource::RLIMIT_CORE))?;
    or("forbid core dumps", setrlimit(Resource::RLIMIT_CORE, 0, core.1))?;
    let umask = umask(Mode::from_bits_truncate(0o077));
    // Ignored signals and blocked ones are inherited: SIGCHLD ignored would lose the job's end.
    or("reset signals", jacamar_kernel::reset_signals())?;
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGWINCH,
        // A closed pipe is an error of write(2), not our end.
        Signal::SIGPIPE,
        Signal::SIGXFSZ,
    ] {
        set.add(signal);
    }
    or("block signals", sigprocmask(SigmaskHow::SIG_SETMASK, Some(&set), None))?;
    let signals = or(
        "open a signal descriptor",
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK),
    )?;
    Ok(Own { signals, core, umask })
}

/// A closed descriptor 2 would be taken by the first file that we open, and messages written into it.
fn open_standard_descriptors() -> Result<(), OwnError> {
    loop {
        let fd: OwnedFd = or("open /dev/null", open(c"/dev/null", OFlag::O_RDWR, Mode::empty()))?;
        if std::os::fd::AsRawFd::as_raw_fd(&fd) > 2 {
            return Ok(());
        }
        // It stands for a standard descriptor now.
        let _stays: i32 = std::os::fd::IntoRawFd::into_raw_fd(fd);
    }
}

/// What our process may do: root, the two file capabilities, or nothing.
///
/// # Errors
/// [`OwnError`] if the kernel does not tell.
pub fn level() -> Result<Level, OwnError> {
    if geteuid().is_root() {
        return Ok(Level::Root);
    }
    // Its error is a text without a number.
    let permitted = caps::read(None, caps::CapSet::Permitted).map_err(|_| Errno::EIO);
    let permitted = or("read our capabilities", permitted)?;
    let both = [caps::Capability::CAP_SETUID, caps::Capability::CAP_SETGID];
    Ok(if both.iter().all(|needed| permitted.contains(needed)) { Level::Capabilities } else { Level::User })
}

/// At the capability level: effective and saved ids become the keeper's, who owns records, private directories and user
/// namespaces; the real ones stay the runner's, so that the runner can signal us and nobody else can. Call it directly
/// after [`own_process`]: before, whoever has the runner's uid is as good as we are.
///
/// # Errors
/// [`OwnError`]: nothing may be started.
pub fn become_keeper(uid: u32, gid: u32) -> Result<(), OwnError> {
    or("take the keeper's gid", jacamar_kernel::set_resgid(None, Some(gid), Some(gid)))?;
    or("take the keeper's uid", jacamar_kernel::set_resuid(None, Some(uid), Some(uid)))?;
    // Each change of ids sets it to the value of fs.suid_dumpable, proc_sys_fs(5).
    or("forbid tracing", nix::sys::prctl::set_dumpable(false))?;
    let (real, ids) = (getuid(), or("read our own ids", own_uids())?);
    if ids != [real.as_raw(), uid, uid] || own_ids() != (uid, gid) || real.as_raw() == uid {
        return or("become the keeper", Err(Errno::EPERM));
    }
    Ok(())
}

/// Does something with files as who started us: GitLab Runner's private directory is its account's, and a site's
/// configuration may be readable for that account alone. It is done with our own rights where there is no keeper.
///
/// # Errors
/// [`OwnError`] if the ids cannot be changed; then `act` was not done or its result is not to be trusted.
pub fn as_starter<T>(act: impl FnOnce() -> T) -> Result<T, OwnError> {
    let ids = if getuid() == geteuid() { FileIds::Own } else { FileIds::Of(getuid(), Some(getgid())) };
    or("use files as the account that started us", ids.during(act))
}

/// Our own ids, which the job must never get back: real, effective and saved uid.
pub(crate) fn own_uids() -> Result<[u32; 3], Errno> {
    let ids = getresuid()?;
    Ok([ids.real.as_raw(), ids.effective.as_raw(), ids.saved.as_raw()])
}

/// Effective uid and gid.
pub(crate) fn own_ids() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}
