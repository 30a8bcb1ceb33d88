//! The runner stand-in as a program of its own: `runner-standin --config FILE --job FILE`.
//!
//! Needed where the runner must be another process: to run it as another account or in namespaces, and to kill it.
//! The job is a file in the form of `JOB_RESPONSE_FILE`. Signals are those of the real runner: SIGTERM and SIGINT
//! stop the job, SIGQUIT lets it end. SIGUSR1 stands for a cancel in GitLab, SIGUSR2 for an abort.
//! Exit code: 0 the job succeeded, 1 it failed or the runner gave up, 2 it could not begin.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a program of the testbed talks to its starter"
)]

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use testbed::gitlab::Job;
use testbed::runner::{Config, Runner, Running, Shutdown, State};

const USAGE: &str = "usage: runner-standin --config FILE --job FILE [--runner NAME] [--ca FILE] \
[--result FILE] [--quiet]";

#[derive(Debug, Default)]
struct Arguments {
    config: Option<PathBuf>,
    job: Option<PathBuf>,
    runner: Option<String>,
    ca: Option<PathBuf>,
    result: Option<PathBuf>,
    quiet: bool,
}

fn arguments() -> Result<Arguments> {
    let mut found = Arguments::default();
    let mut rest = std::env::args().skip(1);
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{flag} needs a value\n{USAGE}"));
        match flag.as_str() {
            "--config" => found.config = Some(value()?.into()),
            "--job" => found.job = Some(value()?.into()),
            "--runner" => found.runner = Some(value()?),
            "--ca" => found.ca = Some(value()?.into()),
            "--result" => found.result = Some(value()?.into()),
            "--quiet" => found.quiet = true,
            _ => bail!("unknown argument {flag}\n{USAGE}"),
        }
    }
    Ok(found)
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            writeln!(io::stderr(), "runner-standin: {error:#}").ok();
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments = arguments()?;
    let config = Config::read(&arguments.config.context(USAGE)?)?;
    let job = arguments.job.context(USAGE)?;
    let text = fs::read_to_string(&job).with_context(|| format!("read {}", job.display()))?;
    let job: Job = serde_json::from_str(&text).with_context(|| format!("read {}", job.display()))?;
    let mut runner = Runner::new(&config, arguments.runner.as_deref())?.environment(std::env::vars());
    let ca = arguments.ca.or_else(|| runner.config().tls_ca_file.clone().map(PathBuf::from));
    if let Some(ca) = ca {
        let pem = fs::read_to_string(&ca).with_context(|| format!("read {}", ca.display()))?;
        runner = runner.ca_chain(&pem);
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2]).context("catch signals")?;
    let (to_us, caught) = mpsc::channel();
    // Ends with the process.
    thread::spawn(move || signals.forever().all(|signal| to_us.send(signal).is_ok()));

    let running = runner.start(job)?;
    let result = follow(running, &caught, arguments.quiet, Duration::from_secs(config_timeout(&config)))?;
    if let Some(path) = arguments.result {
        let text = serde_json::to_string_pretty(&result).context("write the result")?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if result.state == Some(State::Success) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn config_timeout(config: &Config) -> u64 {
    u64::try_from(config.shutdown_timeout).ok().filter(|&seconds| seconds > 0).unwrap_or(30)
}

/// Prints the job log as it comes, and passes signals on, until the job has ended.
fn follow(
    mut running: Running,
    caught: &mpsc::Receiver<i32>,
    quiet: bool,
    shutdown_timeout: Duration,
) -> Result<testbed::runner::JobResult> {
    let mut printed = 0;
    let mut give_up: Option<Instant> = None;
    loop {
        if !quiet {
            printed = print_from(&running.log(), printed)?;
        }
        if running.is_over() || give_up.is_some_and(|at| Instant::now() >= at) {
            break;
        }
        match caught.recv_timeout(Duration::from_millis(20)) {
            Ok(SIGTERM) => running.shut_down(Shutdown::Terminate),
            Ok(SIGINT) => running.shut_down(Shutdown::Interrupt),
            Ok(SIGUSR1) => running.cancel(),
            Ok(SIGUSR2) => running.abort(),
            // SIGQUIT: take no further job, and there is none.
            Ok(_) | Err(_) => continue,
        }
        if running.is_shutting_down() && give_up.is_none() {
            give_up = Some(Instant::now() + shutdown_timeout);
        }
    }
    let result = running.wait();
    if !quiet {
        print_from(&result.job_log, printed)?;
    }
    Ok(result)
}

/// Prints what is new in whole lines.
fn print_from(log: &str, printed: usize) -> Result<usize> {
    let new = log.get(printed..).unwrap_or_default();
    let end = new.rfind('\n').map_or(0, |at| at + 1);
    let mut stdout = io::stdout().lock();
    stdout.write_all(new.get(..end).unwrap_or_default().as_bytes()).context("write to standard output")?;
    stdout.flush().context("write to standard output")?;
    Ok(printed + end)
}
