//! Whose turn it is among the jobs of one user. The claim is a file of the record's directory: it goes with the record, and
//! whoever is killed leaves no count behind.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;

use super::{Jobs, OpenJob};
use crate::files::{io, write_json};
use crate::{RecordError, Turn};

/// The lock on the turns of all users: who holds it may read those of others and write his own.
#[derive(Debug)]
pub struct Turns(#[expect(dead_code, reason = "dropping it unlocks")] Flock<OwnedFd>);

impl Jobs {
    /// Locks the turns; `None`: another process has them, and not for long.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn try_turns(&self) -> Result<Option<Turns>, RecordError> {
        let (path, file) = self.lock_file("turns")?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Turns(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(io("lock", &path, errno)),
        }
    }
}

impl OpenJob {
    /// Its turn; `None` if it has none: it did not ask, or nothing limits it.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn turn(&self) -> Result<Option<Turn>, RecordError> {
        self.read_json(c"turn")
    }

    /// Writes its turn.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn set_turn(&self, _locked: &Turns, turn: Turn) -> Result<(), RecordError> {
        write_json(self.directory.as_fd(), "turn", &turn).map_err(|e| io("write", &self.path, e))
    }

    /// Whether a stage, or the end of the job, holds its lock now. It is looked at by taking a share of it for a moment:
    /// who wants the whole at that moment asks again, and two who look do not disturb each other.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn is_locked(&self) -> Result<bool, RecordError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = match openat(&self.directory, "lock", flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(false),
            other => other.map_err(|e| io("look at", &self.path, e))?,
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(false),
            Err((_, Errno::EWOULDBLOCK)) => Ok(true),
            Err((_, errno)) => Err(io("look at", &self.path, errno)),
        }
    }
}
