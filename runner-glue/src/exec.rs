//! `jacamar exec` and `jacamar explain`: the user level, whoever calls.

use std::ffi::OsString;
use std::io::Write;

use anyhow::{Context, anyhow};
use jacamar_plan::{Grant, Level, Site};
use jacamar_sandbox::{CgroupChoice, Own, Session, Words};

/// Runs a command in the caller's environment; its exit code.
pub(crate) fn exec(own: &Own, profile: &str, terminal: bool, command: &[OsString]) -> anyhow::Result<u8> {
    let words = Words::new(command, std::env::vars_os())
        .context("the command or its environment cannot be passed on")?;
    Ok(session(profile)?.run(own, &words, terminal)?)
}

/// Prints the plan; exit code 0.
pub(crate) fn explain(profile: &str, json: bool) -> anyhow::Result<u8> {
    let plan = session(profile)?.explain()?;
    let text = jacamar_plan::explain(plan.plan()).to_text(json)?;
    std::io::stdout().write_all(text.as_bytes()).context("could not write the plan")?;
    Ok(0)
}

fn session(profile: &str) -> anyhow::Result<Session> {
    let account = jacamar_site::accounts::current()?;
    let working_directory = std::env::current_dir().context("the current directory is gone")?;
    let working_directory = working_directory
        .into_os_string()
        .into_string()
        .map_err(|_| anyhow!("the current directory is not UTF-8"))?;
    let state =
        jacamar_record::state_directory(Level::User, &account.home, std::env::var_os("XDG_STATE_HOME"))?;
    Ok(Session {
        base: state.join("tmp"),
        grant: Grant { account, claims_digest: String::new(), rule: "exec".into() },
        profile: jacamar_site::profile::profile(profile)?,
        site: Site::default(),
        level: Level::User,
        cgroup: CgroupChoice::Auto,
        working_directory,
        kill_timeout: Session::KILL_TIMEOUT,
    })
}
