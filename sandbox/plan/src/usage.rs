//! What a job used, and of what it died: the kernel's counters in, sentences out.
//!
//! Sources: kernel document `admin-guide/cgroup-v2.rst`, "Controllers"; `accounting/psi.rst`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Bytes;

/// Counters and limits of one control group; what kernel or controllers do not have is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupUsage {
    /// Of the memory controller.
    pub memory: Option<MemoryUsage>,
    /// Of every group, `cpu.stat`.
    pub cpu: Option<CpuUsage>,
    /// Of the pids controller.
    pub tasks: Option<TaskUsage>,
    /// Of the io controller, all disks together.
    pub io: Option<IoUsage>,
    /// Pressure stall information, where the kernel keeps it.
    pub pressure: Option<Pressure>,
}

/// `memory.peak`, `memory.max`, `memory.events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryUsage {
    /// The most that was used at once, in bytes.
    pub peak_bytes: u64,
    /// The peak is the greatest of looks a second apart: `memory.peak` is not there before Linux 5.19.
    pub sampled: bool,
    /// The limit, if there is one, in bytes.
    pub max_bytes: Option<u64>,
    /// How often the group's own limit left no memory (`oom`).
    pub limit_met: u64,
    /// Processes of the group that the OOM killer ended, whoever's limit it was (`oom_kill`).
    pub oom_kills: u64,
}

/// `cpu.stat`, `cpu.max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuUsage {
    /// Processor time, in microseconds.
    pub usage_usec: u64,
    /// Periods in which the group had work to do.
    pub periods: u64,
    /// Those in which it had to wait, because its quota was used up.
    pub throttled_periods: u64,
    /// The quota in hundredths of a processor, if there is one.
    pub quota_percent: Option<u64>,
}

/// `pids.peak`, `pids.max`, `pids.events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskUsage {
    /// The most that there were at once.
    pub peak: u64,
    /// The peak is the greatest of looks a second apart: `pids.peak` is not there before Linux 6.1.
    pub sampled: bool,
    /// The limit, if there is one.
    pub max: Option<u64>,
    /// How often fork(2) or clone(2) was refused.
    pub refused: u64,
}

/// `io.stat`, all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoUsage {
    /// Bytes read from disks.
    pub read_bytes: u64,
    /// Bytes written to disks.
    pub written_bytes: u64,
}

/// `*.pressure`: microseconds in which something of the group waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pressure {
    /// For a processor.
    pub cpu_usec: u64,
    /// For memory.
    pub memory_usec: u64,
    /// For a disk.
    pub io_usec: u64,
}

/// One look at the three nodes of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// All jobs of the host.
    pub site: GroupUsage,
    /// All jobs of the user.
    pub user: GroupUsage,
    /// The job.
    pub job: GroupUsage,
}

/// What one stage used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageUsage {
    /// Before its first process.
    pub before: Reading,
    /// After its last one.
    pub after: Reading,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// Names of processes that still ran when the command had ended, and were ended.
    pub stopped: Vec<String>,
}

/// What a job used so far: kept in its record from stage to stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobUsage {
    /// Counters of the job's own group, from its first stage on.
    pub group: GroupUsage,
    /// How long its stages took, in milliseconds.
    pub elapsed_ms: u64,
    /// Names of processes that were stopped at the end of a stage; the first few.
    pub stopped: Vec<String>,
    /// How many they were.
    pub stopped_count: u64,
}

/// Most names that are kept.
const NAMES_MAX: usize = 16;

impl JobUsage {
    /// Adds a stage.
    pub fn add(&mut self, stage: &StageUsage) {
        let peaks = (self.group.memory, self.group.tasks);
        self.group = stage.after.job.clone();
        // A peak of looks is that of one stage.
        if let (Some(before), Some(memory)) = (peaks.0, &mut self.group.memory) {
            memory.peak_bytes = memory.peak_bytes.max(before.peak_bytes);
        }
        if let (Some(before), Some(tasks)) = (peaks.1, &mut self.group.tasks) {
            tasks.peak = tasks.peak.max(before.peak);
        }
        self.elapsed_ms = self.elapsed_ms.saturating_add(stage.elapsed_ms);
        self.stopped_count = self.stopped_count.saturating_add(stage.stopped.len() as u64);
        self.stopped.extend(stage.stopped.iter().cloned());
        self.stopped.truncate(NAMES_MAX);
    }
}

/// The report at the end of a job's log.
impl fmt::Display for JobUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GroupUsage { memory, cpu, tasks, io, pressure } = &self.group;
        if let Some(memory) = memory {
            let (peak, max) = (Bytes(memory.peak_bytes), memory.max_bytes.map(Bytes));
            write_peak(f, "memory     ", peak, max, memory.sampled)?;
            if memory.oom_kills > 0 {
                write!(f, "; {} ended for lack of it", processes_were(memory.oom_kills))?;
            }
            f.write_str("\n")?;
        }
        if let Some(cpu) = cpu {
            write!(f, "  processor  {} used", Duration(cpu.usage_usec / 1000))?;
            if let Some(hundredths) = (cpu.usage_usec / 10).checked_div(self.elapsed_ms) {
                write!(f, ", {}.{:02} processors on average", hundredths / 100, hundredths % 100)?;
                if let Some(quota) = cpu.quota_percent {
                    write!(f, " of {}.{:02}", quota / 100, quota % 100)?;
                }
            }
            if let Some(share) = (cpu.throttled_periods * 100).checked_div(cpu.periods)
                && cpu.throttled_periods > 0
            {
                write!(f, ", slowed down in {share}% of the periods")?;
            }
            f.write_str("\n")?;
        }
        if let Some(tasks) = tasks {
            write_peak(f, "tasks      ", tasks.peak, tasks.max, tasks.sampled)?;
            match tasks.refused {
                0 => {}
                1 => f.write_str("; 1 more was refused")?,
                n => write!(f, "; {n} more were refused")?,
            }
            f.write_str("\n")?;
        }
        if let Some(io) = io {
            writeln!(f, "  disks      {} read, {} written", Bytes(io.read_bytes), Bytes(io.written_bytes))?;
        }
        if let Some(pressure) = pressure
            && self.elapsed_ms > 0
        {
            let share = |usec: u64| usec / 10 / self.elapsed_ms;
            let parts = [
                (share(pressure.memory_usec), "memory"),
                (share(pressure.cpu_usec), "a processor"),
                (share(pressure.io_usec), "a disk"),
            ];
            let waited: Vec<String> = parts
                .into_iter()
                .filter(|(percent, _)| *percent > 0)
                .map(|(percent, what)| format!("{percent}% for {what}"))
                .collect();
            if !waited.is_empty() {
                writeln!(f, "  waited     {} of the time", waited.join(", "))?;
            }
        }
        match self.stopped_count {
            0 => Ok(()),
            n => {
                let more = if n > self.stopped.len() as u64 { ", ..." } else { "" };
                let count = if n == 1 { "1 process".to_owned() } else { format!("{n} processes") };
                writeln!(
                    f,
                    "  stopped    {count} still ran at the end of a script: {}{more}",
                    self.stopped.join(", ")
                )
            }
        }
    }
}

fn write_peak<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    peak: T,
    max: Option<T>,
    sampled: bool,
) -> fmt::Result {
    write!(f, "  {name}peak {peak}")?;
    if let Some(max) = max {
        write!(f, " of {max}")?;
    }
    f.write_str(if sampled { " (looked at each second)" } else { "" })
}

/// `1 process was`, `2 processes were`
pub(crate) fn processes_were(count: u64) -> String {
    if count == 1 { "1 process was".to_owned() } else { format!("{count} processes were") }
}

/// Milliseconds as people read them: `850 ms`, `12.3 s`, `6 min 12 s`, `3 h 5 min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub u64);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, seconds) = (self.0, self.0 / 1000);
        match seconds {
            0 => write!(f, "{ms} ms"),
            1..60 => write!(f, "{seconds}.{} s", ms % 1000 / 100),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} min", seconds / 3600, seconds % 3600 / 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> JobUsage {
        JobUsage {
            group: GroupUsage {
                memory: Some(MemoryUsage {
                    peak_bytes: 7 << 30,
                    max_bytes: Some(8 << 30),
                    oom_kills: 1,
                    ..MemoryUsage::default()
                }),
                cpu: Some(CpuUsage {
                    usage_usec: 580_000_000,
                    periods: 100,
                    throttled_periods: 12,
                    quota_percent: Some(400),
                }),
                tasks: Some(TaskUsage { peak: 212, sampled: true, max: Some(512), refused: 2 }),
                io: Some(IoUsage { read_bytes: 1 << 20, written_bytes: 0 }),
                pressure: Some(Pressure { cpu_usec: 0, memory_usec: 37_200_000, io_usec: 1 }),
            },
            elapsed_ms: 372_000,
            stopped: vec!["ssh-agent".into(), "ninja".into()],
            stopped_count: 2,
        }
    }

    #[test]
    fn a_report_says_what_was_used_of_what() {
        let expected = "  memory     peak 7 GiB of 8 GiB; 1 process was ended for lack of it\n\
                        \x20 processor  9 min 40 s used, 1.55 processors on average of 4.00, slowed down in 12% of the periods\n\
                        \x20 tasks      peak 212 of 512 (looked at each second); 2 more were refused\n\
                        \x20 disks      1 MiB read, 0 bytes written\n\
                        \x20 waited     10% for memory of the time\n\
                        \x20 stopped    2 processes still ran at the end of a script: ssh-agent, ninja\n";
        assert_eq!(usage().to_string(), expected);
    }

    #[test]
    fn what_nobody_counted_is_not_reported() {
        assert_eq!(JobUsage::default().to_string(), "");
    }

    #[test]
    fn stages_add_up() {
        let mut sum = JobUsage::default();
        let stage = |peak: u64, names: usize| {
            let mut after = Reading::default();
            after.job.memory =
                Some(MemoryUsage { peak_bytes: peak, sampled: true, ..MemoryUsage::default() });
            StageUsage { after, elapsed_ms: 10, stopped: vec!["x".into(); names], ..StageUsage::default() }
        };
        sum.add(&stage(50, 10));
        sum.add(&stage(20, 10));
        assert_eq!(sum.group.memory.map(|memory| memory.peak_bytes), Some(50));
        assert_eq!((sum.elapsed_ms, sum.stopped_count, sum.stopped.len()), (20, 20, NAMES_MAX));
        assert!(sum.to_string().ends_with(", ...\n"), "{sum}");
    }

    #[test]
    fn times_are_shown_as_people_read_them() {
        for (ms, text) in
            [(850, "850 ms"), (12_345, "12.3 s"), (372_000, "6 min 12 s"), (11_100_000, "3 h 5 min")]
        {
            assert_eq!(Duration(ms).to_string(), text);
        }
    }
}
