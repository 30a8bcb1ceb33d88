//! Files and programs that only root, or only root and the caller, can have written.
//!
//! Whoever may write a configuration may name his own GitLab server, so a file is believed only if nobody
//! else could change it: it and every directory and link on the way to it belong to a trusted owner and are
//! writable by nobody but their owner. An access control list cannot hide from this: its mask stands where
//! the group's bits are shown (acl(5)). A sticky directory such as /tmp is refused too: others can put the
//! file there first. Each name is opened in the directory that was checked before it, never by a whole path, and
//! what is read is a descriptor that was itself checked.

mod untrusted;
mod walk;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use untrusted::{Exposed, FileKind, Untrusted};
use walk::{Found, reopen, resolve};

use crate::source::Document;

/// Largest file that is read, in bytes.
pub const FILE_MAX_BYTES: usize = 1024 * 1024;

/// Who may have written a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Root alone: levels root and capabilities.
    RootOnly,
    /// Root, or the account with this uid, which is the caller's own: level user.
    Caller(u32),
}

impl Trust {
    fn includes(self, uid: u32) -> bool {
        match self {
            Self::RootOnly => uid == 0,
            Self::Caller(caller) => uid == 0 || uid == caller,
        }
    }
}

/// Reads a text file that only `trust` can have written. An error says which part of the path is exposed
/// and how to mend it.
///
/// # Errors
/// [`Untrusted`]: not absolute, not there, exposed, not a regular file, more than [`FILE_MAX_BYTES`], not
/// UTF-8.
pub fn read(path: &Path, trust: Trust) -> Result<Document, Untrusted> {
    let name = path.display().to_string();
    let found = regular(resolve(path, trust)?)?;
    let too_large = || Untrusted::TooLarge { path: name.clone() };
    let size = usize::try_from(found.stat.st_size).unwrap_or(usize::MAX);
    if size > FILE_MAX_BYTES {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(size);
    let limit = u64::try_from(FILE_MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    File::from(reopen(&found, trust)?)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| Untrusted::Call { call: "read", path: name.clone(), source })?;
    if bytes.len() > FILE_MAX_BYTES {
        return Err(too_large());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Document::new(name, text)),
        Err(error) => {
            let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
            Err(Untrusted::NotUtf8 { path: name, line: before.filter(|&&byte| byte == b'\n').count() + 1 })
        }
    }
}

/// The path, without links, of an executable that only `trust` can have written.
///
/// Whether the CI user may execute it is not asked: that is seen when he does.
///
/// # Errors
/// [`Untrusted`]: as for [`read`], or no execute bit.
pub fn program(path: &Path, trust: Trust) -> Result<PathBuf, Untrusted> {
    let found = regular(resolve(path, trust)?)?;
    if found.stat.st_mode & 0o111 == 0 {
        return Err(Untrusted::NotExecutable { path: found.path.display().to_string() });
    }
    Ok(found.path)
}

fn regular(found: Found) -> Result<Found, Untrusted> {
    match found.kind() {
        FileKind::Regular => Ok(found),
        kind => Err(Untrusted::NotRegular { path: found.path.display().to_string(), kind }),
    }
}
