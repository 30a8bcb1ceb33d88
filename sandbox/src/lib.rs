//! Applies a plan: contain, isolate, become the user, confine, execute.
//!
//! `sandbox` decides nothing while it applies: what a host cannot give was decided by `jacamar-plan`, from host
//! facts that [`probe`] asked the kernel for. It parses no configuration and reads no environment.
//!
//! ```text
//! own_process() -> Launch::prepare() -> contain() -> spawn() -> Supervisor::wait()
//!                                                      └ child: isolate, wear, view, become, confine, prove, execute
//! ```
#![forbid(unsafe_code)]

mod cgroup;
mod child;
mod directories;
mod file_ids;
mod filter;
mod group_files;
mod identity;
mod init;
mod launch;
mod nodes;
mod own;
mod probe;
mod relay;
mod rlimit;
mod session;
mod supervise;
mod systemd;
mod usage;
mod version1;
mod view;

pub use cgroup::remove_job_cgroup;
pub use directories::{DirectoryError, JobDirectories, LeftDirectory};
pub use filter::{FilterError, compile};
pub use launch::{Command, Contained, Launch, LaunchError, Prepared, Stdio};
pub use nodes::{JobNode, job_nodes, remove_empty_users};
pub use own::{Own, OwnError, as_starter, become_keeper, level, own_process};
pub use probe::{CgroupChoice, Named, ProbeError, cgroup_nodes, is_in_group, probe, probe_again};
pub use relay::{Collect, Output, Stream, Terminal};
pub use session::{Session, SessionError, Terms, Words, start};
pub use supervise::{Ended, Parent, Supervisor, Watch};
pub use usage::group_usage;
