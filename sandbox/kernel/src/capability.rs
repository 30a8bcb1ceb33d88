//! capset(2) for all sets at once; `caps` changes one set per call and needs a list. Allocates nothing.

use nix::errno::Errno;

use crate::check;

/// The three sets of capset(2), one bit per capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Used by permission checks.
    pub effective: u64,
    /// May be made effective.
    pub permitted: u64,
    /// Kept over execve(2) of programs that ask for it.
    pub inheritable: u64,
}

impl Capabilities {
    /// CAP_SETGID
    pub const SETGID: u64 = 1 << 6;
    /// CAP_SETUID
    pub const SETUID: u64 = 1 << 7;
    /// CAP_SETPCAP
    pub const SETPCAP: u64 = 1 << 8;
    /// CAP_SYS_ADMIN
    pub const SYS_ADMIN: u64 = 1 << 21;
}

/// `_LINUX_CAPABILITY_VERSION_3` of `include/uapi/linux/capability.h`.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets the capabilities of the calling thread.
///
/// # Errors
/// EPERM if a set would grow beyond what is permitted.
pub fn capset(capabilities: Capabilities) -> Result<(), Errno> {
    let header = Header { version: VERSION, pid: 0 };
    let half = |shift: u32| {
        let part = |set: u64| u32::try_from((set >> shift) & 0xffff_ffff).unwrap_or_default();
        Data {
            effective: part(capabilities.effective),
            permitted: part(capabilities.permitted),
            inheritable: part(capabilities.inheritable),
        }
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads one header and two data structs (capset(2)).
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// The capabilities of the calling thread.
///
/// # Errors
/// None on a kernel that has version 3 (Linux 2.6.26).
pub fn capget() -> Result<Capabilities, Errno> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 reads one header and writes two data structs (capget(2)).
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let [low, high] = data;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Capabilities {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// `PR_CAPBSET_DROP`, prctl(2). By number: `caps` knows no capability newer than itself.
///
/// # Errors
/// EPERM without CAP_SETPCAP, EINVAL for a number that the kernel does not know.
pub fn bounding_drop(capability: u8) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check(unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, u64::from(capability), 0_u64, 0_u64, 0_u64)
    })
    .map(drop)
}

/// `PR_CAPBSET_READ`, prctl(2).
///
/// # Errors
/// EINVAL for a number that the kernel does not know.
pub fn bounding_has(capability: u8) -> Result<bool, Errno> {
    // SAFETY: takes numbers only.
    check(unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_READ, u64::from(capability), 0_u64, 0_u64, 0_u64)
    })
    .map(|value| value != 0)
}

/// `PR_CAP_AMBIENT_CLEAR_ALL`, prctl(2).
///
/// # Errors
/// EINVAL before Linux 4.3.
pub fn ambient_clear() -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check(unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0_u64,
            0_u64,
            0_u64,
        )
    })
    .map(drop)
}
