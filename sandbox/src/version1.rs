//! Control groups of version 1, into which systemd writes for us: which of their files holds a limit, and which count. Each
//! controller has a hierarchy of its own, with the same directories. `admin-guide/cgroup-v1/`.

use std::path::{Path, PathBuf};

use jacamar_plan::{Control, CpuUsage, GroupUsage, JobCgroup, Limit, Max, MemoryUsage, TaskUsage};

use crate::group_files::{keyed, number, text};

/// The name of a group within its hierarchy, which is the same in each.
pub(crate) fn within<'p>(plan: &JobCgroup, group: &'p str) -> Option<&'p Path> {
    Path::new(group).strip_prefix(Path::new(&plan.site.path).parent()?).ok()
}

/// The directory of a node in the hierarchy of a controller, where that one is of version 1.
pub(crate) fn directory(plan: &JobCgroup, node: &str, controller: &str) -> Option<PathBuf> {
    Some(Path::new(plan.version1.get(controller)?).join(within(plan, node)?))
}

/// More than any memory: the kernel rounds "no limit" down to pages.
const NO_LIMIT: u64 = 1 << 62;

/// Whether the kernel's files say what systemd was asked for.
pub(crate) fn holds(group: &Path, limit: &Limit) -> bool {
    match limit {
        Limit::Memory(Control::MemoryMax, max) => number(group, "memory.limit_in_bytes")
            .is_some_and(|bytes| max.value().map_or(bytes >= NO_LIMIT, |wanted| bytes == wanted)),
        Limit::Tasks(_) => text(group, "pids.max").is_some_and(|text| limit.is_in(&text)),
        Limit::Cpu { quota, period } => {
            let wanted = quota.value().map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
            text(group, "cpu.cfs_quota_us").is_some_and(|text| text.trim() == wanted)
                && (*quota == Max::Infinity || number(group, "cpu.cfs_period_us") == Some(*period))
        }
        // `cgroup_cpu_weight_to_shares` of systemd: 100 are 1024.
        Limit::CpuWeight(weight) => {
            number(group, "cpu.shares") == Some((u64::from(*weight) * 1024 / 100).clamp(2, 262_144))
        }
        Limit::Memory(..)
        | Limit::OomGroup(_)
        | Limit::CpuIdle
        | Limit::Cpuset(..)
        | Limit::IoWeight(_)
        | Limit::Io { .. }
        | Limit::HugeTlb { .. } => false,
    }
}

/// The counters of one node.
pub(crate) fn usage(plan: &JobCgroup, node: &str) -> GroupUsage {
    let of = |controller: &str| directory(plan, node, controller);
    GroupUsage {
        memory: of("memory").and_then(|group| memory(&group)),
        cpu: cpu(of("cpuacct").as_deref(), of("cpu").as_deref()),
        tasks: of("pids").and_then(|group| tasks(&group)),
        io: None,
        pressure: None,
    }
}

fn memory(group: &Path) -> Option<MemoryUsage> {
    Some(MemoryUsage {
        peak_bytes: number(group, "memory.max_usage_in_bytes")?,
        sampled: false,
        max_bytes: number(group, "memory.limit_in_bytes").filter(|bytes| *bytes < NO_LIMIT),
        limit_met: number(group, "memory.failcnt").unwrap_or_default(),
        // Linux 4.13
        oom_kills: text(group, "memory.oom_control")
            .and_then(|text| keyed(&text, "oom_kill"))
            .unwrap_or_default(),
    })
}

fn cpu(counted: Option<&Path>, limited: Option<&Path>) -> Option<CpuUsage> {
    let stat = limited.and_then(|group| text(group, "cpu.stat")).unwrap_or_default();
    let quota = limited.and_then(|group| {
        // -1: none.
        let quota = number(group, "cpu.cfs_quota_us")?;
        quota.saturating_mul(100).checked_div(number(group, "cpu.cfs_period_us")?)
    });
    Some(CpuUsage {
        // Nanoseconds.
        usage_usec: number(counted?, "cpuacct.usage")? / 1000,
        periods: keyed(&stat, "nr_periods").unwrap_or_default(),
        throttled_periods: keyed(&stat, "nr_throttled").unwrap_or_default(),
        quota_percent: quota,
    })
}

fn tasks(group: &Path) -> Option<TaskUsage> {
    // Linux 6.1; else what there is now.
    let peak = number(group, "pids.peak");
    Some(TaskUsage {
        peak: peak.or_else(|| number(group, "pids.current"))?,
        sampled: peak.is_none(),
        max: number(group, "pids.max"),
        refused: text(group, "pids.events").and_then(|text| keyed(&text, "max")).unwrap_or_default(),
    })
}
