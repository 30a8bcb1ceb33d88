//! `jacamar prepare`: says who runs where, and makes the job's directories as the user.
//!
//! No component may be a link (`config` resolved them), and from the first directory on that is the user's own, all
//! below it have to be: whoever owned one of them could put other files in the job's place.

use std::os::fd::OwnedFd;

use anyhow::anyhow;
use jacamar_contract::stage_request::{DirectoryMode, StageRequest};
use jacamar_kernel::Errno;
use jacamar_plan::Refusal;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat, umask};
use nix::unistd::geteuid;

use super::joblog;

/// Says and makes; a refusal is the user's to mend, an error is a failure of the system.
pub(super) fn prepare(request: &StageRequest) -> anyhow::Result<Result<(), Refusal>> {
    joblog::say(&greeting(request));
    // Exactly the mode that the site chose; with default ACLs the umask has no say anyway.
    umask(Mode::empty());
    for path in [&request.builds_dir, &request.cache_dir] {
        if let Err(problem) = make(path, request.directory_mode, geteuid().as_raw()) {
            return problem.judged().map(Err);
        }
    }
    Ok(Ok(()))
}

fn greeting(request: &StageRequest) -> String {
    let mut text = request.job_message.trim_end_matches('\n').to_owned();
    if !text.is_empty() {
        text.push('\n');
    }
    let StageRequest { account, host, sandbox_profile, .. } = request;
    text.push_str(&format!("Running as {account} on {host}, sandbox profile {sandbox_profile}\n"));
    text
}

/// Why a directory is not there, or may not be used.
#[derive(Debug)]
enum Problem {
    /// It is there, and not as it has to be.
    Refused(Refusal),
    /// A call failed.
    Failed { path: String, what: &'static str, errno: Errno },
}

impl Problem {
    /// Whether the user can mend it, or whoever runs the system has to.
    fn judged(self) -> anyhow::Result<Refusal> {
        match self {
            Self::Refused(refusal) => Ok(refusal),
            Self::Failed { path, what, errno } => match errno {
                Errno::EACCES | Errno::EPERM | Errno::EDQUOT | Errno::ENOENT | Errno::ENAMETOOLONG => {
                    Ok(refusal(&path, format!("{what}: {}", errno.desc()), hint(errno, &path)))
                }
                _ => Err(anyhow!("{path}: {what}: {}", errno.desc())),
            },
        }
    }
}

fn hint(errno: Errno, path: &str) -> String {
    let parent =
        path.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
    match errno {
        Errno::EDQUOT => {
            format!("your quota there is used up: remove what you no longer need below {parent}")
        }
        _ => format!("look at it on this host: ls -ld {parent}"),
    }
}

fn refusal(path: &str, cause: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal { rule: "directory".into(), object: path.into(), cause: cause.into(), hint: hint.into() }
}

const DIRECTORY: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Makes every component that is missing, and looks at every one that is there.
fn make(path: &str, mode: DirectoryMode, uid: u32) -> Result<(), Problem> {
    let mut so_far = String::new();
    let failed = |path: &str, what, errno| Problem::Failed { path: path.to_owned(), what, errno };
    let mut at =
        open(c"/", DIRECTORY, Mode::empty()).map_err(|errno| failed("/", "cannot be opened", errno))?;
    let mut ours = false;
    let mut components = path.split('/').filter(|name| !name.is_empty()).peekable();
    while let Some(name) = components.next() {
        so_far.push('/');
        so_far.push_str(name);
        at = match openat(&at, name, DIRECTORY, Mode::empty()) {
            Err(Errno::ENOENT) => {
                made(&at, name, mode).map_err(|errno| failed(&so_far, "cannot be made", errno))?
            }
            Err(Errno::ELOOP | Errno::ENOTDIR) => return Err(no_directory(&at, name, &so_far)),
            Err(errno) => return Err(failed(&so_far, "cannot be opened", errno)),
            Ok(directory) => directory,
        };
        let stat = fstat(&at).map_err(|errno| failed(&so_far, "cannot be looked at", errno))?;
        let last = components.peek().is_none();
        judge(&so_far, &stat, uid, ours || last, last).map_err(Problem::Refused)?;
        ours |= stat.st_uid == uid;
    }
    Ok(())
}

fn made(at: &OwnedFd, name: &str, mode: DirectoryMode) -> Result<OwnedFd, Errno> {
    match mkdirat(at, name, Mode::from_bits_truncate(mode.bits())) {
        // Another job of the same user was faster.
        Ok(()) | Err(Errno::EEXIST) => openat(at, name, DIRECTORY, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

fn no_directory(at: &OwnedFd, name: &str, path: &str) -> Problem {
    match fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if kind(&stat) == SFlag::S_IFLNK => Problem::Refused(refusal(
            path,
            "is a symbolic link, and was none when the job began",
            format!("leave it alone while jobs run, or remove it: rm {path}"),
        )),
        Ok(_) => Problem::Refused(refusal(
            path,
            "is not a directory",
            format!("move it away: mv {path} {path}.old"),
        )),
        Err(errno) => Problem::Failed { path: path.to_owned(), what: "cannot be looked at", errno },
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Whether this directory may be in the job's path. Above the user's own the site decides, by `data_dir`.
fn judge(path: &str, stat: &FileStat, uid: u32, has_to_be_own: bool, last: bool) -> Result<(), Refusal> {
    let mode = Mode::from_bits_truncate(stat.st_mode);
    if has_to_be_own && stat.st_uid != uid {
        return Err(refusal(
            path,
            format!("belongs to uid {}, not to the job's account (uid {uid})", stat.st_uid),
            format!(
                "whoever owns it could change the job; its owner can remove or rename it: mv {path} {path}.old"
            ),
        ));
    }
    let sticky = mode.contains(Mode::S_ISVTX);
    if has_to_be_own && mode.contains(Mode::S_IWOTH) && !sticky {
        let hint = format!("chmod o-w {path}");
        return Err(refusal(path, "can be written by every user of this host", hint));
    }
    if last && mode.contains(Mode::S_IWGRP) {
        return Err(refusal(path, "can be written by its whole group", format!("chmod g-w {path}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_cannot_mend_is_a_failure_of_the_system() {
        let judged = |errno| Problem::Failed { path: "/a/b".into(), what: "cannot be made", errno }.judged();
        let refusal = judged(Errno::EACCES).expect("refused");
        assert_eq!(refusal.to_string(), "/a/b: cannot be made: Permission denied");
        assert_eq!(refusal.hint, "look at it on this host: ls -ld /a");
        assert!(judged(Errno::EDQUOT).expect("refused").hint.contains("quota"));
        for errno in [Errno::ENOSPC, Errno::EIO, Errno::ESTALE, Errno::EROFS] {
            assert!(judged(errno).is_err(), "{errno}");
        }
    }
}
