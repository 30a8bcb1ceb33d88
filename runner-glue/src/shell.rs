//! The shell executor: the site's Bash as Jacamar starts it, the script on its standard input.
//!
//! `env -i HOME=$HOME [user_bash_env ...] bash --login < script`, without the `env`. Output goes straight to
//! descriptors 1 and 2, nothing is copied; so when the shell has ended, the stage has, whoever still holds them open.
//! Signals are not passed on: process 1 of the stage sends them to every process, the shell included.

mod feed;
mod start;

use std::path::Path;

use jacamar_contract::stage_report::{Reached, ShellEnd, StageReport, Taken, startup_refusal};
use jacamar_contract::stage_request::{ProfileMode, StageRequest};
use jacamar_plan::Refusal;
use nix::sys::signal::Signal;

use crate::stage::Given;
pub(crate) use feed::Feed;
use start::{Shell, Signals};

/// How it went.
#[derive(Debug)]
pub(crate) struct Ended {
    /// For the supervisor, and our own exit code.
    pub(crate) report: StageReport,
    /// For the job log: a start-up file ended the shell.
    pub(crate) refusal: Option<Refusal>,
    /// For the job log: a signal ended the shell.
    pub(crate) notice: Option<String>,
}

/// Why there was no shell.
#[derive(Debug)]
pub(crate) enum ShellError {
    /// It cannot be executed.
    Start(Refusal),
    /// A failure of ours.
    Own(anyhow::Error),
}

impl From<anyhow::Error> for ShellError {
    fn from(error: anyhow::Error) -> Self {
        Self::Own(error)
    }
}

/// A login begins in its home, and in `/` where that is not to be had: then with the reason.
pub(crate) fn enter(home: &str) -> std::io::Result<Option<std::io::Error>> {
    match std::env::set_current_dir(home) {
        Ok(()) => Ok(None),
        Err(reason) => std::env::set_current_dir("/").map(|()| Some(reason)),
    }
}

/// Runs a script in our own working directory and waits for its shell.
pub(crate) fn run(request: &StageRequest, feed: Feed, given: Given) -> Result<Ended, ShellError> {
    let mut signals = Signals::open()?;
    if signals.asked_to_end()? {
        // Before there was anything to end.
        let end = ShellEnd::Signalled(SIGTERM);
        return Ok(ended(request, StageReport { reached: Reached::StartupFiles, end }, Taken::Nothing, true));
    }
    let shell = Shell::start(request, &feed, given, &mut signals)?;
    let (end, announced) = shell.wait(&mut signals)?;
    let reached = if announced { Reached::Script } else { Reached::StartupFiles };
    let taken = if feed.was_read()? { Taken::Input } else { Taken::Nothing };
    Ok(ended(request, StageReport { reached, end }, taken, signals.asked_to_end()?))
}

const SIGTERM: u8 = 15;

fn ended(request: &StageRequest, report: StageReport, taken: Taken, asked: bool) -> Ended {
    let (mut refusal, mut notice) = (None, None);
    match (report.reached, report.end) {
        (Reached::Script, ShellEnd::Exited(_)) => {}
        (Reached::StartupFiles, ShellEnd::Exited(_)) if asked => {
            notice = Some("the shell was asked to end before the job's script began".to_owned());
        }
        (Reached::StartupFiles, ShellEnd::Exited(code)) => {
            let mut why = startup_refusal(&startup_files(request), code, taken);
            if request.profile == ProfileMode::NoProfile {
                // It read none: BASH_ENV of user_bash_env is the site's matter.
                why.hint.clear();
            }
            refusal = Some(why);
        }
        (Reached::StartupFiles | Reached::Script, ShellEnd::Signalled(signal)) => {
            let when = match report.reached {
                Reached::StartupFiles => " before the job's script began",
                Reached::Script => "",
            };
            let code = report.exit_code();
            notice = Some(format!("the shell was ended by {}{when} (exit code {code})", signal_name(signal)));
        }
    }
    Ended { report, refusal, notice }
}

fn signal_name(signal: u8) -> String {
    Signal::try_from(i32::from(signal))
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

/// The files that this shell read, bash(1) "INVOCATION".
fn startup_files(request: &StageRequest) -> String {
    match request.profile {
        ProfileMode::Login => {
            let own = [".bash_profile", ".bash_login", ".profile"]
                .map(|name| Path::new(&request.home).join(name))
                .into_iter()
                .find(|path| path.exists());
            match own {
                Some(own) => format!("/etc/profile or {}", own.display()),
                None => "/etc/profile".to_owned(),
            }
        }
        ProfileMode::EtcProfileOnly => "/etc/profile".to_owned(),
        ProfileMode::NoProfile => request.shell.clone(),
    }
}
