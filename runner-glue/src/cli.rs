//! The command line of `jacamar`.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use jacamar_sandbox::SessionError;

#[derive(Debug, Parser)]
#[command(name = "jacamar", version, about = "The user side of Jacamar CI")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command in the sandbox of a profile, at the user level
    Exec(Exec),
    /// Print what `exec` would do, step by step, and what this host cannot give
    Explain(Explain),
    /// Finish what a killed driver or a restart of the host left: `jacamar-auth gc`, see there
    #[command(disable_help_flag = true)]
    Gc(Gc),
    /// Fetch the GitLab server's key set; `jacamar-auth` starts it
    #[command(hide = true)]
    Keys,
    /// Check a job's token; `jacamar-auth` starts it
    #[command(hide = true)]
    Verify,
    #[command(flatten)]
    Stage(crate::stage::StageCommand),
}

#[derive(Debug, Args)]
struct Exec {
    /// Name of the sandbox profile
    #[arg(long, value_name = "NAME")]
    profile: String,
    /// Give the command a terminal of its own
    #[arg(long)]
    pty: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct Explain {
    /// Name of the sandbox profile
    #[arg(long, value_name = "NAME")]
    profile: String,
    /// One JSON object for programs
    #[arg(long)]
    json: bool,
    /// Accepted as `exec` takes it; nothing is run
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct Gc {
    /// Options of `jacamar-auth gc`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    options: Vec<OsString>,
}

/// Runs the program; its exit code.
#[must_use]
pub fn run() -> ExitCode {
    // Before our own process is changed.
    let given = crate::stage::Given::look();
    // The first thing: until then a closed descriptor 2 could be any file.
    let own = match jacamar_sandbox::own_process() {
        Ok(own) => own,
        Err(error) => return fail(&error.into()),
    };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Exec(exec) => crate::exec::exec(&own, &exec.profile, exec.pty, &exec.command),
        Command::Explain(explain) => crate::exec::explain(&explain.profile, explain.json),
        Command::Gc(gc) => Err(driver(&gc.options)),
        Command::Stage(command) => given.and_then(|given| crate::stage::stage(command, given)),
        Command::Keys => crate::keys::keys(),
        Command::Verify => crate::verify::verify(),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error),
    }
}

/// Becomes the `jacamar-auth` beside our own program; returns if that fails.
fn driver(options: &[OsString]) -> anyhow::Error {
    let own = match std::fs::read_link("/proc/self/exe") {
        Ok(own) => own,
        Err(error) => return anyhow::Error::new(error).context("could not find our own executable"),
    };
    let program = own.with_file_name("jacamar-auth");
    let error = std::process::Command::new(&program).arg("gc").args(options).exec();
    anyhow::Error::new(error).context(format!("could not execute {}", program.display()))
}

/// clap's own exit code for a mistake is 2, which to GitLab Runner is a system failure that it retries.
fn usage(error: &clap::Error) -> ExitCode {
    let written = error.print();
    match (error.use_stderr(), written) {
        (false, Ok(())) => ExitCode::SUCCESS,
        (true, _) | (false, Err(_)) => ExitCode::from(SessionError::FAILED),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let session = error.downcast_ref::<SessionError>();
    let hint = session.and_then(SessionError::hint).map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    let text = format!("jacamar: {error:#}\n{hint}");
    match std::io::stderr().write_all(text.as_bytes()) {
        // Without descriptor 2 the exit code is all that is left to say.
        Ok(()) | Err(_) => ExitCode::from(session.map_or(SessionError::FAILED, SessionError::exit_code)),
    }
}
