//! The checker: a good plan, one thing spoiled, the named violation. Each variant at least once.

use jacamar_plan::{
    Bounding, Bytes, Ceiling, IdMap, Identity, Init, Level, Mount, Namespaces, Plan, Site, Violation, check,
};

use crate::sample::{good, rule};

/// Spoils a good plan.
fn spoiled(level: Level, spoil: impl FnOnce(&mut Plan)) -> Violation {
    let mut plan = good(level);
    check(plan.clone(), &Site::default()).expect("it was good");
    spoil(&mut plan);
    check(plan, &Site::default()).expect_err("it is spoiled")
}

fn wear(plan: &mut Plan) -> &mut jacamar_plan::Wear {
    match &mut plan.identity {
        Identity::Become(wear) => wear,
        Identity::Own { .. } => panic!("a plan of the user level"),
    }
}

fn maps(plan: &mut Plan) -> &mut jacamar_plan::IdMaps {
    plan.contain.id_maps.as_mut().expect("maps")
}

fn tmpfs(target: &str) -> Mount {
    Mount::Tmpfs {
        target: target.into(),
        flags: jacamar_plan::MountFlags::NOSUID,
        options: "mode=0755".into(),
    }
}

fn filter(plan: &mut Plan) -> &mut jacamar_plan::Filter {
    plan.confine.filter.as_mut().expect("a filter")
}

#[test]
fn no_job_is_ever_root_or_nobody_in_particular() {
    for uid in [0, u32::MAX] {
        assert_eq!(spoiled(Level::Root, |plan| wear(plan).uid = uid), Violation::ForbiddenUser(uid));
        assert_eq!(spoiled(Level::Capabilities, |plan| wear(plan).uid = uid), Violation::ForbiddenUser(uid));
    }
    assert_eq!(spoiled(Level::Root, |plan| wear(plan).gid = u32::MAX), Violation::ForbiddenGroup(u32::MAX));
    assert_eq!(
        spoiled(Level::Root, |plan| wear(plan).groups.push(u32::MAX)),
        Violation::ForbiddenGroup(u32::MAX)
    );
}

#[test]
fn only_the_user_level_stays_who_it_is() {
    let own = Identity::Own { uid: 1001, gid: 1001 };
    for level in [Level::Root, Level::Capabilities] {
        assert_eq!(spoiled(level, |plan| plan.identity = own.clone()), Violation::WrongIdentity(level));
    }
    let Identity::Become(wear) = good(Level::Root).identity else { panic!("root becomes the user") };
    let spoil = |plan: &mut Plan| plan.identity = Identity::Become(wear);
    assert_eq!(spoiled(Level::User, spoil), Violation::WrongIdentity(Level::User));
}

#[test]
fn something_can_end_every_job() {
    let spoil = |plan: &mut Plan| {
        plan.contain.cgroup = None;
        plan.contain.namespaces.pid = false;
        plan.execute.init = Init::Subreaper;
        plan.view.mounts.retain(|mount| !matches!(mount, Mount::Proc { .. }));
    };
    assert_eq!(spoiled(Level::Root, spoil), Violation::NoFloor);
}

#[test]
fn pid_namespace_own_proc_and_init_belong_together() {
    let no_pid = |plan: &mut Plan| plan.contain.namespaces.pid = false;
    let no_proc = |plan: &mut Plan| plan.view.mounts.truncate(plan.view.mounts.len() - 1);
    let no_init = |plan: &mut Plan| plan.execute.init = Init::Subreaper;
    assert_eq!(spoiled(Level::Root, no_pid), Violation::ProcWithoutPid);
    assert_eq!(spoiled(Level::Root, no_proc), Violation::ProcWithoutPid);
    assert_eq!(spoiled(Level::Root, no_init), Violation::ProcWithoutPid);
}

#[test]
fn nothing_is_mounted_on_proc_or_after_it() {
    let over = |target: &str| Violation::MountOverProc(target.into());
    for target in ["/proc/sys", "/proc"] {
        assert_eq!(spoiled(Level::Root, |plan| plan.view.mounts.insert(0, tmpfs(target))), over(target));
    }
    assert_eq!(spoiled(Level::Root, |plan| plan.view.mounts.push(tmpfs("/scratch"))), over("/scratch"));
    let second = |plan: &mut Plan| plan.view.mounts.push(Mount::Proc { options: String::new() });
    assert_eq!(spoiled(Level::Root, second), over("/proc"));
}

#[test]
fn every_path_is_plain() {
    for path in ["scratch", "", "/a/../etc", "/a/./b", "/a//b", "/a/", "/a\0b"] {
        let violation = Violation::NotPlain(path.to_owned());
        assert_eq!(spoiled(Level::Root, |plan| plan.view.mounts.insert(0, tmpfs(path))), violation);
        assert_eq!(spoiled(Level::Root, |plan| plan.confine.directory = path.to_owned()), violation);
        let bind = Mount::Bind { source: path.to_owned(), target: "/scratch".into(), recursive: false };
        assert_eq!(spoiled(Level::Root, |plan| plan.view.mounts.insert(0, bind)), violation);
        let below = |plan: &mut Plan| {
            for mount in &mut plan.view.mounts {
                if let Mount::ReadOnly { mounts } = mount {
                    mounts
                        .push(jacamar_plan::Submount { target: path.to_owned(), flags: Default::default() });
                }
            }
        };
        assert_eq!(spoiled(Level::Root, below), violation);
    }
}

#[test]
fn nothing_is_mounted_on_the_host() {
    let spoil = |plan: &mut Plan| plan.contain.namespaces.mount = false;
    assert_eq!(spoiled(Level::Root, spoil), Violation::MountOnHost("/usr".into()));
}

#[test]
fn the_filter_lets_us_finish() {
    for call in ["capset", "execve", "prctl", "setresuid", "wait4"] {
        let spoil = |plan: &mut Plan| filter(plan).rules.push(rule(call, jacamar_plan::Answer::Eperm));
        assert_eq!(spoiled(Level::Root, spoil), Violation::FilterStopsUs(call));
    }
}

#[test]
fn below_root_a_filter_needs_no_new_privs() {
    let spoil = |plan: &mut Plan| {
        plan.confine.no_new_privs = false;
        plan.confine.bounding = Bounding::Keep;
    };
    assert_eq!(spoiled(Level::User, spoil), Violation::FilterNeedsNoNewPrivs(Level::User));
    let mut plan = good(Level::Root);
    spoil(&mut plan);
    assert!(check(plan, &Site::default()).is_ok(), "root loads it with CAP_SYS_ADMIN");
}

#[test]
fn no_new_privs_and_the_bounding_set_are_one_switch() {
    assert_eq!(spoiled(Level::Root, |plan| plan.confine.bounding = Bounding::Keep), Violation::HalfSwitch);
    assert_eq!(spoiled(Level::Root, |plan| plan.confine.no_new_privs = false), Violation::HalfSwitch);
}

#[test]
fn a_user_namespace_and_its_maps_belong_together() {
    assert_eq!(spoiled(Level::User, |plan| plan.contain.id_maps = None), Violation::MapsWithoutNamespace);
    let none =
        |plan: &mut Plan| plan.contain.namespaces = Namespaces { user: false, ..plan.contain.namespaces };
    assert_eq!(spoiled(Level::Capabilities, none), Violation::MapsWithoutNamespace);
}

#[test]
fn nobody_else_is_mapped() {
    let foreign = |first, count| move |plan: &mut Plan| maps(plan).uids = vec![IdMap { first, count }];
    assert_eq!(spoiled(Level::Capabilities, foreign(0, 1)), Violation::ForeignId(0));
    assert_eq!(spoiled(Level::Capabilities, foreign(1001, 2)), Violation::ForeignId(1001));
    let more = |plan: &mut Plan| maps(plan).gids.push(IdMap { first: 2000, count: 3 });
    assert_eq!(spoiled(Level::Capabilities, more), Violation::ForeignId(2002));
    let own = |plan: &mut Plan| maps(plan).gids.push(IdMap { first: 2000, count: 1 });
    assert_eq!(spoiled(Level::User, own), Violation::ForeignId(2000), "at user level the own group alone");
}

#[test]
fn no_plan_is_above_the_ceiling_or_without_a_limit_where_there_is_one() {
    let ceiling = Ceiling { memory_max: Some(Bytes(1 << 30)), tasks_max: Some(100) };
    let site = Site { ceiling };
    let limited = |memory: Option<u64>, tasks: Option<u64>| {
        let mut plan = good(Level::Root);
        let limits = &mut plan.contain.cgroup.as_mut().expect("a control group").limits;
        (limits.memory_max, limits.tasks_max) = (memory.map(Bytes), tasks);
        check(plan, &site).err()
    };
    let above = |what, value, ceiling| Some(Violation::AboveCeiling { what, value, ceiling });
    assert_eq!(limited(Some(1 << 30), Some(100)), None);
    assert_eq!(limited(Some((1 << 30) + 1), Some(100)), above("MemoryMax", (1 << 30) + 1, 1 << 30));
    assert_eq!(limited(Some(1 << 30), Some(101)), above("TasksMax", 101, 100));
    assert_eq!(limited(None, Some(100)), Some(Violation::NoLimit { what: "MemoryMax" }));
    assert_eq!(limited(Some(1), None), Some(Violation::NoLimit { what: "TasksMax" }));
    let mut plan = good(Level::Root);
    plan.contain.cgroup = None;
    assert_eq!(check(plan, &site).err(), Some(Violation::NoLimit { what: "MemoryMax" }), "no control group");
}

/// A variant that no test names: this match is where a new one is noticed.
#[test]
fn every_violation_says_what_it_is_about() {
    let all = [
        Violation::AboveCeiling { what: "MemoryMax", value: 2, ceiling: 1 },
        Violation::NoLimit { what: "TasksMax" },
        Violation::ForbiddenUser(0),
        Violation::ForbiddenGroup(u32::MAX),
        Violation::NoFloor,
        Violation::ProcWithoutPid,
        Violation::MountOverProc("/proc/sys".into()),
        Violation::NotPlain("a".into()),
        Violation::MountOnHost("/usr".into()),
        Violation::FilterStopsUs("capset"),
        Violation::FilterNeedsNoNewPrivs(Level::User),
        Violation::MapsWithoutNamespace,
        Violation::ForeignId(0),
        Violation::HalfSwitch,
        Violation::WrongIdentity(Level::Root),
    ];
    for violation in all {
        let object = match &violation {
            Violation::AboveCeiling { what, .. } | Violation::NoLimit { what } => (*what).to_owned(),
            Violation::ForbiddenUser(id) | Violation::ForbiddenGroup(id) | Violation::ForeignId(id) => {
                id.to_string()
            }
            Violation::MountOverProc(path) | Violation::NotPlain(path) | Violation::MountOnHost(path) => {
                path.clone()
            }
            Violation::FilterStopsUs(call) => (*call).to_owned(),
            Violation::FilterNeedsNoNewPrivs(level) | Violation::WrongIdentity(level) => level.to_string(),
            Violation::NoFloor => "pid namespace".into(),
            Violation::ProcWithoutPid => "/proc".into(),
            Violation::MapsWithoutNamespace => "maps".into(),
            Violation::HalfSwitch => "bounding set".into(),
        };
        assert!(violation.to_string().contains(&object), "{violation}");
    }
}
