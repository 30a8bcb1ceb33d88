//! A driver that does what a test tells it: `fake-driver PLAN STAGE... [SCRIPT SUB-STAGE]`.
//!
//! It writes down how it was called, then acts. It stands where the product's driver will stand, so that the
//! runner stand-in can be tested alone.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a program of the testbed talks to its starter"
)]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use serde::{Deserialize, Serialize};

/// What to do, call by call.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Plan {
    /// One line of JSON for each call is added here.
    record: Option<PathBuf>,
    /// What `config` prints unless its act says otherwise.
    config_output: Option<String>,
    /// `run` executes the script unless its act says otherwise.
    run_scripts: bool,
    /// Acts by stage; the first is for the first call, the last for all further ones.
    calls: BTreeMap<String, Vec<Act>>,
}

/// What to do in one call.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Act {
    stdout: Option<String>,
    stderr: Option<String>,
    /// The exit code; without one the script's end decides, or 0.
    exit: Option<u8>,
    /// The content of `BUILD_EXIT_CODE_FILE`.
    exit_code_file: Option<String>,
    /// Sleeps this long, or until SIGTERM.
    sleep_ms: u64,
    /// SIGTERM changes nothing.
    ignore_term: bool,
    /// Goes on this long after SIGTERM.
    linger_ms: u64,
    /// Dies by this signal.
    signal: Option<String>,
    /// Leaves a process behind that holds standard output open for so long.
    hold_stdout_ms: u64,
    /// Executes the script.
    run_script: Option<bool>,
}

/// How a call looked from inside.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    stage: String,
    argv: Vec<String>,
    cwd: PathBuf,
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
    umask: String,
    blocked: String,
    ignored: String,
    env: BTreeMap<String, String>,
    /// Descriptor -> what it leads to.
    fds: BTreeMap<String, String>,
    /// Path below the temporary directory -> mode.
    modes: BTreeMap<String, String>,
    /// What `BUILD_EXIT_CODE_FILE` held at the start.
    exit_code_file: Option<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            // Nobody else would hear of it; the code is the runner's system failure.
            writeln!(io::stderr(), "fake-driver: {error:#}").ok();
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode> {
    let terminated = Arc::new(AtomicBool::new(false));
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&terminated))
        .context("catch SIGTERM")?;
    let arguments: Vec<String> = std::env::args().collect();
    let [_, plan, stage, ..] = arguments.as_slice() else { bail!("usage: fake-driver PLAN STAGE ...") };
    let text = fs::read_to_string(plan).with_context(|| format!("read {plan}"))?;
    let plan: Plan = serde_json::from_str(&text).context("read the plan")?;
    let (stage, script) = match (stage.as_str(), arguments.as_slice()) {
        ("run", [.., script, sub_stage]) => (sub_stage.as_str(), Some(script.as_str())),
        (stage, _) => (stage, None),
    };
    let number = match &plan.record {
        Some(record) => write_down(record, stage, &arguments, &status)?,
        None => 0,
    };
    let acts = plan.calls.get(stage);
    let act = acts.and_then(|acts| acts.get(number).or_else(|| acts.last())).cloned().unwrap_or_default();
    perform(&plan, stage, script, &act, &terminated)
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim).unwrap_or_default()
}

/// Adds a line to the record; returns how many calls of this stage came before.
fn write_down(record: &Path, stage: &str, arguments: &[String], status: &str) -> Result<usize> {
    let cwd = std::env::current_dir().context("ask for the working directory")?;
    let mut fds = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").context("list descriptors")? {
        let path = entry.context("list descriptors")?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match fs::read_link(&path) {
            // The listing itself holds one.
            Ok(target) if target.starts_with("/proc") => {}
            Ok(target) => drop(fds.insert(name, target.display().to_string())),
            Err(_) => {}
        }
    }
    let mut modes = BTreeMap::new();
    collect_modes(&cwd, Path::new(""), &mut modes);
    let exit_code_file = std::env::var("BUILD_EXIT_CODE_FILE").ok();
    let seen = Seen {
        stage: stage.to_owned(),
        argv: arguments.to_vec(),
        pid: getpid().as_raw(),
        parent: nix::unistd::getppid().as_raw(),
        group: nix::unistd::getpgrp().as_raw(),
        session: nix::unistd::getsid(None).context("ask for the session")?.as_raw(),
        umask: field(status, "Umask").to_owned(),
        blocked: field(status, "SigBlk").to_owned(),
        ignored: field(status, "SigIgn").to_owned(),
        env: std::env::vars().collect(),
        fds,
        modes,
        exit_code_file: exit_code_file.and_then(|path| fs::read_to_string(path).ok()),
        cwd,
    };
    let earlier = fs::read_to_string(record).unwrap_or_default();
    let earlier = earlier.lines().filter_map(|line| serde_json::from_str::<Seen>(line).ok());
    let number = earlier.filter(|before| before.stage == stage).count();
    let mut line = serde_json::to_string(&seen).context("write a record")?;
    line.push('\n');
    let file = OpenOptions::new().create(true).append(true).open(record);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .with_context(|| format!("write {}", record.display()))?;
    Ok(number)
}

fn collect_modes(base: &Path, below: &Path, modes: &mut BTreeMap<String, String>) {
    let Ok(meta) = fs::symlink_metadata(base.join(below)) else { return };
    let name = if below.as_os_str().is_empty() { ".".into() } else { below.display().to_string() };
    let kind = if meta.is_dir() { "dir" } else { "file" };
    modes.insert(name, format!("{kind} {:04o} {}", meta.permissions().mode() & 0o7777, meta.uid()));
    if meta.is_dir() {
        for entry in fs::read_dir(base.join(below)).into_iter().flatten().flatten() {
            collect_modes(base, &below.join(entry.file_name()), modes);
        }
    }
}

fn perform(
    plan: &Plan,
    stage: &str,
    script: Option<&str>,
    act: &Act,
    terminated: &AtomicBool,
) -> Result<ExitCode> {
    let default_output = plan.config_output.as_deref().filter(|_| stage == "config");
    if let Some(text) = act.stdout.as_deref().or(default_output) {
        io::stdout().write_all(text.as_bytes()).context("write to standard output")?;
        io::stdout().flush().context("write to standard output")?;
    }
    if let Some(text) = &act.stderr {
        io::stderr().write_all(text.as_bytes()).context("write to standard error")?;
    }
    if act.hold_stdout_ms > 0 {
        let seconds = Duration::from_millis(act.hold_stdout_ms).as_secs_f64();
        // Not waited for: it is to outlive this call.
        drop(Command::new("sleep").arg(seconds.to_string()).spawn().context("start sleep")?);
    }
    let until = Instant::now() + Duration::from_millis(act.sleep_ms);
    while Instant::now() < until && (act.ignore_term || !terminated.load(Ordering::SeqCst)) {
        thread::sleep(Duration::from_millis(2));
    }
    if terminated.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(act.linger_ms));
    }
    if let Some(content) = &act.exit_code_file {
        write_exit_code(content)?;
    }
    if let Some(name) = &act.signal {
        let signal: Signal = name.parse().with_context(|| format!("{name} is not a signal"))?;
        // The first SIGSEGV only takes the handler of the standard library away.
        for _ in 0..2 {
            kill(getpid(), signal).context("send myself a signal")?;
        }
    }
    match (act.exit, script) {
        (Some(code), _) => Ok(ExitCode::from(code)),
        (None, Some(script)) if act.run_script.unwrap_or(plan.run_scripts) => {
            execute(script, act.ignore_term, terminated)
        }
        (None, _) => Ok(ExitCode::SUCCESS),
    }
}

fn write_exit_code(content: &str) -> Result<()> {
    // Runners before 17.9 name no such file.
    let Ok(path) = std::env::var("BUILD_EXIT_CODE_FILE") else { return Ok(()) };
    fs::write(&path, content).with_context(|| format!("write {path}"))
}

/// Runs the script with bash; its code goes into the file, ours says that it failed.
fn execute(script: &str, ignore_term: bool, terminated: &AtomicBool) -> Result<ExitCode> {
    let mut child = Command::new("bash").arg(script).spawn().context("start bash")?;
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for bash")? {
            break status;
        }
        thread::sleep(Duration::from_millis(2));
    };
    let stopped = terminated.load(Ordering::SeqCst) && !ignore_term;
    if status.success() && !stopped {
        return Ok(ExitCode::SUCCESS);
    }
    write_exit_code(&status.code().filter(|&code| code != 0).unwrap_or(1).to_string())?;
    Ok(ExitCode::from(1))
}
