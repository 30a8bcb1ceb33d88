//! Properties of units, as busctl(1) wants them: name, type, value. systemd.resource-control(5).

use jacamar_plan::{Limit, Max, PlannedLimit};
use nix::unistd::Pid;

/// One property of a slice or scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) words: Vec<String>,
}

impl Property {
    fn new<const N: usize>(words: [&str; N]) -> Self {
        Self { words: words.map(str::to_owned).into() }
    }

    /// An unsigned number of 64 bits; the greatest is "no limit".
    fn number(name: &str, value: u64) -> Self {
        Self::new([name, "t", &value.to_string()])
    }
}

/// systemd's default, and the only one that every version of it takes.
const PERIOD_USEC: u64 = 100_000;

/// What stands for a limit; none where systemd has no property for slices.
pub(super) fn of(limit: &Limit) -> Option<Vec<Property>> {
    let number = |max: &Max| max.value().unwrap_or(u64::MAX);
    Some(match limit {
        Limit::Memory(control, max) => vec![Property::number(&control.to_string(), number(max))],
        Limit::Tasks(max) => vec![Property::number("TasksMax", number(max))],
        Limit::Cpu { quota, period } => {
            let per_second = match quota {
                Max::Infinity => u64::MAX,
                Max::Value(quota) => quota.saturating_mul(1_000_000).checked_div(*period)?,
            };
            let quota = Property::number("CPUQuotaPerSecUSec", per_second);
            let period = (*period != PERIOD_USEC).then(|| Property::number("CPUQuotaPeriodUSec", *period));
            [quota].into_iter().chain(period).collect()
        }
        Limit::CpuWeight(weight) => vec![Property::number("CPUWeight", u64::from(*weight))],
        // CGROUP_WEIGHT_IDLE, systemd 252.
        Limit::CpuIdle => vec![Property::number("CPUWeight", 0)],
        Limit::IoWeight(weight) => vec![Property::number("IOWeight", u64::from(*weight))],
        Limit::Cpuset(control, list) => {
            let bytes = bit_set(&list.numbers().collect::<Vec<_>>());
            let head = [control.to_string(), "ay".to_owned(), bytes.len().to_string()];
            let bytes = bytes.into_iter().map(|byte| byte.to_string());
            vec![Property { words: head.into_iter().chain(bytes).collect() }]
        }
        Limit::Io { control, device, rate } => {
            let (device, rate) = (format!("/dev/block/{device}"), number(rate).to_string());
            vec![Property::new([&control.to_string(), "a(st)", "1", &device, &rate])]
        }
        Limit::OomGroup(_) | Limit::HugeTlb { .. } => return None,
    })
}

/// A byte for eight processors, the first one's bit the lowest.
fn bit_set(numbers: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0_u8; numbers.iter().max().map_or(0, |last| (*last / 8 + 1) as usize)];
    for number in numbers {
        if let Some(byte) = bytes.get_mut((number / 8) as usize) {
            *byte |= 1 << (number % 8);
        }
    }
    bytes
}

pub(super) fn of_limits(limits: &[PlannedLimit]) -> Vec<Property> {
    limits.iter().filter_map(|planned| of(&planned.limit)).flatten().collect()
}

/// Controllers that count, and what switches that on.
const ACCOUNTING: [(&str, &str); 4] = [
    ("cpu", "CPUAccounting"),
    ("io", "IOAccounting"),
    ("memory", "MemoryAccounting"),
    ("pids", "TasksAccounting"),
];

/// Those of these controllers that count, without a limit.
pub(super) fn accounting(controllers: &[String]) -> Vec<Property> {
    let wanted =
        ACCOUNTING.into_iter().filter(|(name, _)| controllers.iter().any(|controller| controller == name));
    wanted.map(|(_, property)| Property::new([property, "b", "true"])).collect()
}

/// A scope with one process, below which the job may make groups. It gets no controller: what the kernel counts, it counts
/// on the job, which outlives it, and `DefaultTasksMax=` is none of the job's limits.
pub(super) fn of_scope(slice: &str, pid: Pid) -> Vec<Property> {
    let mut properties = vec![
        Property::new(["PIDs", "au", "1", &pid.to_string()]),
        Property::new(["Slice", "s", slice]),
        Property::new(["DelegateControllers", "as", "0"]),
        Property::new(["CollectMode", "s", "inactive-or-failed"]),
        Property::number("TasksMax", u64::MAX),
    ];
    properties.extend(ACCOUNTING.map(|(_, property)| Property::new([property, "b", "false"])));
    properties
}

#[cfg(test)]
mod tests {
    use jacamar_plan::{Control, NumberList};

    use super::*;

    fn words(limit: &Limit) -> Vec<String> {
        of(limit).expect("a property").iter().map(|property| property.words.join(" ")).collect()
    }

    #[test]
    fn values_have_the_types_and_units_of_the_manager() {
        let processors = NumberList::parse("0-2,9").expect("a list");
        for (limit, expected) in [
            (Limit::Memory(Control::MemoryHigh, Max::Value(4096)), "MemoryHigh t 4096"),
            (Limit::Memory(Control::MemorySwapMax, Max::Infinity), "MemorySwapMax t 18446744073709551615"),
            (Limit::Tasks(Max::Value(7)), "TasksMax t 7"),
            (Limit::Cpu { quota: Max::Value(50_000), period: 100_000 }, "CPUQuotaPerSecUSec t 500000"),
            (Limit::CpuIdle, "CPUWeight t 0"),
            (Limit::Cpuset(Control::AllowedCPUs, processors), "AllowedCPUs ay 2 7 2"),
            (
                Limit::Io { control: Control::IOReadIOPSMax, device: "8:16".into(), rate: Max::Value(9) },
                "IOReadIOPSMax a(st) 1 /dev/block/8:16 9",
            ),
        ] {
            assert_eq!(words(&limit), [expected]);
        }
        let short = Limit::Cpu { quota: Max::Value(10_000), period: 20_000 };
        assert_eq!(words(&short), ["CPUQuotaPerSecUSec t 500000", "CPUQuotaPeriodUSec t 20000"]);
        assert_eq!(of(&Limit::OomGroup(true)), None);
    }
}
