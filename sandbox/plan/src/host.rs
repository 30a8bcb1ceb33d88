//! What this kernel and configuration can do. Probed by `sandbox`, never read from a version.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Bytes, Level, Limit, Manager, Max, MountFlags, NumberList, Resource};

/// Whether the host has a thing, and if not, what the kernel answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It works.
    Present,
    /// The kernel answered with this errno.
    Absent(i32),
}

impl Presence {
    /// Whether it works.
    #[must_use]
    pub fn is_present(self) -> bool {
        self == Self::Present
    }
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("present"),
            Self::Absent(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
        }
    }
}

/// Instruction set, as far as system call filters care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64 (the x32 ABI is foreign).
    X86_64,
    /// 64-bit Arm.
    Aarch64,
    /// 64-bit RISC-V.
    Riscv64,
    /// Any other: no filter can be made for it.
    Other,
}

/// System calls newer than Linux 4.18, and keyctl(2), which containers deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calls {
    /// clone3(2), Linux 5.3; with `CLONE_INTO_CGROUP`, Linux 5.7.
    pub clone_into_cgroup: Presence,
    /// pidfd_open(2), Linux 5.3.
    pub pidfd_open: Presence,
    /// openat2(2), Linux 5.6.
    pub openat2: Presence,
    /// close_range(2), Linux 5.9.
    pub close_range: Presence,
    /// keyctl(2).
    pub keyctl: Presence,
    /// seccomp(2) with filters, Linux 3.17.
    pub seccomp: Presence,
}

/// Which hierarchy holds the controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupVersion {
    /// No cgroup file system at all.
    None,
    /// cgroup v1 alone (systemd's legacy mode).
    V1,
    /// Controllers in v1, processes also in a v2 tree (systemd's hybrid mode, the default of EL8).
    Hybrid,
    /// cgroup v2 (unified).
    V2,
}

/// What we have of control groups, kernel document `admin-guide/cgroup-v2.rst`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupHost {
    /// The hierarchy in use.
    pub version: CgroupVersion,
    /// Directory below which job cgroups are made, or why there is none.
    pub node: Result<String, String>,
    /// Whether a group can be ended by one write, `cgroup.kill`, Linux 5.14, as far as a group was there to be looked at: what
    /// was delegated always is.
    #[serde(default)]
    pub kill: bool,
    /// Who makes groups below it.
    #[serde(default)]
    pub manager: Manager,
    /// systemd's version, where it makes them, a limit depends on it, and it says so.
    #[serde(default)]
    pub systemd: Option<u32>,
    /// The group that was delegated to the runner, directly above the node; none where nothing is delegated.
    pub delegated: Option<Delegated>,
    /// Controllers of version 1 into which systemd writes for us, and where their hierarchies are mounted.
    #[serde(default)]
    pub version1: BTreeMap<String, String>,
    /// Controllers that children of the node can have.
    pub controllers: Vec<String>,
    /// Files that groups with these controllers do not have on this kernel, as far as a group was there to be looked at.
    pub missing: Vec<String>,
    /// What the node and the groups above it allow at most.
    pub above: Above,
}

/// A control group with all that is below it, given to an account that is not root: `Delegate=`, systemd.resource-control(5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegated {
    /// Its directory.
    pub path: String,
    /// Whether processes are in the group itself, the runner's: as long as they are, nothing below it can have a controller
    /// ("no internal processes", `admin-guide/cgroup-v2.rst`). `DelegateSubgroup=` (systemd 254) starts them in one below it.
    pub crowded: bool,
}

/// Limits of our node, as it was found, and of the groups above it, as `MemoryMax=` of the runner's service: they cap
/// whatever we write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Above {
    /// Each with the directory of its group, the nearest first.
    pub limits: Vec<(Limit, String)>,
}

/// One line of /proc/self/mountinfo, as far as a remount must know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostMount {
    /// Where.
    pub target: String,
    /// Flags that a remount must repeat.
    pub flags: MountFlags,
}

/// What our process inherited of urgency. A job is an ordinary process: what is above that is taken from it, what is
/// below, as `Nice=10` of the runner's unit, is the site's will and stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Urgency {
    /// A negative nice value, getpriority(2).
    pub nice: bool,
    /// A realtime or deadline policy, sched(7).
    pub scheduling: bool,
    /// The realtime class, ioprio_get(2).
    pub io: bool,
    /// A negative `/proc/self/oom_score_adj`, proc_pid_oom_score_adj(5).
    pub oom_score: bool,
}

/// Host facts: probed, kept in the record, printed by `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Kernel release, uname(2), for people only.
    pub release: String,
    /// Instruction set.
    pub arch: Arch,
    /// What our process may do.
    pub level: Level,
    /// Newer system calls.
    pub calls: Calls,
    /// Control groups.
    pub cgroup: CgroupHost,
    /// Whether our process can make a user namespace (always asked at the levels that need one).
    pub user_namespaces: Presence,
    /// Whether our process can make mount, pid and ipc namespaces (in a user namespace, where the level needs it).
    pub namespaces: Presence,
    /// Whether a new procfs can be mounted in a new pid namespace (not where the host's is partly covered).
    pub own_proc: Presence,
    /// /proc/sys/kernel/cap_last_cap.
    pub cap_last_cap: u8,
    /// Our own `NoNewPrivs`: file capabilities and setuid helpers are dead where it is set.
    pub no_new_privs: bool,
    /// What our process has of urgency above an ordinary one.
    pub urgency: Urgency,
    /// Physical memory.
    pub memory: Bytes,
    /// The smaller of kernel.pid_max and kernel.threads-max.
    pub tasks: u64,
    /// Online processors, `/sys/devices/system/cpu/online`; none where it cannot be read.
    pub processors: Option<NumberList>,
    /// Limits that our process has, and its children inherit: soft and hard. The core limit is not here: our own is none.
    pub rlimits: BTreeMap<Resource, (Max, Max)>,
    /// The soft stack limit that the process which started us has, where the kernel took it from us: it resets what a
    /// program with file capabilities inherits, execve(2).
    pub lost_stack: Option<Max>,
    /// Whether our process may raise hard limits (CAP_SYS_RESOURCE in the first user namespace).
    pub raises_limits: bool,
    /// The greatest hard limit of open files, `fs.nr_open`.
    pub open_files_max: u64,
    /// Block devices of paths that profiles name: `major:minor`, or why there is none.
    pub devices: BTreeMap<String, Result<String, String>>,
    /// Directories that plans may mount on: name asked for, and its canonical path. What is not here is not there.
    pub directories: BTreeMap<String, String>,
    /// Whether /etc/ssh/ssh_config.d has files (ssh refuses root's files in a user namespace).
    pub ssh_config_files: bool,
    /// Mounts at and below the directories above.
    pub mounts: Vec<HostMount>,
}
