//! The supervisor: waits for process 1, forwards signals, ends the stage, removes what is left.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use jacamar_kernel::Errno;
use jacamar_plan::{Outcome, Reading, StageUsage, Step, StepError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid, read, write};

use crate::LaunchError;
use crate::cgroup::Cgroup;
use crate::child::{Failure, RELEASE};
use crate::init::End;
use crate::own::Own;
use crate::relay::Stream;
use crate::usage::{self, Peaks};

/// How long the kernel may take to end processes that were killed.
const END_WITHIN: Duration = Duration::from_secs(5);

/// A running stage.
#[derive(Debug)]
pub struct Supervisor {
    pid: Pid,
    control: Option<OwnedFd>,
    failure: OwnedFd,
    report: OwnedFd,
    cgroup: Option<Cgroup>,
    steps: Vec<Step>,
    has_pid_namespace: bool,
    dead: bool,
    counted: Option<Counted>,
}

/// What is counted while a stage runs.
#[derive(Debug)]
struct Counted {
    began: Instant,
    before: Reading,
    /// Where the kernel keeps no peaks.
    peaks: Option<Peaks>,
    stopped: Vec<String>,
}

/// The process that started us.
#[derive(Debug)]
pub enum Parent {
    /// Its pidfd.
    Pidfd(OwnedFd),
    /// Its number, where there are no pidfds (Linux before 5.3): another parent means that it died.
    Number(Pid),
}

impl Parent {
    /// The process that is our parent now.
    ///
    /// # Errors
    /// Whatever pidfd_open(2) answers, but for a kernel or container without it.
    pub fn of_ours() -> Result<Self, Errno> {
        let pid = getppid();
        match jacamar_kernel::pidfd_open(pid) {
            Ok(fd) => Ok(Self::Pidfd(fd)),
            // EINVAL: our parent is outside of our pid namespace, getppid(2) says 0. ESRCH: it died this instant.
            Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL | Errno::ESRCH) => Ok(Self::Number(pid)),
            Err(errno) => Err(errno),
        }
    }

    /// Its pidfd, to be watched; none: it must be asked from time to time.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Pidfd(fd) => Some(fd.as_fd()),
            Self::Number(_) => None,
        }
    }

    /// Whether it has died; `ready`: its pidfd is readable.
    pub(crate) fn is_dead(&self, ready: bool) -> bool {
        match self {
            Self::Pidfd(_) => ready,
            Self::Number(pid) => getppid() != *pid,
        }
    }
}

/// When the runner is dead nobody waits for the stage: it gets no more than this, whatever the site's time is.
const ORPHAN_GRACE: Duration = Duration::from_secs(10);

/// What a supervisor watches besides the command.
pub struct Watch<'a> {
    /// Between SIGTERM and the end.
    pub kill_timeout: Duration,
    /// A process whose end ends the stage: the runner.
    pub parent: Option<Parent>,
    /// What is copied to or from the command meanwhile.
    pub stream: Option<&'a dyn Stream>,
    /// The longest that the command may take; then it is ended as by SIGTERM.
    pub time_limit: Option<Duration>,
    /// Remove the job's control group too, not only the stage's.
    pub last_stage: bool,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("kill_timeout", &self.kill_timeout)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

/// How a stage ended.
#[derive(Debug)]
pub struct Ended {
    /// The command's end, or why there was none.
    pub outcome: Outcome,
    /// We were asked to end it (a signal, or the runner died): then nothing that it says is success.
    pub terminated: bool,
    /// What it used, where it has a control group and is a stage of a job.
    pub usage: Option<StageUsage>,
}

/// What a poll found besides the command's end.
struct Happened {
    parent_died: bool,
    nobody_listens: bool,
    /// Process 1 has said how the command ended, or is dead.
    reported: bool,
}

impl Supervisor {
    pub(crate) fn new(
        pid: Pid,
        control: OwnedFd,
        failure: OwnedFd,
        report: OwnedFd,
        cgroup: Option<Cgroup>,
        steps: Vec<Step>,
        has_pid_namespace: bool,
    ) -> Self {
        let (control, dead, counted) = (Some(control), false, None);
        Self { pid, control, failure, report, cgroup, steps, has_pid_namespace, dead, counted }
    }

    /// Counts what is used from now on: before the release.
    pub(crate) fn count(&mut self) {
        self.counted = self.cgroup.as_ref().map(|cgroup| {
            let job = Path::new(&cgroup.plan().job.path);
            Counted {
                began: Instant::now(),
                before: usage::read(cgroup.plan(), Peaks::default()),
                peaks: Peaks::are_needed(job).then(Peaks::default),
                stopped: Vec::new(),
            }
        });
    }

    /// Process 1 of the stage, as we see it.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn join_cgroup(&mut self) -> Result<(), LaunchError> {
        let pid = self.pid;
        self.cgroup.as_mut().map_or(Ok(()), |cgroup| cgroup.join(pid))
    }

    pub(crate) fn release(&mut self) -> Result<(), Errno> {
        self.send(RELEASE)
    }

    fn send(&mut self, byte: u8) -> Result<(), Errno> {
        match &self.control {
            Some(control) => match write(control, &[byte]) {
                // It ended by itself meanwhile, or was stopped and has more signals than it reads.
                Ok(_) | Err(Errno::EPIPE | Errno::EAGAIN) => Ok(()),
                Err(errno) => Err(errno),
            },
            None => Ok(()),
        }
    }

    /// Ends a child that was never released.
    pub(crate) fn abandon(mut self) -> Result<(), StepError> {
        self.end()?;
        self.remove(true)
    }

    /// Waits until the stage has ended and nothing of it is left.
    ///
    /// # Errors
    /// [`StepError`] if the end cannot be learned or enforced; even then everything was tried.
    pub fn wait(mut self, own: &Own, watch: &Watch<'_>) -> Result<Ended, StepError> {
        let watched = self.watch(own, watch);
        // Whatever happened: process 1 ends, then what is left in the group, then the copying, so that nobody who
        // still writes can keep us.
        self.end()?;
        let drained = watch.stream.map_or(Ok(()), Stream::drain);
        let outcome = self.outcome();
        let usage = self.used();
        self.remove(watch.last_stage)?;
        let terminated = watched?;
        match drained {
            // Nobody reads any more, or too much: it is said by the outcome.
            Ok(()) | Err(Errno::EPIPE | Errno::EFBIG | Errno::ETIMEDOUT) => {
                Ok(Ended { outcome, terminated, usage })
            }
            Err(errno) => Err(lost(errno)),
        }
    }

    /// Everything is dead, and the groups still stand.
    fn used(&mut self) -> Option<StageUsage> {
        let (cgroup, counted) = (self.cgroup.as_ref()?, self.counted.take()?);
        Some(StageUsage {
            before: counted.before,
            after: usage::read(cgroup.plan(), counted.peaks.unwrap_or_default()),
            elapsed_ms: u64::try_from(counted.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            stopped: counted.stopped,
        })
    }

    /// The command has ended and process 1 waits: what else runs is named, then it may go.
    fn let_go(&mut self) {
        if let (Some(cgroup), Some(counted)) = (&self.cgroup, &mut self.counted) {
            counted.stopped = cgroup.others(self.pid);
        }
        self.control = None;
    }

    /// Until process 1 is dead; whether we asked for it.
    fn watch(&mut self, own: &Own, watch: &Watch<'_>) -> Result<bool, StepError> {
        let mut terminated = None::<Instant>;
        let mut killed = None::<Instant>;
        let mut parent = watch.parent.as_ref();
        let mut grace = watch.kill_timeout;
        let mut time_limit = watch.time_limit.map(|limit| Instant::now() + limit);
        loop {
            let timeout = match (killed, terminated) {
                (Some(at), _) => Some(at + END_WITHIN),
                (None, Some(at)) => Some(at + grace),
                (None, None) => time_limit,
            };
            let happened = self.poll(own, watch, parent, timeout)?;
            if let Some(Counted { peaks: Some(peaks), .. }) = &mut self.counted
                && let Some(cgroup) = &self.cgroup
            {
                peaks.look(Path::new(&cgroup.plan().job.path));
            }
            if happened.reported && self.control.is_some() {
                self.let_go();
            }
            let mut ask = None;
            if happened.parent_died {
                parent = None;
                grace = grace.min(ORPHAN_GRACE);
                ask = Some(Signal::SIGTERM);
            }
            // Once: a reader that is gone is reported at each look.
            let silenced = happened.nobody_listens && terminated.is_none();
            if silenced || time_limit.is_some_and(|at| Instant::now() >= at) {
                time_limit = None;
                ask = Some(Signal::SIGTERM);
            }
            while let Some(info) = own.signals.read_signal().map_err(lost)? {
                match Signal::try_from(i32::try_from(info.ssi_signo).unwrap_or_default()) {
                    Ok(signal @ (Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT)) => {
                        ask = Some(signal);
                    }
                    Ok(Signal::SIGWINCH) => {
                        if let Some(stream) = watch.stream {
                            stream.window_changed().map_err(lost)?;
                        }
                    }
                    Ok(_) | Err(_) => {}
                }
            }
            // After the signals were read: a SIGCHLD that came in between would be the last event.
            if self.reaped()? {
                return Ok(terminated.is_some() || ask.is_some());
            }
            if let Some(signal) = ask {
                terminated.get_or_insert_with(Instant::now);
                self.send(u8::try_from(signal as i32).unwrap_or_default()).map_err(lost)?;
            }
            let now = Instant::now();
            match killed {
                Some(at) if now >= at + END_WITHIN => return Err(lost(Errno::ETIMEDOUT)),
                // Process 1 did not see the end of file: stopped, or out of memory.
                Some(at) if now >= at + Duration::from_secs(1) => self.kill()?,
                Some(_) => {}
                None if terminated.is_some_and(|at| now >= at + grace) => {
                    self.control = None;
                    killed = Some(now);
                }
                None => {}
            }
        }
    }

    /// Ends process 1, if it has not ended, and what is left in the control group.
    fn end(&mut self) -> Result<(), StepError> {
        self.control = None;
        let begin = Instant::now();
        while !self.reaped()? {
            if begin.elapsed() > END_WITHIN {
                return Err(lost(Errno::ETIMEDOUT));
            }
            if begin.elapsed() > Duration::from_secs(1) {
                self.kill()?;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // With a pid namespace all processes are dead by now; without one the group is the way to end them.
        match &self.cgroup {
            Some(cgroup) if !self.has_pid_namespace => cgroup.end(END_WITHIN),
            Some(_) | None => Ok(()),
        }
    }

    /// Waits for something to happen.
    fn poll(
        &self,
        own: &Own,
        watch: &Watch<'_>,
        parent: Option<&Parent>,
        until: Option<Instant>,
    ) -> Result<Happened, StepError> {
        let mut fds = vec![PollFd::new(own.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(parent.and_then(Parent::pidfd).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let report = fds.len();
        // Once it has reported it is let go, and a pipe that stays readable would keep us busy.
        let report = self.control.as_ref().map(|_| {
            fds.push(PollFd::new(self.report.as_fd(), PollFlags::POLLIN));
            report
        });
        let streamed = fds.len();
        if let Some(stream) = watch.stream {
            fds.extend(stream.poll_fds());
        }
        let look_again = Duration::from_secs(1);
        let looks = self.counted.as_ref().is_some_and(|counted| counted.peaks.is_some());
        let until = if looks { Some(until.unwrap_or_else(|| Instant::now() + look_again)) } else { until };
        let left = match (until, parent) {
            (Some(until), _) => Some(until.saturating_duration_since(Instant::now()).min(look_again)),
            // A number tells nothing by itself.
            (None, Some(Parent::Number(_))) => Some(look_again),
            (None, Some(Parent::Pidfd(_)) | None) => None,
        };
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(lost(errno)),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        let copied = match (watch.stream, ready.get(streamed..)) {
            (Some(stream), Some(ready)) => stream.copy(ready),
            (Some(_), None) | (None, _) => Ok(()),
        };
        let nobody_listens = match copied {
            Ok(()) => false,
            // Whoever read our output, or wanted the answer, is gone or has had enough.
            Err(Errno::EPIPE | Errno::EFBIG) => true,
            Err(errno) => return Err(lost(errno)),
        };
        let parent_died = parent.is_some_and(|parent| parent.is_dead(ready.get(1) == Some(&true)));
        let reported = report.is_some_and(|at| ready.get(at) == Some(&true));
        Ok(Happened { parent_died, nobody_listens, reported })
    }

    /// Whether process 1 is dead; then it is reaped.
    fn reaped(&mut self) -> Result<bool, StepError> {
        if self.dead {
            return Ok(true);
        }
        self.dead = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => true,
            Ok(_) | Err(Errno::EINTR) => false,
            Err(errno) => return Err(lost(errno)),
        };
        Ok(self.dead)
    }

    /// It is our child and not yet reaped, so its number is still its own. At the capability level without a user namespace it
    /// is not ours to signal, and its group ends it with all others.
    fn kill(&self) -> Result<(), StepError> {
        match (kill(self.pid, Signal::SIGKILL), &self.cgroup) {
            (Ok(()) | Err(Errno::ESRCH), _) => Ok(()),
            (Err(Errno::EPERM), Some(cgroup)) => cgroup.end(END_WITHIN),
            (Err(errno), _) => Err(lost(errno)),
        }
    }

    /// A failed step is believed before a report, and a report before silence.
    fn outcome(&self) -> Outcome {
        if let Some(bytes) = message(&self.failure) {
            let failure = Failure::from_bytes(bytes);
            let step = usize::try_from(failure.at).ok().and_then(|at| self.steps.get(at)).cloned();
            return Outcome::Broken(StepError { step: step.unwrap_or(Step::AwaitEnd), errno: failure.errno });
        }
        match message(&self.report).and_then(End::from_bytes) {
            Some(End::Exited(code)) => Outcome::Exited(code),
            Some(End::Signalled(signal)) => Outcome::Signalled(signal),
            None => Outcome::Broken(lost(Errno::ECHILD)),
        }
    }

    fn remove(self, last_stage: bool) -> Result<(), StepError> {
        self.cgroup.map_or(Ok(()), |cgroup| cgroup.remove(last_stage))
    }
}

fn lost(errno: Errno) -> StepError {
    StepError { step: Step::AwaitEnd, errno: errno as i32 }
}

/// Eight bytes, or nothing: all writers are dead.
fn message(pipe: &OwnedFd) -> Option<[u8; 8]> {
    let mut bytes = [0; 8];
    match read(pipe, &mut bytes) {
        Ok(8) => Some(bytes),
        Ok(_) | Err(_) => None,
    }
}
