//! What makes a process more urgent than others, and how it becomes an ordinary one again.

use nix::errno::Errno;

use crate::check;

/// `SCHED_FIFO`, `SCHED_RR` and `SCHED_DEADLINE` of `include/uapi/linux/sched.h`; the others are ordinary or less.
const REALTIME: [libc::c_long; 3] = [1, 2, 6];
/// `SCHED_RESET_ON_FORK` of the same file, which sched_getscheduler(2) adds.
const RESET_ON_FORK: libc::c_long = 0x4000_0000;

/// `IOPRIO_WHO_PROCESS`, `IOPRIO_CLASS_SHIFT`, `IOPRIO_CLASS_RT` of `include/uapi/linux/ioprio.h`.
const IOPRIO_WHO_PROCESS: i32 = 1;
const IOPRIO_CLASS_SHIFT: u32 = 13;
const IOPRIO_CLASS_RT: libc::c_long = 1;

/// Whether our nice value is negative, getpriority(2).
///
/// # Errors
/// None that could occur.
pub fn is_nice_negative() -> Result<bool, Errno> {
    // SAFETY: takes numbers only.
    let value = check(unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) })?;
    // The raw call answers 20 less the nice value, so that no answer looks like an error.
    Ok(value > 20)
}

/// Nice value 0, setpriority(2).
///
/// # Errors
/// EACCES, if it was positive and we have no CAP_SYS_NICE.
pub fn ordinary_nice() -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, 0) }).map(drop)
}

/// Whether our scheduling policy is a realtime or deadline one, sched_getscheduler(2).
///
/// # Errors
/// None that could occur.
pub fn is_realtime() -> Result<bool, Errno> {
    // SAFETY: takes a number only.
    let policy = check(unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) })?;
    Ok(REALTIME.contains(&(policy & !RESET_ON_FORK)))
}

/// `SCHED_OTHER`, sched_setscheduler(2).
///
/// # Errors
/// None from a realtime policy.
pub fn ordinary_scheduling() -> Result<(), Errno> {
    // SAFETY: all-zero is a valid sched_param: priority 0, the only one of SCHED_OTHER.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads one sched_param.
    check(unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &raw const parameters) })
        .map(drop)
}

/// Whether our I/O scheduling class is the realtime one, ioprio_get(2).
///
/// # Errors
/// ENOSYS on a kernel without block devices.
pub fn is_io_realtime() -> Result<bool, Errno> {
    // SAFETY: takes numbers only.
    let value = check(unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) })?;
    Ok(value >> IOPRIO_CLASS_SHIFT == IOPRIO_CLASS_RT)
}

/// No I/O scheduling class of our own, ioprio_set(2).
///
/// # Errors
/// None to less than we have.
pub fn ordinary_io() -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0) }).map(drop)
}
