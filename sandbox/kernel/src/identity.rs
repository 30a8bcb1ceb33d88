//! Ids of the calling thread. glibc's wrappers change all threads through a signal and take locks; a child of
//! clone has one thread, so these are the plain system calls. They allocate nothing.

use nix::errno::Errno;

use crate::check;

/// Groups that [`get_groups`] can read: `NGROUPS_MAX`, Linux 2.6.4.
pub const IDS_MAX: usize = 65536;

/// setgroups(2).
///
/// # Errors
/// EPERM, EINVAL (too many, or not mapped).
pub fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the kernel reads `len` numbers (setgroups(2)).
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// getgroups(2) into `buffer`; how many there are.
///
/// # Errors
/// EINVAL if the buffer is too small.
pub fn get_groups(buffer: &mut [u32]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `len` numbers (getgroups(2)).
    let count = check(unsafe { libc::syscall(libc::SYS_getgroups, buffer.len(), buffer.as_mut_ptr()) })?;
    usize::try_from(count).map_err(|_| Errno::EOVERFLOW)
}

/// setresgid(2); `None` leaves an id as it is.
///
/// # Errors
/// EPERM, EINVAL (not mapped, or 4294967295, which means "unchanged" to the kernel).
pub fn set_resgid(real: Option<u32>, effective: Option<u32>, saved: Option<u32>) -> Result<(), Errno> {
    let (real, effective, saved) = (id(real)?, id(effective)?, id(saved)?);
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, real, effective, saved) }).map(drop)
}

/// setresuid(2); `None` leaves an id as it is.
///
/// # Errors
/// EPERM, EINVAL (not mapped, or 4294967295, which means "unchanged" to the kernel), EAGAIN.
pub fn set_resuid(real: Option<u32>, effective: Option<u32>, saved: Option<u32>) -> Result<(), Errno> {
    let (real, effective, saved) = (id(real)?, id(effective)?, id(saved)?);
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, real, effective, saved) }).map(drop)
}

/// setuid(2), for the proof that it fails.
///
/// # Errors
/// EPERM, EINVAL.
pub fn set_uid(uid: u32) -> Result<(), Errno> {
    // SAFETY: takes a number only.
    check(unsafe { libc::syscall(libc::SYS_setuid, uid) }).map(drop)
}

fn id(id: Option<u32>) -> Result<u32, Errno> {
    match id {
        Some(u32::MAX) => Err(Errno::EINVAL),
        Some(id) => Ok(id),
        None => Ok(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_cannot_be_asked_for_by_a_number() {
        assert_eq!(set_resuid(None, Some(u32::MAX), None), Err(Errno::EINVAL));
        assert_eq!(set_resgid(Some(u32::MAX), None, None), Err(Errno::EINVAL));
        assert_eq!(set_resuid(None, None, None), Ok(()));
    }
}
