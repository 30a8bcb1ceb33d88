//! Any host and any profile.

use std::collections::BTreeMap;

use jacamar_plan::{
    Above, AddressFamilies, Amount, Answer, Arch, Bytes, CallRule, Calls, CgroupHost, CgroupVersion,
    Condition, Control, Delegated, Host, KeyringMode, Level, Manager, Max, Memory, MountFlags, Need,
    Presence, Profile, ProtectProc, ProtectSystem, Resource, Resources, Rlimit, Setting, Settings, Site,
    Tasks, TemporaryFileSystem, Urgency,
};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::sample;

pub(crate) fn level() -> impl Strategy<Value = Level> {
    select(vec![Level::Root, Level::Capabilities, Level::User])
}

/// Mostly there: else nothing of a plan would be left.
fn presence() -> impl Strategy<Value = Presence> {
    prop_oneof![4 => Just(Presence::Present), 1 => Just(Presence::Absent(1)), 1 => Just(Presence::Absent(38))]
}

fn calls() -> impl Strategy<Value = Calls> {
    (presence(), presence(), presence(), presence(), presence(), presence()).prop_map(
        |(clone_into_cgroup, pidfd_open, openat2, close_range, keyctl, seccomp)| Calls {
            clone_into_cgroup,
            pidfd_open,
            openat2,
            close_range,
            keyctl,
            seccomp,
        },
    )
}

fn cgroup() -> impl Strategy<Value = CgroupHost> {
    let versions = vec![CgroupVersion::None, CgroupVersion::V1, CgroupVersion::Hybrid, CgroupVersion::V2];
    let node = prop_oneof![
        2 => Just(Ok("/sys/fs/cgroup/jacamar.slice".to_owned())),
        1 => Just(Err("not delegated to us".to_owned())),
    ];
    let controllers = vec!["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];
    let missing = subsequence(vec!["memory.swap.max", "cpu.idle", "io.weight"], 0..=3);
    let delegated = proptest::option::of(any::<bool>().prop_map(|crowded| Delegated {
        path: "/sys/fs/cgroup/system.slice/gitlab-runner.service".into(),
        crowded,
    }));
    let manager = select(vec![Manager::Ourselves, Manager::Systemd]);
    let systemd = select(vec![None, Some(239), Some(252)]);
    (select(versions), node, subsequence(controllers, 0..=6), missing, delegated, manager, systemd).prop_map(
        |(version, node, controllers, missing, delegated, manager, systemd)| CgroupHost {
            version,
            node,
            delegated,
            kill: true,
            manager,
            systemd,
            version1: std::collections::BTreeMap::new(),
            controllers: controllers.into_iter().map(str::to_owned).collect(),
            missing: missing.into_iter().map(str::to_owned).collect(),
            above: Above::default(),
        },
    )
}

pub(crate) fn host() -> impl Strategy<Value = Host> {
    let archs = prop_oneof![5 => Just(Arch::X86_64), 1 => Just(Arch::Other)];
    let directories = subsequence(sample::DIRECTORIES.to_vec(), 0..=sample::DIRECTORIES.len());
    let flags = (any::<bool>(), any::<bool>(), 0_u8..=63, any::<bool>());
    let urgency = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let urgency =
        urgency.prop_map(|(nice, scheduling, io, oom_score)| Urgency { nice, scheduling, io, oom_score });
    let namespaces = (presence(), presence(), presence());
    (archs, level(), calls(), cgroup(), namespaces, directories, flags, urgency).prop_map(
        |(
            arch,
            level,
            calls,
            cgroup,
            (user, namespaces, own_proc),
            directories,
            (no_new_privs, ssh, last, raises),
            urgency,
        )| Host {
            arch,
            calls,
            cgroup,
            user_namespaces: user,
            namespaces,
            own_proc,
            cap_last_cap: last,
            no_new_privs,
            urgency,
            memory: Bytes(4096 * 1000),
            raises_limits: raises,
            ssh_config_files: ssh,
            directories: sample::directories(&directories),
            ..sample::host(level)
        },
    )
}

/// A setting with any need; `NoNewPrivileges` is never preferred, the parser refuses that.
fn setting<T: std::fmt::Debug + Clone + 'static>(
    line: u32,
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Option<Setting<T>>> {
    let needs = prop_oneof![1 => Just(Need::Require), 2 => Just(Need::Prefer)];
    of((needs, value))
        .prop_map(move |set| set.and_then(|(need, value)| sample::setting(line, need, value)))
        .boxed()
}

fn rules() -> impl Strategy<Value = Vec<CallRule>> {
    let call = select(vec!["bpf", "reboot", "ustat", "ioctl"]);
    let when = of((0_u8..6, any::<u32>()).prop_map(|(argument, equals)| Condition { argument, equals }));
    let one = (call, when, select(Answer::ALL.to_vec())).prop_map(|(call, when, answer)| CallRule {
        call: call.into(),
        when,
        answer,
    });
    prop::collection::vec(one, 1..5)
}

fn families() -> impl Strategy<Value = AddressFamilies> {
    let list = prop::collection::vec(1_u32..46, 1..5);
    (any::<bool>(), list).prop_map(|(only, list)| match only {
        true => AddressFamilies::Only(list),
        false => AddressFamilies::Except(list),
    })
}

fn temporary_file_systems() -> impl Strategy<Value = Vec<TemporaryFileSystem>> {
    select(vec!["/dev/shm", "/scratch"]).prop_map(|path| {
        vec![TemporaryFileSystem {
            path: path.into(),
            flags: MountFlags::NOSUID,
            options: "mode=1777".into(),
        }]
    })
}

fn need() -> impl Strategy<Value = Need> {
    prop_oneof![1 => Just(Need::Require), 4 => Just(Need::Prefer)]
}

/// Any of the keys, some with a value that asks for nothing.
pub(crate) fn resources() -> impl Strategy<Value = Resources> {
    let memory = prop_oneof![
        any::<u64>().prop_map(|bytes| Amount::Memory(Memory::Bytes(bytes.max(1)))),
        (1_u8..=100).prop_map(|percent| Amount::Memory(Memory::Percent(percent))),
        Just(Amount::Memory(Memory::Infinity)),
    ];
    let tasks = prop_oneof![
        any::<u64>().prop_map(|count| Amount::Tasks(Tasks::Count(count.max(1)))),
        (1_u8..=100).prop_map(|percent| Amount::Tasks(Tasks::Percent(percent))),
        Just(Amount::Tasks(Tasks::Infinity)),
    ];
    let keys = subsequence(Control::ALL.to_vec(), 0..=Control::ALL.len());
    (keys, prop::collection::vec(need(), Control::ALL.len()), memory, tasks).prop_map(
        |(keys, needs, memory, tasks)| {
            let amount = |control: Control| match control {
                Control::MemoryMax => memory.clone(),
                Control::TasksMax => tasks.clone(),
                control => sample::resource(1, Need::Prefer, control).value,
            };
            let one = |(control, need): (Control, Need)| {
                let setting = sample::setting(1, need, amount(control)).expect("a setting");
                (control, setting)
            };
            keys.into_iter().zip(needs).map(one).collect()
        },
    )
}

fn limits() -> impl Strategy<Value = BTreeMap<Resource, Setting<Rlimit>>> {
    let number = || prop_oneof![any::<u64>().prop_map(Max::Value), Just(Max::Infinity)];
    let one = (select(Resource::ALL.to_vec()), need(), number(), of(number()));
    prop::collection::vec(one, 0..8).prop_map(|all| {
        let limit = |(name, need, soft, hard): (Resource, Need, Max, Option<Max>)| {
            (name, sample::setting(2, need, Rlimit { soft, hard }).expect("a setting"))
        };
        all.into_iter().map(limit).collect()
    })
}

/// Limits of the site and of the user.
pub(crate) fn site() -> impl Strategy<Value = Site> {
    (resources(), resources()).prop_map(|(site, user)| Site { site, user })
}

pub(crate) fn profile() -> impl Strategy<Value = Profile> {
    let protect_system = select(vec![ProtectSystem::Yes, ProtectSystem::Full]);
    let protect_proc = select(vec![ProtectProc::Invisible, ProtectProc::Default]);
    let keyring = select(vec![KeyringMode::Private, KeyringMode::Inherit]);
    let no_new_privileges =
        any::<bool>().prop_map(|set| if set { sample::setting(10, Need::Require, ()) } else { None });
    let job = (resources(), limits(), setting(14, Just(vec![("MAKEFLAGS".into(), "-j%n".into())])));
    let view = (setting(3, protect_system), setting(4, Just(())), setting(5, temporary_file_systems()));
    let processes = (
        setting(6, Just(())),
        setting(7, protect_proc),
        setting(8, Just(())),
        setting(9, keyring),
        no_new_privileges,
    );
    let calls = (setting(11, rules()), setting(12, Just(())), setting(13, families()));
    (job, view, processes, calls).prop_map(|(job, view, processes, calls)| Profile {
        name: "any".into(),
        description: "any".into(),
        settings: Settings {
            resources: job.0,
            limits: job.1,
            parallelism_variables: job.2,
            protect_system: view.0,
            private_tmp: view.1,
            temporary_file_system: view.2,
            private_pids: processes.0,
            protect_proc: processes.1,
            private_ipc: processes.2,
            keyring_mode: processes.3,
            no_new_privileges: processes.4,
            system_call_filter: calls.0,
            system_call_architectures: calls.1,
            restrict_address_families: calls.2,
        },
    })
}
