//! The stages of the user side. `jacamar-auth` starts each of them as the CI user, in the sandbox.
//!
//! What a stage has to know is one container on descriptor 0 (`jacamar_contract::stage_request`), read to its end and
//! never sought in: behind sudo(8) it is a pipe. Nothing comes from arguments or environment. Descriptors 1 and 2 are
//! the job log, but in `resolve`, where 1 takes the answer.

mod cleanup;
mod joblog;
mod prepare;
mod report;
mod resolve;

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use clap::Subcommand;
use jacamar_contract::stage_report::exit_code;
use jacamar_contract::stage_request::{CONTAINER_MAX_BYTES, StageRequest};
use jacamar_plan::{Refusal, Stage, SubStageKind};
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, rlim_t};
use nix::sys::stat::{Mode, umask};

use crate::shell::{self, Feed, ShellError};
use report::Report;

/// The sub-commands that `jacamar-auth` uses.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum StageCommand {
    /// Say who runs where, make the job's directories
    #[command(hide = true)]
    Prepare,
    /// Run one script of the job in a login shell
    #[command(hide = true)]
    Run,
    /// Remove what a job that was ended left
    #[command(hide = true)]
    Cleanup,
    /// Canonical forms of directories, as the CI user sees them
    #[command(hide = true)]
    Resolve,
}

/// What the job gets as we got it. Our own process changes both, see `jacamar_sandbox::own_process`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    pub(crate) umask: Mode,
    pub(crate) core_limit: (rlim_t, rlim_t),
}

impl Given {
    /// Looks before anything was changed.
    pub(crate) fn look() -> anyhow::Result<Self> {
        // There is no call that only asks.
        let given = umask(Mode::from_bits_truncate(0o077));
        umask(given);
        let core_limit = getrlimit(Resource::RLIMIT_CORE).context("could not read the core limit")?;
        Ok(Self { umask: given, core_limit })
    }
}

/// Runs a stage; its exit code, see `jacamar_contract::stage_report::exit_code`.
pub(crate) fn stage(command: StageCommand, given: Given) -> anyhow::Result<u8> {
    match command {
        StageCommand::Prepare => {
            let container = container()?;
            let request = request(&container, command)?.0;
            Ok(refused_or(prepare::prepare(&request)?, &request.support_contact))
        }
        StageCommand::Run => run(given),
        StageCommand::Cleanup => {
            let container = container()?;
            cleanup::cleanup(&request(&container, command)?.0)
        }
        StageCommand::Resolve => resolve::resolve(),
    }
}

fn run(given: Given) -> anyhow::Result<u8> {
    let container = container()?;
    let (request, script) = request(&container, StageCommand::Run)?;
    let report = Report::open(request.report)?;
    let feed = Feed::new(request.profile, script)?;
    // A script may have megabytes, and it runs in the job's memory limit.
    drop(container);
    if let Some(error) = shell::enter(&request.home).context("the root directory cannot be entered")? {
        joblog::line(&format!("home directory {}: {error}; the script begins in /", request.home));
    }
    match shell::run(&request, feed, given) {
        Ok(ended) => {
            report.write(ended.report)?;
            if let Stage::Run(sub_stage) = &request.stage
                && sub_stage.kind() == SubStageKind::User
                && let Err(error) = write_usage(&request)
            {
                joblog::line(&format!("JACAMAR_REPORT, {}: {error}", request.usage_file));
            }
            if let Some(refusal) = &ended.refusal {
                joblog::refusal(refusal, &request.support_contact);
            } else if let Some(notice) = &ended.notice {
                joblog::line(notice);
            }
            Ok(ended.report.exit_code())
        }
        Err(ShellError::Start(refusal)) => {
            joblog::refusal(&refusal, &request.support_contact);
            Ok(exit_code::BROKEN)
        }
        Err(ShellError::Own(error)) => Err(error),
    }
}

/// After a script of the user's: what the job used so far, before the artifacts are collected.
fn write_usage(request: &StageRequest) -> std::io::Result<()> {
    if request.usage_file.is_empty() || request.usage_group.is_empty() {
        return Ok(());
    }
    let usage = jacamar_sandbox::group_usage(Path::new(&request.usage_group));
    let text = serde_json::to_string_pretty(&usage)? + "\n";
    // Whoever is in the directory with us may have put a link or a fifo there.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(flags.bits())
        .open(&request.usage_file)?;
    file.write_all(text.as_bytes())
}

fn refused_or(done: Result<(), Refusal>, support_contact: &str) -> u8 {
    match done {
        Ok(()) => exit_code::DONE,
        Err(refusal) => {
            joblog::refusal(&refusal, support_contact);
            exit_code::REFUSED
        }
    }
}

/// All that descriptor 0 gives.
fn container() -> anyhow::Result<Vec<u8>> {
    input(CONTAINER_MAX_BYTES)
}

fn input(max_bytes: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut limited = std::io::stdin().lock().take(max_bytes as u64 + 1);
    limited.read_to_end(&mut bytes).context("descriptor 0 (request) could not be read")?;
    if bytes.len() > max_bytes {
        bail!("descriptor 0 (request) has more than {max_bytes} bytes");
    }
    Ok(bytes)
}

/// Settings and script of the container, if it is one for this stage.
fn request(container: &[u8], command: StageCommand) -> anyhow::Result<(StageRequest, &[u8])> {
    let (request, script) = StageRequest::decode(container)
        .context("descriptor 0 is not the request that `jacamar-auth` passes to this command")?;
    let fits = match (&request.stage, command) {
        (Stage::Prepare, StageCommand::Prepare)
        | (Stage::Run(_), StageCommand::Run)
        | (Stage::Cleanup, StageCommand::Cleanup) => true,
        (
            Stage::Config | Stage::Prepare | Stage::Run(_) | Stage::Cleanup | Stage::Exec,
            StageCommand::Prepare | StageCommand::Run | StageCommand::Cleanup | StageCommand::Resolve,
        ) => false,
    };
    if !fits {
        bail!("descriptor 0 is a request for another command (stage {})", request.stage);
    }
    Ok((request, script))
}
