//! `jacamar-auth exec` and `explain`: a command as a user, at the root level, or as oneself at the user level.

use std::ffi::OsString;
use std::io::Write;

use anyhow::{Context, anyhow, bail};
use jacamar_plan::{Account, Grant, Level, Site};
use jacamar_sandbox::{CgroupChoice, Own, Session, Words};

/// What a login finds before any of its files was read, environ(7).
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Runs a command; its exit code.
pub(crate) fn exec(
    own: &Own,
    level: Level,
    user: &str,
    profile: &str,
    terminal: bool,
    command: &[OsString],
) -> anyhow::Result<u8> {
    let session = session(level, user, profile)?;
    let words = Words::new(command, environment(&session.grant.account, terminal))
        .context("the command cannot be passed on")?;
    Ok(session.run(own, &words, terminal)?)
}

/// Prints the plan; exit code 0.
pub(crate) fn explain(level: Level, user: &str, profile: &str, json: bool) -> anyhow::Result<u8> {
    let plan = session(level, user, profile)?.explain()?;
    let text = jacamar_plan::explain(plan.plan()).to_text(json)?;
    std::io::stdout().write_all(text.as_bytes()).context("could not write the plan")?;
    Ok(0)
}

fn session(level: Level, user: &str, profile: &str) -> anyhow::Result<Session> {
    let account = account(level, user)?;
    let state = jacamar_record::state_directory(level, &account.home, std::env::var_os("XDG_STATE_HOME"))?;
    Ok(Session {
        working_directory: account.home.clone(),
        grant: Grant { account, claims_digest: String::new(), rule: "exec".into() },
        profile: jacamar_site::profile::profile(profile)?,
        site: Site::default(),
        level,
        cgroup: CgroupChoice::Auto,
        base: state.join("tmp"),
        kill_timeout: Session::KILL_TIMEOUT,
    })
}

fn account(level: Level, user: &str) -> anyhow::Result<Account> {
    let found = jacamar_site::accounts::lookup(user)?.ok_or_else(|| anyhow!("there is no account {user}"))?;
    let own = nix::unistd::getuid().as_raw();
    if level == Level::User && found.account.uid != own {
        bail!("only root may run a command as {user}");
    }
    Ok(found.account)
}

/// Nothing of ours is passed on: it is root's.
fn environment(account: &Account, terminal: bool) -> Vec<(OsString, OsString)> {
    let mut pairs = vec![
        ("PATH", PATH.into()),
        ("HOME", account.home.clone()),
        ("USER", account.name.clone()),
        ("LOGNAME", account.name.clone()),
        ("SHELL", account.shell.clone()),
    ];
    // What the person at the terminal has in front of him is the one thing that the command must know.
    if terminal && let Ok(term) = std::env::var("TERM") {
        pairs.push(("TERM", term));
    }
    pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}
