//! clone(2) and clone3(2). Neither returns twice: the child's side is a function that never returns.

use std::convert::Infallible;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::check;

/// `CLONE_INTO_CGROUP` of `include/uapi/linux/sched.h`. libc 0.2 has 0 for it (rust-lang/libc#3584).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Starts a child in new namespaces, clone(2).
///
/// The child runs `child` on a copy of this stack. The caller must have one thread, or the child could wait for
/// a lock that no one holds.
///
/// # Errors
/// EPERM, ENOSPC (too many namespaces), EINVAL, EAGAIN, ENOMEM.
pub fn clone(flags: u64, child: impl FnOnce() -> Infallible) -> Result<Pid, Errno> {
    let signal = libc::SIGCHLD;
    let flags = flags | u64::from(signal.unsigned_abs());
    // SAFETY: without CLONE_VM the child has a copy of our memory and, with a null stack, of our stack; the
    // other pointers are unused without the flags that would name them (clone(2)).
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_u64, 0_u64, 0_u64, 0_u64) };
    split(pid, child)
}

/// Starts a child in new namespaces and in a control group, clone3(2) with `CLONE_INTO_CGROUP`, Linux 5.7.
///
/// Its fall-back, [`clone`] and a write to `cgroup.procs`, is the plan's choice.
///
/// # Errors
/// As [`clone`]; ENOSYS or E2BIG on older kernels, EACCES without the right to the group, EBUSY if the group has
/// children with controllers, ENODEV if it was removed.
pub fn clone_into(
    flags: u64,
    cgroup: BorrowedFd<'_>,
    child: impl FnOnce() -> Infallible,
) -> Result<Pid, Errno> {
    let arguments = libc::clone_args {
        flags: flags | CLONE_INTO_CGROUP,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
    };
    // SAFETY: the kernel reads `size_of` bytes of `arguments`; without CLONE_VM and with a null stack the child
    // has copies of our memory and stack (clone3(2)).
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    split(pid, child)
}

/// Stack of the child of [`clone_until_exec`]: as deep as it goes are execve(2) and a short path to it.
const STACK_BYTES: usize = 16 * 1024;

/// Stacks begin at a multiple of 16 in the procedure calls of all our architectures.
#[repr(align(16))]
struct Stack([MaybeUninit<u8>; STACK_BYTES]);

/// Starts a child that shares our memory, while we wait until it executes a program or ends: clone(2) with `CLONE_VM`
/// and `CLONE_VFORK`, as posix_spawn(3) does. Nothing of our memory is copied for a process that gives it up at once.
///
/// What `child` writes to memory is seen here afterwards. SIGKILL ends the wait.
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn clone_until_exec<F: FnOnce() -> Infallible>(child: F) -> Result<Pid, Errno> {
    extern "C" fn begin<F: FnOnce() -> Infallible>(child: *mut c_void) -> c_int {
        let child = child.cast::<Option<F>>();
        // SAFETY: it is the `Option<F>` below, and its owner waits.
        let child = unsafe { child.as_mut() };
        match child.and_then(Option::take).map(|child| child()) {
            Some(never) => match never {},
            None => 1,
        }
    }
    let mut stack = Stack([MaybeUninit::uninit(); STACK_BYTES]);
    let mut child = Some(child);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the end of the array, which is where a stack begins that grows down.
    let begins = unsafe { stack.0.as_mut_ptr().add(STACK_BYTES) };
    // SAFETY: stack and closure outlive the child's use of our memory: this thread goes on when that has ended, and
    // the child's only way back is an end (clone(2)).
    let pid = unsafe { libc::clone(begin::<F>, begins.cast(), flags, (&raw mut child).cast()) };
    check(pid.into()).map(|_| Pid::from_raw(pid))
}

fn split(pid: libc::c_long, child: impl FnOnce() -> Infallible) -> Result<Pid, Errno> {
    let pid = check(pid)?;
    if pid == 0 {
        // A panic must not unwind into the parent's code.
        let _guard = AbortOnUnwind;
        #[expect(unreachable_code, reason = "`child` never returns; its type says so")]
        match child() {}
    }
    i32::try_from(pid).map(Pid::from_raw).map_err(|_| Errno::EOVERFLOW)
}

struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}
