//! What holds for every plan, and when there is none.

use jacamar_plan::{
    Amount, Arch, Control, Host, Key, KeyringMode, Level, Manager, Max, Memory, Mount, Need, Phase, Plan,
    Profile, ProtectProc, Resource, Setting, Site, Step, Tasks, Unplannable, check, explain, plan,
};
use proptest::prelude::*;

use crate::{any, sample};

fn planned(host: &Host, profile: &Profile) -> Result<Plan, Unplannable> {
    within(&Site::default(), host, profile)
}

fn within(site: &Site, host: &Host, profile: &Profile) -> Result<Plan, Unplannable> {
    plan(&sample::grant(), profile, site, host, &sample::job(), &sample::stage())
}

/// The need of each key that asks for something on any host: "infinity", "default" and "inherit" ask for nothing.
fn asked(profile: &Profile) -> Vec<(Key, Need)> {
    fn need<T>(setting: Option<&Setting<T>>, asks: impl Fn(&T) -> bool) -> Option<Need> {
        setting.filter(|setting| asks(&setting.value)).map(|setting| setting.need)
    }
    let s = &profile.settings;
    let infinite = [Amount::Memory(Memory::Infinity), Amount::Tasks(Tasks::Infinity)];
    let resources = s.resources.iter().map(|(control, setting)| {
        (Key::Control(*control), need(Some(setting), |value| !infinite.contains(value)))
    });
    let limits = s.limits.iter().map(|(name, setting)| (Key::Limit(*name), need(Some(setting), |_| true)));
    let all = [
        (Key::ProtectSystem, need(s.protect_system.as_ref(), |_| true)),
        (Key::PrivateTmp, need(s.private_tmp.as_ref(), |()| true)),
        (Key::TemporaryFileSystem, need(s.temporary_file_system.as_ref(), |_| true)),
        (Key::PrivatePIDs, need(s.private_pids.as_ref(), |()| true)),
        (Key::ProtectProc, need(s.protect_proc.as_ref(), |value| *value == ProtectProc::Invisible)),
        (Key::PrivateIPC, need(s.private_ipc.as_ref(), |()| true)),
        (Key::KeyringMode, need(s.keyring_mode.as_ref(), |value| *value == KeyringMode::Private)),
        (Key::NoNewPrivileges, need(s.no_new_privileges.as_ref(), |()| true)),
        (Key::SystemCallFilter, need(s.system_call_filter.as_ref(), |_| true)),
        (Key::SystemCallArchitectures, need(s.system_call_architectures.as_ref(), |()| true)),
        (Key::RestrictAddressFamilies, need(s.restrict_address_families.as_ref(), |_| true)),
    ];
    all.into_iter().chain(resources).chain(limits).filter_map(|(key, need)| Some((key, need?))).collect()
}

/// What hosts lack, written a second time. `pid` and `no_new_privs` are those of the plan.
fn lacks(host: &Host, profile: &Profile, key: Key, pid: bool, no_new_privs: bool) -> bool {
    let has = |directory: &str| host.directories.contains_key(directory);
    let controller =
        |name: &str| host.cgroup.node.is_ok() && host.cgroup.controllers.iter().any(|c| c == name);
    let namespaces = host.namespaces.is_present()
        && (host.level == Level::Root
            || (host.user_namespaces.is_present() && profile.settings.no_new_privileges.is_some()));
    match key {
        Key::Control(control) => {
            let missing = |file: &str| host.cgroup.missing.iter().any(|name| name == file);
            // systemd has it from this version on, and none for huge pages.
            let property = |since| host.cgroup.systemd.is_some_and(|version| version >= since);
            let has_property = host.cgroup.manager == Manager::Ourselves
                || match control {
                    Control::HugeTLBMax => false,
                    Control::CPUQuotaPeriodSec => property(242),
                    Control::AllowedCPUs | Control::AllowedMemoryNodes => property(244),
                    _ => true,
                };
            !controller(control.controller())
                || !has_property
                || match control {
                    Control::MemorySwapMax => missing("memory.swap.max"),
                    Control::IOWeight => missing("io.weight"),
                    // Nothing above protects any, or has a quota of which it is the period.
                    Control::MemoryMin | Control::MemoryLow => true,
                    Control::CPUQuotaPeriodSec => {
                        !profile.settings.resources.contains_key(&Control::CPUQuota)
                    }
                    _ => false,
                }
        }
        Key::Limit(name) => {
            let hard = profile.settings.limits.get(&name).and_then(|setting| setting.value.hard);
            let raised = hard.is_some_and(|hard| hard > Max::Value(1000));
            let files = name == Resource::NOFILE && hard > Some(Max::Value(1 << 20));
            files || (raised && !host.raises_limits)
        }
        Key::ParallelismVariables => false,
        Key::ProtectSystem | Key::PrivateIPC => !namespaces,
        Key::PrivateTmp => !namespaces || (!has("/tmp") && !has("/var/tmp")),
        Key::TemporaryFileSystem => {
            let entries = profile.settings.temporary_file_system.iter().flat_map(|setting| &setting.value);
            !namespaces || entries.into_iter().any(|entry| !has(&entry.path))
        }
        Key::PrivatePIDs => !namespaces || !host.own_proc.is_present(),
        Key::ProtectProc => !namespaces || !host.own_proc.is_present() || !pid,
        Key::KeyringMode => !host.calls.keyctl.is_present(),
        Key::NoNewPrivileges => false,
        Key::SystemCallFilter | Key::SystemCallArchitectures | Key::RestrictAddressFamilies => {
            host.arch == Arch::Other
                || !host.calls.seccomp.is_present()
                || (host.level != Level::Root && !no_new_privs)
        }
    }
}

/// Keys of which something is done.
fn done(plan: &Plan) -> Vec<Key> {
    let keys = plan.steps().iter().flat_map(Step::keys).collect::<Vec<_>>();
    keys.into_iter().filter(|key| plan.origin.contains_key(key)).collect()
}

fn is_without(plan: &Plan, key: Key) -> bool {
    plan.without.iter().any(|without| without.what == key.to_string())
}

/// Of memory: a job has it only where the nodes above have it.
fn is_protection(control: Control) -> bool {
    matches!(control, Control::MemoryMin | Control::MemoryLow)
}

type Is = fn(&Step) -> bool;

/// The lines of the order that protect: every step of the first kind comes before every one of the second.
const BEFORE: [(&str, Is, Is); 10] = [
    (
        "a mount hides later sources",
        |s| matches!(s, Step::OpenSource { .. }),
        |s| matches!(s, Step::Mount(_)),
    ),
    ("no mount of ours leaves", |s| *s == Step::SlaveMounts, |s| matches!(s, Step::Mount(_))),
    (
        "files are opened as the user",
        |s| matches!(s, Step::WearCapabilities { .. }),
        |s| matches!(s, Step::OpenSource { .. }),
    ),
    (
        "the bounding set needs ids",
        |s| matches!(s, Step::DropBounding { .. }),
        |s| matches!(s, Step::BecomeUid { .. }),
    ),
    (
        "the group needs the user's ids",
        |s| matches!(s, Step::BecomeGid { .. }),
        |s| matches!(s, Step::BecomeUid { .. }),
    ),
    ("keepcaps outlives the ids", |s| *s == Step::KeepCapabilities, |s| matches!(s, Step::BecomeUid { .. })),
    (
        "entered as the user",
        |s| matches!(s, Step::BecomeUid { .. }),
        |s| matches!(s, Step::ChangeDirectory { .. }),
    ),
    ("a filter needs no_new_privs", |s| *s == Step::NoNewPrivileges, |s| matches!(s, Step::Filter { .. })),
    ("or CAP_SYS_ADMIN", |s| matches!(s, Step::Filter { .. }), |s| *s == Step::DropCapabilities),
    ("the proof is last but the fork", |s| *s == Step::ClearAmbient, |s| *s == Step::Prove),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_checker_accepts_every_plan(host in any::host(), profile in any::profile(), site in any::site()) {
        if let Ok(plan) = within(&site, &host, &profile) {
            let checked = check(plan.clone());
            prop_assert!(checked.is_ok(), "{:?}", checked);
            prop_assert!(plan.contain.namespaces.pid || plan.contain.cgroup.is_some(), "no floor");
        }
    }

    #[test]
    fn what_is_required_is_there_and_what_is_preferred_is_there_or_named(
        host in any::host(), profile in any::profile(),
    ) {
        match planned(&host, &profile) {
            Ok(plan) => {
                let (pid, no_new_privs) = (plan.contain.namespaces.pid, plan.confine.no_new_privs);
                let done = done(&plan);
                for (key, need) in asked(&profile) {
                    if lacks(&host, &profile, key, pid, no_new_privs) {
                        prop_assert_eq!(need, Need::Prefer, "{} is required and not there", key);
                        prop_assert!(is_without(&plan, key), "{} is missing in silence", key);
                        // Of a limit of processes as much is done as can be.
                        let partly = matches!(key, Key::Limit(_));
                        prop_assert!(partly || !done.contains(&key), "{} is missing and done", key);
                    } else {
                        prop_assert!(!is_without(&plan, key), "{} is there and named as missing", key);
                        prop_assert!(plan.origin.contains_key(&key), "{} has no origin", key);
                    }
                }
            }
            Err(Unplannable { what, .. }) => match asked(&profile).into_iter().find(|(key, _)| key.to_string() == what) {
                Some((key, need)) => {
                    prop_assert_eq!(need, Need::Require, "{} is only preferred", key);
                    // At the worst: whether there is a pid namespace or no_new_privs is no longer to be seen.
                    prop_assert!(lacks(&host, &profile, key, false, false), "{} could be had", key);
                }
                None => {
                    prop_assert_eq!(what, "a way to end the job");
                    prop_assert!(host.cgroup.node.is_err());
                }
            },
        }
    }

    #[test]
    fn the_order_is_always_the_same(host in any::host(), profile in any::profile()) {
        if let Ok(plan) = planned(&host, &profile) {
            let phases: Vec<Phase> = plan.phased_steps().into_iter().map(|(phase, _)| phase).collect();
            prop_assert!(phases.is_sorted(), "{:?}", phases);
            let mut seen = phases;
            seen.dedup();
            prop_assert!(seen.iter().all(|phase| Phase::ALL.contains(phase)));
            // Each step in the phase that its kind belongs to; only what a change of ids undoes comes twice.
            for (phase, step) in plan.phased_steps() {
                let again = (step == Step::DieWithSupervisor && phase == Phase::Confine)
                    || (step == Step::Undumpable && phase == Phase::Become);
                prop_assert!(again || phase == step.phase(), "{} in {}", step, phase);
            }
            let child = plan.child_steps();
            prop_assert_eq!(child.first(), Some(&Step::AwaitRelease));
            prop_assert_eq!(child.last(), Some(&Step::Execute));
            let parent = plan.parent_steps();
            prop_assert_eq!(parent.last(), Some(&Step::Release));
            prop_assert_eq!([parent, child].concat(), plan.steps());
        }
    }

    #[test]
    fn what_must_come_before_what(host in any::host(), profile in any::profile()) {
        if let Ok(plan) = planned(&host, &profile) {
            let steps = plan.child_steps();
            for (name, earlier, later) in BEFORE {
                let last = steps.iter().rposition(earlier);
                let first = steps.iter().position(later);
                prop_assert!(last.zip(first).is_none_or(|(last, first)| last < first), "{}", name);
            }
            let again = steps.iter().rposition(|step| *step == Step::DieWithSupervisor);
            let ids = steps.iter().position(|step| matches!(step, Step::BecomeUid { .. }));
            prop_assert!(ids < again, "the change of ids cleared the death signal");
            let undumpable = steps.iter().rposition(|step| *step == Step::Undumpable);
            prop_assert!(ids.is_none() || ids < undumpable, "the change of ids may allow tracing");
            let mounts: Vec<_> = steps.iter().filter(|step| matches!(step, Step::Mount(_))).collect();
            let proc = mounts.iter().position(|step| matches!(step, Step::Mount(Mount::Proc { .. })));
            prop_assert!(proc.is_none_or(|at| at + 1 == mounts.len()), "/proc is last");
        }
    }

    /// Below root namespaces only in a user namespace, no filter and no dropped bounding set
    /// where setuid helpers are to work.
    #[test]
    fn each_level_gives_what_its_row_says(host in any::host(), profile in any::profile()) {
        if let Ok(plan) = planned(&host, &profile) {
            let namespaces = plan.contain.namespaces;
            let some = namespaces.mount || namespaces.pid || namespaces.ipc;
            prop_assert_eq!(namespaces.user, some && host.level != Level::Root);
            let helpers = profile.settings.no_new_privileges.is_none();
            match host.level {
                Level::Root => prop_assert_eq!(plan.confine.no_new_privs, !helpers),
                Level::Capabilities if helpers => {
                    prop_assert!(!some && plan.confine.filter.is_none() && !plan.confine.no_new_privs);
                }
                Level::Capabilities | Level::User => prop_assert_eq!(plan.confine.no_new_privs, !helpers || some),
            }
            let maps = plan.contain.id_maps.as_ref();
            prop_assert_eq!(maps.is_some_and(|maps| maps.deny_setgroups), namespaces.user && host.level == Level::User);
        }
    }

    #[test]
    fn a_plan_is_read_back_and_explained(host in any::host(), profile in any::profile()) {
        if let Ok(plan) = planned(&host, &profile) {
            let text = serde_json::to_string(&plan).expect("JSON");
            prop_assert_eq!(&serde_json::from_str::<Plan>(&text).expect("a plan"), &plan);
            let words = explain(&plan).to_string();
            for step in plan.steps() {
                prop_assert!(words.contains(&step.to_string()), "{}", step);
            }
            for without in &plan.without {
                let line = format!("without {}: {}\n", without.what, without.reason);
                prop_assert!(words.contains(&line), "{}", line);
            }
        }
    }
}

#[test]
fn a_full_profile_on_a_good_host_lacks_nothing() {
    let plan = sample::good(Level::Root);
    assert_eq!(plan.without, []);
    let missing: Vec<Key> = Key::all().filter(|key| !plan.origin.contains_key(key)).collect();
    assert_eq!(missing, []);
}

#[test]
fn a_tree_is_read_only_with_what_is_mounted_below_it_and_not_beside_it() {
    let plan = sample::good(Level::Root);
    let read_only = |mount: &Mount| match mount {
        Mount::ReadOnly { mounts } => Some(mounts.iter().map(|m| m.target.clone()).collect::<Vec<_>>()),
        Mount::Bind { .. } | Mount::Tmpfs { .. } | Mount::Mqueue { .. } | Mount::Proc { .. } => None,
    };
    let trees: Vec<_> = plan.view.mounts.iter().filter_map(read_only).collect();
    assert_eq!(trees, [vec!["/usr", "/usr/local"], vec!["/boot"], vec!["/etc"]]);
}

#[test]
fn groups_that_do_not_fit_one_write_are_a_refusal_that_says_so() {
    let mut grant = sample::grant();
    // Every other id: nothing can be merged.
    grant.account.groups = (0..500).map(|n| 100_000 + 2 * n).collect();
    let at = |level| {
        plan(
            &grant,
            &sample::profile(),
            &sample::site(),
            &sample::host(level),
            &sample::job(),
            &sample::stage(),
        )
    };
    let refused = at(Level::Capabilities).expect_err("too many");
    assert_eq!(refused.what, "the groups of alice");
    assert!(at(Level::Root).is_ok() && at(Level::User).is_ok());
}

#[test]
fn hidden_processes_need_a_pid_namespace_and_never_vanish_in_silence() {
    let mut profile = sample::profile();
    profile.settings.private_pids = None;
    profile.settings.resources.retain(|control, _| !is_protection(*control));
    let host = sample::host(Level::Root);
    assert_eq!(planned(&host, &profile).expect_err("required").what, "ProtectProc");
    profile.settings.protect_proc = sample::setting(7, Need::Prefer, ProtectProc::Invisible);
    assert!(is_without(&planned(&host, &profile).expect("a plan"), Key::ProtectProc));
    // The floor takes a pid namespace, and then it works.
    let host =
        Host { cgroup: jacamar_plan::CgroupHost { node: Err("none".into()), ..host.cgroup.clone() }, ..host };
    profile.settings.resources.clear();
    assert!(done(&planned(&host, &profile).expect("a plan")).contains(&Key::ProtectProc));
}

/// There the job's processes are not ours to signal without a user namespace, so it takes a kernel that ends a group.
#[test]
fn setuid_helpers_at_the_capability_level_take_a_kernel_that_ends_a_group() {
    let mut profile = sample::profile();
    profile.settings = jacamar_plan::Settings::default();
    let mut host = sample::host(Level::Capabilities);
    assert!(planned(&host, &profile).is_ok());
    host.cgroup.kill = false;
    let refused = planned(&host, &profile).expect_err("processes that nobody can end");
    assert_eq!(refused.what, "a way to end the job");
    assert!(refused.reason.contains("cgroup.kill"), "{}", refused.reason);
    for level in [Level::Root, Level::User] {
        host.level = level;
        assert!(planned(&host, &profile).is_ok(), "{level}");
    }
    host.level = Level::Capabilities;
    profile.settings.no_new_privileges = sample::setting(1, Need::Require, ());
    profile.settings.private_pids = sample::setting(2, Need::Require, ());
    assert!(planned(&host, &profile).is_ok(), "with namespaces of ours they are");
}

#[test]
fn our_own_no_new_privs_is_told_where_setuid_helpers_are_allowed() {
    let mut profile = sample::profile();
    profile.settings.no_new_privileges = None;
    profile.settings.resources.retain(|control, _| !is_protection(*control));
    let host = Host { no_new_privs: true, ..sample::host(Level::Root) };
    let plan = planned(&host, &profile).expect("a plan");
    assert!(plan.without.iter().any(|without| without.what == "setuid helpers"));
}

#[test]
fn the_copy_for_ssh_is_never_mounted_on_the_host() {
    let mut profile = sample::profile();
    profile.settings = jacamar_plan::Settings {
        private_ipc: profile.settings.private_ipc,
        no_new_privileges: profile.settings.no_new_privileges,
        ..jacamar_plan::Settings::default()
    };
    let mut host = sample::host(Level::User);
    host.directories.remove("/dev/mqueue");
    let plan = planned(&host, &profile).expect("a plan");
    assert_eq!(plan.view.mounts.len(), 1);
    assert!(check(plan).is_ok(), "an ipc namespace alone is not enough for it");
}
