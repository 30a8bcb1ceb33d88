//! Descriptors: closing all others, naming one by procfs, opening a directory without following links.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::check;

/// `/proc/self/fd/N` without an allocation.
#[derive(Clone, Copy)]
pub struct FdPath([u8; 32]);

impl FdPath {
    /// The name of a descriptor.
    #[must_use]
    pub fn new(fd: BorrowedFd<'_>) -> Self {
        let mut path = [0; 32];
        let prefix = b"/proc/self/fd/";
        let mut digits = [0; 10];
        let mut used = 0;
        let mut number = fd.as_raw_fd().unsigned_abs();
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
            used += 1;
            if number == 0 {
                break;
            }
        }
        let text = prefix.iter().chain(digits.iter().skip(10 - used));
        // 14 + 10 bytes at most, so the last byte stays NUL.
        for (to, from) in path.iter_mut().zip(text) {
            *to = *from;
        }
        Self(path)
    }

    /// As a C string.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Debug for FdPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_c_str().fmt(f)
    }
}

/// Descriptor 0, which every process of ours keeps.
// SAFETY: `own_process` opens it if it was closed, and nothing closes it.
pub const STANDARD_INPUT: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(0) };

/// `FD_CLOEXEC`, fcntl(2).
///
/// # Errors
/// EBADF.
pub fn close_on_exec(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).map(drop)
}

/// `O_NONBLOCK`, fcntl(2): for a pipe that only we read.
///
/// # Errors
/// EBADF.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}

/// Closes every descriptor above 2 but those in `keep` (at most 12). For the child of a clone: allocates nothing.
///
/// close_range(2), Linux 5.9; where that is missing, the list of /proc/self/fd.
///
/// # Errors
/// EINVAL with more than 12 to keep; whatever openat(2) of /proc/self/fd and getdents64(2) answer.
pub fn close_all_but(keep: &[RawFd]) -> Result<(), Errno> {
    const KEEP_MAX: usize = 12;
    let mut sorted = [RawFd::MAX; KEEP_MAX];
    if keep.len() > KEEP_MAX {
        return Err(Errno::EINVAL);
    }
    for (to, from) in sorted.iter_mut().zip(keep) {
        *to = *from;
    }
    sorted.sort_unstable();
    let mut first = 3;
    for fd in sorted.iter().copied().filter(|fd| *fd >= 3) {
        if fd > first {
            let last = if fd == RawFd::MAX { u32::MAX } else { (fd - 1).unsigned_abs() };
            match close_range(first.unsigned_abs(), last) {
                Err(Errno::ENOSYS | Errno::EPERM) => return close_listed(keep),
                other => other?,
            }
        }
        if fd == RawFd::MAX {
            return Ok(());
        }
        first = fd + 1;
    }
    // All places of `sorted` were used.
    close_range(first.unsigned_abs(), u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: takes numbers only; the caller of `close_all_but` is a child that owns none of these any more.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) }).map(drop)
}

fn close_listed(keep: &[RawFd]) -> Result<(), Errno> {
    let list = nix::fcntl::open(
        c"/proc/self/fd",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let mut buffer = [0_u8; 2048];
    // Closing while reading may skip entries, so read until a whole pass closes nothing.
    loop {
        let mut closed = false;
        loop {
            let length = getdents(list.as_fd(), &mut buffer)?;
            if length == 0 {
                break;
            }
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some(record) = next_record(rest) {
                rest = record.rest;
                if let Some(fd) = record.number
                    && fd >= 3
                    && fd != list.as_raw_fd()
                    && !keep.contains(&fd)
                {
                    // SAFETY: closes a number; nobody in this child owns it any more.
                    unsafe { libc::close(fd) };
                    closed = true;
                }
            }
        }
        if !closed {
            return Ok(());
        }
        nix::unistd::lseek(list.as_fd(), 0, nix::unistd::Whence::SeekSet)?;
    }
}

fn getdents(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `len` bytes into `buffer` (getdents64(2)).
    let length = check(unsafe {
        libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
    })?;
    usize::try_from(length).map_err(|_| Errno::EOVERFLOW)
}

struct Record<'a> {
    number: Option<RawFd>,
    rest: &'a [u8],
}

/// One `struct linux_dirent64`: ino 8, off 8, reclen 2, type 1, name.
fn next_record(bytes: &[u8]) -> Option<Record<'_>> {
    let length = usize::from(u16::from_ne_bytes([*bytes.get(16)?, *bytes.get(17)?]));
    let name = CStr::from_bytes_until_nul(bytes.get(19..length)?).ok()?;
    let number = name.to_str().ok().and_then(|text| text.parse().ok());
    Some(Record { number, rest: bytes.get(length..)? })
}

/// Closes the child's copy of a descriptor whose owner is in the parent's memory. For the child of a clone, which
/// never returns to that owner.
///
/// # Errors
/// Whatever close(2) answers.
pub fn close_copy(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: closes a number; the copy of its owner in this child is never used or dropped.
    check(unsafe { libc::syscall(libc::SYS_close, fd.as_raw_fd()) }).map(drop)
}

/// A duplicate, closed on exec, of a descriptor that our starter left open under this number. The number itself stays
/// open, and is closed on exec from now on.
///
/// # Errors
/// EBADF if there is none.
pub fn inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    if number < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: borrowed for two calls of fcntl(2), which answer EBADF if it is not open; nothing is read or closed.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let duplicate = duplicate_above(fd, 3)?;
    close_on_exec(fd)?;
    Ok(duplicate)
}

/// `F_DUPFD_CLOEXEC`, fcntl(2): a duplicate with a number of at least `least`.
///
/// # Errors
/// EMFILE, EINVAL if `least` is above the limit of descriptors.
pub fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> Result<OwnedFd, Errno> {
    let number = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(least))?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// dup3(2) without close-on-exec; a descriptor that has the number already loses its flag.
///
/// # Errors
/// EBADF, EINTR.
pub fn duplicate_to(fd: BorrowedFd<'_>, number: RawFd) -> Result<(), Errno> {
    if fd.as_raw_fd() == number {
        // SAFETY: takes numbers only.
        return check(unsafe { libc::syscall(libc::SYS_fcntl, number, libc::F_SETFD, 0_u64) }).map(drop);
    }
    // SAFETY: the child owns whatever stands at `number` (0, 1 or 2).
    check(unsafe { libc::syscall(libc::SYS_dup3, fd.as_raw_fd(), number, 0_u32) }).map(drop)
}

/// Opens a directory by an absolute path of which no component is a symbolic link, as `O_PATH`. For the child of
/// a clone: allocates nothing.
///
/// openat2(2) with `RESOLVE_NO_SYMLINKS`, Linux 5.6; where that is missing, component by component.
///
/// # Errors
/// ELOOP or ENOTDIR for a link, ENOENT, EACCES.
pub fn open_directory(path: &CStr) -> Result<OwnedFd, Errno> {
    open_path(path, OFlag::O_DIRECTORY)
}

/// As [`open_directory`], for what may be a file: a mount on one.
///
/// # Errors
/// ELOOP for a link (also at the end), ENOENT, EACCES.
pub fn open_file_or_directory(path: &CStr) -> Result<OwnedFd, Errno> {
    open_path(path, OFlag::empty())
}

fn open_path(path: &CStr, kind: OFlag) -> Result<OwnedFd, Errno> {
    let fd = match open_path2(path, kind) {
        // EPERM: some containers deny what they do not know.
        Err(Errno::ENOSYS | Errno::EPERM) => walk(path, kind),
        other => other,
    }?;
    // O_PATH opens a link itself if it is the last component, RESOLVE_NO_SYMLINKS or not (openat2(2)); it is no place
    // to mount on.
    let kind = nix::sys::stat::fstat(fd.as_fd())?.st_mode & libc::S_IFMT;
    if kind == libc::S_IFLNK { Err(Errno::ELOOP) } else { Ok(fd) }
}

/// Opens a directory by its name in another one, for reading; neither through a link nor into another mount.
///
/// openat2(2) with `RESOLVE_NO_XDEV`, Linux 5.6: what btrfs calls a subvolume is no mount. Where that is missing, another
/// device is one.
///
/// # Errors
/// EXDEV for another mount, ELOOP or ENOTDIR for a link, ENOENT, EACCES.
pub fn open_directory_in(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat2(directory.as_raw_fd(), name, flags, libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_SYMLINKS) {
        // EPERM: some containers deny what they do not know.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let fd = nix::fcntl::openat(directory, name, flags, Mode::empty())?;
            let device = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).map(|stat| stat.st_dev);
            if device(fd.as_fd())? == device(directory)? { Ok(fd) } else { Err(Errno::EXDEV) }
        }
        other => other,
    }
}

const PATH: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn open_path2(path: &CStr, kind: OFlag) -> Result<OwnedFd, Errno> {
    openat2(libc::AT_FDCWD, path, PATH | kind, libc::RESOLVE_NO_SYMLINKS)
}

fn openat2(directory: RawFd, path: &CStr, flags: OFlag, resolve: u64) -> Result<OwnedFd, Errno> {
    // SAFETY: all-zero is a valid open_how; it is filled before use.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from(flags.bits().unsigned_abs());
    how.resolve = resolve;
    // SAFETY: `path` is a C string, the kernel reads `size_of` bytes of `how` (openat2(2)).
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory,
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn walk(path: &CStr, kind: OFlag) -> Result<OwnedFd, Errno> {
    if !path.to_bytes().starts_with(b"/") {
        return Err(Errno::EINVAL);
    }
    let mut at = nix::fcntl::open(c"/", PATH | OFlag::O_DIRECTORY, Mode::empty())?;
    let mut parts = path.to_bytes().split(|b| *b == b'/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        let mut name = [0_u8; 256];
        if part.len() >= name.len() || part == b".." {
            return Err(Errno::EINVAL);
        }
        for (to, from) in name.iter_mut().zip(part) {
            *to = *from;
        }
        let name = CStr::from_bytes_until_nul(&name).map_err(|_| Errno::EINVAL)?;
        let directory = if parts.peek().is_some() { OFlag::O_DIRECTORY } else { kind };
        at = nix::fcntl::openat(at.as_fd(), name, PATH | directory, Mode::empty())?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_named() {
        let fd = nix::fcntl::open(c"/", PATH, Mode::empty()).expect("root can be opened");
        let expected = format!("/proc/self/fd/{}", fd.as_raw_fd());
        assert_eq!(FdPath::new(fd.as_fd()).as_c_str().to_str(), Ok(expected.as_str()));
        // SAFETY: the number is not used as a descriptor.
        let greatest = unsafe { BorrowedFd::borrow_raw(RawFd::MAX) };
        assert_eq!(FdPath::new(greatest).as_c_str().to_str(), Ok("/proc/self/fd/2147483647"));
    }

    #[test]
    fn both_ways_refuse_a_link_in_the_middle() {
        let dir = std::env::temp_dir().join(format!("jacamar-kernel-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("real/below")).expect("temporary directory");
        std::os::unix::fs::symlink("real", dir.join("link")).expect("link");
        let c = |tail: &str| {
            std::ffi::CString::new(dir.join(tail).into_os_string().into_encoded_bytes()).expect("no NUL")
        };
        std::fs::write(dir.join("file"), "").expect("file");
        for open in [open_path2, walk] {
            for kind in [OFlag::O_DIRECTORY, OFlag::empty()] {
                assert!(open(&c("real/below"), kind).is_ok());
                let error = open(&c("link/below"), kind).expect_err("a link must not be followed");
                assert!(matches!(error, Errno::ELOOP | Errno::ENOTDIR), "{error}");
            }
            assert!(open(&c("file"), OFlag::empty()).is_ok());
            assert_eq!(open(&c("file"), OFlag::O_DIRECTORY).err(), Some(Errno::ENOTDIR));
        }
        for open in [open_directory, open_file_or_directory] {
            let error = open(&c("link")).expect_err("a link is no place to mount on");
            assert!(matches!(error, Errno::ELOOP | Errno::ENOTDIR), "{error}");
        }
        std::fs::remove_dir_all(dir).expect("removed");
    }
}
