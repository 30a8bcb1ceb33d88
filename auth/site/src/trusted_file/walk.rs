//! From the root to a file, one name at a time; each step is checked on the descriptor that the next one uses.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use super::{Exposed, FileKind, Trust, Untrusted};

/// As many links as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// O_PATH neither reads nor writes and waits for no other side of a pipe (open(2)).
const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// What is at the end of a path. Every directory above it is trusted, and so is itself.
#[derive(Debug)]
pub(super) struct Found {
    /// The path without links.
    pub(super) path: PathBuf,
    /// Its owner, mode and size.
    pub(super) stat: FileStat,
    directory: OwnedFd,
    name: OsString,
}

impl Found {
    pub(super) fn kind(&self) -> FileKind {
        kind(&self.stat)
    }
}

/// Directories that were entered, the root first.
struct Walk {
    entered: Vec<(OwnedFd, OsString)>,
    trust: Trust,
}

/// Follows an absolute path. Links are followed if they and the directories they lie in are trusted.
pub(super) fn resolve(path: &Path, trust: Trust) -> Result<Found, Untrusted> {
    let name = || path.display().to_string();
    if !path.is_absolute() {
        return Err(Untrusted::Relative { path: name() });
    }
    let mut walk = Walk::at_root(trust)?;
    let mut ahead = names(path);
    let mut links = 0;
    while let Some(next) = ahead.pop_front() {
        if next == ".." {
            walk.leave();
            continue;
        }
        let (fd, stat) = walk.look(&next)?;
        match kind(&stat) {
            FileKind::Link => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Untrusted::TooManyLinks { path: name() });
                }
                let target = readlinkat(&fd, "").map_err(|errno| walk.failed("readlinkat", &next, errno))?;
                if Path::new(&target).is_absolute() {
                    walk = Walk::at_root(trust)?;
                }
                let mut onward = names(Path::new(&target));
                onward.append(&mut ahead);
                ahead = onward;
            }
            FileKind::Directory => walk.entered.push((fd, next)),
            FileKind::Regular | FileKind::Pipe | FileKind::Socket | FileKind::Device | FileKind::Unknown => {
                if !ahead.is_empty() {
                    return Err(walk.failed("openat", &next, Errno::ENOTDIR));
                }
                return Ok(walk.found(next, stat));
            }
        }
    }
    walk.found_directory()
}

/// Opens what was found for reading and checks it once more on the descriptor that is returned.
pub(super) fn reopen(found: &Found, trust: Trust) -> Result<OwnedFd, Untrusted> {
    let failed = |call, errno| failed(call, &found.path, errno);
    // O_NONBLOCK: if a pipe took the file's place meanwhile, open does not wait (open(2)).
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let fd = openat(&found.directory, found.name.as_os_str(), flags, Mode::empty())
        .map_err(|errno| failed("openat", errno))?;
    let stat = fstat(&fd).map_err(|errno| failed("fstat", errno))?;
    check(&found.path, &stat, trust)?;
    match kind(&stat) {
        FileKind::Regular => Ok(fd),
        kind => Err(Untrusted::NotRegular { path: found.path.display().to_string(), kind }),
    }
}

impl Walk {
    fn at_root(trust: Trust) -> Result<Self, Untrusted> {
        let root = Path::new("/");
        let fd = open(root, LOOK | OFlag::O_DIRECTORY, Mode::empty())
            .map_err(|errno| failed("open", root, errno))?;
        let stat = fstat(&fd).map_err(|errno| failed("fstat", root, errno))?;
        check(root, &stat, trust)?;
        Ok(Self { entered: vec![(fd, OsString::new())], trust })
    }

    /// The parent of the root is the root.
    fn leave(&mut self) {
        if self.entered.len() > 1 {
            self.entered.pop();
        }
    }

    fn directory(&self) -> &OwnedFd {
        &self.entered.last().expect("the root is never left").0
    }

    /// The directory that was entered last. The root's name is empty.
    fn path(&self) -> PathBuf {
        let names = self.entered.iter().map(|(_, name)| name).filter(|name| !name.is_empty());
        Path::new("/").join(names.collect::<PathBuf>())
    }

    fn path_of(&self, name: &OsStr) -> PathBuf {
        self.path().join(name)
    }

    /// Opens a name in the present directory, whatever it is, and checks whose it is.
    fn look(&self, name: &OsStr) -> Result<(OwnedFd, FileStat), Untrusted> {
        let fd = openat(self.directory(), name, LOOK, Mode::empty())
            .map_err(|errno| self.failed("openat", name, errno))?;
        let stat = fstat(&fd).map_err(|errno| self.failed("fstat", name, errno))?;
        check(&self.path_of(name), &stat, self.trust)?;
        Ok((fd, stat))
    }

    fn failed(&self, call: &'static str, name: &OsStr, errno: Errno) -> Untrusted {
        failed(call, &self.path_of(name), errno)
    }

    fn found(mut self, name: OsString, stat: FileStat) -> Found {
        let path = self.path_of(&name);
        let (directory, _) = self.entered.pop().expect("the root is never left");
        Found { path, stat, directory, name }
    }

    /// The path ended at a directory.
    fn found_directory(mut self) -> Result<Found, Untrusted> {
        let path = self.path();
        let (directory, _) = self.entered.pop().expect("the root is never left");
        let stat = fstat(&directory).map_err(|errno| failed("fstat", &path, errno))?;
        Ok(Found { path, stat, directory, name: OsString::from(".") })
    }
}

/// The names of a path; `.` and empty ones are gone.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn check(path: &Path, stat: &FileStat, trust: Trust) -> Result<(), Untrusted> {
    let exposed = Exposed {
        path: path.display().to_string(),
        kind: kind(stat),
        uid: stat.st_uid,
        mode: stat.st_mode & 0o7777,
        trust,
    };
    if exposed.owner_is_trusted() && !exposed.is_writable_by_others() {
        return Ok(());
    }
    Err(Untrusted::Exposed(exposed))
}

fn kind(stat: &FileStat) -> FileKind {
    let bits = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let kinds = [
        (SFlag::S_IFREG, FileKind::Regular),
        (SFlag::S_IFDIR, FileKind::Directory),
        (SFlag::S_IFLNK, FileKind::Link),
        (SFlag::S_IFIFO, FileKind::Pipe),
        (SFlag::S_IFSOCK, FileKind::Socket),
        (SFlag::S_IFCHR, FileKind::Device),
        (SFlag::S_IFBLK, FileKind::Device),
    ];
    kinds.iter().find(|(flag, _)| *flag == bits).map_or(FileKind::Unknown, |(_, kind)| *kind)
}

fn failed(call: &'static str, path: &Path, errno: Errno) -> Untrusted {
    Untrusted::Call { call, path: path.display().to_string(), source: io::Error::from(errno) }
}
