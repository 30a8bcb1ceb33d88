//! File access with other ids than our own, and back.

use jacamar_kernel::Errno;
use nix::sys::prctl::set_dumpable;
use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};

/// Whose rights are used for files.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FileIds {
    /// Ours: the effective ids.
    Own,
    /// Those of somebody else; the group stays ours where none is named.
    Of(Uid, Option<Gid>),
}

impl FileIds {
    /// Does something with these ids, setfsuid(2). Root's capabilities over files are gone meanwhile.
    ///
    /// # Errors
    /// EPERM if the ids could not be taken, or our own not be had back: the call itself reports nothing, so it is asked
    /// again. Whatever prctl(2) answers.
    pub(crate) fn during<R>(self, act: impl FnOnce() -> R) -> Result<R, Errno> {
        let Self::Of(uid, gid) = self else { return Ok(act()) };
        let (own_uid, own_gid) = (geteuid(), getegid());
        let result = take(uid, gid.unwrap_or(own_gid)).map(|()| act());
        take(own_uid, own_gid)?;
        // Each change sets it to the value of fs.suid_dumpable, proc_sys_fs(5).
        set_dumpable(false)?;
        result
    }
}

fn take(uid: Uid, gid: Gid) -> Result<(), Errno> {
    setfsgid(gid);
    setfsuid(uid);
    if setfsuid(uid) == uid && setfsgid(gid) == gid { Ok(()) } else { Err(Errno::EPERM) }
}
