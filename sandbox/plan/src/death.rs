//! Of what a script died: told by counters and by the way in which it ended, in one sentence with the setting that would
//! change it.

use crate::{Bytes, Control, JobCgroup, Limit, Max, Origin, Outcome, Plan, Refusal, Resource, StageUsage};

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

/// Whose limit it was.
struct Met<'p> {
    whose: &'static str,
    limit: Option<(&'p Limit, &'p Origin)>,
}

/// The reason why a script failed or was ended, if a limit or a signal tells it. `None` for a script that succeeded or
/// that failed by itself.
#[must_use]
pub fn explain_death(
    plan: &Plan,
    outcome: &Outcome,
    asked: AskedToEnd,
    usage: Option<&StageUsage>,
) -> Option<Refusal> {
    let code = match outcome {
        Outcome::Exited(0) if asked == AskedToEnd::No => return None,
        Outcome::Exited(code) => *code,
        Outcome::Signalled(signal) => 128 + signal,
        Outcome::Broken(_) => 128 + SIGKILL,
        Outcome::Refused(_) => return None,
    };
    let by_counter = usage.and_then(|usage| {
        let cgroup = plan.contain.cgroup.as_ref()?;
        memory(plan, cgroup, usage).or_else(|| tasks(plan, cgroup, usage))
    });
    by_counter.or_else(|| ended(asked)).or_else(|| signal(plan, outcome, code))
}

const SIGKILL: i32 = 9;
const SIGSYS: i32 = 31;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

fn memory(plan: &Plan, cgroup: &JobCgroup, usage: &StageUsage) -> Option<Refusal> {
    let (before, after) = (&usage.before, &usage.after);
    let killed = after.job.memory?.oom_kills.saturating_sub(before.job.memory.unwrap_or_default().oom_kills);
    if killed == 0 {
        return None;
    }
    let met = |before: &crate::GroupUsage, after: &crate::GroupUsage| {
        let count = |group: &crate::GroupUsage| group.memory.unwrap_or_default().limit_met;
        count(after) > count(before)
    };
    let processes = if killed == 1 { "1 process was".to_owned() } else { format!("{killed} processes were") };
    let nodes = [
        ("this job", &cgroup.job, met(&before.job, &after.job)),
        ("all of your jobs together", &cgroup.user, met(&before.user, &after.user)),
        ("all CI jobs of this host together", &cgroup.site, met(&before.site, &after.site)),
    ];
    let Some((whose, node, _)) = nodes.into_iter().find(|(_, _, met)| *met) else {
        return Some(Refusal {
            rule: "host_memory".into(),
            object: "memory of the host".into(),
            cause: format!("{processes} ended because this host ran out of memory, not this job"),
            hint: "run the job again; if it happens often, ask the people below".into(),
        });
    };
    let limit = node.limits.iter().find(|planned| planned.limit.control() == Control::MemoryMax);
    let met = Met { whose, limit: limit.map(|planned| (&planned.limit, &planned.origin)) };
    let peak = after.job.memory.map(|memory| Bytes(memory.peak_bytes));
    let amount = match met.limit {
        Some((Limit::Memory(_, Max::Value(bytes)), _)) => Bytes(*bytes).to_string(),
        _ => "its limit".into(),
    };
    Some(Refusal {
        rule: "memory_limit".into(),
        object: "memory limit".into(),
        cause: format!(
            "{processes} ended because {} may use no more than {amount} (this job had up to {})",
            met.whose,
            peak.map_or_else(|| "as much".into(), |peak| peak.to_string())
        ),
        hint: format!(
            "use fewer parallel workers (make -j, ctest -j), or ask for a greater {}",
            setting(plan, &met, "MemoryMax")
        ),
    })
}

fn tasks(plan: &Plan, cgroup: &JobCgroup, usage: &StageUsage) -> Option<Refusal> {
    let refused = |reading: &crate::Reading| {
        // Counted where it was tried (before Linux 6.11), or where the limit was met.
        [&reading.job, &reading.user, &reading.site].map(|group| group.tasks.unwrap_or_default().refused)
    };
    let (before, after) = (refused(&usage.before), refused(&usage.after));
    if !before.iter().zip(after).any(|(before, after)| after > *before) {
        return None;
    }
    let full = |group: &crate::GroupUsage| {
        group.tasks.is_some_and(|tasks| tasks.max.is_some_and(|max| tasks.peak >= max))
    };
    let nodes = [
        ("this job", &cgroup.job, full(&usage.after.job)),
        ("all of your jobs together", &cgroup.user, full(&usage.after.user)),
        ("all CI jobs of this host together", &cgroup.site, full(&usage.after.site)),
    ];
    let (whose, node, _) =
        nodes.into_iter().find(|(_, _, full)| *full).unwrap_or(("this job", &cgroup.job, true));
    let limit = node.limits.iter().find(|planned| planned.limit.control() == Control::TasksMax);
    let met = Met { whose, limit: limit.map(|planned| (&planned.limit, &planned.origin)) };
    let number = match met.limit {
        Some((Limit::Tasks(Max::Value(number)), _)) => number.to_string(),
        _ => "its limit of".into(),
    };
    Some(Refusal {
        rule: "task_limit".into(),
        object: "task limit".into(),
        cause: format!(
            "{whose} may have no more than {number} processes and threads; programs call it \"fork: Resource \
             temporarily unavailable\""
        ),
        hint: format!(
            "use fewer parallel workers (make -j, ctest -j), or ask for a greater {}",
            setting(plan, &met, "TasksMax")
        ),
    })
}

/// `MemoryMax (profile build, /etc/jacamar/profiles.d/build.toml:4)`
fn setting(plan: &Plan, met: &Met<'_>, key: &str) -> String {
    match met.limit {
        Some((_, origin)) => format!("{key} ({origin}; this job has profile {})", plan.profile),
        None => format!("{key}, which stands outside of Jacamar's configuration"),
    }
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
fn signal(plan: &Plan, outcome: &Outcome, code: i32) -> Option<Refusal> {
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
        Outcome::Exited(code) => format!("exit code {code} says: "),
        Outcome::Signalled(_) | Outcome::Refused(_) | Outcome::Broken(_) => String::new(),
    };
    Some(Refusal { rule: rule.into(), object: object.into(), cause: said + &cause, hint })
}
