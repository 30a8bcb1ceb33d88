//! The job's own directories: made before a stage, bound into its view, emptied as the user, removed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jacamar_kernel::Errno;
use jacamar_plan::{Directories, IdMaps, Level, Namespaces};
use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat, fstatat, mkdirat, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, pipe2, read, symlinkat, unlinkat, write};

pub use self::left::LeftDirectory;
use self::left::{HOST_LINK, this_host};
use crate::file_ids::FileIds;

mod left;

/// A directory that could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("could not {what} {path}: {}", errno.desc())]
pub struct DirectoryError {
    what: &'static str,
    path: PathBuf,
    errno: Errno,
}

/// Private directories of one job, below a base that belongs to us.
#[derive(Debug)]
pub struct JobDirectories {
    base: PathBuf,
    name: String,
    owner: Owner,
    /// Of who made them, or of who ends what that one left.
    held: Option<Flock<OwnedFd>>,
}

/// Whose rights are used below the job's directory.
#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: u32,
    gid: u32,
    level: Level,
}

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Files of /etc/ssh/ssh_config.d that are copied: so many, so large.
const SSH_FILES_MAX: usize = 64;
const SSH_FILE_MAX_BYTES: u64 = 64 * 1024;
/// Directories in directories that are open at once while they are emptied.
const DEPTH_MAX: usize = 64;

impl JobDirectories {
    /// Those of a job that has them already, to be used or removed.
    #[must_use]
    pub fn of(base: &Path, name: &str, uid: u32, gid: u32, level: Level) -> Self {
        Self { base: base.to_owned(), name: name.to_owned(), owner: Owner { uid, gid, level }, held: None }
    }

    /// Makes `base` (mode 0711, ours), a directory `name` below it for the user, and in it those that a plan binds. With
    /// root's rights nothing is done inside of what belongs to the user. It is locked as long as the value lives, so that
    /// [`LeftDirectory`] knows it from one that was left.
    ///
    /// # Errors
    /// [`DirectoryError`]; what was made so far is removed.
    pub fn make(base: &Path, name: &str, uid: u32, gid: u32, level: Level) -> Result<Self, DirectoryError> {
        make_base(base, level)?;
        let mut directories = Self::of(base, name, uid, gid, level);
        let base = open_directory(base)?;
        mkdirat(&base, name, Mode::S_IRWXU).map_err(|errno| directories.failed("make", errno))?;
        // While it is still ours: its owner could hold the lock himself. Until here its age protects it.
        let own = openat(&base, name, DIRECTORY, Mode::empty()).map_err(|e| directories.failed("open", e))?;
        let held = Flock::lock(own, FlockArg::LockExclusiveNonblock);
        directories.held = Some(held.map_err(|(_, errno)| directories.failed("lock", errno))?);
        match directories.fill(base.as_fd()) {
            Ok(()) => Ok(directories),
            Err(error) => {
                directories.remove()?;
                Err(error)
            }
        }
    }

    fn failed(&self, what: &'static str, errno: Errno) -> DirectoryError {
        DirectoryError { what, path: self.path(), errno }
    }

    /// Makes what is missing of them: a `make` that was killed leaves a part, a restart of the host nothing of those in
    /// memory, and the user may have removed what is his.
    ///
    /// # Errors
    /// [`DirectoryError`]
    pub fn mend(&self) -> Result<(), DirectoryError> {
        make_base(&self.base, self.owner.level)?;
        let base = open_directory(&self.base)?;
        exists_now(mkdirat(&base, self.name.as_str(), Mode::S_IRWXU)).map_err(|e| self.failed("make", e))?;
        self.fill(base.as_fd())
    }

    fn fill(&self, base: BorrowedFd<'_>) -> Result<(), DirectoryError> {
        let (name, Owner { uid, gid, level }) = (self.name.as_str(), self.owner);
        let stat =
            fstatat(base, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| self.failed("look at", e))?;
        match level {
            Level::Root if stat.st_uid != uid => give_away(base, name, uid, gid),
            Level::Capabilities if stat.st_uid != uid => give_away_in_a_namespace(base, name, uid, gid),
            Level::Root | Level::Capabilities | Level::User => Ok(()),
        }
        .map_err(|errno| self.failed("give away", errno))?;
        let filled = self.owner.as_user(|| {
            let own = openat(base, name, DIRECTORY, Mode::empty())?;
            if level == Level::User {
                exists_now(symlinkat(this_host()?.as_str(), &own, HOST_LINK))?;
            }
            for (name, mode) in [("tmp", 0o1777), ("var-tmp", 0o1777), ("ssh_config.d", 0o755)] {
                exists_now(mkdirat(&own, name, Mode::S_IRWXU))?;
                let fd = openat(&own, name, DIRECTORY, Mode::empty())?;
                // mkdir(2) obeys the umask.
                fchmod(&fd, Mode::from_bits_truncate(mode))?;
            }
            Ok(())
        });
        filled.map_err(|errno| self.failed("fill", errno))
    }

    fn path(&self) -> PathBuf {
        self.base.join(&self.name)
    }

    /// Whether they were made.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.path().exists()
    }

    /// Paths for the plan.
    ///
    /// # Errors
    /// [`DirectoryError`] if the base is not UTF-8.
    pub fn paths(&self) -> Result<Directories, DirectoryError> {
        // No component of a source is followed as a link later, and a home often lies behind one.
        let base = self.base.canonicalize().map_err(|error| DirectoryError {
            what: "resolve",
            path: self.base.clone(),
            errno: errno(error),
        })?;
        let text = |name: &str| {
            let path = base.join(&self.name).join(name);
            path.into_os_string().into_string().map_err(|path| DirectoryError {
                what: "name",
                path: path.into(),
                errno: Errno::EILSEQ,
            })
        };
        Ok(Directories { tmp: text("tmp")?, var_tmp: text("var-tmp")?, ssh_config: text("ssh_config.d")? })
    }

    /// Copies the files of /etc/ssh/ssh_config.d, as the user: in a user namespace root's look like nobody's, and
    /// ssh refuses those.
    ///
    /// # Errors
    /// [`DirectoryError`]
    pub fn copy_ssh_config(&self, from: &Path) -> Result<(), DirectoryError> {
        let failed = |errno| DirectoryError { what: "copy", path: from.to_owned(), errno };
        self.owner
            .as_user(|| {
                let to = nix::fcntl::open(&self.path().join("ssh_config.d"), DIRECTORY, Mode::empty())?;
                for entry in std::fs::read_dir(from).map_err(errno)?.take(SSH_FILES_MAX) {
                    let entry = entry.map_err(errno)?;
                    let metadata = std::fs::metadata(entry.path()).map_err(errno)?;
                    if !metadata.is_file() || metadata.len() > SSH_FILE_MAX_BYTES {
                        continue;
                    }
                    let text = std::fs::read(entry.path()).map_err(errno)?;
                    let flags = OFlag::O_WRONLY
                        | OFlag::O_CREAT
                        | OFlag::O_EXCL
                        | OFlag::O_NOFOLLOW
                        | OFlag::O_CLOEXEC;
                    let file =
                        openat(&to, entry.file_name().as_os_str(), flags, Mode::from_bits_truncate(0o600))?;
                    fchmod(&file, Mode::from_bits_truncate(0o644))?;
                    if write(&file, &text)? != text.len() {
                        return Err(Errno::EIO);
                    }
                }
                Ok(())
            })
            .map_err(failed)
    }

    /// Empties the directories as the user, then removes them.
    ///
    /// # Errors
    /// [`DirectoryError`]; directories that are not there are removed.
    pub fn remove(&self) -> Result<(), DirectoryError> {
        if !self.exist() {
            return Ok(());
        }
        let base = open_directory(&self.base)?;
        let name = self.name.as_str();
        let emptied = self.owner.as_user(|| {
            // Its mode is the user's to change, and to be changed back.
            match fchmodat(&base, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink) {
                Ok(()) => empty(&openat(&base, name, DIRECTORY, Mode::empty())?),
                // Never given away: it is ours, and empty.
                Err(Errno::EPERM) => Ok(()),
                Err(errno) => Err(errno),
            }
        });
        emptied.map_err(|errno| self.failed("remove", errno))?;
        unlinkat(&base, name, UnlinkatFlags::RemoveDir).map_err(|errno| self.failed("remove", errno))
    }
}

impl Owner {
    fn as_user<T>(self, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        let ids = match self.level {
            Level::User => FileIds::Own,
            Level::Root | Level::Capabilities => {
                FileIds::Of(Uid::from_raw(self.uid), Some(Gid::from_raw(self.gid)))
            }
        };
        ids.during(act)?
    }
}

fn give_away(base: BorrowedFd<'_>, name: &str, uid: u32, gid: u32) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    fchownat(base, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Without CAP_CHOWN: a user namespace of the keeper that maps itself and the user can give the one's directory to
/// the other.
fn give_away_in_a_namespace(base: BorrowedFd<'_>, name: &str, uid: u32, gid: u32) -> Result<(), Errno> {
    let (own_uid, own_gid) = crate::own::own_ids();
    let both = |own: u32, other: u32| {
        let mut ids = [own, other];
        ids.sort_unstable();
        IdMaps::text(&IdMaps::ranges(&ids))
    };
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
    nix::sys::prctl::set_dumpable(true)?;
    let child =
        jacamar_kernel::clone(Namespaces { user: true, ..Namespaces::default() }.clone_flags(), || {
            let given = jacamar_kernel::close_copy(write_end.as_fd())
                .and_then(|()| match read(&read_end, &mut [0])? {
                    1 => Ok(()),
                    _ => Err(Errno::ECANCELED),
                })
                .and_then(|()| give_away(base, name, uid, gid));
            jacamar_kernel::exit_now(given.map_or_else(|errno| errno as i32, |()| 0))
        });
    let mapped = child.and_then(|pid| {
        crate::launch::write_proc(pid, "uid_map", &both(own_uid, uid))
            .and_then(|()| crate::launch::write_proc(pid, "gid_map", &both(own_gid, gid)))
            .and_then(|()| write(&write_end, &[1]).map(drop))
    });
    drop(write_end);
    nix::sys::prctl::set_dumpable(false)?;
    let ended = child.and_then(|pid| waitpid(pid, None))?;
    mapped?;
    match ended {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, code) => Err(Errno::from_raw(code)),
        _ => Err(Errno::ECANCELED),
    }
}

/// What was to be made is there, by whomever.
fn exists_now(made: Result<(), Errno>) -> Result<(), Errno> {
    match made {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn open_directory(path: &Path) -> Result<OwnedFd, DirectoryError> {
    nix::fcntl::open(path, DIRECTORY, Mode::empty()).map_err(|errno| DirectoryError {
        what: "open",
        path: path.to_owned(),
        errno,
    })
}

/// Makes the base and what is missing above it, and checks that nobody else could have put things into it.
fn make_base(base: &Path, level: Level) -> Result<(), DirectoryError> {
    let failed = |path: &Path, errno| DirectoryError { what: "make", path: path.to_owned(), errno };
    let missing: Vec<&Path> = base.ancestors().take_while(|path| !path.exists()).collect();
    // First: what stays behind in a directory of somebody else's would keep that one from it.
    if let Some(existing) = missing.last().and_then(|path| path.parent()) {
        trust_base(existing, false, level)?;
    }
    for path in missing.into_iter().rev() {
        // Others pass through to what is theirs, and list nothing. At once: we may be killed.
        let own = umask(Mode::empty());
        let made = nix::unistd::mkdir(path, Mode::from_bits_truncate(0o711));
        umask(own);
        exists_now(made).map_err(|errno| failed(path, errno))?;
    }
    trust_base(base, true, level)
}

/// Whether nobody else could have put things into a directory: it is ours, or above ours and root's.
fn trust_base(base: &Path, is_ours: bool, level: Level) -> Result<(), DirectoryError> {
    let failed = |path: &Path, errno| DirectoryError { what: "make", path: path.to_owned(), errno };
    let real = base.canonicalize().map_err(|error| failed(base, errno(error)))?;
    let (own, _) = crate::own::own_ids();
    for path in real.ancestors() {
        let stat = fstat(open_directory(path)?.as_fd()).map_err(|e| failed(path, e))?;
        // At user level a directory below /tmp will do: its sticky bit keeps others from renaming what is ours.
        let top = is_ours && path == real;
        let sticky = level == Level::User && !top && stat.st_mode & 0o1000 != 0;
        let others_write = stat.st_mode & 0o022 != 0 && !sticky;
        let ours = stat.st_uid == own || (!top && stat.st_uid == 0);
        if !ours || others_write {
            return Err(DirectoryError { what: "trust", path: path.to_owned(), errno: Errno::EPERM });
        }
    }
    Ok(())
}

/// A directory that is emptied, and what is below it: never through a link, never into another file system.
struct Emptied<'a> {
    top: &'a OwnedFd,
    /// A process of the user's that is none of the job's can go on making files.
    deadline: Instant,
    /// Names that directories got when they were moved up.
    moved: u64,
}

/// Removes everything in a directory.
fn empty(top: &OwnedFd) -> Result<(), Errno> {
    Emptied { top, deadline: Instant::now() + EMPTY_WITHIN, moved: 0 }.sweep(top, 0)
}

impl Emptied<'_> {
    fn in_time(&self) -> Result<(), Errno> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(Errno::ETIMEDOUT) }
    }

    fn sweep(&mut self, directory: &OwnedFd, depth: usize) -> Result<(), Errno> {
        loop {
            // Not all at once: a job can make millions, and they would be in our memory.
            let names = some_names(directory)?;
            if names.is_empty() {
                return Ok(());
            }
            self.in_time()?;
            for (name, kind) in names {
                self.remove(directory, &name, kind, depth)?;
            }
        }
    }

    fn remove(
        &mut self,
        directory: &OwnedFd,
        name: &CStr,
        kind: Option<Type>,
        depth: usize,
    ) -> Result<(), Errno> {
        if kind != Some(Type::Directory) {
            match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(()),
                Err(Errno::EISDIR | Errno::EPERM) if kind.is_none() => {}
                Err(e) => return Err(e),
            }
        }
        let open = || jacamar_kernel::open_directory_in(directory.as_fd(), name);
        let below = match open() {
            // Its owner took the rights away; it is still the owner's to remove.
            Err(Errno::EACCES) => {
                fchmodat(directory, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
                open()
            }
            other => other,
        }?;
        let stat = fstat(&below)?;
        if stat.st_mode & 0o300 != 0o300 {
            fchmod(&below, Mode::S_IRWXU)?;
        }
        if depth < DEPTH_MAX {
            self.sweep(&below, depth + 1)?;
            return unlinkat(directory, name, UnlinkatFlags::RemoveDir);
        }
        self.move_up(directory, name)
    }

    /// A job can make directories in directories without end; each of ours takes descriptors and stack. What lies too
    /// deep becomes an entry of the top, where the sweep finds it.
    fn move_up(&mut self, directory: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        loop {
            self.in_time()?;
            self.moved += 1;
            match renameat(directory, name, self.top, format!("deep-{}", self.moved).as_str()) {
                // Taken by the job.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                other => return other,
            }
        }
    }
}

/// Removing what a job left takes no longer; then another clean-up goes on.
const EMPTY_WITHIN: Duration = Duration::from_secs(120);

/// So many names are read at once.
const NAMES_MAX: usize = 1024;

/// Names of a directory, all or the first of them.
fn some_names(directory: &OwnedFd) -> Result<Vec<(CString, Option<Type>)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::openat(directory, ".", DIRECTORY, Mode::empty())?.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
        if names.len() == NAMES_MAX {
            break;
        }
    }
    Ok(names)
}
