//! One good host, one full profile, one account: what a test spoils or takes away from.

use std::collections::BTreeMap;

use jacamar_plan::{
    Account, AddressFamilies, Answer, Arch, Bytes, CallRule, Calls, CgroupHost, CgroupVersion, Directories,
    Grant, Host, HostMount, Job, KeyringMode, Level, Memory, MountFlags, Need, Origin, Plan, Presence,
    Profile, ProtectProc, ProtectSystem, Setting, Settings, Stage, SubStage, Tasks, TemporaryFileSystem,
    plan,
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
            controllers: vec!["memory".into(), "pids".into()],
        },
        user_namespaces: present,
        namespaces: present,
        own_proc: present,
        urgency: jacamar_plan::Urgency::default(),
        cap_last_cap: 40,
        no_new_privs: false,
        memory: Bytes(8 << 30),
        tasks: 32768,
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
            memory_max: setting(1, need, Memory::Percent(50)),
            tasks_max: setting(2, need, Tasks::Count(100)),
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
    plan(&grant(), &profile(), &host(level), &job(), &stage()).expect("this host can give everything")
}
