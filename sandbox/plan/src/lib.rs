//! What will be done, as plain data.
//!
//! `plan` performs no I/O. It does not know what time it is, which user runs it or which kernel it runs on:
//! all of that comes in as [`Host`], [`Site`], [`Profile`] and [`Job`], and a [`Plan`] comes out. So every
//! question about behaviour is a unit test that needs no privileges.
//!
//! [`plan`] makes a plan, [`check`] judges it; only a [`CheckedPlan`] can be launched.
#![forbid(unsafe_code)]

mod calls;
mod check;
mod explain;
mod filter;
mod host;
mod mount;
mod phases;
mod planner;
mod profile;
mod step;
mod value;
mod words;

pub use check::{CheckedPlan, Violation, check};
pub use explain::{ExplainedStep, Explanation, Reason, explain};
pub use filter::{AddressFamilies, Answer, CallRule, Condition, Filter, address_family};
pub use host::{Arch, Calls, CgroupHost, CgroupVersion, Host, HostMount, Presence, Urgency};
pub use mount::{Mount, MountFlags, Submount};
pub use phases::{
    Bounding, CgroupLimits, Confine, Contain, Execute, IdMap, IdMaps, Identity, Init, Isolate, JobCgroup,
    Namespaces, Plan, View, Wear, Without,
};
pub use planner::{Ceiling, Directories, Job, Site, Unplannable, plan};
pub use profile::{
    Key, KeyringMode, Need, Origin, Profile, ProtectProc, ProtectSystem, Setting, Settings,
    TemporaryFileSystem,
};
pub use step::{Phase, Step, StepError};
pub use value::{Bytes, InvalidValue, Memory, Tasks};
pub use words::{Account, Grant, InvalidSubStage, Level, Outcome, Refusal, Stage, SubStage, SubStageKind};
