//! memfd_create(2).

use std::ffi::CStr;
use std::fs::File;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// `MFD_NOEXEC_SEAL` of `include/uapi/linux/memfd.h`, Linux 6.3: vm.memfd_noexec = 2 demands it, older kernels do not
/// know it.
const NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(8);

/// A file without a name, closed on exec, that can be sealed and not executed.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn memfd(name: &CStr) -> Result<File, Errno> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create(name, flags | NOEXEC_SEAL) {
        Err(Errno::EINVAL) => memfd_create(name, flags),
        other => other,
    }
    .map(File::from)
}
