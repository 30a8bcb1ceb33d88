//! seccomp(2). seccompiler's own loader always sets no_new_privs and cannot pass flags.

use nix::errno::Errno;

use crate::check;

/// One BPF instruction, `struct sock_filter` of `include/uapi/linux/filter.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Loads a filter for this thread and what it starts, with `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: before Linux 5.16 a
/// filter without it slows the job down (`admin-guide/hw-vuln/spectre.rst`). For the child of a clone: allocates
/// nothing.
///
/// # Errors
/// EACCES without no_new_privs and CAP_SYS_ADMIN, EINVAL for a bad program.
pub fn load_filter(program: &[Instruction]) -> Result<(), Errno> {
    const SET_MODE_FILTER: u32 = 1;
    const SPEC_ALLOW: u32 = 1 << 2;
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies `len` instructions, each laid out as `sock_filter`, before it returns (seccomp(2));
    // it does not write to them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, SPEC_ALLOW, &raw const program) })
        .map(drop)
}
