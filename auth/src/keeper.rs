//! The keeper: the account that `jacamar-auth` is at the capability level, where an ordinary account starts it and it has
//! file capabilities.

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, bail};
use jacamar_plan::{Level, Refusal};
use nix::unistd::getuid;

/// Its name. It has no login and runs nothing else: whoever is it can write records.
pub(crate) const NAME: &str = "jacamar";

/// What our process may do from now on. At the capability level its effective and saved ids are the keeper's then.
pub(crate) fn take_level() -> anyhow::Result<Level> {
    let level = jacamar_sandbox::level()?;
    if level == Level::Capabilities {
        become_keeper()?;
    }
    Ok(level)
}

fn become_keeper() -> anyhow::Result<()> {
    program_is_roots()?;
    let Some(found) = jacamar_site::accounts::lookup(NAME)? else {
        let hint = format!(
            "as root: useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin \
             {NAME} && install -d -o {NAME} -g {NAME} -m 0711 /var/lib/jacamar"
        );
        let cause = "is missing on this host, and with file capabilities it keeps the records".into();
        let object = format!("account {NAME}");
        return Err(Refusal { rule: "keeper".into(), object, cause, hint }.into());
    };
    let account = found.account;
    if account.uid == 0 || account.gid == 0 {
        bail!("account {NAME} is root or in its group: it must be an account of its own");
    }
    // Who can write a record can name an account.
    if account.uid == getuid().as_raw() {
        bail!("the runner's account is {NAME}: it could write records; run the runner as another account");
    }
    jacamar_sandbox::become_keeper(account.uid, account.gid).context("could not become the keeper")
}

/// Whoever owns the program can write it, and root executes it as well.
fn program_is_roots() -> anyhow::Result<()> {
    let metadata = std::fs::metadata("/proc/self/exe").context("could not look at our own executable")?;
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if uid == 0 && mode & 0o022 == 0 {
        return Ok(());
    }
    Err(Refusal {
        rule: "program".into(),
        object: "jacamar-auth".into(),
        cause: format!("belongs to uid {uid} with mode {mode:04o}: with file capabilities it must be root's to write alone"),
        hint: "as root: chown root:RUNNERS-GROUP, chmod 0750, then setcap cap_setuid,cap_setgid=ep, which chown removes"
            .into(),
    }
    .into())
}

/// uid of the keeper where there is one: never a job's.
pub(crate) fn uid() -> anyhow::Result<Option<u32>> {
    Ok(jacamar_site::accounts::lookup(NAME)?.map(|found| found.account.uid))
}
