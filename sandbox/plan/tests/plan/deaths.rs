//! Of what a script died: which counter, which signal, whose limit.

use jacamar_plan::{
    AskedToEnd, Control, GroupUsage, Level, Limit, Max, MemoryUsage, Need, Outcome, Plan, PlannedLimit,
    Refusal, Resource, StageUsage, TaskUsage, explain_death,
};

use crate::sample;

const GIB: u64 = 1 << 30;

/// A plan whose three nodes have a limit of memory and of tasks each.
fn plan() -> Plan {
    let mut plan = sample::good(Level::Root);
    let cgroup = plan.contain.cgroup.as_mut().expect("a control group");
    for (node, line) in [(&mut cgroup.site, 1), (&mut cgroup.user, 2), (&mut cgroup.job, 3)] {
        let origin = sample::setting(line, Need::Require, ()).expect("a setting").origin;
        let number = 4 - u64::from(line);
        node.limits = vec![
            PlannedLimit {
                limit: Limit::Memory(Control::MemoryMax, Max::Value(number * GIB)),
                origin: origin.clone(),
            },
            PlannedLimit { limit: Limit::Tasks(Max::Value(number * 100)), origin },
        ];
    }
    plan
}

fn memory(limit_met: u64, oom_kills: u64) -> GroupUsage {
    let memory = MemoryUsage { peak_bytes: GIB, limit_met, oom_kills, ..MemoryUsage::default() };
    GroupUsage { memory: Some(memory), ..GroupUsage::default() }
}

fn usage(change: impl FnOnce(&mut StageUsage)) -> StageUsage {
    let mut usage = StageUsage::default();
    for reading in [&mut usage.before, &mut usage.after] {
        (reading.site, reading.user, reading.job) = (memory(5, 5), memory(5, 5), memory(5, 5));
    }
    change(&mut usage);
    usage
}

fn death(outcome: &Outcome, asked: AskedToEnd, usage: Option<&StageUsage>) -> Option<Refusal> {
    explain_death(&plan(), Some(outcome), asked, usage).map(|death| death.refusal)
}

fn rule(outcome: &Outcome, usage: &StageUsage) -> Option<String> {
    death(outcome, AskedToEnd::No, Some(usage)).map(|death| death.rule)
}

#[test]
fn what_others_met_before_is_not_this_stages_death() {
    let quiet = usage(|_| {});
    assert_eq!(rule(&Outcome::Exited(1), &quiet), None, "it failed by itself");
    let other_job = usage(|usage| usage.after.user = memory(6, 6));
    assert_eq!(rule(&Outcome::Exited(1), &other_job), None, "another job of the user was killed");
    let own = usage(|usage| usage.after.job = memory(6, 6));
    assert_eq!(rule(&Outcome::Exited(0), &own), None, "it succeeded all the same");
}

#[test]
fn whose_limit_of_memory_it_was_is_told() {
    let cause = |change: fn(&mut StageUsage)| {
        let refusal = death(&Outcome::Exited(137), AskedToEnd::No, Some(&usage(change))).expect("a death");
        (refusal.rule, refusal.cause, refusal.hint)
    };
    let (rule, text, hint) = cause(|usage| usage.after.job = memory(6, 7));
    assert_eq!(rule, "memory_limit");
    assert_eq!(
        text,
        "2 processes were ended because this job may use no more than 1 GiB (this job had up to 1 GiB)"
    );
    assert!(hint.ends_with("ask for a greater MemoryMax (site.toml:3; this job has profile site)"), "{hint}");
    let (_, text, hint) = cause(|usage| {
        (usage.after.job, usage.after.user) = (memory(5, 6), memory(6, 6));
    });
    assert!(text.contains("all of your jobs together may use no more than 2 GiB"), "{text}");
    assert!(hint.contains("site.toml:2"), "{hint}");
    let (_, text, _) = cause(|usage| {
        (usage.after.job, usage.after.site) = (memory(5, 6), memory(6, 6));
    });
    assert!(text.contains("all CI jobs of this host together may use no more than 3 GiB"), "{text}");
    let of_memory = |change: fn(&mut StageUsage)| {
        let death = explain_death(&plan(), None, AskedToEnd::No, Some(&usage(change))).expect("a death");
        death.of_memory
    };
    assert!(of_memory(|usage| usage.after.job = memory(6, 6)), "by its own limit");
    assert!(of_memory(|usage| usage.after.job = memory(5, 6)), "by the host's");
    assert!(!of_memory(|_| {}), "by neither");
    let (rule, text, _) = cause(|usage| usage.after.job = memory(5, 6));
    assert_eq!(rule, "host_memory");
    assert!(text.contains("this host ran out of memory, not this job"), "{text}");
}

#[test]
fn whose_limit_of_tasks_it_was_is_told() {
    let tasks = |peak, max, refused| {
        let tasks = TaskUsage { peak, max: Some(max), refused, sampled: false };
        GroupUsage { tasks: Some(tasks), ..GroupUsage::default() }
    };
    let cause = |job: GroupUsage, user: GroupUsage| {
        let usage = usage(|usage| (usage.after.job, usage.after.user) = (job, user));
        death(&Outcome::Exited(254), AskedToEnd::No, Some(&usage)).expect("a death").cause
    };
    let own = cause(tasks(100, 100, 1), tasks(150, 200, 0));
    assert!(own.starts_with("this job may have no more than 100 processes"), "{own}");
    // Before Linux 6.11 the job counts what the user's limit refused.
    let users = cause(tasks(60, 100, 1), tasks(200, 200, 0));
    assert!(users.starts_with("all of your jobs together may have no more than 200"), "{users}");
    let later = cause(tasks(60, 100, 0), tasks(200, 200, 1));
    assert!(later.starts_with("all of your jobs together may have no more than 200"), "{later}");
}

#[test]
fn signals_and_requests_are_told_apart() {
    let quiet = usage(|_| {});
    let of = |outcome: &Outcome, asked| death(outcome, asked, Some(&quiet)).map(|death| death.rule);
    let signalled = |signal| of(&Outcome::Signalled(signal), AskedToEnd::No);
    for (signal, rule) in [(25, "file_size"), (24, "cpu_time"), (31, "system_call"), (9, "killed")] {
        // The sample has a hard limit of processor time, which SIGKILL may be.
        let rule = if signal == 9 { "cpu_time" } else { rule };
        assert_eq!(signalled(signal).as_deref(), Some(rule));
        assert_eq!(of(&Outcome::Exited(128 + signal), AskedToEnd::No).as_deref(), Some(rule));
    }
    assert_eq!(signalled(11), None, "a crash is the program's own");
    assert_eq!(of(&Outcome::Exited(3), AskedToEnd::No), None);
    let ended = |asked| of(&Outcome::Signalled(15), asked);
    assert_eq!(ended(AskedToEnd::Cancelled).as_deref(), Some("cancelled"));
    assert_eq!(ended(AskedToEnd::Timeout(3600)).as_deref(), Some("timeout"));
    let timeout = death(&Outcome::Exited(0), AskedToEnd::Timeout(3600), None).expect("it was ended");
    assert_eq!(timeout.cause, "the job was ended after its 1 h 0 min");
    let mut plan = plan();
    plan.confine.limits.retain(|limit| limit.resource != Resource::CPU);
    let killed = explain_death(&plan, Some(&Outcome::Signalled(9)), AskedToEnd::No, None).expect("a death");
    assert_eq!(killed.refusal.rule, "killed");
    assert_eq!(explain_death(&plan, None, AskedToEnd::No, None), Some(killed), "it ended without a word");
}
