//! The caller, for the user level: who it is, not who it says it is.

use jacamar_plan::Account;
use nix::unistd::{User, getgid, getgroups, getuid};

use super::NssError;

/// The account of our own real ids, with the groups that the kernel says we have. A uid without an entry in
/// passwd is an account too: its name is the number, its home is `/`.
///
/// # Errors
/// [`NssError::Call`] if the name service or getgroups(2) fails.
pub fn current() -> Result<Account, NssError> {
    let (uid, gid) = (getuid(), getgid());
    let failed = |call| {
        move |errno: nix::Error| NssError::Call { call, object: uid.to_string(), source: errno.into() }
    };
    let entry = User::from_uid(uid).map_err(failed("getpwuid_r"))?;
    let mut groups: Vec<u32> =
        getgroups().map_err(failed("getgroups"))?.into_iter().map(|group| group.as_raw()).collect();
    groups.push(gid.as_raw());
    groups.sort_unstable();
    groups.dedup();
    // A path that is not text counts as none: "/" and /bin/sh below, as for a uid without an entry.
    let text = |path: std::path::PathBuf| path.into_os_string().into_string().ok();
    let (name, home, shell) = match entry {
        Some(user) => (user.name, text(user.dir), text(user.shell)),
        None => (uid.to_string(), None, None),
    };
    Ok(Account {
        name,
        uid: uid.as_raw(),
        gid: gid.as_raw(),
        groups,
        home: home.unwrap_or_else(|| "/".into()),
        shell: shell.unwrap_or_else(|| "/bin/sh".into()),
    })
}
