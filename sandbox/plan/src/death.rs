//! Of what a script died: told by counters and by the way in which it ended, in one sentence with the setting that would
//! change it.

use crate::usage::processes_were;
use crate::{
    Bytes, CgroupNode, Control, GroupUsage, JobCgroup, Limit, Max, Outcome, Plan, PlannedLimit, Reading,
    Refusal, Resource, StageUsage,
};

/// Why somebody asked for the end of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedToEnd {
    /// Nobody did.
    No,
    /// The job's time limit had passed by then, in seconds.
    Timeout(u64),
    /// Before its time limit: somebody cancelled the job, or the runner is being stopped.
    Cancelled,
}

/// The reason why a script failed or was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// In words, with the setting that would change it.
    pub refusal: Refusal,
    /// The OOM killer ended processes: where it ended all of them, nothing of ours was left to report.
    pub of_memory: bool,
}

/// The reason, if a limit or a signal tells it. `None` for a script that succeeded or that failed by itself. Without an
/// outcome it ended without a word, as by SIGKILL.
#[must_use]
pub fn explain_death(
    plan: &Plan,
    outcome: Option<&Outcome>,
    asked: AskedToEnd,
    usage: Option<&StageUsage>,
) -> Option<Death> {
    let code = match outcome {
        Some(Outcome::Refused(_)) => return None,
        Some(Outcome::Exited(0)) if asked == AskedToEnd::No => return None,
        Some(Outcome::Exited(code)) => *code,
        Some(Outcome::Signalled(signal)) => 128 + signal,
        Some(Outcome::Broken(_)) | None => 128 + SIGKILL,
    };
    let counted = plan.contain.cgroup.as_ref().zip(usage);
    if let Some(refusal) = counted.and_then(|(cgroup, usage)| memory(plan, cgroup, usage)) {
        return Some(Death { refusal, of_memory: true });
    }
    counted
        .and_then(|(cgroup, usage)| tasks(plan, cgroup, usage))
        .or_else(|| ended(asked))
        .or_else(|| signal(plan, outcome, code))
        .map(|refusal| Death { refusal, of_memory: false })
}

const SIGKILL: i32 = 9;
const SIGSYS: i32 = 31;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

/// The first node of which something is so, and who that is.
fn node_where<'p>(
    cgroup: &'p JobCgroup,
    (before, after): (&Reading, &Reading),
    is: impl Fn(&GroupUsage, &GroupUsage) -> bool,
) -> Option<(&'static str, &'p CgroupNode)> {
    let nodes = [
        ("this job", &cgroup.job, is(&before.job, &after.job)),
        ("all of your jobs together", &cgroup.user, is(&before.user, &after.user)),
        ("all CI jobs of this host together", &cgroup.site, is(&before.site, &after.site)),
    ];
    nodes.into_iter().find(|(_, _, is)| *is).map(|(whose, node, _)| (whose, node))
}

fn limit_of(node: &CgroupNode, control: Control) -> Option<&PlannedLimit> {
    node.limits.iter().find(|planned| planned.limit.control() == control)
}

fn memory(plan: &Plan, cgroup: &JobCgroup, usage: &StageUsage) -> Option<Refusal> {
    let (before, after) = (&usage.before, &usage.after);
    let own = after.job.memory?;
    let killed = own.oom_kills.saturating_sub(before.job.memory.unwrap_or_default().oom_kills);
    if killed == 0 {
        return None;
    }
    let processes = processes_were(killed);
    let met = |group: &GroupUsage| group.memory.unwrap_or_default().limit_met;
    let Some((whose, node)) = node_where(cgroup, (before, after), |before, after| met(after) > met(before))
    else {
        return Some(Refusal {
            rule: "host_memory".into(),
            object: "memory of the host".into(),
            cause: format!("{processes} ended because this host ran out of memory, not this job"),
            hint: "run the job again; if it happens often, ask the people below".into(),
        });
    };
    let limit = limit_of(node, Control::MemoryMax);
    let amount = match limit.map(|planned| &planned.limit) {
        Some(Limit::Memory(_, Max::Value(bytes))) => Bytes(*bytes).to_string(),
        _ => "its limit".into(),
    };
    Some(Refusal {
        rule: "memory_limit".into(),
        object: "memory limit".into(),
        cause: format!(
            "{processes} ended because {whose} may use no more than {amount} (this job had up to {})",
            Bytes(own.peak_bytes)
        ),
        hint: fewer_workers(plan, limit, Control::MemoryMax),
    })
}

fn tasks(plan: &Plan, cgroup: &JobCgroup, usage: &StageUsage) -> Option<Refusal> {
    let readings = (&usage.before, &usage.after);
    // Counted where it was tried (before Linux 6.11), or where the limit was met.
    let refused = |group: &GroupUsage| group.tasks.unwrap_or_default().refused;
    node_where(cgroup, readings, |before, after| refused(after) > refused(before))?;
    let full = |_: &GroupUsage, group: &GroupUsage| {
        group.tasks.is_some_and(|tasks| tasks.max.is_some_and(|max| tasks.peak >= max))
    };
    let (whose, node) = node_where(cgroup, readings, full).unwrap_or(("this job", &cgroup.job));
    let limit = limit_of(node, Control::TasksMax);
    let number = match limit.map(|planned| &planned.limit) {
        Some(Limit::Tasks(Max::Value(number))) => number.to_string(),
        _ => "its limit of".into(),
    };
    Some(Refusal {
        rule: "task_limit".into(),
        object: "task limit".into(),
        cause: format!(
            "{whose} may have no more than {number} processes and threads; programs call it \"fork: Resource \
             temporarily unavailable\""
        ),
        hint: fewer_workers(plan, limit, Control::TasksMax),
    })
}

/// With the setting: `MemoryMax (/etc/jacamar/profiles.d/build.toml:4; this job has profile build)`.
fn fewer_workers(plan: &Plan, limit: Option<&PlannedLimit>, control: Control) -> String {
    let setting = match limit {
        Some(PlannedLimit { origin, .. }) => {
            format!("{control} ({origin}; this job has profile {})", plan.profile)
        }
        None => format!("{control}, which stands outside of Jacamar's configuration"),
    };
    format!("use fewer parallel workers (make -j, ctest -j), or ask for a greater {setting}")
}

fn ended(asked: AskedToEnd) -> Option<Refusal> {
    match asked {
        AskedToEnd::No => None,
        AskedToEnd::Timeout(seconds) => Some(Refusal {
            rule: "timeout".into(),
            object: "time limit".into(),
            cause: format!("the job was ended after its {}", crate::Duration(seconds.saturating_mul(1000))),
            hint: "set a longer `timeout:` for the job in .gitlab-ci.yml; the project and the runner have limits of their own"
                .into(),
        }),
        AskedToEnd::Cancelled => Some(Refusal {
            rule: "cancelled".into(),
            object: "the job".into(),
            cause: "was ended before its time: it was cancelled, or the runner is being stopped".into(),
            hint: String::new(),
        }),
    }
}

/// What a signal tells, whether the shell died of it or reports it as 128 and its number.
fn signal(plan: &Plan, outcome: Option<&Outcome>, code: i32) -> Option<Refusal> {
    let limit = |resource: Resource| plan.confine.limits.iter().find(|limit| limit.resource == resource);
    let of = |resource: Resource| match limit(resource)
        .and_then(|limit| limit.origin.as_ref().map(|o| (limit, o)))
    {
        Some((limit, origin)) => {
            format!("{resource} = {} ({origin}; this job has profile {})", limit.soft, plan.profile)
        }
        None => format!("{resource}, which comes from the runner's unit or from the job itself (ulimit)"),
    };
    let (rule, object, cause, hint) = match code - 128 {
        SIGXFSZ => (
            "file_size",
            "file size limit",
            "a process was ended because it wrote a file that is larger than it may be (SIGXFSZ)".to_owned(),
            format!("the limit is {}", of(Resource::FSIZE)),
        ),
        SIGXCPU => (
            "cpu_time",
            "processor time limit",
            "a process was ended because it used more processor time than one process may (SIGXCPU)".to_owned(),
            format!("the limit is {}", of(Resource::CPU)),
        ),
        SIGSYS => (
            "system_call",
            "system call",
            "a process was ended because of a system call that a filter forbids (SIGSYS); the sandbox's own filter answers \
             with an error, so it is a filter of the program's own"
                .to_owned(),
            "look at the program's own sandbox (browsers, Flatpak, systemd units have one)".to_owned(),
        ),
        SIGKILL => match limit(Resource::CPU).filter(|limit| limit.hard != Max::Infinity) {
            Some(_) => (
                "cpu_time",
                "processor time limit",
                "a process was ended with SIGKILL, as the kernel does with one that passes its hard limit".to_owned(),
                format!("the limit is {}", of(Resource::CPU)),
            ),
            None => (
                "killed",
                "a process",
                "was ended with SIGKILL, and neither the job's memory limit nor its time did it: somebody or something on \
                 this host, or the job itself, sent it"
                    .to_owned(),
                String::new(),
            ),
        },
        _ => return None,
    };
    // A script may also choose such a number.
    let said = match outcome {
        Some(Outcome::Exited(code)) => format!("exit code {code} says: "),
        Some(Outcome::Signalled(_) | Outcome::Refused(_) | Outcome::Broken(_)) | None => String::new(),
    };
    Some(Refusal { rule: rule.into(), object: object.into(), cause: said + &cause, hint })
}
