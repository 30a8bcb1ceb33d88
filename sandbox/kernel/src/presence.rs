//! Asking the kernel whether it has a call, without doing anything.

use nix::errno::Errno;

/// A call that is newer than Linux 4.18 or that containers deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// clone3(2) with `CLONE_INTO_CGROUP`.
    CloneIntoCgroup,
    /// pidfd_open(2).
    PidfdOpen,
    /// openat2(2).
    Openat2,
    /// close_range(2).
    CloseRange,
    /// keyctl(2).
    Keyctl,
    /// seccomp(2) with filters.
    Seccomp,
}

/// Makes the call with arguments that it must refuse, so that nothing happens.
///
/// # Errors
/// What the kernel or a filter answers in place of the expected refusal: ENOSYS, EPERM, E2BIG.
pub fn probe(call: Call) -> Result<(), Errno> {
    let (value, expected) = match call {
        Call::CloneIntoCgroup => {
            // SAFETY: all-zero is a valid clone_args.
            let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
            // No descriptor has this number: EINVAL, or E2BIG on a kernel that does not know the field.
            arguments.flags = 0x2_0000_0000;
            arguments.cgroup = u64::MAX;
            // SAFETY: the kernel reads `size_of` bytes of `arguments` and refuses them.
            let value = unsafe {
                libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
            };
            (value, Errno::EINVAL)
        }
        Call::PidfdOpen => {
            // SAFETY: takes numbers only; -1 is no process.
            let value = unsafe { libc::syscall(libc::SYS_pidfd_open, -1, 0_u32) };
            (value, Errno::EINVAL)
        }
        Call::Openat2 => {
            // SAFETY: a size of 0 is refused before anything is read.
            let value = unsafe { libc::syscall(libc::SYS_openat2, -1, 0_u64, 0_u64, 0_u64) };
            (value, Errno::EINVAL)
        }
        Call::CloseRange => {
            // SAFETY: takes numbers only; an empty range is refused.
            let value = unsafe { libc::syscall(libc::SYS_close_range, u32::MAX, 0_u32, 0_u32) };
            (value, Errno::EINVAL)
        }
        Call::Keyctl => {
            // SAFETY: takes numbers only; there is no such operation.
            let value = unsafe { libc::syscall(libc::SYS_keyctl, i32::MAX, 0_u64, 0_u64, 0_u64, 0_u64) };
            (value, Errno::EOPNOTSUPP)
        }
        Call::Seccomp => {
            // SAFETY: a null program is refused.
            let value = unsafe { libc::syscall(libc::SYS_seccomp, 1_u32, 0_u32, 0_u64) };
            (value, Errno::EFAULT)
        }
    };
    match (value, Errno::last()) {
        (-1, errno) if errno == expected => Ok(()),
        (-1, errno) => Err(errno),
        // It did something with arguments that make no sense: not the call that we know.
        _ => Err(Errno::ENOSYS),
    }
}
