//! Limits: what comes of percentages, of nodes above, of the service's own limits and of what may be raised.

use std::collections::BTreeMap;

use jacamar_plan::{
    Control, Host, Level, Limit, Max, Need, Plan, Profile, Resource, Resources, Rlimit, Site, Unplannable,
    check, plan,
};

use crate::sample;

const NODE: &str = "/sys/fs/cgroup/jacamar.slice";

/// Every value required.
fn resources(pairs: &[(Control, &str)]) -> Resources {
    let one = |(line, (control, text)): (u32, &(Control, &str))| {
        let value = control.parse(text).expect("a value");
        (*control, sample::setting(line, Need::Require, value).expect("a setting"))
    };
    (1..).zip(pairs).map(one).collect()
}

fn profile(pairs: &[(Control, &str)]) -> Profile {
    let mut profile = sample::profile();
    profile.settings.resources = resources(pairs);
    profile.settings.limits = BTreeMap::new();
    profile
}

fn planned(host: &Host, site: &Site, job: &[(Control, &str)]) -> Result<Plan, Unplannable> {
    plan(&sample::grant(), &profile(job), site, host, &sample::job(), &sample::stage())
}

fn root() -> Host {
    sample::host(Level::Root)
}

/// What is written into the job's node.
fn written(plan: &Plan) -> Vec<(String, String)> {
    let cgroup = plan.contain.cgroup.as_ref().expect("a control group");
    cgroup.job.limits.iter().map(|planned| (planned.limit.file(), planned.limit.text())).collect()
}

fn file(name: &str, text: &str) -> (String, String) {
    (name.to_owned(), text.to_owned())
}

#[test]
fn each_key_is_one_file_of_the_kernel() {
    let all: Vec<(Control, &str)> =
        Control::ALL.into_iter().map(|control| (control, sample::written(control))).collect();
    let plan = planned(&root(), &sample::site(), &all).expect("a plan");
    let expected = [
        file("memory.min", "1048576"),
        file("memory.low", "1048576"),
        file("memory.high", "3435970560"),
        file("memory.max", "4294967296"),
        file("memory.swap.max", "0"),
        file("memory.oom.group", "1"),
        // 150% of a period of 50 ms.
        file("cpu.max", "75000 50000"),
        file("cpu.weight", "50"),
        file("cpuset.cpus", "0-3"),
        file("cpuset.mems", "0"),
        file("pids.max", "100"),
        file("io.weight", "50"),
        file("io.max", "8:16 rbps=10000000"),
        file("io.max", "8:16 wbps=10000000"),
        file("io.max", "8:16 riops=10000000"),
        file("io.max", "8:16 wiops=10000000"),
        file("hugetlb.2MB.max", "1073741824"),
    ];
    assert_eq!(written(&plan), expected);
    let cgroup = plan.contain.cgroup.as_ref().expect("a control group");
    assert_eq!(cgroup.controllers, ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"]);
}

#[test]
fn without_a_limit_only_those_controllers_are_enabled_that_count() {
    let plan = planned(&root(), &Site::default(), &[]).expect("a plan");
    assert_eq!(plan.contain.cgroup.expect("a control group").controllers, ["cpu", "io", "memory", "pids"]);
}

#[test]
fn what_the_kernel_shows_is_compared_with_what_was_written() {
    let io = |rate| Limit::Io { control: Control::IOWriteIOPSMax, device: "8:16".into(), rate };
    assert!(io(Max::Value(5)).is_in("8:0 rbps=1 wbps=max riops=max wiops=7\n8:16 rbps=max wiops=5\n"));
    assert!(!io(Max::Value(5)).is_in("8:0 wiops=5\n8:16 rbps=max wiops=50\n"));
    assert!(io(Max::Infinity).is_in("") && !io(Max::Value(5)).is_in(""));
    assert!(Limit::IoWeight(50).is_in("default 50\n") && !Limit::IoWeight(50).is_in("default 500\n"));
    assert!(Limit::Tasks(Max::Infinity).is_in("max\n") && !Limit::Tasks(Max::Value(1)).is_in("10\n"));
}

#[test]
fn a_percentage_is_of_what_the_groups_above_allow() {
    let of = |host: &Host, site: &Site| {
        let plan = planned(host, site, &[(Control::MemoryMax, "50%"), (Control::TasksMax, "50%")]);
        written(&plan.expect("a plan")).into_iter().map(|(_, text)| text).collect::<Vec<_>>()
    };
    assert_eq!(of(&root(), &Site::default()), ["4294967296", "16384"]);
    let user = resources(&[(Control::MemoryMax, "2G"), (Control::TasksMax, "1000")]);
    let site = Site { site: Resources::new(), user };
    assert_eq!(of(&root(), &site), ["1073741824", "500"]);
    let mut host = root();
    host.cgroup.above.limits = vec![
        (Limit::Memory(Control::MemoryMax, Max::Value(1 << 30)), "/sys/fs/cgroup/system.slice".into()),
        (Limit::Tasks(Max::Value(100)), "/sys/fs/cgroup/system.slice".into()),
    ];
    assert_eq!(of(&host, &Site::default()), ["536870912", "50"]);
}

#[test]
fn more_than_the_group_above_has_is_an_error_that_says_both_values() {
    let user = resources(&[(Control::MemoryMax, "2G"), (Control::CPUQuota, "200%")]);
    let site = Site { site: Resources::new(), user };
    let refused = |job: &[(Control, &str)]| planned(&root(), &site, job).expect_err("above").reason;
    assert_eq!(
        refused(&[(Control::MemoryMax, "3G")]),
        "3 GiB for the job are more than the 2 GiB for all jobs of this user (site.toml:1)"
    );
    assert_eq!(
        refused(&[(Control::CPUQuota, "400%")]),
        "400% of one processor for the job are more than the 200% of one processor for all jobs of this user (site.toml:2)"
    );
    assert!(planned(&root(), &site, &[(Control::MemoryMax, "2G")]).is_ok());

    // The user's within the site's.
    let site =
        Site { site: resources(&[(Control::TasksMax, "10")]), user: resources(&[(Control::TasksMax, "11")]) };
    let refused = planned(&root(), &site, &[]).expect_err("above");
    assert_eq!(refused.what, "TasksMax of [sandbox.user]");
    assert_eq!(
        refused.reason,
        "11 tasks for all jobs of this user are more than the 10 tasks for all jobs of this host (site.toml:1)"
    );
}

#[test]
fn limits_of_the_service_and_of_set_property_cap_a_job_but_not_what_we_write_anew() {
    let mut host = root();
    host.cgroup.above.limits = vec![(Limit::Memory(Control::MemoryMax, Max::Value(1 << 30)), NODE.into())];
    let job = [(Control::MemoryMax, "2G")];
    let refused = planned(&host, &Site::default(), &job).expect_err("above").reason;
    assert_eq!(refused, format!("2 GiB for the job are more than the 1 GiB of {NODE}"));
    let site = Site { site: resources(&[(Control::MemoryMax, "4G")]), user: Resources::new() };
    assert!(planned(&host, &site, &job).is_ok(), "the configuration says anew what the node has");
    host.cgroup.above.limits =
        vec![(Limit::Memory(Control::MemoryMax, Max::Value(1 << 30)), "/sys/fs/cgroup/a".into())];
    assert_eq!(planned(&host, &site, &[]).expect_err("above").what, "MemoryMax of [sandbox.site]");
}

#[test]
fn no_limit_is_written_only_where_one_may_stand() {
    let infinite = [(Control::MemoryMax, "infinity"), (Control::TasksMax, "infinity")];
    let site = Site { site: resources(&infinite), user: Resources::new() };
    let plan = planned(&root(), &site, &infinite).expect("a plan");
    assert_eq!(written(&plan), []);
    let cgroup = plan.contain.cgroup.expect("a control group");
    let texts: Vec<String> = cgroup.site.limits.iter().map(|planned| planned.limit.text()).collect();
    assert_eq!(texts, ["max", "max"]);
    // Nothing is asked of the job's own group, so nothing is missing.
    let mut host = root();
    host.cgroup.controllers = Vec::new();
    assert!(planned(&host, &Site::default(), &infinite).is_ok());
}

#[test]
fn what_can_never_be_is_refused_with_the_reason() {
    let refused =
        |job: &[(Control, &str)]| planned(&root(), &Site::default(), job).expect_err("refused").reason;
    assert_eq!(
        refused(&[(Control::AllowedCPUs, "6-9")]),
        "6-9 are not all among the processors of this host, 0-7"
    );
    assert_eq!(
        refused(&[(Control::CPUQuota, "1%"), (Control::CPUQuotaPeriodSec, "50ms")]),
        "1% of a period of 50000 us are 500 us, and the kernel takes no less than 1000 us"
    );
    assert_eq!(refused(&[(Control::CPUQuotaPeriodSec, "50ms")]), "it says nothing without CPUQuota");
    assert_eq!(refused(&[(Control::IOReadBandwidthMax, "/lustre 1M")]), "/lustre was not looked at");
    assert!(refused(&[(Control::MemoryMin, "1G")]).contains("all jobs of this user have no MemoryMin"));
    let mut host = root();
    host.devices.insert("/home".into(), Err("no disk".into()));
    host.cgroup.missing = vec!["memory.swap.max".into()];
    let refused =
        |job: &[(Control, &str)]| planned(&host, &Site::default(), job).expect_err("refused").reason;
    assert_eq!(refused(&[(Control::IOReadBandwidthMax, "/home 1M")]), "/home: no disk");
    assert_eq!(refused(&[(Control::MemorySwapMax, "0")]), "this kernel has no memory.swap.max");
}

#[test]
fn builds_are_told_how_many_processors_there_are_for_them() {
    let variable = |host: &Host, site: &Site, job: &[(Control, &str)]| {
        planned(host, site, job).expect("a plan").execute.environment
    };
    let makeflags = |text: &str| vec![("MAKEFLAGS".to_owned(), text.to_owned())];
    let none = Site::default();
    assert_eq!(variable(&root(), &none, &[]), [], "the machine's own number is right");
    assert_eq!(variable(&root(), &none, &[(Control::CPUQuota, "350%")]), makeflags("-j3"));
    assert_eq!(variable(&root(), &none, &[(Control::CPUQuota, "50%")]), makeflags("-j1"));
    assert_eq!(variable(&root(), &none, &[(Control::AllowedCPUs, "0,2-3")]), makeflags("-j3"));
    let user = Site { site: Resources::new(), user: resources(&[(Control::CPUQuota, "200%")]) };
    assert_eq!(variable(&root(), &user, &[(Control::AllowedCPUs, "0-3")]), makeflags("-j2"), "the least");
}

fn limited(host: &Host, limit: Rlimit, need: Need) -> Result<Plan, Unplannable> {
    let mut profile = profile(&[]);
    let setting = sample::setting(1, need, limit).expect("a setting");
    profile.settings.limits.insert(Resource::NOFILE, setting);
    plan(&sample::grant(), &profile, &Site::default(), host, &sample::job(), &sample::stage())
}

#[test]
fn hard_limits_are_raised_where_there_is_the_right_and_lowered_everywhere() {
    // The host's are 100 and 1000.
    let value = |soft, hard| Rlimit { soft: Max::Value(soft), hard: Some(Max::Value(hard)) };
    let of = |host: &Host, limit, need| {
        limited(host, limit, need).map(|plan| {
            let limit = plan.confine.limits.first().expect("a limit").clone();
            (limit.soft, limit.hard, limit.raise)
        })
    };
    let lowered = (Max::Value(500), Max::Value(900), false);
    assert_eq!(of(&root(), value(500, 900), Need::Require), Ok(lowered));
    assert_eq!(of(&root(), value(500, 2000), Need::Require), Ok((Max::Value(500), Max::Value(2000), true)));
    let weak = Host { raises_limits: false, ..root() };
    assert_eq!(of(&weak, value(500, 900), Need::Require), Ok(lowered));
    let refused = of(&weak, value(500, 2000), Need::Require).expect_err("no right");
    assert!(refused.reason.contains("CAP_SYS_RESOURCE"), "{}", refused.reason);
    let partly = limited(&weak, value(1500, 2000), Need::Prefer).expect("a plan");
    let limit = partly.confine.limits.first().expect("a limit");
    assert_eq!((limit.soft, limit.hard, limit.raise), (Max::Value(1000), Max::Value(1000), false));
    assert!(
        partly.without.iter().any(|w| w.what == "LimitNOFILE" && w.reason.ends_with("it is 1000 instead"))
    );
    // Not even root can have more.
    let refused = of(&root(), value(500, 1 << 21), Need::Require).expect_err("too many");
    assert!(refused.reason.contains("fs.nr_open = 1048576"), "{}", refused.reason);
    // set_stack_size: as much as is inherited.
    let all = Rlimit { soft: Max::Infinity, hard: None };
    assert_eq!(of(&weak, all, Need::Require), Ok((Max::Value(1000), Max::Value(1000), false)));
    assert!(check(limited(&root(), all, Need::Require).expect("a plan")).is_ok());
}

#[test]
fn the_stack_limit_that_our_start_lost_is_given_back_unless_the_profile_has_one() {
    let host = Host { lost_stack: Some(Max::Value(700)), ..root() };
    let plan = planned(&host, &Site::default(), &[]).expect("a plan");
    let limit = plan.confine.limits.first().expect("a limit");
    assert_eq!(
        (limit.resource, limit.soft, limit.hard),
        (Resource::STACK, Max::Value(700), Max::Value(1000))
    );
    let mut own = profile(&[]);
    own.settings.limits.insert(Resource::STACK, sample::rlimit(1, Need::Require));
    let plan =
        jacamar_plan::plan(&sample::grant(), &own, &Site::default(), &host, &sample::job(), &sample::stage());
    let limits = plan.expect("a plan").confine.limits;
    assert_eq!(limits.iter().map(|limit| limit.soft).collect::<Vec<_>>(), [Max::Value(500)]);
}
