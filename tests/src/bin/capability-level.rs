//! `exec` at the capability level, which `jacamar-auth` refuses there: whoever may start it could become anybody.
//!
//! Installed with `setcap cap_setuid,cap_setgid=ep` and started by an ordinary account, it does what a stage of
//! `jacamar-auth` does there.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a program of the testbed talks to its starter"
)]

use std::ffi::OsString;

use anyhow::{Context, bail};
use jacamar_plan::{Grant, Level, Site};
use jacamar_sandbox::{CgroupChoice, Session, SessionError, Words};

fn main() {
    let code = match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("capability-level: {error:#}");
            let session = error.downcast_ref::<SessionError>();
            if let Some(hint) = session.and_then(SessionError::hint) {
                eprintln!("hint: {hint}");
            }
            session.map_or(SessionError::FAILED, SessionError::exit_code)
        }
    };
    std::process::exit(code.into());
}

/// Arguments: KEEPER-UID USER PROFILE [--explain] -- COMMAND...
fn run() -> anyhow::Result<u8> {
    let own = jacamar_sandbox::own_process()?;
    let mut arguments = std::env::args_os().skip(1);
    let mut next = |what| arguments.next().and_then(|text: OsString| text.into_string().ok()).context(what);
    let keeper: u32 = next("no keeper")?.parse().context("the keeper is a uid")?;
    let (user, profile, mode) = (next("no user")?, next("no profile")?, next("no --")?);
    let command: Vec<OsString> = arguments.collect();

    // From the first instruction: before, whoever has the starter's uid could trace us into anything.
    jacamar_sandbox::become_keeper(keeper, keeper)?;
    let level = jacamar_sandbox::level()?;
    if level != Level::Capabilities {
        bail!(
            "this program has the level {level}; it needs cap_setuid and cap_setgid, and an ordinary account"
        );
    }
    let account = jacamar_site::accounts::lookup(&user)?.context("no such account")?.account;
    let state = jacamar_record::state_directory(level, &account.home, None)?;
    let environment =
        [("PATH", "/usr/bin:/bin"), ("HOME", account.home.as_str()), ("USER", account.name.as_str())]
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let session = Session {
        working_directory: account.home.clone(),
        grant: Grant { account, claims_digest: String::new(), rule: "exec".into() },
        profile: jacamar_site::profile::profile(&profile)?,
        site: Site::default(),
        level,
        cgroup: CgroupChoice::Auto,
        base: state.join("tmp"),
        kill_timeout: Session::KILL_TIMEOUT,
    };
    if mode == "--explain" {
        println!("{}", jacamar_plan::explain(session.explain()?.plan()).to_json()?);
        return Ok(0);
    }
    Ok(session.run(&own, &Words::new(&command, environment)?, false)?)
}
