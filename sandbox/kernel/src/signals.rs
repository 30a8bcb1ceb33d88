//! Signal dispositions and mask, sigaction(2).

use nix::errno::Errno;

use crate::check;

/// All dispositions to default and an empty mask: what a program expects at its start. Inherited ignores and
/// blocks pass through execve(2). For the child of a clone: allocates nothing.
///
/// # Errors
/// None that could occur.
pub fn reset_signals() -> Result<(), Errno> {
    /// `struct sigaction` of the kernel on architectures without SA_RESTORER and with it: zero is the default.
    const ZERO: [u64; 5] = [0; 5];
    const MASK_BYTES: usize = 8;
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: the kernel reads one sigaction, at most 40 bytes with a mask of 8 (rt_sigaction(2)).
        check(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, ZERO.as_ptr(), 0_u64, MASK_BYTES) })?;
    }
    // SAFETY: the kernel reads a mask of 8 bytes (rt_sigprocmask(2)).
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, ZERO.as_ptr(), 0_u64, MASK_BYTES)
    })
    .map(drop)
}
