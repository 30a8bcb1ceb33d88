//! Private directories whose maker was killed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use jacamar_kernel::Errno;
use jacamar_plan::Level;
use nix::dir::Dir;
use nix::fcntl::{Flock, FlockArg, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat};
use nix::unistd::gethostname;

use super::{DIRECTORY, DirectoryError, JobDirectories, errno, open_directory};

/// In a private directory of the user level, the name of the host that made it: homes are shared between hosts, and
/// locks of directories are not.
pub(super) const HOST_LINK: &str = "host";

pub(super) fn this_host() -> Result<String, Errno> {
    Ok(gethostname()?.to_string_lossy().into_owned())
}

/// A private directory that may have been left.
#[derive(Debug)]
pub struct LeftDirectory {
    directories: JobDirectories,
    /// When something was last made or removed in it.
    pub modified: SystemTime,
    /// Its owner.
    pub uid: u32,
    /// Never given away: the maker's own.
    ours: bool,
    inode: (u64, u64),
}

impl LeftDirectory {
    /// Names in a base; none if it was never made.
    ///
    /// # Errors
    /// [`DirectoryError`]
    pub fn names(base: &Path) -> Result<Vec<String>, DirectoryError> {
        let failed = |errno| DirectoryError { what: "list", path: base.to_owned(), errno };
        let mut directory = match Dir::open(base, DIRECTORY, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in directory.iter() {
            let name = entry.map_err(failed)?.file_name().to_owned();
            names.extend(name.into_string());
        }
        Ok(names)
    }

    /// Looks at a directory; `None` if it is gone.
    ///
    /// # Errors
    /// [`DirectoryError`]
    pub fn look(base: &Path, name: &str, level: Level) -> Result<Option<Self>, DirectoryError> {
        let path = base.join(name);
        let failed = |errno| DirectoryError { what: "look at", path: path.clone(), errno };
        let metadata = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| failed(errno(error)))?,
        };
        if !metadata.is_dir() {
            return Err(failed(Errno::ENOTDIR));
        }
        let (uid, gid) = (metadata.uid(), metadata.gid());
        Ok(Some(Self {
            directories: JobDirectories::of(base, name, uid, gid, level),
            modified: metadata.modified().map_err(|error| failed(errno(error)))?,
            uid,
            ours: level != Level::User && uid == crate::own::own_ids().0,
            inode: (metadata.dev(), metadata.ino()),
        }))
    }

    /// Takes the lock of its maker; whether that one is gone, and of this host.
    ///
    /// # Errors
    /// [`DirectoryError`]
    pub fn hold(&mut self) -> Result<bool, DirectoryError> {
        let directories = &self.directories;
        let name = directories.name.as_str();
        let base = open_directory(&directories.base)?;
        let own = directories.owner.as_user(|| {
            let own = match openat(&base, name, DIRECTORY, Mode::empty()) {
                // Its mode is the user's to change, and to be changed back.
                Err(Errno::EACCES) => {
                    fchmodat(&base, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
                    openat(&base, name, DIRECTORY, Mode::empty())
                }
                other => other,
            }?;
            match readlinkat(&own, HOST_LINK) {
                Ok(host) if directories.owner.level == Level::User => {
                    let here = host.to_string_lossy() == this_host()?;
                    Ok(here.then_some(own))
                }
                Ok(_) | Err(_) => Ok(Some(own)),
            }
        });
        let own = match own {
            Ok(Some(own)) => own,
            Ok(None) | Err(Errno::ENOENT) => return Ok(false),
            Err(errno) => return Err(directories.failed("open", errno)),
        };
        let stat = fstat(&own).map_err(|errno| directories.failed("look at", errno))?;
        match Flock::lock(own, FlockArg::LockExclusiveNonblock) {
            Ok(lock) if (stat.st_dev, stat.st_ino) == self.inode => {
                self.directories.held = Some(lock);
                Ok(true)
            }
            Ok(_) | Err((_, Errno::EWOULDBLOCK)) => Ok(false),
            Err((_, errno)) => Err(directories.failed("lock", errno)),
        }
    }

    /// Empties it as its owner and removes it.
    ///
    /// # Errors
    /// [`DirectoryError`]
    pub fn remove(&self) -> Result<(), DirectoryError> {
        if !self.ours {
            return self.directories.remove();
        }
        // It is empty, or not what we think: nothing is emptied with our own rights.
        std::fs::remove_dir(self.directories.path())
            .map_err(|error| self.directories.failed("remove", errno(error)))
    }
}
