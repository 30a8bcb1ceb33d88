//! mount(2), procfs, keyrings. For the child of a clone: nothing here allocates.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::ptr::null;

use nix::errno::Errno;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, PROC_SUPER_MAGIC, fstatfs};

use crate::check;

/// mount(2). Flags are those of the kernel's `include/uapi/linux/mount.h`.
///
/// # Errors
/// EPERM, EACCES, ENOENT, EINVAL (also for what is locked in a user namespace), ENOSPC.
pub fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: u64,
    options: Option<&CStr>,
) -> Result<(), Errno> {
    let pointer = |text: Option<&CStr>| text.map_or(null(), CStr::as_ptr);
    // SAFETY: each pointer is null or a C string that outlives the call; the kernel copies them (mount(2)).
    check(unsafe {
        libc::syscall(
            libc::SYS_mount,
            pointer(source),
            target.as_ptr(),
            pointer(kind),
            flags,
            pointer(options),
        )
    })
    .map(drop)
}

/// Whether a descriptor lies on a procfs: a tmpfs over /proc would make us act on files of its maker.
///
/// # Errors
/// Whatever fstatfs(2) answers.
pub fn is_procfs(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(fstatfs(fd)?.filesystem_type() == PROC_SUPER_MAGIC)
}

/// Whether a descriptor lies on a cgroup v1 file system.
///
/// # Errors
/// Whatever fstatfs(2) answers.
pub fn is_cgroup1(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(fstatfs(fd)?.filesystem_type() == CGROUP_SUPER_MAGIC)
}

/// Whether a descriptor lies on a cgroup v2 file system.
///
/// # Errors
/// Whatever fstatfs(2) answers.
pub fn is_cgroup2(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(fstatfs(fd)?.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// `KEYCTL_JOIN_SESSION_KEYRING` without a name: a new, empty session keyring, keyctl(2).
///
/// # Errors
/// EDQUOT, ENOSYS; EPERM in containers that deny it.
pub fn join_new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0_u64, 0_u64, 0_u64, 0_u64) })
        .map(drop)
}
