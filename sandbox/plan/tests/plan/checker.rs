//! The checker: a good plan, one thing spoiled, the named violation. Each variant at least once.

use jacamar_plan::{
    Bounding, Control, IdMap, Identity, Init, Level, Limit, Max, Mount, Namespaces, Origin, Plan,
    PlannedLimit, PlannedRlimit, Resource, Violation, check,
};

use crate::sample::{good, list, rule};

/// Spoils a good plan.
fn spoiled(level: Level, spoil: impl FnOnce(&mut Plan)) -> Violation {
    let mut plan = good(level);
    check(plan.clone()).expect("it was good");
    spoil(&mut plan);
    check(plan).expect_err("it is spoiled")
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
    assert!(check(plan).is_ok(), "root loads it with CAP_SYS_ADMIN");
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

fn origin() -> Origin {
    Origin { file: "site.toml".into(), line: 1, shipped: false }
}

#[test]
fn no_group_is_promised_more_than_the_one_above_it() {
    let planned = |limit| PlannedLimit { limit, origin: origin() };
    let with = |site: Limit, job: Limit| {
        let mut plan = good(Level::Root);
        let cgroup = plan.contain.cgroup.as_mut().expect("a control group");
        (cgroup.site.limits, cgroup.user.limits) = (vec![planned(site)], Vec::new());
        cgroup.job.limits = vec![planned(job)];
        check(plan).err()
    };
    let tasks = |n| Limit::Tasks(Max::Value(n));
    assert_eq!(with(tasks(100), tasks(100)), None);
    assert_eq!(with(Limit::Tasks(Max::Infinity), tasks(100)), None);
    let above = |error: Option<Violation>| matches!(error, Some(Violation::AboveParent { .. }));
    assert!(above(with(tasks(100), tasks(101))));
    assert!(above(with(tasks(100), Limit::Tasks(Max::Infinity))));
    let cpu = |quota, period| Limit::Cpu { quota: Max::Value(quota), period };
    assert_eq!(with(cpu(50_000, 100_000), cpu(5000, 10_000)), None, "the same share");
    assert!(above(with(cpu(50_000, 100_000), cpu(5001, 10_000))));
    let cpus = |text| Limit::Cpuset(Control::AllowedCPUs, list(text));
    assert!(above(with(cpus("0-3"), cpus("3-4"))));
    assert_eq!(with(cpus("0-3"), cpus("2")), None);
    let disk = |device: &str, rate| Limit::Io {
        control: Control::IOReadBandwidthMax,
        device: device.into(),
        rate: Max::Value(rate),
    };
    assert!(above(with(disk("8:0", 10), disk("8:0", 11))));
    assert_eq!(with(disk("8:0", 10), disk("8:16", 11)), None, "another disk");
}

#[test]
fn no_value_is_written_twice() {
    let mut plan = good(Level::Root);
    let cgroup = plan.contain.cgroup.as_mut().expect("a control group");
    let first = cgroup.job.limits.first().expect("a limit").clone();
    cgroup.job.limits.push(first);
    assert_eq!(check(plan).err(), Some(Violation::LimitTwice("MemoryMin".into())));
    let limit = |soft| PlannedRlimit {
        resource: Resource::NOFILE,
        soft: Max::Value(soft),
        hard: Max::Value(2),
        raise: false,
        origin: None,
    };
    let limits = |list: Vec<PlannedRlimit>| {
        let mut plan = good(Level::Root);
        plan.confine.limits = list;
        check(plan).err()
    };
    assert_eq!(limits(vec![limit(2)]), None);
    assert_eq!(limits(vec![limit(3)]), Some(Violation::WrongLimit(Resource::NOFILE)));
    assert_eq!(limits(vec![limit(1), limit(2)]), Some(Violation::WrongLimit(Resource::NOFILE)));
}

/// A variant that no test names: this match is where a new one is noticed.
#[test]
fn every_violation_says_what_it_is_about() {
    let all = [
        Violation::AboveParent { limit: "TasksMax = 2 tasks".into(), parent: "TasksMax = 1 tasks".into() },
        Violation::LimitTwice("TasksMax".into()),
        Violation::WrongLimit(Resource::NOFILE),
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
            Violation::AboveParent { limit: what, .. } | Violation::LimitTwice(what) => what.clone(),
            Violation::WrongLimit(resource) => resource.to_string(),
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
