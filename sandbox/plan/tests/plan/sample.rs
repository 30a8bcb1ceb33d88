//! One good host, one full profile, one account: what a test spoils or takes away from.

use std::collections::BTreeMap;

use jacamar_plan::{
    Above, Account, AddressFamilies, Amount, Answer, Arch, Bytes, CallRule, Calls, CgroupHost, CgroupVersion,
    Control, Directories, Grant, Host, HostMount, Job, KeyringMode, Level, Manager, Max, MountFlags, Need,
    NumberList, Origin, Plan, Presence, Profile, ProtectProc, ProtectSystem, Resource, Rlimit, Setting,
    Settings, Site, Stage, SubStage, TemporaryFileSystem, plan,
};

pub(crate) const DIRECTORIES: [&str; 8] =
    ["/usr", "/boot", "/etc", "/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/etc/ssh/ssh_config.d"];

/// A host that can do everything.
pub(crate) fn host(level: Level) -> Host {
    let present = Presence::Present;
    Host {
        release: "6.12.0".into(),
        arch: Arch::X86_64,
        level,
        calls: Calls {
            clone_into_cgroup: present,
            pidfd_open: present,
            openat2: present,
            close_range: present,
            keyctl: present,
            seccomp: present,
        },
        cgroup: CgroupHost {
            version: CgroupVersion::V2,
            node: Ok("/sys/fs/cgroup/jacamar.slice".into()),
            delegated: None,
            kill: true,
            manager: Manager::Ourselves,
            systemd: None,
            version1: BTreeMap::new(),
            controllers: ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"].map(Into::into).to_vec(),
            missing: Vec::new(),
            above: Above::default(),
        },
        user_namespaces: present,
        namespaces: present,
        own_proc: present,
        urgency: jacamar_plan::Urgency::default(),
        cap_last_cap: 40,
        no_new_privs: false,
        memory: Bytes(8 << 30),
        tasks: 32768,
        processors: Some(list("0-7")),
        rlimits: Resource::ALL.into_iter().map(|name| (name, (Max::Value(100), Max::Value(1000)))).collect(),
        lost_stack: None,
        raises_limits: true,
        open_files_max: 1 << 20,
        devices: [("/scratch".to_owned(), Ok("8:16".to_owned()))].into(),
        directories: directories(&DIRECTORIES),
        ssh_config_files: true,
        mounts: vec![
            HostMount { target: "/".into(), flags: MountFlags::RELATIME },
            HostMount { target: "/usr/local".into(), flags: MountFlags::NODEV },
            HostMount { target: "/usrlocal".into(), flags: MountFlags::NOEXEC },
        ],
    }
}

pub(crate) fn directories(names: &[&str]) -> BTreeMap<String, String> {
    names.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).collect()
}

pub(crate) fn setting<T>(line: u32, need: Need, value: T) -> Option<Setting<T>> {
    Some(Setting { value, origin: Origin { file: "site.toml".into(), line, shipped: false }, need })
}

pub(crate) fn rule(call: &str, answer: Answer) -> CallRule {
    CallRule { call: call.into(), when: None, answer }
}

pub(crate) fn shm() -> TemporaryFileSystem {
    TemporaryFileSystem { path: "/dev/shm".into(), flags: MountFlags::NOSUID, options: "mode=1777".into() }
}

/// A profile in which every key is set and required.
pub(crate) fn profile() -> Profile {
    let need = Need::Require;
    Profile {
        name: "site".into(),
        description: "everything".into(),
        settings: Settings {
            resources: Control::ALL
                .into_iter()
                .map(|control| (control, resource(1, need, control)))
                .collect(),
            limits: Resource::ALL.into_iter().map(|name| (name, rlimit(2, need))).collect(),
            parallelism_variables: setting(14, need, vec![("MAKEFLAGS".into(), "-j%n".into())]),
            protect_system: setting(3, need, ProtectSystem::Full),
            private_tmp: setting(4, need, ()),
            temporary_file_system: setting(5, need, vec![shm()]),
            private_pids: setting(6, need, ()),
            protect_proc: setting(7, need, ProtectProc::Invisible),
            private_ipc: setting(8, need, ()),
            keyring_mode: setting(9, need, KeyringMode::Private),
            no_new_privileges: setting(10, need, ()),
            system_call_filter: setting(11, need, vec![rule("bpf", Answer::Eperm)]),
            system_call_architectures: setting(12, need, ()),
            restrict_address_families: setting(13, need, AddressFamilies::Only(vec![1, 2, 10])),
        },
    }
}

/// What a file would say, for each key.
pub(crate) fn written(control: Control) -> &'static str {
    match control {
        Control::MemoryMin | Control::MemoryLow => "1M",
        Control::MemoryHigh => "40%",
        Control::MemoryMax => "50%",
        Control::MemorySwapMax => "0",
        Control::OOMPolicy => "kill",
        Control::CPUQuota => "150%",
        Control::CPUQuotaPeriodSec => "50ms",
        Control::CPUWeight | Control::IOWeight => "50",
        Control::AllowedCPUs => "0-3",
        Control::AllowedMemoryNodes => "0",
        Control::TasksMax => "100",
        Control::IOReadBandwidthMax
        | Control::IOWriteBandwidthMax
        | Control::IOReadIOPSMax
        | Control::IOWriteIOPSMax => "/scratch 10M",
        Control::HugeTLBMax => "2M 1G",
    }
}

pub(crate) fn resource(line: u32, need: Need, control: Control) -> Setting<Amount> {
    setting(line, need, control.parse(written(control)).expect("a value")).expect("a setting")
}

pub(crate) fn rlimit(line: u32, need: Need) -> Setting<Rlimit> {
    let value = Rlimit { soft: Max::Value(500), hard: Some(Max::Value(2000)) };
    setting(line, need, value).expect("a setting")
}

pub(crate) fn list(text: &str) -> NumberList {
    NumberList::parse(text).expect("a list")
}

/// Protected memory is a part of what the nodes above protect.
pub(crate) fn site() -> Site {
    let protected = || {
        [Control::MemoryMin, Control::MemoryLow]
            .into_iter()
            .map(|control| (control, resource(20, Need::Prefer, control)))
            .collect()
    };
    Site { site: protected(), user: protected() }
}

pub(crate) fn grant() -> Grant {
    let account = Account {
        name: "alice".into(),
        uid: 1001,
        gid: 1001,
        groups: vec![1001, 2000, 2001, 5000],
        home: "/users/alice".into(),
        shell: "/bin/bash".into(),
    };
    Grant { account, claims_digest: String::new(), rule: "user_allowlist".into() }
}

pub(crate) fn job() -> Job {
    let directories = Directories {
        tmp: "/var/lib/jacamar/tmp/1/tmp".into(),
        var_tmp: "/var/lib/jacamar/tmp/1/var-tmp".into(),
        ssh_config: "/var/lib/jacamar/tmp/1/ssh_config.d".into(),
    };
    Job { id: "1".into(), directories, working_directory: "/users/alice".into() }
}

pub(crate) fn stage() -> Stage {
    Stage::Run(SubStage::new("build_script").expect("a sub-stage"))
}

/// The plan of the full profile on the good host.
pub(crate) fn good(level: Level) -> Plan {
    plan(&grant(), &profile(), &site(), &host(level), &job(), &stage())
        .expect("this host can give everything")
}
