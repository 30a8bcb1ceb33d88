//! What will be done, as plain data.
//!
//! `plan` performs no I/O. It does not know what time it is, which user runs it or which kernel it runs on:
//! all of that comes in as [`Host`], [`Site`], [`Profile`] and [`Job`], and a [`Plan`] comes out. So every
//! question about behaviour is a unit test that needs no privileges.
//!
//! [`plan`] makes a plan, [`check`] judges it; only a [`CheckedPlan`] can be launched.
#![forbid(unsafe_code)]

mod calls;
mod cgroup;
mod check;
mod death;
mod explain;
mod filter;
mod host;
mod limits;
mod mount;
mod phases;
mod planner;
mod profile;
mod rlimit;
mod step;
mod usage;
mod value;
mod words;

pub use cgroup::{CgroupNode, DelegatedGroup, JobCgroup, Manager};
pub use check::{CheckedPlan, Violation, check};
pub use death::{AskedToEnd, Death, explain_death};
pub use explain::{ExplainedStep, Explanation, Reason, explain};
pub use filter::{AddressFamilies, Answer, CallRule, Condition, Filter, address_family};
pub use host::{
    Above, Arch, Calls, CgroupHost, CgroupVersion, Delegated, Host, HostMount, Presence, Urgency,
};
pub use limits::{Amount, Control, Limit, Max, PlannedLimit, Resources};
pub use mount::{Mount, MountFlags, Submount};
pub use phases::{
    Bounding, Confine, Contain, Execute, IdMap, IdMaps, Identity, Init, Isolate, Namespaces, Plan, View,
    Wear, Without,
};
pub use planner::{Directories, Job, Site, Unplannable, plan};
pub use profile::{
    Key, KeyringMode, Need, Origin, Profile, ProtectProc, ProtectSystem, Setting, Settings,
    TemporaryFileSystem,
};
pub use rlimit::{PlannedRlimit, Resource, Rlimit};
pub use step::{Phase, Step, StepError};
pub use usage::{
    CpuUsage, Duration, GroupUsage, IoUsage, JobUsage, MemoryUsage, Pressure, Reading, StageUsage, TaskUsage,
};
pub use value::{
    Bytes, CpuQuota, HugePages, InvalidValue, Memory, Micros, NumberList, OomPolicy, Rate, Tasks, Weight,
};
pub use words::{Account, Grant, InvalidSubStage, Level, Outcome, Refusal, Stage, SubStage, SubStageKind};
