//! The end of a group: its processes killed, counted until none is left, and its directories removed.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use jacamar_kernel::Errno;
use nix::fcntl::{OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use super::{DEPTH_MAX, DIRECTORY, children, read_file, write_file};

/// Nothing in it forks or ends by itself any more, Linux 5.2; SIGKILL reaches what is frozen. Before that it is a race, which
/// the next round goes on with.
pub(super) fn freeze(group: BorrowedFd<'_>) -> Result<(), Errno> {
    match write_file(group, c"cgroup.freeze", b"1") {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// SIGKILL for what is in a group and below it.
pub(super) fn kill_tree(path: &str, depth: usize) -> Result<(), Errno> {
    let group = nix::fcntl::open(path, DIRECTORY, Mode::empty())?;
    kill_listed(group.as_fd())?;
    for child in children(path)? {
        if depth > 0 {
            kill_tree(&format!("{path}/{child}"), depth - 1)?;
        }
    }
    Ok(())
}

fn kill_listed(group: BorrowedFd<'_>) -> Result<(), Errno> {
    for line in read_file(group, c"cgroup.procs")?.lines() {
        let pid: i32 = line.parse().map_err(|_| Errno::EBADMSG)?;
        // 0 is a process of another pid namespace; kill(0) would be our own group.
        if pid <= 0 {
            return Err(Errno::ESRCH);
        }
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Whether the group still has processes, asked until it has none or 50 ms or the deadline have passed.
pub(super) fn populated(group: BorrowedFd<'_>, path: &str, deadline: Instant) -> Result<bool, Errno> {
    let round = (Instant::now() + Duration::from_millis(50)).min(deadline);
    let events = match openat(group, c"cgroup.events", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        // Version 1 has none.
        Err(Errno::ENOENT) => return is_listed_until(path, round),
        other => other?,
    };
    loop {
        let text = read_file(group, c"cgroup.events")?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(false);
        }
        let left = round.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(true);
        }
        // The first poll of a fresh descriptor may report an event that was read above.
        let timeout = PollTimeout::try_from(left.min(Duration::from_millis(5))).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// The same by its lists of processes.
fn is_listed_until(path: &str, round: Instant) -> Result<bool, Errno> {
    while has_process(path, DEPTH_MAX)? {
        if Instant::now() >= round {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(false)
}

/// Whether a process is in a group or below it; none is where there is no group any more.
pub(super) fn has_process(path: &str, depth: usize) -> Result<bool, Errno> {
    let gone = |errno| matches!(errno, Errno::ENOENT | Errno::ENODEV);
    let listed = nix::fcntl::open(path, DIRECTORY, Mode::empty())
        .and_then(|group| read_file(group.as_fd(), c"cgroup.procs"))
        .and_then(|list| Ok((list, children(path)?)));
    match listed {
        Ok((list, _)) if !list.is_empty() => Ok(true),
        Ok((_, below)) if depth > 0 => below
            .iter()
            .try_fold(false, |found, child| Ok(found || has_process(&format!("{path}/{child}"), depth - 1)?)),
        Ok(_) => Ok(false),
        Err(errno) if gone(errno) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Removes a group and, first, those below it: a job with a delegated group may have made some.
pub(super) fn remove_tree(path: &str, depth: usize) -> Result<(), Errno> {
    for attempt in 0.. {
        match unlinkat(nix::fcntl::AT_FDCWD, path, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(e) if attempt == 50 => return Err(e),
            Err(Errno::EBUSY) => {}
            Err(e) => return Err(e),
        }
        for child in children(path)? {
            if depth > 0 {
                remove_tree(&format!("{path}/{child}"), depth - 1)?;
            }
        }
        if attempt > 0 {
            // The last process is dead but not yet reaped by its parent.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}
