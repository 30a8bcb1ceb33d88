//! What is copied between a command and us while it runs: a terminal, its output, its answer.
//!
//! The job never gets our terminal: what it pushes into its input (TIOCSTI, bubblewrap's CVE-2017-5226) stays its own.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use jacamar_kernel::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Uid, fchown, isatty, read, write};

/// Something that is copied while the supervisor waits.
pub trait Stream {
    /// Descriptors to wait for, in an order that [`Stream::copy`] knows.
    fn poll_fds(&self) -> Vec<PollFd<'_>>;

    /// Copies what is ready.
    ///
    /// # Errors
    /// EPIPE if nobody reads any more, EFBIG above a limit: both end the command.
    fn copy(&self, ready: &[bool]) -> Result<(), Errno>;

    /// Copies what is left once the command has ended.
    ///
    /// # Errors
    /// Whatever read(2) and write(2) answer.
    fn drain(&self) -> Result<(), Errno>;

    /// The window of our terminal has another size.
    ///
    /// # Errors
    /// Whatever ioctl_tty(2) answers.
    fn window_changed(&self) -> Result<(), Errno> {
        Ok(())
    }
}

/// What a pipe can hold, `/proc/sys/fs/pipe-max-size` of pipe(7): after the command's end more than this was written by
/// somebody else.
const DRAIN_MAX_BYTES: usize = 1 << 20;

/// So long a reader of ours may take for it.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// One write(2) of a pipe that poll(2) called writable takes so much without waiting: `PIPE_BUF`, pipe(7).
const CHUNK_BYTES: usize = 4096;

/// The command's output, copied unchanged to a descriptor of ours. The command has the other end of a pipe, not our
/// descriptor, so that what it leaves behind cannot hold our reader.
#[derive(Debug)]
pub struct Output {
    channels: Vec<Channel>,
}

#[derive(Debug)]
struct Channel {
    from: OwnedFd,
    to: OwnedFd,
    /// Read and not yet written.
    pending: RefCell<Vec<u8>>,
    open: Cell<bool>,
    /// Nobody reads what it would get.
    deaf: Cell<bool>,
}

impl Output {
    /// Copies each first descriptor, a pipe's reading end, to its second.
    ///
    /// # Errors
    /// Whatever fcntl(2) answers.
    pub fn new(channels: Vec<(OwnedFd, OwnedFd)>) -> Result<Self, Errno> {
        let channel = |(from, to): (OwnedFd, OwnedFd)| {
            jacamar_kernel::set_nonblocking(from.as_fd())?;
            Ok(Channel {
                from,
                to,
                pending: RefCell::new(Vec::new()),
                open: Cell::new(true),
                deaf: Cell::new(false),
            })
        };
        Ok(Self { channels: channels.into_iter().map(channel).collect::<Result<_, Errno>>()? })
    }
}

impl Output {
    /// Closed ones would wake every poll(2).
    fn active(&self) -> impl Iterator<Item = &Channel> {
        self.channels.iter().filter(|channel| channel.open.get() || !channel.pending.borrow().is_empty())
    }
}

impl Channel {
    fn read(&self) -> Result<(), Errno> {
        let mut buffer = [0; CHUNK_BYTES];
        match read(&self.from, &mut buffer) {
            Ok(0) => self.open.set(false),
            Ok(length) => {
                self.pending.borrow_mut().extend_from_slice(buffer.get(..length).unwrap_or_default())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    fn write(&self) -> Result<(), Errno> {
        write_pending(self.to.as_fd(), &self.pending)
    }
}

impl Stream for Output {
    /// Either the pipe to read from, or, with something in hand, the descriptor to write to.
    fn poll_fds(&self) -> Vec<PollFd<'_>> {
        self.active()
            .map(|channel| match channel.pending.borrow().is_empty() {
                true => PollFd::new(channel.from.as_fd(), PollFlags::POLLIN),
                false => PollFd::new(channel.to.as_fd(), PollFlags::POLLOUT),
            })
            .collect()
    }

    fn copy(&self, ready: &[bool]) -> Result<(), Errno> {
        let ready: Vec<&Channel> =
            self.active().zip(ready).filter(|(_, ready)| **ready).map(|(c, _)| c).collect();
        for channel in ready {
            if channel.pending.borrow().is_empty() {
                channel.read()?;
            } else if let Err(errno) = channel.write() {
                // Said once; from here on it is read and thrown away.
                channel.deaf.set(true);
                channel.pending.borrow_mut().clear();
                return Err(errno);
            }
        }
        Ok(())
    }

    /// What is in the pipes; a process that holds one open, or goes on writing, is not waited for, and neither is a
    /// reader of ours that does not read.
    fn drain(&self) -> Result<(), Errno> {
        let deadline = Instant::now() + DRAIN_WITHIN;
        for channel in &self.channels {
            let mut left = DRAIN_MAX_BYTES;
            loop {
                while !channel.pending.borrow().is_empty() {
                    writable(channel.to.as_fd(), deadline)?;
                    channel.write()?;
                }
                channel.read()?;
                let length = channel.pending.borrow().len();
                if length == 0 || left == 0 {
                    break;
                }
                left = left.saturating_sub(length);
            }
        }
        Ok(())
    }
}

/// Whether a read would not wait.
fn ready_to_read(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// Waits until a write would not.
fn writable(fd: BorrowedFd<'_>, deadline: Instant) -> Result<(), Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], timeout) {
            Ok(0) => return Err(Errno::ETIMEDOUT),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Short texts of a process that we started, kept in memory: its answer, its messages.
#[derive(Debug)]
pub struct Collect {
    texts: Vec<Text>,
}

#[derive(Debug)]
struct Text {
    from: OwnedFd,
    limit_bytes: usize,
    bytes: RefCell<Vec<u8>>,
    open: Cell<bool>,
}

impl Collect {
    /// Collects what arrives at each pipe's reading end, up to a limit.
    ///
    /// # Errors
    /// Whatever fcntl(2) answers.
    pub fn new<const N: usize>(pipes: [(OwnedFd, usize); N]) -> Result<Self, Errno> {
        let text = |(from, limit_bytes): (OwnedFd, usize)| {
            jacamar_kernel::set_nonblocking(from.as_fd())?;
            Ok(Text { from, limit_bytes, bytes: RefCell::new(Vec::new()), open: Cell::new(true) })
        };
        Ok(Self { texts: pipes.into_iter().map(text).collect::<Result<_, Errno>>()? })
    }

    /// What arrived at each.
    #[must_use]
    pub fn into_bytes(self) -> Vec<Vec<u8>> {
        self.texts.into_iter().map(|text| text.bytes.into_inner()).collect()
    }
}

impl Text {
    /// Whether something arrived.
    fn read(&self) -> Result<bool, Errno> {
        let mut buffer = [0; CHUNK_BYTES];
        match read(&self.from, &mut buffer) {
            Ok(0) => {
                self.open.set(false);
                Ok(false)
            }
            Ok(length) => {
                let mut bytes = self.bytes.borrow_mut();
                if bytes.len() + length > self.limit_bytes {
                    self.open.set(false);
                    return Err(Errno::EFBIG);
                }
                bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
                Ok(true)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

impl Stream for Collect {
    fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let open = self.texts.iter().filter(|text| text.open.get());
        open.map(|text| PollFd::new(text.from.as_fd(), PollFlags::POLLIN)).collect()
    }

    fn copy(&self, ready: &[bool]) -> Result<(), Errno> {
        let open: Vec<&Text> = self.texts.iter().filter(|text| text.open.get()).collect();
        for (text, _) in open.into_iter().zip(ready).filter(|(_, ready)| **ready) {
            text.read()?;
        }
        Ok(())
    }

    fn drain(&self) -> Result<(), Errno> {
        for text in &self.texts {
            while text.open.get() && text.read()? {}
        }
        Ok(())
    }
}

/// A pair of pseudo terminals, pty(7).
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    /// What our own terminal was, to be restored.
    saved: Option<Termios>,
    /// Read from our input and not yet taken by the job's terminal: it takes no more than its job reads.
    input: RefCell<Vec<u8>>,
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
        jacamar_kernel::set_nonblocking(master.as_fd())?;
        fchown(&slave, Some(Uid::from_raw(uid)), None)?;
        let ours = std::io::stdin();
        let saved = if isatty(ours.as_fd())? { Some(tcgetattr(ours.as_fd())?) } else { None };
        let terminal = Self {
            master,
            saved,
            input: RefCell::new(Vec::new()),
            input_open: Cell::new(true),
            output_open: Cell::new(true),
        };
        if let Some(saved) = &terminal.saved {
            terminal.follow_window_size()?;
            let mut raw = saved.clone();
            cfmakeraw(&mut raw);
            tcsetattr(ours.as_fd(), SetArg::TCSANOW, &raw)?;
        }
        Ok((terminal, slave))
    }

    /// Gives the job's terminal the size of ours.
    fn follow_window_size(&self) -> Result<(), Errno> {
        match self.saved {
            Some(_) => {
                let size = jacamar_kernel::window_size(std::io::stdin().as_fd())?;
                jacamar_kernel::set_window_size(self.master.as_fd(), &size)
            }
            None => Ok(()),
        }
    }

    fn read_input(&self) -> Result<(), Errno> {
        let mut buffer = [0; CHUNK_BYTES];
        let length = read(standard_input(), &mut buffer)?;
        let mut input = self.input.borrow_mut();
        if length == 0 {
            self.input_open.set(false);
            // End of file for the job: what ^D is to a person.
            input.push(4);
        } else {
            input.extend_from_slice(buffer.get(..length).unwrap_or_default());
        }
        Ok(())
    }

    fn write_input(&self) -> Result<(), Errno> {
        write_pending(self.master.as_fd(), &self.input)
    }

    /// Whether more is to come or to be written, and somebody has the job's side open.
    fn takes_input(&self) -> bool {
        self.output_open.get() && (self.input_open.get() || !self.input.borrow().is_empty())
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
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

impl Stream for Terminal {
    /// The job's output, then our input or, with some in hand, the job's terminal to write it to; closed ones would wake
    /// every poll(2).
    fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let output = PollFd::new(self.master.as_fd(), PollFlags::POLLIN);
        let input = match self.input.borrow().is_empty() {
            true => PollFd::new(standard_input(), PollFlags::POLLIN),
            false => PollFd::new(self.master.as_fd(), PollFlags::POLLOUT),
        };
        let both = [(self.output_open.get(), output), (self.takes_input(), input)];
        both.into_iter().filter(|(open, _)| *open).map(|(_, fd)| fd).collect()
    }

    fn copy(&self, ready: &[bool]) -> Result<(), Errno> {
        let (takes_input, in_hand) = (self.takes_input(), !self.input.borrow().is_empty());
        let mut ready = ready.iter().copied();
        if self.output_open.get() && ready.next() == Some(true) {
            self.copy_output()?;
        }
        if takes_input && ready.next() == Some(true) {
            if in_hand { self.write_input()? } else { self.read_input()? }
        }
        Ok(())
    }

    /// What the job wrote before it ended.
    fn drain(&self) -> Result<(), Errno> {
        let deadline = Instant::now() + DRAIN_WITHIN;
        let mut left = DRAIN_MAX_BYTES;
        // Whoever kept the other side open may go on writing.
        while self.output_open.get() && left > 0 && ready_to_read(self.master.as_fd())? {
            writable(std::io::stdout().as_fd(), deadline)?;
            self.copy_output()?;
            left = left.saturating_sub(CHUNK_BYTES);
        }
        Ok(())
    }

    fn window_changed(&self) -> Result<(), Errno> {
        self.follow_window_size()
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

/// Writes what is taken at once, and keeps the rest.
fn write_pending(fd: BorrowedFd<'_>, pending: &RefCell<Vec<u8>>) -> Result<(), Errno> {
    let mut pending = pending.borrow_mut();
    match write(fd, &pending) {
        Ok(length) => {
            pending.drain(..length);
            Ok(())
        }
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
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
