//! `jacamar-auth exec` and `explain`: a command as a user, at the root level, or as oneself at the user level.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use jacamar_plan::{Account, Grant, Level, Site};
use jacamar_sandbox::{CgroupChoice, Own, Session, Words};
use jacamar_site::accounts::{Group as FoundGroup, GroupName};
use jacamar_site::trusted_file::Trust;

use crate::stage;

/// What a login finds before any of its files was read, environ(7).
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Whose command, in which sandbox.
pub(crate) struct Wish<'a> {
    pub(crate) user: &'a str,
    /// None: the configuration's.
    pub(crate) profile: Option<&'a str>,
    /// None: no limits of the site, and everything else where it is by default.
    pub(crate) configuration: Option<&'a Path>,
}

/// Runs a command; its exit code.
pub(crate) fn exec(
    own: &Own,
    level: Level,
    wish: &Wish<'_>,
    terminal: bool,
    command: &[OsString],
) -> anyhow::Result<u8> {
    let session = session(level, wish)?;
    let words = Words::new(command, environment(&session.grant.account, terminal))
        .context("the command cannot be passed on")?;
    Ok(session.run(own, &words, terminal)?)
}

/// Prints the plan; exit code 0.
pub(crate) fn explain(level: Level, wish: &Wish<'_>, json: bool) -> anyhow::Result<u8> {
    let plan = session(level, wish)?.explain()?;
    let text = jacamar_plan::explain(plan.plan()).to_text(json)?;
    std::io::stdout().write_all(text.as_bytes()).context("could not write the plan")?;
    Ok(0)
}

fn session(level: Level, wish: &Wish<'_>) -> anyhow::Result<Session> {
    let (account, groups) = account(level, wish.user)?;
    let state = jacamar_record::state_directory(level, &account.home, std::env::var_os("XDG_STATE_HOME"))?;
    let trust = match level {
        Level::Root | Level::Capabilities => Trust::RootOnly,
        Level::User => Trust::Caller(account.uid),
    };
    let settings = wish.configuration.map(|path| stage::settings(Some(path), trust)).transpose()?;
    let profile = match (wish.profile, &settings) {
        (Some(name), _) => jacamar_site::profile::profile(name)?,
        (None, Some(settings)) => stage::profile(settings)?,
        (None, None) => bail!("neither --profile nor --configuration says which profile"),
    };
    let (mut site, mut cgroup, mut base) = (Site::default(), CgroupChoice::Auto, state.join("tmp"));
    if let Some(settings) = &settings {
        site = stage::limits(settings, &account.name, &groups);
        cgroup = stage::choice(settings);
        base = settings.sandbox.tmp_dir.as_ref().map_or(base, |path| path.as_str().into());
    }
    Ok(Session {
        working_directory: account.home.clone(),
        grant: Grant { account, claims_digest: String::new(), rule: "exec".into() },
        profile,
        site,
        level,
        cgroup,
        base,
        kill_timeout: Session::KILL_TIMEOUT,
    })
}

/// The account, and the names of its groups as far as they have one.
fn account(level: Level, user: &str) -> anyhow::Result<(Account, Vec<String>)> {
    let found = jacamar_site::accounts::lookup(user)?.ok_or_else(|| anyhow!("there is no account {user}"))?;
    let own = nix::unistd::getuid().as_raw();
    if level == Level::User && found.account.uid != own {
        bail!("only root may run a command as {user}");
    }
    let name = |group: &FoundGroup| match &group.name {
        GroupName::Named(name) => Some(name.clone()),
        GroupName::Unnamed | GroupName::Failed(_) => None,
    };
    let groups = found.groups.iter().filter_map(name).collect();
    Ok((found.account, groups))
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
