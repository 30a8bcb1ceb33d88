//! `jacamar cleanup`: removes, as the user, what a job that was ended left (`<project>.tmp` with its file variables).
//!
//! Exactly what the record says, below the job's builds directory; no link is followed, no other file system entered.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, bail};
use jacamar_contract::stage_report::exit_code;
use jacamar_contract::stage_request::StageRequest;
use jacamar_kernel::{Errno, FdPath, open_directory};
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::joblog;

/// Most files that one clean-up removes.
const ENTRIES_MAX: usize = 200_000;

/// Deepest directory, counted from the path that the record names. Each level holds a descriptor open.
const DEPTH_MAX: usize = 64;

/// Removes what the request lists. [`exit_code::REFUSED`] if something is left because of what the user did to his
/// directories, which is then named; an error if the file server does not do its work, so that it is tried again.
pub(super) fn cleanup(request: &StageRequest) -> anyhow::Result<u8> {
    let builds_dir = CString::new(request.builds_dir.as_str()).context("builds_dir")?;
    let base = match open_directory(&builds_dir) {
        Ok(base) => base,
        Err(Errno::ENOENT) => return Ok(exit_code::DONE),
        Err(_) if request.remove.is_empty() => return Ok(exit_code::DONE),
        Err(errno) if is_the_users_doing(errno) => {
            joblog::line(&format!("{}: cannot be opened: {}", request.builds_dir, errno.desc()));
            return Ok(exit_code::REFUSED);
        }
        Err(errno) => bail!("{} cannot be opened: {}", request.builds_dir, errno.desc()),
    };
    let device = fstat(&base).context("builds_dir")?.st_dev;
    let mut removal = Removal { device, left: ENTRIES_MAX };
    let mut code = exit_code::DONE;
    for path in &request.remove {
        let below = path.strip_prefix(&request.builds_dir).unwrap_or_default();
        if let Err(errno) = removal.remove(&base, below) {
            if !is_the_users_doing(errno) {
                bail!("{path} could not be removed: {}", errno.desc());
            }
            joblog::line(&format!("{path}: not removed: {}", errno.desc()));
            code = exit_code::REFUSED;
        }
    }
    Ok(code)
}

/// A link or a mount in the way, too deep, too many, immutable. Not EACCES, which an expired ticket gives too.
fn is_the_users_doing(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ELOOP | Errno::ENOTDIR | Errno::EXDEV | Errno::E2BIG | Errno::ENAMETOOLONG | Errno::EPERM
    )
}

struct Removal {
    device: u64,
    left: usize,
}

/// A directory by its name, never through a link.
const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Removal {
    /// Removes the file or directory at a path below `base`.
    fn remove(&mut self, base: &OwnedFd, below: &str) -> Result<(), Errno> {
        let mut names = below.split('/').filter(|name| !name.is_empty()).peekable();
        let mut at = base.try_clone().map_err(|_| Errno::EMFILE)?;
        while let Some(name) = names.next() {
            let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
            if names.peek().is_none() {
                return self.entry(at.as_fd(), &name, 0);
            }
            at = match openat(&at, name.as_c_str(), DIRECTORY | OFlag::O_PATH, Mode::empty()) {
                Ok(directory) => directory,
                Err(Errno::ENOENT) => return Ok(()),
                Err(errno) => return Err(errno),
            };
        }
        Err(Errno::EINVAL)
    }

    fn entry(&mut self, at: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
        self.left = self.left.checked_sub(1).ok_or(Errno::E2BIG)?;
        let stat = match fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFDIR {
            return unlink(at, name, UnlinkatFlags::NoRemoveDir);
        }
        if stat.st_dev != self.device {
            return Err(Errno::EXDEV);
        }
        if depth == DEPTH_MAX {
            return Err(Errno::ELOOP);
        }
        let mut directory = readable(at, name)?;
        let names = names(&mut directory)?;
        for inner in names {
            self.entry(directory.as_fd(), &inner, depth + 1)?;
        }
        drop(directory);
        unlink(at, name, UnlinkatFlags::RemoveDir)
    }
}

fn unlink(at: BorrowedFd<'_>, name: &CStr, flags: UnlinkatFlags) -> Result<(), Errno> {
    match unlinkat(at, name, flags) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Opens a directory of the user's to be emptied, whatever its mode: read-only ones are usual (Go's module cache).
fn readable(at: BorrowedFd<'_>, name: &CStr) -> Result<Dir, Errno> {
    let open = || Dir::openat(at, name, DIRECTORY | OFlag::O_RDONLY, Mode::empty());
    let directory = match open() {
        Err(Errno::EACCES) => {
            let closed = openat(at, name, DIRECTORY | OFlag::O_PATH, Mode::empty())?;
            let path = FdPath::new(closed.as_fd());
            let path = path.as_c_str().to_str().map_err(|_| Errno::EINVAL)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
                .map_err(|_| Errno::EACCES)?;
            open()
        }
        other => other,
    }?;
    let stat = fstat(&directory)?;
    if stat.st_mode & Mode::S_IRWXU.bits() != Mode::S_IRWXU.bits() {
        fchmod(&directory, Mode::S_IRWXU)?;
    }
    Ok(directory)
}

fn names(directory: &mut Dir) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in directory.iter() {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
        if names.len() > ENTRIES_MAX {
            return Err(Errno::E2BIG);
        }
    }
    Ok(names)
}
