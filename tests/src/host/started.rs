//! A program that was started: every wait for it has an end.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// No test waits longer for one event.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a program ended and what it wrote.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit code; of a death by signal 128 and the signal, negated.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Standard output of a program that succeeded and said nothing on standard error.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> String {
        assert!(self.code == 0 && self.err.is_empty(), "{self}");
        self.out
    }

    /// The value of a line `name=value` on standard output.
    ///
    /// # Panics
    /// If there is no such line.
    #[track_caller]
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        let line = self.out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no line {name}= in\n{self}"))
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}\n--- out\n{}\n--- err\n{}", self.code, self.out, self.err)
    }
}

/// Bytes that a thread collects, and a bell that rings at each.
type Collected = Arc<(Mutex<(Vec<u8>, bool)>, Condvar)>;

/// A program under way. Dropped, it is killed.
#[derive(Debug)]
pub struct Started {
    child: Child,
    out: Collected,
    err: Collected,
}

impl Started {
    /// Starts a command; its input is empty unless the command says otherwise.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    #[must_use]
    pub fn new(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("could not start {command:?}: {e}"));
        let out = collect(child.stdout.take());
        let err = collect(child.stderr.take());
        Self { child, out, err }
    }

    /// Its process id. What only executes other programs (nsenter, setpriv, env) passes it on, so this is the
    /// supervisor of a stage.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Writes to its input, which must be a pipe, and closes it.
    ///
    /// # Panics
    /// If it has none.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut input = self.child.stdin.take().expect("a piped input");
        // It may end without having read everything.
        match input.write_all(bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(e) => panic!("could not write: {e}"),
        }
    }

    /// Waits until its standard output holds `text`; all of the output so far.
    ///
    /// # Panics
    /// If it ends, or time is up, before.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let (state, bell) = &*self.out;
        let mut guard = state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let so_far = String::from_utf8_lossy(&guard.0).into_owned();
            if so_far.contains(text) {
                return so_far;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let closed = guard.1;
            if closed || left.is_zero() {
                drop(guard);
                panic!(
                    "{text:?} did not come (output closed: {closed}):\n{so_far}\n--- err\n{}",
                    text_of(&self.err)
                );
            }
            guard = bell.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If that fails.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("our own child, not yet reaped, can be signalled");
    }

    /// Waits for its end and for the end of its output.
    ///
    /// # Panics
    /// If time is up before.
    #[track_caller]
    #[must_use]
    pub fn finish(self) -> Ran {
        self.finish_within(PATIENCE)
    }

    /// As [`Started::finish`], with another limit.
    ///
    /// # Panics
    /// If time is up before.
    #[track_caller]
    #[must_use]
    pub fn finish_within(mut self, patience: Duration) -> Ran {
        let deadline = Instant::now() + patience;
        let Some(status) = self.wait(deadline) else {
            panic!(
                "it did not end within {patience:?}:\n{}\n--- err\n{}",
                text_of(&self.out),
                text_of(&self.err)
            );
        };
        for output in [&self.out, &self.err] {
            assert!(closed(output, deadline), "it ended, and something that it left holds its output open");
        }
        Ran { code: code(status), out: text_of(&self.out), err: text_of(&self.err) }
    }

    fn wait(&mut self, deadline: Instant) -> Option<ExitStatus> {
        // std has no wait with a limit; waitpid in another thread would own the child.
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let (Ok(()), Ok(_)) = (self.child.kill(), self.child.wait()) {}
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Collected {
    let collected: Collected = Arc::default();
    let theirs = Arc::clone(&collected);
    let mut stream = stream.expect("a piped output");
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        loop {
            let length = stream.read(&mut buffer).unwrap_or_default();
            let (state, bell) = &*theirs;
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.0.extend_from_slice(buffer.get(..length).unwrap_or_default());
            state.1 = length == 0;
            bell.notify_all();
            if length == 0 {
                return;
            }
        }
    });
    collected
}

fn closed(output: &Collected, deadline: Instant) -> bool {
    let (state, bell) = &**output;
    let mut guard = state.lock().unwrap_or_else(PoisonError::into_inner);
    while !guard.1 && Instant::now() < deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        guard = bell.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    guard.1
}

fn text_of(output: &Collected) -> String {
    let state = output.0.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&state.0).into_owned()
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| -(128 + status.signal().unwrap_or_default()))
}
