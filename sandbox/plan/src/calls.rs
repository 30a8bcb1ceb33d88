//! What the kernel is asked, in the words of strace(1) 6.1.
//!
//! `tests/as_explained.rs` compares these texts with what strace sees. They name the calls of a kernel that has them
//! all; where one is missing (`Host::calls`), its fall-back stands beside it in `jacamar-kernel`.

use crate::{IdMaps, Namespaces, PlannedRlimit, Step};

/// Capabilities of `include/uapi/linux/capability.h`, by number.
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What the change of identity takes.
const CHANGE: &str = "1<<CAP_SETGID|1<<CAP_SETUID|1<<CAP_SETPCAP|1<<CAP_SYS_ADMIN";
/// The same without a user namespace at the capability level, which has no more than these.
const CHANGE_IDS: &str = "1<<CAP_SETGID|1<<CAP_SETUID";
const SYS_ADMIN: &str = "1<<CAP_SYS_ADMIN";

impl Step {
    /// What the kernel is asked; a `_` that stands alone is what only run time knows. Reading and closing is left out.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        let one = |text: String| vec![text];
        match self {
            Self::CreateCgroup { path } => one(format!("mkdir({path:?}, 0755)")),
            // A program of systemd's asks its manager; what that one does is not ours.
            Self::StartSlice { .. } | Self::StartScope { .. } => one("execve(\"/usr/bin/busctl\", _)".into()),
            // One line for each process that is there.
            Self::MoveRunner { to, .. } => {
                vec![format!("mkdir({to:?}, 0755)"), format!("write({to}/cgroup.procs, \"_\", _)")]
            }
            Self::EnableControllers { path, controllers } => controllers
                .iter()
                .map(|name| write(path, "cgroup.subtree_control", &format!("+{name}")))
                .collect(),
            Self::Limit { path, limit } => one(write(path, &limit.limit.file(), &limit.limit.text())),
            Self::Clone { namespaces, cgroup } => one(clone(*namespaces, cgroup.as_deref())),
            Self::JoinCgroup { path } => one(format!("write({path}/cgroup.procs, \"_\", _)")),
            Self::DenySetgroups => one(write("/proc/_", "setgroups", "deny")),
            Self::MapUids { map } => one(write("/proc/_", "uid_map", &IdMaps::text(map))),
            Self::MapGids { map } => one(write("/proc/_", "gid_map", &IdMaps::text(map))),
            Self::Release => one("write(_, \"\\377\", 1)".into()),
            Self::AwaitRelease => {
                vec!["read(_, \"\\377\", 1)".into(), "prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE)".into()]
            }
            Self::DieWithSupervisor => one("prctl(PR_SET_PDEATHSIG, SIGKILL)".into()),
            Self::OrdinaryOomScore => one(write("/proc/_", "oom_score_adj", "0")),
            Self::OrdinaryNice => one("setpriority(PRIO_PROCESS, 0, 0)".into()),
            Self::OrdinaryScheduling => one("sched_setscheduler(0, SCHED_OTHER, [0])".into()),
            Self::OrdinaryIo => {
                one("ioprio_set(IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_NONE, 0))".into())
            }
            Self::Undumpable => one("prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE)".into()),
            Self::NewSession => one("setsid()".into()),
            Self::SessionKeyring => one("keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)".into()),
            Self::SlaveMounts => one("mount(NULL, \"/\", NULL, MS_REC|MS_SLAVE, NULL)".into()),
            Self::SetGroups { groups } => {
                let list: Vec<String> = groups.iter().map(u32::to_string).collect();
                one(format!("setgroups({}, [{}])", groups.len(), list.join(", ")))
            }
            Self::WearGid { gid } => one(format!("setresgid(-1, {gid}, -1)")),
            Self::WearUid { uid } => one(format!("setresuid(-1, {uid}, -1)")),
            Self::WearCapabilities { sys_admin: true } => one(capset(SYS_ADMIN, CHANGE)),
            Self::WearCapabilities { sys_admin: false } => one(capset("0", CHANGE_IDS)),
            Self::VerifyProc => one("fstatfs(/proc, {f_type=PROC_SUPER_MAGIC, _})".into()),
            Self::OpenSource { path } => one(format!(
                "openat2(AT_FDCWD, {path:?}, {{flags=O_RDONLY|O_NOFOLLOW|O_CLOEXEC|O_PATH|O_DIRECTORY, \
                 resolve=RESOLVE_NO_SYMLINKS}}, _)"
            )),
            Self::Mount(mount) => mount.calls(),
            Self::RaiseCapabilities { sys_admin: true } => one(capset(CHANGE, CHANGE)),
            Self::RaiseCapabilities { sys_admin: false } => one(capset(CHANGE_IDS, CHANGE_IDS)),
            Self::RaiseLimit { limit } => one(rlimit("_", limit)),
            Self::SetLimit { limit } => one(rlimit("0", limit)),
            Self::CoreLimit => one("prlimit64(0, RLIMIT_CORE, _, NULL)".into()),
            Self::DropBounding { last } => {
                (0..=*last).map(|number| format!("prctl(PR_CAPBSET_DROP, {})", capability(number))).collect()
            }
            Self::KeepCapabilities => one("prctl(PR_SET_KEEPCAPS, 1)".into()),
            Self::BecomeGid { gid } => one(format!("setresgid({gid}, {gid}, {gid})")),
            Self::BecomeUid { uid } => one(format!("setresuid({uid}, {uid}, {uid})")),
            Self::KeepSysAdmin => one(capset(SYS_ADMIN, SYS_ADMIN)),
            Self::ChangeDirectory { path } => one(format!("chdir({path:?})")),
            Self::CloseDescriptors => one("close_range(_, _, 0)".into()),
            Self::NoNewPrivileges => one("prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)".into()),
            Self::Filter { .. } => {
                one("seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, _)".into())
            }
            Self::DropCapabilities => one(capset("0", "0")),
            Self::ClearAmbient => one("prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)".into()),
            // Each must fail, and is tried with the supervisor's own ids before.
            Self::Prove => {
                vec!["setresuid(-1, 0, -1)".into(), "setresuid(0, 0, 0)".into(), "setuid(0)".into()]
            }
            Self::Subreaper => one("prctl(PR_SET_CHILD_SUBREAPER, 1)".into()),
            Self::Fork => one("clone(child_stack=_, flags=CLONE_VM|CLONE_VFORK|SIGCHLD)".into()),
            Self::Execute => vec![
                "prctl(PR_SET_PDEATHSIG, SIGKILL)".into(),
                "setsid()".into(),
                "umask(_)".into(),
                "execve(_, _, _)".into(),
            ],
            Self::AwaitEnd => Vec::new(),
            Self::EndCgroup { path } => {
                vec![write(path, "cgroup.kill", "1"), format!("unlinkat(AT_FDCWD, {path:?}, AT_REMOVEDIR)")]
            }
        }
    }
}

fn write(directory: &str, file: &str, text: &str) -> String {
    format!("write({directory}/{file}, {text:?}, {})", text.len())
}

fn rlimit(pid: &str, limit: &PlannedRlimit) -> String {
    format!("prlimit64({pid}, {}, _, NULL)", limit.resource.constant())
}

fn clone(namespaces: Namespaces, cgroup: Option<&str>) -> String {
    let mut flags = namespaces.names();
    match cgroup {
        Some(path) => {
            flags.push("CLONE_INTO_CGROUP");
            let flags = flags.join("|");
            format!(
                "clone3({{flags={flags}, exit_signal=SIGCHLD, stack=NULL, stack_size=0, cgroup={path}}}, _)"
            )
        }
        None => {
            flags.push("SIGCHLD");
            format!("clone(child_stack=NULL, flags={})", flags.join("|"))
        }
    }
}

fn capset(effective: &str, permitted: &str) -> String {
    format!(
        "capset({{version=_LINUX_CAPABILITY_VERSION_3, pid=0}}, {{effective={effective}, permitted={permitted}, \
         inheritable=0}})"
    )
}

fn capability(number: u8) -> String {
    let name = CAPABILITIES.get(usize::from(number));
    name.map_or_else(|| format!("{number:#x}"), |name| (*name).to_owned())
}
