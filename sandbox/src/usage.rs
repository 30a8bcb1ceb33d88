//! The counters of a job's groups, read from the kernel's files.

use std::path::Path;

use jacamar_plan::{CpuUsage, GroupUsage, IoUsage, JobCgroup, MemoryUsage, Pressure, Reading, TaskUsage};

use crate::group_files::{cpu_max, keyed, number, text};
use crate::version1;

/// The greatest of looks a second apart, where the kernel keeps no peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peaks {
    memory_bytes: u64,
    tasks: u64,
}

impl Peaks {
    /// Whether this kernel leaves a peak of the job's group to us.
    pub(crate) fn are_needed(job: &Path) -> bool {
        let lacks = |current: &str, peak: &str| job.join(current).exists() && !job.join(peak).exists();
        lacks("memory.current", "memory.peak") || lacks("pids.current", "pids.peak")
    }

    /// Looks once.
    pub(crate) fn look(&mut self, job: &Path) {
        self.memory_bytes = self.memory_bytes.max(number(job, "memory.current").unwrap_or_default());
        self.tasks = self.tasks.max(number(job, "pids.current").unwrap_or_default());
    }
}

/// The three nodes of a job, now. A file that is not there, or cannot be read, counts nothing.
pub(crate) fn read(plan: &JobCgroup, peaks: Peaks) -> Reading {
    let of = |path: &str, peaks| match plan.version1.is_empty() {
        true => group(Path::new(path), peaks),
        false => version1::usage(plan, path),
    };
    let none = Peaks::default();
    Reading {
        site: of(&plan.site.path, none),
        user: of(&plan.user.path, none),
        job: of(&plan.job.path, peaks),
    }
}

/// The counters of one group, for who is in it: `jacamar run` writes a file of them. Without looks of a supervisor's, a
/// peak that the kernel does not keep is what is used now.
#[must_use]
pub fn group_usage(path: &Path) -> GroupUsage {
    let mut now = Peaks::default();
    now.look(path);
    group(path, now)
}

fn group(path: &Path, peaks: Peaks) -> GroupUsage {
    GroupUsage {
        memory: memory(path, peaks),
        cpu: cpu(path),
        tasks: tasks(path, peaks),
        io: io(path),
        pressure: pressure(path),
    }
}

fn memory(group: &Path, peaks: Peaks) -> Option<MemoryUsage> {
    let events = text(group, "memory.events")?;
    // Of the group itself, Linux 5.2; else with those below it, which have no limits of their own.
    let own = text(group, "memory.events.local").unwrap_or_else(|| events.clone());
    let peak = number(group, "memory.peak");
    Some(MemoryUsage {
        peak_bytes: peak.unwrap_or(peaks.memory_bytes),
        sampled: peak.is_none(),
        max_bytes: number(group, "memory.max"),
        limit_met: keyed(&own, "oom").unwrap_or_default(),
        oom_kills: keyed(&events, "oom_kill").unwrap_or_default(),
    })
}

fn cpu(group: &Path) -> Option<CpuUsage> {
    let stat = text(group, "cpu.stat")?;
    let percent = |(quota, period): (u64, u64)| quota.saturating_mul(100).checked_div(period);
    Some(CpuUsage {
        usage_usec: keyed(&stat, "usage_usec")?,
        periods: keyed(&stat, "nr_periods").unwrap_or_default(),
        throttled_periods: keyed(&stat, "nr_throttled").unwrap_or_default(),
        quota_percent: cpu_max(group).and_then(percent),
    })
}

fn tasks(group: &Path, peaks: Peaks) -> Option<TaskUsage> {
    let events = text(group, "pids.events")?;
    let peak = number(group, "pids.peak");
    Some(TaskUsage {
        peak: peak.unwrap_or(peaks.tasks),
        sampled: peak.is_none(),
        max: number(group, "pids.max"),
        refused: keyed(&events, "max").unwrap_or_default(),
    })
}

/// `8:0 rbytes=1 wbytes=2 ...`, a line for each disk.
fn io(group: &Path) -> Option<IoUsage> {
    let stat = text(group, "io.stat")?;
    let sum = |key: &str| {
        let values = stat.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
        values.fold(0, u64::saturating_add)
    };
    Some(IoUsage { read_bytes: sum("rbytes="), written_bytes: sum("wbytes=") })
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=12`, microseconds.
fn pressure(group: &Path) -> Option<Pressure> {
    let some = |file: &str| {
        let text = text(group, file)?;
        let line = text.lines().find(|line| line.starts_with("some "))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("total=")?.parse().ok())
    };
    Some(Pressure {
        cpu_usec: some("cpu.pressure")?,
        memory_usec: some("memory.pressure")?,
        io_usec: some("io.pressure")?,
    })
}
