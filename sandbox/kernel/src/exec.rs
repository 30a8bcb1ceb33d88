//! execve(2) with everything made beforehand, and _exit(2).

use std::ffi::{CString, c_char};

use nix::errno::Errno;

/// A program, its arguments and its environment, made before the clone.
pub struct Image {
    paths: Vec<CString>,
    // The pointer arrays point into these; a CString's bytes do not move with it.
    #[expect(dead_code, reason = "owns what `argv` points to")]
    arguments: Vec<CString>,
    #[expect(dead_code, reason = "owns what `envp` points to")]
    environment: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

impl Image {
    /// Keeps what execve(2) needs. Several paths are tried in turn, as execvp(3) tries those of PATH.
    #[must_use]
    pub fn new(paths: Vec<CString>, arguments: Vec<CString>, environment: Vec<CString>) -> Self {
        let pointers = |list: &[CString]| {
            list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        let (argv, envp) = (pointers(&arguments), pointers(&environment));
        Self { paths, arguments, environment, argv, envp }
    }

    /// Executes it; returns only the reason why not: EACCES if one of several paths may not be executed, else that of
    /// the last. For the child of a clone: allocates nothing.
    #[must_use]
    pub fn execute(&self) -> Errno {
        let mut denied = false;
        let mut last = Errno::ENOENT;
        for path in &self.paths {
            // SAFETY: `path` is a C string; both arrays end with a null pointer and their strings live as long as
            // `self` (execve(2)).
            unsafe { libc::execve(path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
            last = Errno::last();
            match last {
                Errno::EACCES => denied = true,
                Errno::ENOENT | Errno::ENOTDIR => {}
                other => return other,
            }
        }
        if denied { Errno::EACCES } else { last }
    }
}

impl std::fmt::Debug for Image {
    /// Path only: arguments and environment may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("paths", &self.paths).finish_non_exhaustive()
    }
}

/// _exit(2): no destructors, no buffers. For the child of a clone.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}
