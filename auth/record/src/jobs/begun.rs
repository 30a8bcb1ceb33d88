//! A record in the making, and what is left of one whose `config` was killed.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};

use super::{DIRECTORY, JobLock, Jobs, remove_directory, try_lock};
use crate::RecordError;
use crate::files::{io, is_young, modified, ours, read_file};

/// A name that `config` has taken, with its lock: what is found under such a name is in use. Dropped, it is free again.
#[derive(Debug)]
pub struct Begun<'a> {
    pub(super) jobs: &'a Jobs,
    pub(super) name: String,
    pub(super) directory: OwnedFd,
    pub(super) written: bool,
    _lock: JobLock,
}

impl Jobs {
    /// Takes a name for a record, before anything else has it.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn begin(&self, name: &str) -> Result<Begun<'_>, RecordError> {
        let path = self.path(name);
        let failed = |e| io("make", &path, e);
        mkdirat(&self.directory, name, Mode::S_IRWXU).map_err(failed)?;
        // Until it is locked its age keeps `gc` off; should that not do, one of these fails.
        let directory = openat(&self.directory, name, DIRECTORY, Mode::empty()).map_err(failed)?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&directory, "lock", flags, Mode::from_bits_truncate(0o600)).map_err(failed)?;
        let lock = try_lock(file).map_err(failed)?.ok_or_else(|| RecordError::Busy(name.to_owned()))?;
        Ok(Begun { jobs: self, name: name.to_owned(), directory, written: false, _lock: lock })
    }

    /// Removes what a killed `config`, or a killed end of a job, left of a record: a directory without one, which
    /// nobody holds and which is not young. Whether there was such a thing; `only_look` leaves it.
    ///
    /// # Errors
    /// [`RecordError::NotOurs`], [`RecordError::Io`].
    pub fn remove_half_made(&self, name: &str, only_look: bool) -> Result<bool, RecordError> {
        let path = self.path(name);
        let failed = |e| io("remove", &path, e);
        let directory = match openat(&self.directory, name, DIRECTORY, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(false),
            other => other.map_err(failed)?,
        };
        ours(directory.as_fd(), &path, 0o077)?;
        if is_young(modified(&fstat(&directory).map_err(failed)?)) {
            return Ok(false);
        }
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let _lock = match openat(&directory, "lock", flags, Mode::empty()) {
            // Killed before it was made, or after it was removed.
            Err(Errno::ENOENT) => None,
            Ok(file) => match try_lock(file).map_err(failed)? {
                None => return Ok(false),
                lock => lock,
            },
            Err(errno) => return Err(failed(errno)),
        };
        // With the lock held: config may have written it meanwhile.
        if read_file(directory.as_fd(), c"record.json", &path)?.is_some() {
            return Ok(false);
        }
        if !only_look {
            remove_directory(self, directory.as_fd(), name).map_err(failed)?;
        }
        Ok(true)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.written {
            match remove_directory(self.jobs, self.directory.as_fd(), &self.name) {
                // What could not be removed is left to `gc`.
                Ok(()) | Err(_) => {}
            }
        }
    }
}
