//! Files and directories of ours: made, read and written so that a crash leaves the old or the new one.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fstat, umask};
use nix::unistd::{fsync, geteuid, read, write};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::RecordError;

const RECORD_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What changed within this time may be in the making: `gc` leaves it.
pub const YOUNG: Duration = Duration::from_secs(60);

/// Whether this time is [`YOUNG`]. One that lies further ahead is not: the clock went back, or its owner set it.
#[must_use]
pub fn is_young(then: SystemTime) -> bool {
    match SystemTime::now().duration_since(then) {
        Ok(age) => age < YOUNG,
        Err(ahead) => ahead.duration() < YOUNG,
    }
}

/// When it was changed.
pub(crate) fn modified(stat: &FileStat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or_default();
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}

pub(crate) fn io(what: &'static str, path: &Path, errno: Errno) -> RecordError {
    RecordError::Io { what, path: path.to_owned(), errno }
}

/// The state directory and what is missing above it. Mode 0711, whatever our umask and at once (we may be killed): users
/// pass through it to the private directories of their jobs, and list nothing.
pub(crate) fn make_state(state: &Path) -> Result<(), RecordError> {
    let missing: Vec<&Path> = state.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        let own = umask(Mode::empty());
        let made = nix::unistd::mkdir(path, Mode::from_bits_truncate(0o711));
        umask(own);
        match made {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(io("make", path, errno)),
        }
    }
    Ok(())
}

/// Owner is us, and none of the bits of `others` is set.
pub(crate) fn ours(fd: BorrowedFd<'_>, path: &Path, others: u32) -> Result<(), RecordError> {
    let stat = fstat(fd).map_err(|e| io("look at", path, e))?;
    let own = geteuid().as_raw();
    let reason = if stat.st_uid != own {
        format!("it belongs to uid {}, not to {own}", stat.st_uid)
    } else if stat.st_mode & others != 0 {
        format!("its mode is {:04o}", stat.st_mode & 0o7777)
    } else {
        return Ok(());
    };
    Err(RecordError::NotOurs { path: path.to_owned(), reason })
}

/// A file of ours; `None` if there is none.
pub(crate) fn read_file(
    directory: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    path: &Path,
) -> Result<Option<Vec<u8>>, RecordError> {
    let failed = |e| io("read", path, e);
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        other => other.map_err(failed)?,
    };
    ours(file.as_fd(), path, 0o077)?;
    let mut text = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match read(&file, &mut buffer).map_err(failed)? {
            0 => return Ok(Some(text)),
            length => text.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        }
        if text.len() > RECORD_MAX_BYTES {
            return Err(failed(Errno::EFBIG));
        }
    }
}

pub(crate) fn write_file(directory: BorrowedFd<'_>, name: &str, mut text: &[u8]) -> Result<(), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(directory, name, flags, Mode::from_bits_truncate(0o600))?;
    while !text.is_empty() {
        let length = write(&file, text)?;
        text = text.get(length..).unwrap_or_default();
    }
    fsync(&file)
}

/// New file, fsync, rename, fsync: after a crash there is the old one or the new one.
pub(crate) fn write_json<T: Serialize + DeserializeOwned>(
    directory: BorrowedFd<'_>,
    name: &str,
    value: &T,
) -> Result<(), Errno> {
    let text = serde_json::to_vec_pretty(value).map_err(|_| Errno::EINVAL)?;
    let new = format!("{name}.new");
    write_file(directory, &new, &text)?;
    renameat(directory, new.as_str(), directory, name)?;
    fsync(directory)
}
