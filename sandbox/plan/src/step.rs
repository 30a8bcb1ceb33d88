//! One vocabulary: what `explain` prints, the checker judges, the audit log records and an error names.

mod display;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AddressFamilies, IdMap, Key, Mount, Namespaces, Origin, PlannedLimit, PlannedRlimit};

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    // Contain: the supervisor.
    /// systemd starts a slice with its limits, or sets those of one that it has: busctl(1).
    StartSlice {
        /// Its directory, the last part of which is the unit's name.
        path: String,
    },
    /// systemd takes the waiting child into a scope: busctl(1).
    StartScope {
        /// Its directory, the last part of which is the unit's name.
        path: String,
    },
    /// mkdir(2) in cgroup v2.
    CreateCgroup {
        /// Directory.
        path: String,
    },
    /// Move every process of a delegated group, which is the runner's, into a leaf of it.
    MoveRunner {
        /// The group.
        from: String,
        /// The leaf, made where it is missing.
        to: String,
    },
    /// Write `cgroup.subtree_control`, so that children have the controllers.
    EnableControllers {
        /// Directory.
        path: String,
        /// `memory`, `pids`.
        controllers: Vec<String>,
    },
    /// Write a limit into its file and read it back.
    Limit {
        /// Directory.
        path: String,
        /// File, value, and who asked for it.
        limit: PlannedLimit,
    },
    /// clone3(2) into a control group, else clone(2).
    Clone {
        /// New namespaces.
        namespaces: Namespaces,
        /// Control group in which the child starts.
        cgroup: Option<String>,
    },
    /// Write the waiting child into `cgroup.procs`.
    JoinCgroup {
        /// Directory.
        path: String,
    },
    /// Write `deny` into `/proc/PID/setgroups`.
    DenySetgroups,
    /// Write `/proc/PID/uid_map`.
    MapUids {
        /// Content.
        map: Vec<IdMap>,
    },
    /// Write `/proc/PID/gid_map`.
    MapGids {
        /// Content.
        map: Vec<IdMap>,
    },
    /// Write 0 into `/proc/PID/oom_score_adj`, proc_pid_oom_score_adj(5).
    OrdinaryOomScore,
    /// Raise a hard limit of the waiting child, prlimit(2): it has no right to that itself.
    RaiseLimit {
        /// What it will be.
        limit: PlannedRlimit,
    },
    /// One byte on the release pipe.
    Release,

    // Isolate: from here on the child.
    /// Wait for that byte; end of file ends the child.
    AwaitRelease,
    /// `PR_SET_PDEATHSIG`, prctl(2).
    DieWithSupervisor,
    /// setsid(2).
    NewSession,
    /// Nice value 0, setpriority(2).
    OrdinaryNice,
    /// `SCHED_OTHER`, sched_setscheduler(2).
    OrdinaryScheduling,
    /// No I/O scheduling class of its own, ioprio_set(2).
    OrdinaryIo,
    /// A new session keyring, keyctl(2).
    SessionKeyring,
    /// Mount events of the host arrive, ours do not leave.
    SlaveMounts,

    // Wear the user.
    /// setgroups(2).
    SetGroups {
        /// Supplementary groups.
        groups: Vec<u32>,
    },
    /// Effective gid.
    WearGid {
        /// Group.
        gid: u32,
    },
    /// Effective uid; real and saved stay, so that the user can neither signal nor trace us.
    WearUid {
        /// User.
        uid: u32,
    },
    /// Effective capabilities are CAP_SYS_ADMIN alone, or none where there is nothing to mount with it.
    WearCapabilities {
        /// Whether the level has it: as root, and in a user namespace.
        sys_admin: bool,
    },

    /// `PR_SET_DUMPABLE`, prctl(2): each change of ids sets it to the value of `fs.suid_dumpable`.
    Undumpable,

    // View.
    /// /proc is a procfs: descriptors are named by it.
    VerifyProc,
    /// Open a directory as the user, before a mount hides it.
    OpenSource {
        /// Directory.
        path: String,
    },
    /// One mount.
    Mount(Mount),

    // Become the user.
    /// The capabilities that the next steps need.
    RaiseCapabilities {
        /// CAP_SETPCAP and CAP_SYS_ADMIN too.
        sys_admin: bool,
    },
    /// The core limit that the supervisor found; its own is 0, prlimit(2).
    CoreLimit,
    /// Soft and hard limit of a resource, prlimit(2).
    SetLimit {
        /// What it is from now on.
        limit: PlannedRlimit,
    },
    /// Empty the capability bounding set.
    DropBounding {
        /// The last capability of this kernel.
        last: u8,
    },
    /// `PR_SET_KEEPCAPS`, prctl(2).
    KeepCapabilities,
    /// Real, effective and saved gid.
    BecomeGid {
        /// Group.
        gid: u32,
    },
    /// Real, effective and saved uid.
    BecomeUid {
        /// User.
        uid: u32,
    },
    /// CAP_SYS_ADMIN alone, until the filter is loaded.
    KeepSysAdmin,

    // Confine.
    /// chdir(2) as the user.
    ChangeDirectory {
        /// Directory.
        path: String,
    },
    /// All descriptors above 2 but our own, which exec closes.
    CloseDescriptors,
    /// `PR_SET_NO_NEW_PRIVS`, prctl(2).
    NoNewPrivileges,
    /// seccomp(2).
    Filter {
        /// Number of rules.
        rules: usize,
        /// Socket families.
        families: Option<AddressFamilies>,
        /// Foreign ABIs and unknown calls are denied too.
        native_only: bool,
    },
    /// All capabilities of all sets.
    DropCapabilities,
    /// The ambient set.
    ClearAmbient,

    // Prove and execute.
    /// Ids, groups and capabilities are as planned, and there is no way back.
    Prove,
    /// `PR_SET_CHILD_SUBREAPER`, prctl(2).
    Subreaper,
    /// Process 1 stays, its child goes on.
    Fork,
    /// execve(2).
    Execute,
    /// The supervisor learns how the command ended.
    AwaitEnd,
    /// The supervisor ends what is left in a control group and removes it.
    EndCgroup {
        /// Directory.
        path: String,
    },
}

/// Where in the order a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Supervisor: cgroup, limits, clone, maps.
    Contain,
    /// Child: session, keyring, propagation.
    Isolate,
    /// Child: files are opened with the user's rights.
    Wear,
    /// Child: mounts.
    View,
    /// Child: the user is the only identity.
    Become,
    /// Child: directory, descriptors, filter, capabilities.
    Confine,
    /// Child: proof, fork, exec.
    Execute,
}

impl Phase {
    /// In order.
    pub const ALL: [Self; 7] =
        [Self::Contain, Self::Isolate, Self::Wear, Self::View, Self::Become, Self::Confine, Self::Execute];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contain => "contain",
            Self::Isolate => "isolate",
            Self::Wear => "wear the user",
            Self::View => "view",
            Self::Become => "become the user",
            Self::Confine => "confine",
            Self::Execute => "execute",
        })
    }
}

impl Step {
    /// The phase to which it belongs; a step that is repeated later, the first one. [`crate::Plan::phased_steps`] knows
    /// in which phase each of them stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Self::StartSlice { .. }
            | Self::StartScope { .. }
            | Self::MoveRunner { .. }
            | Self::CreateCgroup { .. }
            | Self::EnableControllers { .. }
            | Self::Limit { .. }
            | Self::Clone { .. }
            | Self::JoinCgroup { .. }
            | Self::DenySetgroups
            | Self::MapUids { .. }
            | Self::MapGids { .. }
            | Self::OrdinaryOomScore
            | Self::RaiseLimit { .. }
            | Self::Release => Phase::Contain,
            Self::AwaitRelease
            | Self::DieWithSupervisor
            | Self::NewSession
            | Self::OrdinaryNice
            | Self::OrdinaryScheduling
            | Self::OrdinaryIo
            | Self::SessionKeyring
            | Self::SlaveMounts => Phase::Isolate,
            Self::SetGroups { .. }
            | Self::WearGid { .. }
            | Self::WearUid { .. }
            | Self::WearCapabilities { .. }
            | Self::Undumpable => Phase::Wear,
            Self::VerifyProc | Self::OpenSource { .. } | Self::Mount(_) => Phase::View,
            Self::RaiseCapabilities { .. }
            | Self::CoreLimit
            | Self::SetLimit { .. }
            | Self::DropBounding { .. }
            | Self::KeepCapabilities
            | Self::BecomeGid { .. }
            | Self::BecomeUid { .. }
            | Self::KeepSysAdmin => Phase::Become,
            Self::ChangeDirectory { .. }
            | Self::CloseDescriptors
            | Self::NoNewPrivileges
            | Self::Filter { .. }
            | Self::DropCapabilities
            | Self::ClearAmbient => Phase::Confine,
            Self::Prove
            | Self::Subreaper
            | Self::Fork
            | Self::Execute
            | Self::AwaitEnd
            | Self::EndCgroup { .. } => Phase::Execute,
        }
    }

    /// The profile keys that can ask for it.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        match self {
            Self::Limit { limit, .. } => vec![Key::Control(limit.limit.control())],
            Self::RaiseLimit { limit } | Self::SetLimit { limit } => vec![Key::Limit(limit.resource)],
            Self::Clone { namespaces, .. } => {
                let asked = [(namespaces.pid, Key::PrivatePIDs), (namespaces.ipc, Key::PrivateIPC)];
                asked.into_iter().filter(|(made, _)| *made).map(|(_, key)| key).collect()
            }
            Self::SessionKeyring => vec![Key::KeyringMode],
            Self::NoNewPrivileges | Self::DropBounding { .. } => vec![Key::NoNewPrivileges],
            Self::Filter { rules, families, native_only } => {
                let asked = [
                    (*rules > 0, Key::SystemCallFilter),
                    (*native_only, Key::SystemCallArchitectures),
                    (families.is_some(), Key::RestrictAddressFamilies),
                ];
                asked.into_iter().filter(|(part, _)| *part).map(|(_, key)| key).collect()
            }
            Self::Mount(mount) => match mount {
                Mount::ReadOnly { .. } => vec![Key::ProtectSystem],
                Mount::Bind { source, target, .. } if source == target => vec![Key::ProtectSystem],
                Mount::Bind { target, .. } if target.starts_with("/etc/") => Vec::new(),
                Mount::Bind { .. } => vec![Key::PrivateTmp],
                Mount::Tmpfs { .. } => vec![Key::TemporaryFileSystem],
                Mount::Mqueue { .. } => vec![Key::PrivateIPC],
                Mount::Proc { options } if options.is_empty() => vec![Key::PrivatePIDs],
                Mount::Proc { .. } => vec![Key::PrivatePIDs, Key::ProtectProc],
            },
            Self::StartSlice { .. }
            | Self::StartScope { .. }
            | Self::MoveRunner { .. }
            | Self::CreateCgroup { .. }
            | Self::EnableControllers { .. }
            | Self::JoinCgroup { .. }
            | Self::DenySetgroups
            | Self::MapUids { .. }
            | Self::MapGids { .. }
            | Self::Release
            | Self::OrdinaryOomScore
            | Self::AwaitRelease
            | Self::DieWithSupervisor
            | Self::NewSession
            | Self::OrdinaryNice
            | Self::OrdinaryScheduling
            | Self::OrdinaryIo
            | Self::SlaveMounts
            | Self::SetGroups { .. }
            | Self::WearGid { .. }
            | Self::WearUid { .. }
            | Self::WearCapabilities { .. }
            | Self::Undumpable
            | Self::VerifyProc
            | Self::OpenSource { .. }
            | Self::RaiseCapabilities { .. }
            | Self::CoreLimit
            | Self::KeepCapabilities
            | Self::BecomeGid { .. }
            | Self::BecomeUid { .. }
            | Self::KeepSysAdmin
            | Self::ChangeDirectory { .. }
            | Self::CloseDescriptors
            | Self::DropCapabilities
            | Self::ClearAmbient
            | Self::Prove
            | Self::Subreaper
            | Self::Fork
            | Self::Execute
            | Self::AwaitEnd
            | Self::EndCgroup { .. } => Vec::new(),
        }
    }
}

impl Step {
    /// Where its value is written, of a step that knows it by itself: the same key may stand in a profile and in two
    /// tables of the configuration.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Limit { limit, .. } => Some(&limit.origin),
            Self::RaiseLimit { limit } | Self::SetLimit { limit } => limit.origin.as_ref(),
            _ => None,
        }
    }
}

/// A step that failed, and what the kernel answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not {step}: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct StepError {
    /// The step.
    pub step: Step,
    /// errno(3).
    pub errno: i32,
}
