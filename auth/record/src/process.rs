//! A process that cannot be mistaken for a later one with the same number.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use procfs::ProcError;
use procfs::process::Process;
use serde::{Deserialize, Serialize};

/// Number and start time, within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// Process id.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: clock ticks after the boot, proc_pid_stat(5).
    pub start_time: u64,
}

/// /proc did not answer.
#[derive(Debug, thiserror::Error)]
#[error("could not read /proc of process {pid}: {source}")]
pub struct ProcessError {
    pid: i32,
    source: ProcError,
}

impl ProcessId {
    /// The process that has this number now; `None` if there is none.
    ///
    /// # Errors
    /// [`ProcessError`] if /proc cannot tell.
    pub fn of(pid: Pid) -> Result<Option<Self>, ProcessError> {
        let pid = pid.as_raw();
        match Process::new(pid).and_then(|process| process.stat()) {
            Ok(stat) => Ok(Some(Self { pid, start_time: stat.starttime })),
            Err(ProcError::NotFound(_)) => Ok(None),
            Err(ProcError::Io(error, _)) if error.raw_os_error() == Some(nix::Error::ESRCH as i32) => {
                Ok(None)
            }
            Err(source) => Err(ProcessError { pid, source }),
        }
    }

    /// Whether it still lives. A zombie does not.
    ///
    /// # Errors
    /// [`ProcessError`] if /proc cannot tell.
    pub fn is_alive(self) -> Result<bool, ProcessError> {
        Ok(Self::of(Pid::from_raw(self.pid))? == Some(self) && !self.is_zombie()?)
    }

    /// Whether it certainly lives no more. A process that /proc does not show (`hidepid=` of proc(5)), or that has no
    /// number here (0: it is outside of our pid namespace), may live.
    ///
    /// # Errors
    /// [`ProcessError`] if /proc cannot tell.
    pub fn is_gone(self) -> Result<bool, ProcessError> {
        let pid = Pid::from_raw(self.pid);
        match Self::of(pid)? {
            Some(now) => Ok(now != self || self.is_zombie()?),
            None => Ok(self.pid > 0 && kill(pid, None) == Err(Errno::ESRCH)),
        }
    }

    fn is_zombie(self) -> Result<bool, ProcessError> {
        match Process::new(self.pid).and_then(|process| process.stat()) {
            Ok(stat) => Ok(matches!(stat.state, 'Z' | 'X')),
            Err(ProcError::NotFound(_)) => Ok(true),
            Err(source) => Err(ProcessError { pid: self.pid, source }),
        }
    }
}

/// The kernel's name for this boot, random(4).
///
/// # Errors
/// Whatever reading /proc/sys/kernel/random/boot_id answers.
pub fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// The pid namespace of our own process, pid_namespaces(7).
///
/// # Errors
/// Whatever readlink(2) of /proc/self/ns/pid answers.
pub fn pid_namespace() -> std::io::Result<String> {
    Ok(std::fs::read_link("/proc/self/ns/pid")?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_alive_and_another_start_time_is_not_us() {
        let own = ProcessId::of(nix::unistd::getpid()).expect("readable").expect("alive");
        assert!(own.is_alive().expect("readable"));
        let other = ProcessId { start_time: own.start_time + 1, ..own };
        assert!(!other.is_alive().expect("readable"));
        assert!(!own.is_gone().expect("readable") && other.is_gone().expect("readable"));
    }

    #[test]
    fn a_number_without_a_process_is_none() {
        let none = ProcessId::of(Pid::from_raw(i32::MAX)).expect("a clear no");
        assert_eq!(none, None);
        assert!(ProcessId { pid: i32::MAX, start_time: 1 }.is_gone().expect("a clear no"));
        assert!(
            !ProcessId { pid: 0, start_time: 0 }.is_gone().expect("readable"),
            "it cannot be seen from here"
        );
    }
}
