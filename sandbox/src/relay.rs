//! A terminal of the job's own, and the copying between it and ours.
//!
//! The job never gets our terminal: what it pushes into its input (TIOCSTI, bubblewrap's CVE-2017-5226) stays its own.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jacamar_kernel::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Uid, fchown, isatty, read, write};

/// A pair of pseudo terminals, pty(7).
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    /// What our own terminal was, to be restored.
    saved: Option<Termios>,
    input_open: Cell<bool>,
    output_open: Cell<bool>,
}

impl Terminal {
    /// Makes a terminal owned by `uid`; ours, if it is one, becomes raw until [`Terminal`] is dropped.
    ///
    /// # Errors
    /// Whatever openpty(3), fchown(2) and tcsetattr(3) answer.
    pub fn open(uid: u32) -> Result<(Self, OwnedFd), Errno> {
        let OpenptyResult { master, slave } = openpty(None, None)?;
        jacamar_kernel::close_on_exec(master.as_fd())?;
        jacamar_kernel::close_on_exec(slave.as_fd())?;
        fchown(&slave, Some(Uid::from_raw(uid)), None)?;
        let ours = std::io::stdin();
        let saved = if isatty(ours.as_fd())? { Some(tcgetattr(ours.as_fd())?) } else { None };
        let terminal = Self { master, saved, input_open: Cell::new(true), output_open: Cell::new(true) };
        if let Some(saved) = &terminal.saved {
            terminal.follow_window_size()?;
            let mut raw = saved.clone();
            cfmakeraw(&mut raw);
            tcsetattr(ours.as_fd(), SetArg::TCSANOW, &raw)?;
        }
        Ok((terminal, slave))
    }

    /// Gives the job's terminal the size of ours.
    pub(crate) fn follow_window_size(&self) -> Result<(), Errno> {
        match self.saved {
            Some(_) => {
                let size = jacamar_kernel::window_size(std::io::stdin().as_fd())?;
                jacamar_kernel::set_window_size(self.master.as_fd(), &size)
            }
            None => Ok(()),
        }
    }

    /// Our input, then the job's output.
    pub(crate) fn poll_fds(&self) -> [PollFd<'_>; 2] {
        let wanted = |open: &Cell<bool>| if open.get() { PollFlags::POLLIN } else { PollFlags::empty() };
        // Descriptor 0 outlives us.
        [
            PollFd::new(standard_input(), wanted(&self.input_open)),
            PollFd::new(self.master.as_fd(), wanted(&self.output_open)),
        ]
    }

    /// Copies what is ready.
    pub(crate) fn copy(&self, ready: &[bool]) -> Result<(), Errno> {
        if ready.first() == Some(&true) && self.input_open.get() {
            self.copy_input()?;
        }
        if ready.get(1) == Some(&true) && self.output_open.get() {
            self.copy_output()?;
        }
        Ok(())
    }

    fn copy_input(&self) -> Result<(), Errno> {
        let mut buffer = [0; 4096];
        let length = read(standard_input(), &mut buffer)?;
        if length == 0 {
            self.input_open.set(false);
            // End of file for the job: what ^D is to a person.
            return write_all(self.master.as_fd(), &[4]);
        }
        write_all(self.master.as_fd(), buffer.get(..length).unwrap_or_default())
    }

    /// Whether there was something.
    fn copy_output(&self) -> Result<bool, Errno> {
        let mut buffer = [0; 4096];
        match read(&self.master, &mut buffer) {
            // EIO: nobody has the other side open any more, pty(7).
            Ok(0) | Err(Errno::EIO) => {
                self.output_open.set(false);
                Ok(false)
            }
            Ok(length) => {
                write_all(std::io::stdout().as_fd(), buffer.get(..length).unwrap_or_default())?;
                Ok(true)
            }
            Err(errno) => Err(errno),
        }
    }

    /// What the job wrote before it ended.
    pub(crate) fn drain(&self) -> Result<(), Errno> {
        while self.output_open.get() && self.copy_output()? {}
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved
            && tcsetattr(standard_input(), SetArg::TCSANOW, saved).is_err()
        {
            // Our terminal is gone: there is nothing to restore and nobody to tell.
        }
    }
}

fn standard_input() -> BorrowedFd<'static> {
    jacamar_kernel::STANDARD_INPUT
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
