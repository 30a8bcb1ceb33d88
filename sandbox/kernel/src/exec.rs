//! execve(2) with everything made beforehand, and _exit(2).

use std::ffi::{CStr, CString, c_char};

use nix::errno::Errno;

/// A program, its arguments and its environment, made before the clone.
pub struct Image {
    path: CString,
    // The pointer arrays point into these; a CString's bytes do not move with it.
    #[expect(dead_code, reason = "owns what `argv` points to")]
    arguments: Vec<CString>,
    #[expect(dead_code, reason = "owns what `envp` points to")]
    environment: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

impl Image {
    /// Keeps what execve(2) needs. `path` is not searched for in PATH.
    #[must_use]
    pub fn new(path: CString, arguments: Vec<CString>, environment: Vec<CString>) -> Self {
        let pointers = |list: &[CString]| {
            list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        let (argv, envp) = (pointers(&arguments), pointers(&environment));
        Self { path, arguments, environment, argv, envp }
    }

    /// Path of the program.
    #[must_use]
    pub fn path(&self) -> &CStr {
        &self.path
    }

    /// Executes it; returns only the reason why not. For the child of a clone: allocates nothing.
    #[must_use]
    pub fn execute(&self) -> Errno {
        // SAFETY: `path` is a C string; both arrays end with a null pointer and their strings live as long as
        // `self` (execve(2)).
        unsafe { libc::execve(self.path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        Errno::last()
    }
}

impl std::fmt::Debug for Image {
    /// Path only: arguments and environment may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("path", &self.path).finish_non_exhaustive()
    }
}

/// _exit(2): no destructors, no buffers. For the child of a clone.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}
