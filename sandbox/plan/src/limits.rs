//! Limits of control groups: systemd's keys and units in, the kernel's files and numbers out.
//!
//! Sources: systemd.resource-control(5); kernel document `admin-guide/cgroup-v2.rst`, "Controllers".

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::value::{HUGE_PAGES, RATE, SWAP};
use crate::{
    Bytes, CpuQuota, HugePages, InvalidValue, Memory, Micros, NumberList, OomPolicy, Origin, Rate, Setting,
    Tasks, Weight,
};

/// The keys of systemd.resource-control(5) that we know, and one of ours for huge pages, which systemd lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Control {
    /// Memory that is never reclaimed while the group uses no more, `memory.min`.
    MemoryMin,
    /// Memory that is reclaimed last, `memory.low`.
    MemoryLow,
    /// Above it the group is slowed down, `memory.high`.
    MemoryHigh,
    /// Above it the OOM killer comes, `memory.max`.
    MemoryMax,
    /// Swap, `memory.swap.max`.
    MemorySwapMax,
    /// What dies when memory runs out, `memory.oom.group`, systemd.service(5).
    OOMPolicy,
    /// Share of processors, `cpu.max`.
    CPUQuota,
    /// The period over which that share is measured, `cpu.max`.
    CPUQuotaPeriodSec,
    /// Share beside others when processors are busy, `cpu.weight` and `cpu.idle`.
    CPUWeight,
    /// Processors, `cpuset.cpus`.
    AllowedCPUs,
    /// NUMA nodes, `cpuset.mems`.
    AllowedMemoryNodes,
    /// Processes and threads, `pids.max`.
    TasksMax,
    /// Share of a disk beside others, `io.weight`.
    IOWeight,
    /// Bytes read from a disk in a second, `io.max`.
    IOReadBandwidthMax,
    /// Bytes written to a disk in a second, `io.max`.
    IOWriteBandwidthMax,
    /// Reads of a disk in a second, `io.max`.
    IOReadIOPSMax,
    /// Writes of a disk in a second, `io.max`.
    IOWriteIOPSMax,
    /// Huge pages of one size, `hugetlb.*.max`.
    HugeTLBMax,
}

/// What a key asks for, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Amount {
    /// `8G`, `75%`, `infinity`
    Memory(Memory),
    /// `4096`, `25%`, `infinity`
    Tasks(Tasks),
    /// `continue`, `kill`
    OomPolicy(OomPolicy),
    /// `400%`, `infinity`
    CpuQuota(CpuQuota),
    /// `100ms`
    Period(Micros),
    /// `100`, `idle`
    Weight(Weight),
    /// `0-3,8`
    Numbers(NumberList),
    /// `/scratch 10M`
    Rates(Vec<Rate>),
    /// `2M 1G`
    HugePages(Vec<HugePages>),
}

/// The resource limits of one node, by key.
pub type Resources = BTreeMap<Control, Setting<Amount>>;

impl Control {
    /// Every key, in the order in which they are written into the kernel's files.
    pub const ALL: [Self; 18] = [
        Self::MemoryMin,
        Self::MemoryLow,
        Self::MemoryHigh,
        Self::MemoryMax,
        Self::MemorySwapMax,
        Self::OOMPolicy,
        Self::CPUQuota,
        Self::CPUQuotaPeriodSec,
        Self::CPUWeight,
        Self::AllowedCPUs,
        Self::AllowedMemoryNodes,
        Self::TasksMax,
        Self::IOWeight,
        Self::IOReadBandwidthMax,
        Self::IOWriteBandwidthMax,
        Self::IOReadIOPSMax,
        Self::IOWriteIOPSMax,
        Self::HugeTLBMax,
    ];

    /// The controller that a group needs for it.
    #[must_use]
    pub const fn controller(self) -> &'static str {
        match self {
            Self::MemoryMin
            | Self::MemoryLow
            | Self::MemoryHigh
            | Self::MemoryMax
            | Self::MemorySwapMax
            | Self::OOMPolicy => "memory",
            Self::CPUQuota | Self::CPUQuotaPeriodSec | Self::CPUWeight => "cpu",
            Self::AllowedCPUs | Self::AllowedMemoryNodes => "cpuset",
            Self::TasksMax => "pids",
            Self::IOWeight
            | Self::IOReadBandwidthMax
            | Self::IOWriteBandwidthMax
            | Self::IOReadIOPSMax
            | Self::IOWriteIOPSMax => "io",
            Self::HugeTLBMax => "hugetlb",
        }
    }

    /// The version of systemd from which on it has the property, where an older one may stand on a host that is supported:
    /// systemd.resource-control(5).
    #[must_use]
    pub const fn systemd_since(self) -> Option<u32> {
        match self {
            Self::CPUQuotaPeriodSec => Some(242),
            Self::AllowedCPUs | Self::AllowedMemoryNodes => Some(244),
            _ => None,
        }
    }

    /// Whether its value is a list of texts: one for each device or page size.
    #[must_use]
    pub const fn is_list(self) -> bool {
        matches!(
            self,
            Self::IOReadBandwidthMax
                | Self::IOWriteBandwidthMax
                | Self::IOReadIOPSMax
                | Self::IOWriteIOPSMax
                | Self::HugeTLBMax
        )
    }

    /// Reads one value; of a list, one entry.
    ///
    /// # Errors
    /// [`InvalidValue`], with what would have been accepted.
    pub fn parse(self, text: &str) -> Result<Amount, InvalidValue> {
        match self {
            Self::MemoryMin | Self::MemoryLow | Self::MemoryHigh | Self::MemoryMax => {
                Memory::parse(text, false).map(Amount::Memory)
            }
            // No swap at all is an honest wish. Of how much swap would a percentage be?
            Self::MemorySwapMax => match Memory::parse(text, true)? {
                Memory::Percent(_) => Err(InvalidValue { text: text.to_owned(), expected: SWAP }),
                memory => Ok(Amount::Memory(memory)),
            },
            Self::OOMPolicy => OomPolicy::parse(text).map(Amount::OomPolicy),
            Self::CPUQuota => CpuQuota::parse(text).map(Amount::CpuQuota),
            Self::CPUQuotaPeriodSec => Micros::parse_period(text).map(Amount::Period),
            Self::CPUWeight => Weight::parse(text, true).map(Amount::Weight),
            Self::IOWeight => Weight::parse(text, false).map(Amount::Weight),
            Self::AllowedCPUs | Self::AllowedMemoryNodes => NumberList::parse(text).map(Amount::Numbers),
            Self::TasksMax => Tasks::parse(text).map(Amount::Tasks),
            Self::IOReadBandwidthMax
            | Self::IOWriteBandwidthMax
            | Self::IOReadIOPSMax
            | Self::IOWriteIOPSMax => Rate::parse(text).map(|rate| Amount::Rates(vec![rate])),
            Self::HugeTLBMax => HugePages::parse(text).map(|pages| Amount::HugePages(vec![pages])),
        }
    }

    /// What a value looks like, for a message.
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::MemoryMin | Self::MemoryLow | Self::MemoryHigh | Self::MemoryMax => {
                "an amount of memory: \"8G\", \"75%\" or \"infinity\""
            }
            Self::MemorySwapMax => "an amount of swap: \"2G\", 0 or \"infinity\"",
            Self::OOMPolicy => "\"continue\" or \"kill\"",
            Self::CPUQuota => "a share of one processor: \"400%\"",
            Self::CPUQuotaPeriodSec => "a time from \"1ms\" to \"1s\"",
            Self::CPUWeight => "a weight from 1 to 10000, or \"idle\"",
            Self::IOWeight => "a weight from 1 to 10000",
            Self::AllowedCPUs | Self::AllowedMemoryNodes => "numbers and ranges: \"0-3,8\"",
            Self::TasksMax => "a number of tasks: 4096, \"50%\" or \"infinity\"",
            Self::IOReadBandwidthMax
            | Self::IOWriteBandwidthMax
            | Self::IOReadIOPSMax
            | Self::IOWriteIOPSMax => RATE,
            Self::HugeTLBMax => HUGE_PAGES,
        }
    }

    /// The word for its value in the line of a device in `io.max`.
    const fn io_word(self) -> &'static str {
        match self {
            Self::IOReadBandwidthMax => "rbps",
            Self::IOWriteBandwidthMax => "wbps",
            Self::IOReadIOPSMax => "riops",
            _ => "wiops",
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants are spelled as systemd spells the keys.
        write!(f, "{self:?}")
    }
}

/// A number, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Max {
    /// No more than this.
    Value(u64),
    /// `max`
    Infinity,
}

impl Max {
    /// The number, if there is one.
    #[must_use]
    pub const fn value(self) -> Option<u64> {
        match self {
            Self::Value(value) => Some(value),
            Self::Infinity => None,
        }
    }
}

impl From<Option<u64>> for Max {
    fn from(value: Option<u64>) -> Self {
        value.map_or(Self::Infinity, Self::Value)
    }
}

impl fmt::Display for Max {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::Infinity => f.write_str("max"),
        }
    }
}

/// A value of one of the kernel's files, resolved for one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// `memory.min`, `memory.low`, `memory.high`, `memory.max`, `memory.swap.max`: bytes, whole pages.
    Memory(Control, Max),
    /// `memory.oom.group`
    OomGroup(bool),
    /// `cpu.max`: microseconds in a period of microseconds.
    Cpu {
        /// Processor time in each period.
        quota: Max,
        /// The period.
        period: u64,
    },
    /// `cpu.weight`
    CpuWeight(u16),
    /// `cpu.idle`: only what nobody else wants.
    CpuIdle,
    /// `cpuset.cpus`, `cpuset.mems`
    Cpuset(Control, NumberList),
    /// `pids.max`
    Tasks(Max),
    /// `io.weight`
    IoWeight(u16),
    /// `io.max`: one word of one device.
    Io {
        /// Which word.
        control: Control,
        /// `major:minor`
        device: String,
        /// Bytes or operations in a second.
        rate: Max,
    },
    /// `hugetlb.SIZE.max`: bytes.
    HugeTlb {
        /// As in the name of the file: `2MB`.
        size: String,
        /// Bytes.
        max: Max,
    },
}

impl Limit {
    /// The key that asked for it.
    #[must_use]
    pub fn control(&self) -> Control {
        match self {
            Self::Memory(control, _) | Self::Cpuset(control, _) | Self::Io { control, .. } => *control,
            Self::OomGroup(_) => Control::OOMPolicy,
            Self::Cpu { .. } => Control::CPUQuota,
            Self::CpuWeight(_) | Self::CpuIdle => Control::CPUWeight,
            Self::Tasks(_) => Control::TasksMax,
            Self::IoWeight(_) => Control::IOWeight,
            Self::HugeTlb { .. } => Control::HugeTLBMax,
        }
    }

    /// The file in the group's directory.
    #[must_use]
    pub fn file(&self) -> String {
        match self {
            Self::Memory(Control::MemoryMin, _) => "memory.min".into(),
            Self::Memory(Control::MemoryLow, _) => "memory.low".into(),
            Self::Memory(Control::MemoryHigh, _) => "memory.high".into(),
            Self::Memory(Control::MemorySwapMax, _) => "memory.swap.max".into(),
            Self::Memory(_, _) => "memory.max".into(),
            Self::OomGroup(_) => "memory.oom.group".into(),
            Self::Cpu { .. } => "cpu.max".into(),
            Self::CpuWeight(_) => "cpu.weight".into(),
            Self::CpuIdle => "cpu.idle".into(),
            Self::Cpuset(Control::AllowedMemoryNodes, _) => "cpuset.mems".into(),
            Self::Cpuset(_, _) => "cpuset.cpus".into(),
            Self::Tasks(_) => "pids.max".into(),
            Self::IoWeight(_) => "io.weight".into(),
            Self::Io { .. } => "io.max".into(),
            Self::HugeTlb { size, .. } => format!("hugetlb.{size}.max"),
        }
    }

    /// What is written into it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Memory(_, max) | Self::Tasks(max) | Self::HugeTlb { max, .. } => max.to_string(),
            Self::OomGroup(on) => u8::from(*on).to_string(),
            Self::Cpu { quota, period } => format!("{quota} {period}"),
            Self::CpuWeight(weight) | Self::IoWeight(weight) => weight.to_string(),
            Self::CpuIdle => "1".into(),
            Self::Cpuset(_, list) => list.to_string(),
            Self::Io { control, device, rate } => format!("{device} {}={rate}", control.io_word()),
        }
    }

    /// Whether the kernel's file says what was written. A weight of a disk has a word before it, a rate is one of several
    /// in its device's line, and a rate without limit may have no line at all.
    #[must_use]
    pub fn is_in(&self, content: &str) -> bool {
        let content = content.trim_end();
        match self {
            Self::Io { control, device, rate } => {
                let line = content.lines().find_map(|line| line.strip_prefix(&format!("{device} ")));
                let wanted = format!("{}={rate}", control.io_word());
                match line {
                    Some(line) => line.split_whitespace().any(|word| word == wanted),
                    None => *rate == Max::Infinity,
                }
            }
            Self::IoWeight(weight) => {
                content.lines().any(|line| line == format!("default {weight}") || line == weight.to_string())
            }
            _ => content == self.text(),
        }
    }

    /// Whether a group can never have what is asked, because the group above it allows less.
    #[must_use]
    pub fn is_above(&self, parent: &Self) -> bool {
        match (self, parent) {
            (Self::Memory(a, own), Self::Memory(b, parent)) => a == b && own > parent,
            (Self::Tasks(own), Self::Tasks(parent)) => own > parent,
            (Self::Cpu { quota, period }, Self::Cpu { quota: parent_quota, period: parent_period }) => {
                match (quota, parent_quota) {
                    (_, Max::Infinity) => false,
                    (Max::Infinity, Max::Value(_)) => true,
                    (Max::Value(own), Max::Value(parent)) => {
                        u128::from(*own) * u128::from(*parent_period)
                            > u128::from(*parent) * u128::from(*period)
                    }
                }
            }
            (Self::Cpuset(a, own), Self::Cpuset(b, parent)) => a == b && !own.is_within(parent),
            (
                Self::Io { control, device, rate },
                Self::Io { control: parent_control, device: parent_device, rate: parent_rate },
            ) => control == parent_control && device == parent_device && rate > parent_rate,
            (Self::HugeTlb { size, max }, Self::HugeTlb { size: parent_size, max: parent_max }) => {
                size == parent_size && max > parent_max
            }
            _ => false,
        }
    }

    /// For people: `8.0 GiB`, `4 processors`, `512 tasks`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let number = |max: &Max, unit: &str| match max {
            Max::Value(value) => format!("{value} {unit}"),
            Max::Infinity => "no limit".into(),
        };
        match self {
            Self::Memory(_, max) => match max {
                Max::Value(value) => Bytes(*value).to_string(),
                Max::Infinity => "no limit".into(),
            },
            Self::HugeTlb { size, max } => match max {
                Max::Value(value) => format!("{} in pages of {size}", Bytes(*value)),
                Max::Infinity => format!("no limit of pages of {size}"),
            },
            Self::Tasks(max) => number(max, "tasks"),
            Self::OomGroup(true) => "the whole job".into(),
            Self::OomGroup(false) => "one process".into(),
            Self::Cpu { quota: Max::Infinity, .. } => "no limit".into(),
            Self::Cpu { quota: Max::Value(quota), period } => {
                format!("{}% of one processor", quota.saturating_mul(100) / (*period).max(1))
            }
            Self::CpuWeight(weight) | Self::IoWeight(weight) => weight.to_string(),
            Self::CpuIdle => "idle".into(),
            Self::Cpuset(_, list) => list.to_string(),
            Self::Io {
                control: Control::IOReadBandwidthMax | Control::IOWriteBandwidthMax,
                device,
                rate,
            } => {
                format!("{} of device {device}", number(rate, "bytes in a second"))
            }
            Self::Io { device, rate, .. } => {
                format!("{} of device {device}", number(rate, "operations in a second"))
            }
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.control(), self.in_words())
    }
}

/// A limit, and where it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedLimit {
    /// The value.
    pub limit: Limit,
    /// File and line.
    pub origin: Origin,
}
