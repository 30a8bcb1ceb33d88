//! The command line of `jacamar-auth`.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};
use jacamar_contract::driver;
use jacamar_plan::Level;
use jacamar_sandbox::SessionError;

use crate::exec::Wish;

#[derive(Debug, Parser)]
#[command(name = "jacamar-auth", version, about = "The privileged side of Jacamar CI")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command as a user, in the sandbox of a profile
    Exec(Exec),
    /// Print what `exec` would do, step by step, and what this host cannot give
    Explain(Explain),
    /// Finish what a killed driver or a restart of the host left
    Gc(Gc),
}

#[derive(Debug, Args)]
struct Exec {
    /// Login name of the user
    #[arg(long, value_name = "NAME")]
    user: String,
    /// Name of the sandbox profile; without it that of the configuration
    #[arg(long, value_name = "NAME", required_unless_present = "configuration")]
    profile: Option<String>,
    /// A site's configuration: its limits, its profile, its directories
    #[arg(long, value_name = "FILE")]
    configuration: Option<PathBuf>,
    /// Give the command a terminal of its own
    #[arg(long)]
    pty: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct Explain {
    /// Login name of the user
    #[arg(long, value_name = "NAME")]
    user: String,
    /// Name of the sandbox profile; without it that of the configuration
    #[arg(long, value_name = "NAME", required_unless_present = "configuration")]
    profile: Option<String>,
    /// A site's configuration: its limits, its profile, its directories
    #[arg(long, value_name = "FILE")]
    configuration: Option<PathBuf>,
    /// One JSON object for programs
    #[arg(long)]
    json: bool,
    /// Accepted as `exec` takes it; nothing is run
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct Gc {
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// The site's configuration: its control groups and its audit log
    #[arg(long, value_name = "FILE")]
    configuration: Option<PathBuf>,
}

/// Runs the program; its exit code.
#[must_use]
pub fn run() -> ExitCode {
    // The first thing: until then a closed descriptor 2 could be any file.
    let result = jacamar_sandbox::own_process().map_err(anyhow::Error::from).and_then(|own| {
        let level = crate::keeper::take_level();
        // The runner's four calls, before anything that has options.
        match driver::parse(std::env::args_os().skip(1)) {
            Ok(Some(invocation)) => return Ok(crate::stage::stage(&own, level, invocation)),
            Ok(None) => {}
            Err(invalid) => return Ok(crate::stage::invalid(&invalid)),
        }
        let cli = Cli::try_parse()?;
        let level = level?;
        match cli.command {
            Command::Exec(Exec { user, profile, configuration, pty, command }) => {
                by_a_person(level)?;
                let wish = wish(&user, profile.as_deref(), configuration.as_deref());
                crate::exec::exec(&own, level, &wish, pty, &command)
            }
            Command::Explain(Explain { user, profile, configuration, json, command: _ }) => {
                by_a_person(level)?;
                crate::exec::explain(level, &wish(&user, profile.as_deref(), configuration.as_deref()), json)
            }
            // It decides by itself, and takes nothing from its caller that root did not write.
            Command::Gc(gc) => crate::gc::gc(&own, level, gc.configuration.as_deref(), gc.dry_run),
        }
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error),
    }
}

fn wish<'a>(user: &'a str, profile: Option<&'a str>, configuration: Option<&'a Path>) -> Wish<'a> {
    Wish { user, profile, configuration }
}

/// With file capabilities whoever may start us could become anybody: theirs are the stages, which authorize, and `gc`.
fn by_a_person(level: Level) -> anyhow::Result<()> {
    let real_root = nix::unistd::getuid().is_root();
    if real_root || level == Level::User {
        return Ok(());
    }
    bail!("only root may use this; the runner's account has config, prepare, run and cleanup")
}

fn fail(error: &anyhow::Error) -> ExitCode {
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        let written = error.print();
        // clap's own exit code for a mistake is 2, which to GitLab Runner is a system failure that it retries.
        return match (error.use_stderr(), written) {
            (false, Ok(())) => ExitCode::SUCCESS,
            (true, _) | (false, Err(_)) => ExitCode::from(SessionError::FAILED),
        };
    }
    let session = error.downcast_ref::<SessionError>();
    let hint = session.and_then(SessionError::hint).map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    let text = format!("jacamar-auth: {error:#}\n{hint}");
    match std::io::stderr().write_all(text.as_bytes()) {
        // Without descriptor 2 the exit code is all that is left to say.
        Ok(()) | Err(_) => ExitCode::from(session.map_or(SessionError::FAILED, SessionError::exit_code)),
    }
}
