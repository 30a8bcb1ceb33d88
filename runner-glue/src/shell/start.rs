//! The shell's process: started with what Jacamar gives it and nothing else, and waited for.
//!
//! `std::process::Command` would pass on our blocked signals, so the start is the kernel crate's: clone, descriptors,
//! signals, exec.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, anyhow, bail};
use jacamar_contract::stage_report::ShellEnd;
use jacamar_contract::stage_request::{ProfileMode, StageRequest};
use jacamar_kernel::{Errno, Image, close_all_but, duplicate_above, duplicate_to, exit_now, reset_signals};
use jacamar_plan::Refusal;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::umask;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, read, write};

use super::ShellError;
use super::feed::{ANNOUNCE, Feed};
use crate::stage::Given;

/// Signals to us, which `own_process` blocked.
#[derive(Debug)]
pub(super) struct Signals {
    descriptor: SignalFd,
    asked_to_end: bool,
}

impl Signals {
    pub(super) fn open() -> anyhow::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            set.add(signal);
        }
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("could not open a signal descriptor")?;
        Ok(Self { descriptor, asked_to_end: false })
    }

    /// Whether someone asked for our end, now or before.
    pub(super) fn asked_to_end(&mut self) -> anyhow::Result<bool> {
        while let Some(info) = self.descriptor.read_signal().context("could not read a signal")? {
            let child = Signal::SIGCHLD as i32;
            self.asked_to_end |= i32::try_from(info.ssi_signo) != Ok(child);
        }
        Ok(self.asked_to_end)
    }

    fn wait(&self) -> anyhow::Result<()> {
        let mut fds = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).context("could not wait for a signal"),
        }
    }
}

/// A shell that runs.
#[derive(Debug)]
pub(super) struct Shell {
    pid: Pid,
    announced: OwnedFd,
}

/// Descriptors of the child, above every number that it will use.
struct Ends {
    feed: OwnedFd,
    announce: OwnedFd,
    failure: OwnedFd,
}

const ABOVE: i32 = 32;

impl Shell {
    pub(super) fn start(
        request: &StageRequest,
        feed: &Feed,
        given: Given,
        signals: &mut Signals,
    ) -> Result<Self, ShellError> {
        let image = image(request)?;
        let pipe = || pipe2(OFlag::O_CLOEXEC).context("could not make a pipe");
        let above =
            |fd: &OwnedFd| duplicate_above(fd.as_fd(), ABOVE).context("could not duplicate a descriptor");
        let (announced, announce) =
            pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).context("could not make a pipe")?;
        let (failed, failure) = pipe()?;
        let ends = Ends {
            feed: duplicate_above(feed.as_fd(), ABOVE).context("could not duplicate a descriptor")?,
            announce: above(&announce)?,
            failure: above(&failure)?,
        };
        let pid =
            jacamar_kernel::clone(0, || child(&image, &ends, given)).context("could not start a process")?;
        drop((ends, announce, failure));

        let mut errno = [0; 4];
        match read(&failed, &mut errno) {
            Ok(0) => {}
            Ok(_) => {
                waitpid(pid, None).context("could not wait for the shell")?;
                return Err(ShellError::Start(cannot_start(
                    request,
                    Errno::from_raw(i32::from_ne_bytes(errno)),
                )));
            }
            Err(errno) => {
                return Err(anyhow!("could not learn whether the shell started: {}", errno.desc()).into());
            }
        }
        if signals.asked_to_end()? {
            // It may have come before there was a shell. A second one does no harm.
            match kill(pid, Signal::SIGTERM) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(anyhow!("could not end the shell: {}", errno.desc()).into()),
            }
        }
        Ok(Self { pid, announced })
    }

    /// Waits for its end; whether the job's script began.
    pub(super) fn wait(self, signals: &mut Signals) -> anyhow::Result<(ShellEnd, bool)> {
        let end = loop {
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).context("could not wait for the shell")? {
                WaitStatus::Exited(_, code) => {
                    break ShellEnd::Exited(u8::try_from(code).context("an exit code above 255")?);
                }
                WaitStatus::Signaled(_, signal, _) => {
                    break ShellEnd::Signalled(u8::try_from(signal as i32).context("a signal above 255")?);
                }
                _ => {}
            }
            signals.wait()?;
            signals.asked_to_end()?;
        };
        let mut byte = [0];
        match read(&self.announced, &mut byte) {
            Ok(length) => Ok((end, length == 1)),
            // A daemon of a start-up file has the other end open.
            Err(Errno::EAGAIN) => Ok((end, false)),
            Err(errno) => bail!("could not read the announcement: {}", errno.desc()),
        }
    }
}

/// The child's side. Allocates nothing.
fn child(image: &Image, ends: &Ends, given: Given) -> Infallible {
    let prepared = || {
        // Whoever ends us ends the shell.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        duplicate_to(ends.feed.as_fd(), 0)?;
        duplicate_to(ends.announce.as_fd(), ANNOUNCE)?;
        // `failure` is closed by exec.
        close_all_but(&[ANNOUNCE, ends.failure.as_raw_fd()])?;
        let (soft, hard) = given.core_limit;
        setrlimit(Resource::RLIMIT_CORE, soft, hard)?;
        umask(given.umask);
        reset_signals()
    };
    let errno = match prepared() {
        Ok(()) => image.execute(),
        Err(errno) => errno,
    };
    match write(&ends.failure, &(errno as i32).to_ne_bytes()) {
        Ok(_) | Err(_) => exit_now(1),
    }
}

/// `env -i HOME=$HOME [pairs ...] SHELL --login`
fn image(request: &StageRequest) -> anyhow::Result<Image> {
    let arguments: &[&str] = match request.profile {
        ProfileMode::Login => &[&request.shell, "--login"],
        // Not a login shell either, or Bash would still read ~/.bash_logout.
        ProfileMode::NoProfile => &[&request.shell, "--noprofile"],
        // A login shell, as /etc/profile and its parts ask.
        ProfileMode::EtcProfileOnly => &[&request.shell, "--noprofile", "--login"],
    };
    let c_string = |text: &str| CString::new(text).context("a setting has a NUL character in it");
    let paths = vec![c_string(&request.shell)?];
    let arguments = arguments.iter().map(|text| c_string(text)).collect::<Result<_, _>>()?;
    let environment = environment(request)
        .iter()
        .map(|(name, value)| c_string(&format!("{name}={value}")))
        .collect::<Result<_, _>>()?;
    Ok(Image::new(paths, arguments, environment))
}

/// HOME and the pairs in their order; of two with one name the last counts, as with env(1).
fn environment(request: &StageRequest) -> Vec<(&str, &str)> {
    let mut environment: Vec<(&str, &str)> = vec![("HOME", &request.home)];
    for (name, value) in &request.environment {
        match environment.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => environment.push((name, value)),
        }
    }
    environment
}

fn cannot_start(request: &StageRequest, errno: Errno) -> Refusal {
    Refusal {
        rule: "shell".to_owned(),
        object: request.shell.clone(),
        cause: format!("the shell cannot be started: {}", errno.desc()),
        hint:
            "[general] shell_path of the site's configuration names the shell; the people below can mend that"
                .to_owned(),
    }
}
