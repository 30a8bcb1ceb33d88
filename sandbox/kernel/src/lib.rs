//! System calls, one function each, with the fall-back beside it.
//!
//! This is the only crate with `unsafe`. It decides nothing: no policy, no default, no retry of its own. Functions
//! for the child of a clone allocate nothing; their docs say so.
#![allow(unsafe_code, reason = "system calls that neither std nor nix has; every other crate forbids it")]

mod capability;
mod clone;
mod descriptor;
mod exec;
mod identity;
mod memfd;
mod mount;
mod pidfd;
mod presence;
mod random;
mod rlimit;
mod seccomp;
mod signals;
mod terminal;
mod urgency;

pub use capability::{Capabilities, ambient_clear, bounding_drop, bounding_has, capget, capset};
pub use clone::{clone, clone_into, clone_until_exec};
pub use descriptor::{
    FdPath, STANDARD_INPUT, close_all_but, close_copy, close_on_exec, duplicate_above, duplicate_to,
    inherited, open_directory, open_directory_in, open_file_or_directory, set_nonblocking,
};
pub use exec::{Image, exit_now};
pub use identity::{IDS_MAX, get_groups, set_groups, set_resgid, set_resuid, set_uid};
pub use memfd::memfd;
pub use mount::{is_cgroup1, is_cgroup2, is_procfs, join_new_session_keyring, mount};
pub use nix::errno::Errno;
pub use pidfd::{pidfd_open, pidfd_send_signal};
pub use presence::{Call, probe};
pub use random::{random, random_name};
pub use rlimit::set_limit_of;
pub use seccomp::{Instruction, load_filter};
pub use signals::reset_signals;
pub use terminal::{make_controlling_terminal, set_window_size, window_size};
pub use urgency::{
    is_io_realtime, is_nice_negative, is_realtime, ordinary_io, ordinary_nice, ordinary_scheduling,
};

/// Turns a raw return value of syscall(2) into a result.
fn check(value: libc::c_long) -> Result<libc::c_long, Errno> {
    if value < 0 { Err(Errno::last()) } else { Ok(value) }
}
