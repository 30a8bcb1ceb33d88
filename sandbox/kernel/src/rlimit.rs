//! Resource limits of another process.

use nix::errno::Errno;
use nix::sys::resource::{Resource, rlim_t};
use nix::unistd::Pid;

use crate::check;

/// Sets soft and hard limit of a process, prlimit(2), Linux 2.6.36.
///
/// # Errors
/// EPERM if the hard limit would rise and we have no CAP_SYS_RESOURCE in the first user namespace, or the process is not
/// ours; EINVAL if the soft one is above the hard one; ESRCH.
pub fn set_limit_of(pid: Pid, resource: Resource, soft: rlim_t, hard: rlim_t) -> Result<(), Errno> {
    let new = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    let (pid, resource, nowhere) = (pid.as_raw(), resource as u32, std::ptr::null_mut::<libc::rlimit>());
    // SAFETY: the kernel reads one rlimit and writes none.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const new, nowhere) }).map(drop)
}
