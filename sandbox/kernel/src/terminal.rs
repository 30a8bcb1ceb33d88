//! ioctl_tty(2).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::pty::Winsize;

use crate::check;

/// `TIOCSCTTY`: the terminal becomes that of our session.
///
/// # Errors
/// EPERM if we lead no session or it has one already.
pub fn make_controlling_terminal(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), libc::TIOCSCTTY, 0_u64) }).map(drop)
}

/// `TIOCGWINSZ`.
///
/// # Errors
/// ENOTTY.
pub fn window_size(terminal: BorrowedFd<'_>) -> Result<Winsize, Errno> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one winsize.
    check(unsafe { libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// `TIOCSWINSZ`.
///
/// # Errors
/// ENOTTY.
pub fn set_window_size(terminal: BorrowedFd<'_>, size: &Winsize) -> Result<(), Errno> {
    // SAFETY: the kernel reads one winsize.
    check(unsafe {
        libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size))
    })
    .map(drop)
}
