//! One call of the driver: starting it, waiting for it, ending it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::context::Context;
use super::failure::Failure;
use super::go;
use super::job_log::{JobLog, Level, RunnerLine, Source};
use super::outcome::{Call, EnvVar, Exit, SentSignal};
use super::recorder::Recorder;

/// The codes the executor announces; both are constants in the runner.
pub(crate) const BUILD_FAILURE: i32 = 1;
pub(crate) const SYSTEM_FAILURE: i32 = 2;

/// How often a waiting runner looks at its contexts.
const TICK: Duration = Duration::from_millis(4);

/// Everything about a call that is known before it starts.
pub(crate) struct Request {
    pub(crate) stage: String,
    pub(crate) attempt: usize,
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) directory: PathBuf,
    pub(crate) env: Vec<EnvVar>,
    /// `PATH` of the runner, where a program without a slash is looked for.
    pub(crate) search_path: String,
    pub(crate) script: Option<String>,
    pub(crate) exit_code_file: PathBuf,
    pub(crate) outputs: Outputs,
    pub(crate) graceful: Duration,
    pub(crate) force: Duration,
}

/// Where standard output and standard error go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outputs {
    /// Output is returned, errors go to the job log.
    Config,
    /// Both into the job log as the runner's.
    Prepare,
    /// Both into the job log as the job's.
    Run,
    /// Both into the runner's own log, not masked.
    Cleanup,
}

/// What the waiting thread reports.
struct Done {
    result: Result<(), Failure>,
    exit: Exit,
    first_line: Option<String>,
    output: Vec<u8>,
}

/// Runs a call to its end, or to the end of the runner's patience. The output is `config_exec`'s.
pub(crate) fn run(
    request: Request,
    context: &Context,
    log: &JobLog,
    recorder: &Recorder,
) -> (Result<(), Failure>, Vec<u8>) {
    let mut argv = vec![request.program.clone()];
    argv.extend(request.arguments.iter().cloned());
    let index = recorder.begin(Call {
        stage: request.stage.clone(),
        attempt: request.attempt,
        argv,
        cwd: request.directory.clone(),
        env: request.env.clone(),
        script: request.script.clone(),
        pid: None,
        started: recorder.elapsed(),
        ended: None,
        exit: Exit::Running,
        signals: Vec::new(),
        abandoned: false,
        exit_code_file: None,
    });
    let (graceful, force) = (request.graceful, request.force);
    let (to_us, from_thread) = mpsc::channel();
    let (pid_to_us, pid_from_thread) = mpsc::channel();
    // The thread that starts a process is its parent as PR_SET_PDEATHSIG sees it: it stays until the end.
    let waiter = (log.clone(), recorder.clone());
    thread::spawn(move || {
        let (log, recorder) = waiter;
        let done = start_and_wait(&request, &log, &pid_to_us);
        recorder.change(index, |call| {
            call.ended = Some(recorder.elapsed());
            call.exit = done.exit.clone();
            call.exit_code_file.clone_from(&done.first_line);
        });
        // Nobody listens any more if the runner has given up.
        to_us.send(done).ok();
    });
    let Ok(pid) = pid_from_thread.recv() else {
        let done = from_thread.recv().ok();
        return done.map_or_else(
            || (Err(Failure::system("the thread of a call died")), Vec::new()),
            |done| (done.result, done.output),
        );
    };
    recorder.change(index, |call| call.pid = Some(pid));
    let wait = |limit: Option<Duration>| {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            match from_thread.recv_timeout(TICK) {
                Ok(done) => return Some(done),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            let over = until.is_some_and(|until| Instant::now() >= until);
            if over || (limit.is_none() && context.ended().is_some()) {
                return None;
            }
        }
    };
    let kill = |signal: Signal| {
        let error = send(pid, signal).err().map(describe);
        recorder.change(index, |call| {
            let sent = SentSignal { name: signal.to_string(), at: recorder.elapsed(), error: error.clone() };
            call.signals.push(sent);
        });
        error
    };
    let force_kill = || {
        if let Some(error) = kill(Signal::SIGKILL) {
            log.warn(&format!("Failed to force-kill: {error}"));
        }
    };
    if let Some(done) = wait(None) {
        return (done.result, done.output);
    }
    if let Some(error) = kill(Signal::SIGTERM) {
        log.warn(&format!("Failed to terminate process: {error}"));
        force_kill();
    }
    if let Some(done) = wait(Some(graceful)) {
        return (done.result, done.output);
    }
    force_kill();
    if let Some(done) = wait(Some(force)) {
        return (done.result, done.output);
    }
    recorder.change(index, |call| call.abandoned = true);
    let message = format!("failed to kill process PID={pid}, likely process is dormant");
    (Err(Failure::system(message)), Vec::new())
}

fn send(pid: u32, signal: Signal) -> Result<(), Errno> {
    let group = i32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    killpg(Pid::from_raw(group), signal)
}

/// An error of the system as Go words it.
fn describe(error: Errno) -> String {
    error.desc().to_lowercase()
}

/// A program without a slash is looked for in the runner's `PATH`.
fn locate(program: &str, search_path: &str) -> Result<PathBuf, String> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    search_path
        .split(':')
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("exec: {}: executable file not found in $PATH", go::quote(program)))
}

fn start_and_wait(request: &Request, log: &JobLog, pid: &mpsc::Sender<u32>) -> Done {
    let not_started = |why: String| Done {
        result: Err(Failure::system(format!("failed to start command: {why}"))),
        exit: Exit::NotStarted(why),
        first_line: None,
        output: Vec::new(),
    };
    let program = match locate(&request.program, &request.search_path) {
        Ok(program) => program,
        Err(why) => return not_started(why),
    };
    if request.env.iter().any(|variable| variable.name.contains('\0') || variable.value.contains('\0')) {
        return not_started("exec: environment variable contains NUL".into());
    }
    let mut command = Command::new(&program);
    command
        .args(&request.arguments)
        .current_dir(&request.directory)
        .env_clear()
        .envs(request.env.iter().map(|variable| (&variable.name, &variable.value)))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let why =
                error.raw_os_error().map_or_else(|| error.to_string(), |n| describe(Errno::from_raw(n)));
            return not_started(format!("fork/exec {}: {why}", program.display()));
        }
    };
    // The receiver is the function that started this thread: it waits for just this.
    pid.send(child.id()).ok();
    let stdout = child.stdout.take().map(|pipe| copy(pipe, request.outputs, Kind::Output, log));
    let stderr = child.stderr.take().map(|pipe| copy(pipe, request.outputs, Kind::Errors, log));
    let status = child.wait();
    // As in Go, a call is over only when everyone has closed its pipes.
    let output = stdout.and_then(|thread| thread.join().ok()).unwrap_or_default();
    drop(stderr.map(thread::JoinHandle::join));
    let status = match status {
        Ok(status) => status,
        Err(error) => return not_started(error.to_string()),
    };
    let (result, first_line) = judge(status, &request.exit_code_file);
    let exit = match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    };
    Done { result, exit, first_line, output }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Output,
    Errors,
}

/// Copies a pipe to where it belongs; returns what nobody else took.
fn copy(
    mut pipe: impl Read + Send + 'static,
    outputs: Outputs,
    kind: Kind,
    log: &JobLog,
) -> thread::JoinHandle<Vec<u8>> {
    let log = log.clone();
    thread::spawn(move || {
        let source = match (outputs, kind) {
            (Outputs::Config, Kind::Output) => {
                let mut all = Vec::new();
                // A read error of a pipe is its end.
                pipe.read_to_end(&mut all).ok();
                return all;
            }
            (Outputs::Cleanup, _) => {
                copy_to_runner_log(pipe, kind, &log);
                return Vec::new();
            }
            (Outputs::Config, Kind::Errors) | (Outputs::Prepare, Kind::Errors) => Source::RunnerErrors,
            (Outputs::Prepare, Kind::Output) => Source::Runner,
            (Outputs::Run, Kind::Output) => Source::Script,
            (Outputs::Run, Kind::Errors) => Source::ScriptErrors,
        };
        let mut stream = log.stream(source);
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            stream.write(buffer.get(..count).unwrap_or_default());
        }
        Vec::new()
    })
}

fn copy_to_runner_log(pipe: impl Read, kind: Kind, log: &JobLog) {
    let (level, name) = match kind {
        Kind::Output => (Level::Debug, "out"),
        Kind::Errors => (Level::Warning, "err"),
    };
    for line in BufReader::new(pipe).split(b'\n') {
        let Ok(line) = line else { return };
        let message = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
        log.note_line(RunnerLine { level, message, cleanup_std: Some(name.into()) });
    }
}

/// What an exit means. The file is read for code 1 only, and whoever wrote it: an old one counts too.
fn judge(status: ExitStatus, exit_code_file: &Path) -> (Result<(), Failure>, Option<String>) {
    let code = status.code().unwrap_or(-1);
    let words = status_text(status);
    let unknown = |code: i32| {
        Failure::system(format!(
            "unknown Custom executor executable exit code {code}; executable execution terminated with: {words}"
        ))
    };
    match code {
        0 => (Ok(()), None),
        BUILD_FAILURE => {
            // A FIFO at this place hangs the runner here, as it hangs the real one.
            let Ok(file) = File::open(exit_code_file) else {
                return (Err(Failure::exit(i64::from(BUILD_FAILURE), words)), None);
            };
            let line = first_line(file);
            let failure = match go::atoi(&line) {
                Some(code) => Failure::exit(code, format!("exit status {line}")),
                None => unknown(SYSTEM_FAILURE),
            };
            (Err(failure), Some(line))
        }
        SYSTEM_FAILURE => (Err(Failure::system(words)), None),
        other => (Err(unknown(other)), None),
    }
}

fn first_line(file: File) -> String {
    let mut bytes = Vec::new();
    // Unreadable is as good as empty.
    file.take(64 * 1024).read_to_end(&mut bytes).ok();
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

fn status_text(status: ExitStatus) -> String {
    if let Some(code) = status.code() {
        return format!("exit status {code}");
    }
    let signal = status.signal().unwrap_or_default();
    let name = match Signal::try_from(signal) {
        Ok(Signal::SIGHUP) => "hangup",
        Ok(Signal::SIGINT) => "interrupt",
        Ok(Signal::SIGQUIT) => "quit",
        Ok(Signal::SIGILL) => "illegal instruction",
        Ok(Signal::SIGTRAP) => "trace/breakpoint trap",
        Ok(Signal::SIGABRT) => "aborted",
        Ok(Signal::SIGBUS) => "bus error",
        Ok(Signal::SIGFPE) => "floating point exception",
        Ok(Signal::SIGKILL) => "killed",
        Ok(Signal::SIGSEGV) => "segmentation fault",
        Ok(Signal::SIGPIPE) => "broken pipe",
        Ok(Signal::SIGALRM) => "alarm clock",
        Ok(Signal::SIGTERM) => "terminated",
        Ok(Signal::SIGSYS) => "bad system call",
        _ => "",
    };
    let name = if name.is_empty() { format!("signal {signal}") } else { name.to_owned() };
    let dumped = if status.core_dumped() { " (core dumped)" } else { "" };
    format!("signal: {name}{dumped}")
}
