//! The directory of records: made, opened, locked, listed, removed.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, fsync, geteuid, read, unlinkat, write};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{FORMAT, Record, Running, SlotKey};

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
const RECORD_MAX_BYTES: usize = 4 * 1024 * 1024;
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
        match nix::unistd::mkdir(&path, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(io("make", &path, errno)),
        }
        let directory =
            nix::fcntl::open(&path, DIRECTORY, Mode::empty()).map_err(|e| io("open", &path, e))?;
        ours(directory.as_fd(), &path, 0o077)?;
        let parent = nix::fcntl::open(state, DIRECTORY, Mode::empty()).map_err(|e| io("open", state, e))?;
        ours(parent.as_fd(), state, 0o022)?;
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
        let path = self.state.join("slots");
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::open(&path, flags, Mode::from_bits_truncate(0o600))
            .map_err(|e| io("open", &path, e))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| io("lock", &path, e))?;
        Ok(Slots { jobs: self, _lock: lock })
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

    /// Writes a new record under `name`, as a whole or not at all. The lock is let go: the open record is the claim.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn create(self, name: &str, record: &Record) -> Result<(), RecordError> {
        let path = self.jobs.path(name);
        mkdirat(&self.jobs.directory, name, Mode::S_IRWXU).map_err(|e| io("make", &path, e))?;
        let directory =
            openat(&self.jobs.directory, name, DIRECTORY, Mode::empty()).map_err(|e| io("open", &path, e))?;
        write_file(directory.as_fd(), "lock", b"").map_err(|e| io("write", &path, e))?;
        write_json(directory.as_fd(), "record.json", record).map_err(|e| io("write", &path, e))?;
        fsync(&self.jobs.directory).map_err(|e| io("write", &path, e))
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
        if self.is_closing()? { Err(RecordError::Closing(self.name.clone())) } else { Ok(lock) }
    }

    /// Takes the lock for the end of the job.
    ///
    /// # Errors
    /// [`RecordError::Busy`], [`RecordError::Io`].
    pub fn lock(&self, within: Duration) -> Result<JobLock, RecordError> {
        let failed = |e| io("lock", &self.path, e);
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = openat(&self.directory, "lock", flags, Mode::empty()).map_err(failed)?;
        let deadline = Instant::now() + within;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(JobLock(lock)),
                Err((_, Errno::EWOULDBLOCK)) if Instant::now() >= deadline => {
                    return Err(RecordError::Busy(self.name.clone()));
                }
                Err((back, Errno::EWOULDBLOCK)) => file = back,
                Err((_, errno)) => return Err(failed(errno)),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_closing(&self) -> Result<bool, RecordError> {
        Ok(read_file(self.directory.as_fd(), c"closing", &self.path)?.is_some())
    }

    /// From here on no stage starts.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn mark_closing(&self) -> Result<(), RecordError> {
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
        let Some(text) = read_file(self.directory.as_fd(), c"supervisor", &self.path)? else {
            return Ok(None);
        };
        let damaged =
            |e: serde_json::Error| RecordError::Damaged { path: self.path.clone(), reason: e.to_string() };
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// Removes the record. Its slot is free from here on.
    ///
    /// # Errors
    /// [`RecordError::Io`]
    pub fn remove(self, jobs: &Jobs) -> Result<(), RecordError> {
        let failed = |e| io("remove", &self.path, e);
        // record.json last: without it nothing of the job could be found.
        for file in ["supervisor", "supervisor.new", "record.json.new", "lock", "closing", "record.json"] {
            match unlinkat(&self.directory, file, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        unlinkat(&jobs.directory, self.name.as_str(), UnlinkatFlags::RemoveDir).map_err(failed)
    }
}

fn io(what: &'static str, path: &Path, errno: Errno) -> RecordError {
    RecordError::Io { what, path: path.to_owned(), errno }
}

/// The state directory and what is missing above it. Mode 0711, whatever our umask: users pass through it to the
/// private directories of their jobs, and list nothing.
fn make_state(state: &Path) -> Result<(), RecordError> {
    let missing: Vec<&Path> = state.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        match nix::unistd::mkdir(path, Mode::S_IRWXU) {
            Ok(()) => {
                let mode = Mode::from_bits_truncate(0o711);
                fchmodat(nix::fcntl::AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink)
                    .map_err(|e| io("open", path, e))?;
            }
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(io("make", path, errno)),
        }
    }
    Ok(())
}

/// Owner is us, and none of the bits of `others` is set.
fn ours(fd: BorrowedFd<'_>, path: &Path, others: u32) -> Result<(), RecordError> {
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

/// A file of ours; `None` if there is none.
fn read_file(
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

fn write_file(directory: BorrowedFd<'_>, name: &str, mut text: &[u8]) -> Result<(), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(directory, name, flags, Mode::from_bits_truncate(0o600))?;
    while !text.is_empty() {
        let length = write(&file, text)?;
        text = text.get(length..).unwrap_or_default();
    }
    fsync(&file)
}

/// New file, fsync, rename, fsync: after a crash there is the old one or the new one.
fn write_json<T: Serialize + DeserializeOwned>(
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
