//! The record of one job between its stages, and where records and other state live.
//!
//! Stages are separate processes. `config` decides once and writes a record; the others read no configuration, no token
//! and no job variable, only the record. Who can write a record can name an account: at root and capability level
//! everything here belongs to root or the keeper, never to the runner's account.
//!
//! ```text
//! <state>/jobs/<128 random bits>/record.json   what config decided
//!                                 lock         held by the stage that runs
//!                                 prepared     who started prepare, for gc
//!                                 turn         its place among the jobs of its user
//!                                 supervisor   the stage's processes, for cleanup
//!                                 closing      no stage starts any more
//! <state>/slots                                locked while a build directory is chosen
//! <state>/turns                                locked while a job's turn is looked for
//! ```
#![forbid(unsafe_code)]

mod files;
mod jobs;
mod process;
mod record;
mod state;

pub use files::{YOUNG, is_young};
pub use jobs::{Begun, JobLock, Jobs, OpenJob, RecordError, Slots, Turns};
pub use process::{ProcessError, ProcessId, boot_id, pid_namespace};
pub use record::{
    AuditLocation, AuditSettings, FORMAT, JobsAtOnce, Prepared, Project, Record, Running, ShellSettings,
    SlotKey, Turn, TurnState,
};
pub use state::{StateError, state_directory};
