//! Process 1 of the stage: waits, forwards signals, reports. Powerless by now, and not dumpable.

use std::os::fd::AsFd;

use jacamar_kernel::{Errno, exit_now};
use jacamar_plan::Init;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, read, write};

use crate::child::Pipes;

/// How the command ended, as process 1 tells the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    Signalled(i32),
}

impl End {
    pub(crate) const BYTES: usize = 8;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let (kind, value): (u32, i32) = match self {
            Self::Exited(code) => (1, code),
            Self::Signalled(signal) => (2, signal),
        };
        let mut bytes = [0; Self::BYTES];
        let (first, second) = bytes.split_at_mut(4);
        first.copy_from_slice(&kind.to_ne_bytes());
        second.copy_from_slice(&value.to_ne_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = bytes;
        let value = i32::from_ne_bytes([e, f, g, h]);
        match u32::from_ne_bytes([a, b, c, d]) {
            1 => Some(Self::Exited(value)),
            2 => Some(Self::Signalled(value)),
            _ => None,
        }
    }
}

/// Exit codes of process 1 itself; the supervisor believes only the report.
const DONE: i32 = 0;
const ENDED_BY_SUPERVISOR: i32 = 3;
const BROKEN: i32 = 4;

pub(crate) fn run(pipes: &Pipes, command: Pid, init: Init) -> ! {
    match watch(pipes, command, init) {
        Ok(code) => exit_now(code),
        Err(_) => exit_now(BROKEN),
    }
}

fn watch(pipes: &Pipes, command: Pid, init: Init) -> Result<i32, Errno> {
    // The command's process holds its own copy, which exec closes.
    jacamar_kernel::close_copy(pipes.failure.as_fd())?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    // All blocked: what others may send to process 1 has no effect but SIGKILL and SIGSTOP.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    let signals = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    loop {
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(pipes.control.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let [_, control] = &fds;
        if control.any() == Some(true) {
            let mut byte = [0];
            match read(&pipes.control, &mut byte)? {
                0 => {
                    // The supervisor wants the end, or is dead.
                    signal(command, init, Signal::SIGKILL)?;
                    return Ok(ENDED_BY_SUPERVISOR);
                }
                _ => {
                    let [number] = byte;
                    signal(command, init, Signal::try_from(i32::from(number))?)?;
                }
            }
        }
        while signals.read_signal()?.is_some() {}
        if let Some(end) = reap(command)? {
            // The whole report is one write of 8 bytes, which a pipe takes as one.
            write(&pipes.report, &end.to_bytes())?;
            // What still runs ends with us: the supervisor looks first. It lets go in every case, or is dead.
            while read(&pipes.control, &mut [0])? != 0 {}
            return Ok(DONE);
        }
    }
}

/// Signals every process of the namespace, or the command's process group where there is no namespace.
fn signal(command: Pid, init: Init, signal: Signal) -> Result<(), Errno> {
    let whom = match init {
        // All but ourselves: kill(2).
        Init::Namespace => Pid::from_raw(-1),
        Init::Subreaper => Pid::from_raw(-command.as_raw()),
    };
    match kill(whom, signal) {
        // EPERM: the filter of our own processes denies kill(2); they end with the namespace, or with us.
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Collects every dead child; the command's end, if it is among them.
fn reap(command: Pid) -> Result<Option<End>, Errno> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => return Ok(Some(End::Exited(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                return Ok(Some(End::Signalled(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_back_and_nothing_else_is_one() {
        for end in [End::Exited(0), End::Exited(255), End::Signalled(9)] {
            assert_eq!(End::from_bytes(end.to_bytes()), Some(end));
        }
        assert_eq!(End::from_bytes([0; 8]), None);
    }
}
