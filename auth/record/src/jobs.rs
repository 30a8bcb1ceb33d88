//! The directory of records: made, opened, locked, listed, removed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jacamar_plan::{JobUsage, StageUsage};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};
use serde::de::DeserializeOwned;

pub use self::begun::Begun;
pub use self::turns::Turns;
use crate::files::{io, make_state, modified, ours, read_file, write_file, write_json};
use crate::{FORMAT, Prepared, Record, Running, SlotKey};

mod begun;
mod turns;

/// Why there is no usable record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is none of this name: `config` did not run, or `cleanup` did.
    #[error("there is no record {0}: config did not run, or the job is cleaned up")]
    Missing(String),
    /// It belongs to somebody else, or others could have written it.
    #[error("the record {path} is not to be trusted: {reason}")]
    NotOurs {
        /// Path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It cannot be read as a record.
    #[error("the record {path} is damaged: {reason}")]
    Damaged {
        /// Path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another version of this program wrote it.
    #[error(
        "the record {path} has format {found}, this program knows {FORMAT}: finish the job with the program that began it"
    )]
    Format {
        /// Path.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// `cleanup` has begun.
    #[error("the record {0} is closing: cleanup has begun, no stage starts any more")]
    Closing(String),
    /// Another stage of the job has not ended.
    #[error("another stage of the job with record {0} still runs")]
    Busy(String),
    /// A call failed.
    #[error("could not {what} {path}: {}", errno.desc())]
    Io {
        /// What.
        what: &'static str,
        /// Path.
        path: PathBuf,
        /// errno(3)
        errno: Errno,
    },
}

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Records of one host that are looked at for a free slot.
const RECORDS_MAX: usize = 100_000;

/// `<state>/jobs`
#[derive(Debug)]
pub struct Jobs {
    state: PathBuf,
    directory: OwnedFd,
}

/// The lock on the choice of a build directory.
#[derive(Debug)]
pub struct Slots<'a> {
    jobs: &'a Jobs,
    _lock: Flock<OwnedFd>,
}

/// A record that was opened and checked.
#[derive(Debug)]
pub struct OpenJob {
    name: String,
    path: PathBuf,
    directory: OwnedFd,
    record: Record,
}

/// Held while a stage runs.
#[derive(Debug)]
pub struct JobLock(#[expect(dead_code, reason = "dropping it unlocks")] Flock<OwnedFd>);

impl Jobs {
    /// Opens `<state>/jobs`, made if it is missing; it belongs to us and nobody else can look into it.
    ///
    /// # Errors
    /// [`RecordError::NotOurs`], [`RecordError::Io`].
    pub fn open(state: &Path) -> Result<Self, RecordError> {
        let path = state.join("jobs");
        make_state(state)?;
        // Before anything is made in it: what we left in another's would keep that one from it.
        let parent = nix::fcntl::open(state, DIRECTORY, Mode::empty()).map_err(|e| io("open", state, e))?;
        ours(parent.as_fd(), state, 0o022)?;
        match nix::unistd::mkdir(&path, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(io("make", &path, errno)),
        }
        let directory =
            nix::fcntl::open(&path, DIRECTORY, Mode::empty()).map_err(|e| io("open", &path, e))?;
        ours(directory.as_fd(), &path, 0o077)?;
        Ok(Self { state: state.to_owned(), directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.join("jobs").join(name)
    }

    /// Locks the choice of build directories; it is free again when the value is dropped.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn slots(&self) -> Result<Slots<'_>, RecordError> {
        let (path, file) = self.lock_file("slots")?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| io("lock", &path, e))?;
        Ok(Slots { jobs: self, _lock: lock })
    }

    /// A file of the state directory that is there to be locked.
    fn lock_file(&self, name: &str) -> Result<(PathBuf, OwnedFd), RecordError> {
        let path = self.state.join(name);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match nix::fcntl::open(&path, flags, Mode::from_bits_truncate(0o600)) {
            Ok(file) => Ok((path, file)),
            Err(errno) => Err(io("open", &path, errno)),
        }
    }

    /// Opens a record by its name.
    ///
    /// # Errors
    /// [`RecordError`]; none of them is a guess.
    pub fn find(&self, name: &str) -> Result<OpenJob, RecordError> {
        let path = self.path(name);
        let directory = match openat(&self.directory, name, DIRECTORY, Mode::empty()) {
            Err(Errno::ENOENT) => return Err(RecordError::Missing(name.to_owned())),
            other => other.map_err(|e| io("open", &path, e))?,
        };
        ours(directory.as_fd(), &path, 0o077)?;
        let text = match read_file(directory.as_fd(), c"record.json", &path)? {
            Some(text) => text,
            None => return Err(RecordError::Missing(name.to_owned())),
        };
        let record = parse(&text, &path)?;
        Ok(OpenJob { name: name.to_owned(), path, directory, record })
    }

    /// Whether a name is taken, by a record of whatever version or one in the making.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn has(&self, name: &str) -> Result<bool, RecordError> {
        match fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(io("look at", &self.path(name), errno)),
        }
    }

    /// The build directory that a record claims, whatever else stands in it.
    fn claim(&self, name: &str) -> Option<Claim> {
        let directory = openat(&self.directory, name, DIRECTORY, Mode::empty()).ok()?;
        let text = read_file(directory.as_fd(), c"record.json", &self.path(name)).ok()??;
        serde_json::from_slice(&text).ok()
    }

    /// Names of all records.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn names(&self) -> Result<Vec<String>, RecordError> {
        let path = self.state.join("jobs");
        let failed = |e| io("list", &path, e);
        let own = openat(&self.directory, ".", DIRECTORY, Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        for entry in Dir::from_fd(own).map_err(failed)?.iter().take(RECORDS_MAX) {
            let name: CString = entry.map_err(failed)?.file_name().to_owned();
            if let Ok(name) = name.into_string()
                && !name.starts_with('.')
            {
                names.push(name);
            }
        }
        Ok(names)
    }
}

/// What every version of a record has.
#[derive(serde::Deserialize)]
struct Claim {
    slot_key: SlotKey,
    slot: u32,
}

impl Slots<'_> {
    /// The lowest number that no open record with the same key holds.
    ///
    /// # Errors
    /// [`RecordError`] if the directory cannot be listed or one of the records cannot be read.
    pub fn lowest(&self, key: &SlotKey) -> Result<u32, RecordError> {
        let mut used = Vec::new();
        for name in self.jobs.names()? {
            match self.jobs.find(&name) {
                Ok(job) if job.record.slot_key == *key => used.push(job.record.slot),
                // Cleaned up meanwhile.
                Ok(_) | Err(RecordError::Missing(_)) => {}
                // Of another version, or damaged: what it claims still counts, as far as it can be read.
                Err(RecordError::Format { .. } | RecordError::Damaged { .. }) => {
                    used.extend(
                        self.jobs.claim(&name).filter(|claim| claim.slot_key == *key).map(|claim| claim.slot),
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Ok((0..).find(|slot| !used.contains(slot)).unwrap_or_default())
    }

    /// Writes the record under its name, as a whole or not at all. The lock is let go: the open record is the claim.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn create(self, mut begun: Begun<'_>, record: &Record) -> Result<(), RecordError> {
        let path = self.jobs.path(&begun.name);
        write_json(begun.directory.as_fd(), "record.json", record).map_err(|e| io("write", &path, e))?;
        fsync(&self.jobs.directory).map_err(|e| io("write", &path, e))?;
        begun.written = true;
        Ok(())
    }
}

impl OpenJob {
    /// What it says.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the lock for a stage, waiting at most so long.
    ///
    /// # Errors
    /// [`RecordError::Closing`], [`RecordError::Busy`], [`RecordError::Io`].
    pub fn begin_stage(&self, within: Duration) -> Result<JobLock, RecordError> {
        let lock = self.lock(within)?;
        // With the lock held: cleanup marks first and then waits for it.
        match self.closed()? {
            Some(_) => Err(RecordError::Closing(self.name.clone())),
            None => Ok(lock),
        }
    }

    /// Takes the lock for the end of the job, waiting at most so long.
    ///
    /// # Errors
    /// [`RecordError::Busy`]; [`RecordError::Missing`] if another has ended it meanwhile; [`RecordError::Io`].
    pub fn lock(&self, within: Duration) -> Result<JobLock, RecordError> {
        let deadline = Instant::now() + within;
        loop {
            match self.try_lock()? {
                Some(lock) => return Ok(lock),
                None if Instant::now() >= deadline => return Err(RecordError::Busy(self.name.clone())),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Takes the lock if no stage holds it.
    ///
    /// # Errors
    /// [`RecordError::Missing`] if the record is removed by now, [`RecordError::Io`].
    pub fn try_lock(&self) -> Result<Option<JobLock>, RecordError> {
        let failed = |e| io("lock", &self.path, e);
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = match openat(&self.directory, "lock", flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Err(RecordError::Missing(self.name.clone())),
            other => other.map_err(failed)?,
        };
        let lock = try_lock(file).map_err(failed)?;
        // Whoever held it may have ended the job: the lock is then that of a file without a name.
        if lock.is_some() {
            self.written()?;
        }
        Ok(lock)
    }

    /// When the record was written.
    ///
    /// # Errors
    /// [`RecordError::Missing`] if it is removed by now, [`RecordError::Io`].
    pub fn written(&self) -> Result<SystemTime, RecordError> {
        self.modified(c"record.json")?.ok_or_else(|| RecordError::Missing(self.name.clone()))
    }

    /// When `cleanup` began the last time; `None` if none did.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn closed(&self) -> Result<Option<SystemTime>, RecordError> {
        self.modified(c"closing")
    }

    fn modified(&self, file: &CStr) -> Result<Option<SystemTime>, RecordError> {
        match fstatat(&self.directory, file, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(modified(&stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(io("look at", &self.path, errno)),
        }
    }

    /// From here on no stage starts.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn mark_closing(&self) -> Result<(), RecordError> {
        if self.closed()?.is_some() {
            // Its time is that of the first clean-up.
            return Ok(());
        }
        write_file(self.directory.as_fd(), "closing", b"").map_err(|e| io("close", &self.path, e))
    }

    /// Writes down the processes of the stage that runs.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn set_running(&self, running: &Running) -> Result<(), RecordError> {
        write_json(self.directory.as_fd(), "supervisor", running).map_err(|e| io("write", &self.path, e))
    }

    /// The stage has ended.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn clear_running(&self) -> Result<(), RecordError> {
        match unlinkat(&self.directory, "supervisor", UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(io("write", &self.path, errno)),
        }
    }

    /// The processes of a stage that has not ended, or was killed.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn running(&self) -> Result<Option<Running>, RecordError> {
        self.read_json(c"supervisor")
    }

    /// Writes down who started `prepare`: from here on something of the job may have to be undone.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn set_prepared(&self, prepared: &Prepared) -> Result<(), RecordError> {
        write_json(self.directory.as_fd(), "prepared", prepared).map_err(|e| io("write", &self.path, e))
    }

    /// Who started `prepare`; `None` if it did not begin.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn prepared(&self) -> Result<Option<Prepared>, RecordError> {
        self.read_json(c"prepared")
    }

    /// Adds what a stage used to what the job used before; the sum.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn add_usage(&self, stage: &StageUsage) -> Result<JobUsage, RecordError> {
        let mut usage: JobUsage = self.read_json(c"usage")?.unwrap_or_default();
        usage.add(stage);
        write_json(self.directory.as_fd(), "usage", &usage).map_err(|e| io("write", &self.path, e))?;
        Ok(usage)
    }

    fn read_json<T: DeserializeOwned>(&self, name: &CStr) -> Result<Option<T>, RecordError> {
        let Some(text) = read_file(self.directory.as_fd(), name, &self.path)? else { return Ok(None) };
        let damaged =
            |e: serde_json::Error| RecordError::Damaged { path: self.path.clone(), reason: e.to_string() };
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// Removes the record, whoever else does so at the same time. Its slot is free from here on.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn remove(self, jobs: &Jobs) -> Result<(), RecordError> {
        let failed = |e| io("remove", &self.path, e);
        remove_directory(jobs, self.directory.as_fd(), &self.name).map_err(failed)
    }
}

/// `None`: another process has it.
fn try_lock(file: OwnedFd) -> Result<Option<JobLock>, Errno> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(JobLock(lock))),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno),
    }
}

/// Removes a record's directory. record.json goes after what it makes sense of, and before the lock: who waits for that
/// finds no record then. `gc` removes what a kill leaves of it.
fn remove_directory(jobs: &Jobs, directory: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    for file in [
        "supervisor",
        "supervisor.new",
        "turn",
        "turn.new",
        "prepared",
        "prepared.new",
        "usage",
        "usage.new",
        "closing",
        "record.json.new",
        "record.json",
        "lock",
    ] {
        match unlinkat(directory, file, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    match unlinkat(&jobs.directory, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn parse(text: &[u8], path: &Path) -> Result<Record, RecordError> {
    #[derive(serde::Deserialize)]
    struct Version {
        format: u64,
    }
    let damaged =
        |e: serde_json::Error| RecordError::Damaged { path: path.to_owned(), reason: e.to_string() };
    let Version { format } = serde_json::from_slice(text).map_err(damaged)?;
    if format != u64::from(FORMAT) {
        return Err(RecordError::Format { path: path.to_owned(), found: format });
    }
    serde_json::from_slice(text).map_err(damaged)
}
