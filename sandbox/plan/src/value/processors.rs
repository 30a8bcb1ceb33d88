//! Shares and numbers of processors, systemd.resource-control(5).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{InvalidValue, number};

/// A share of one processor: `CPUQuota=`, systemd.resource-control(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CpuQuota {
    /// So many percent of one processor; 400 are four processors.
    Percent(u32),
    /// No limit.
    Infinity,
}

/// A number of microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Micros(pub u64);

/// A share beside others: `CPUWeight=`, `IOWeight=`, systemd.resource-control(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// 1 to 10000; everybody has 100.
    Value(u16),
    /// Only what nobody else wants.
    Idle,
}

/// Numbers of processors or NUMA nodes: `AllowedCPUs=`, systemd.resource-control(5). Sorted ranges that do not touch,
/// as the kernel prints them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NumberList(Vec<(u32, u32)>);

const CPU_QUOTA: &str = "a share of processors (`50%`, `400%` for four of them, `infinity`)";
const PERIOD: &str = "a period from `1ms` to `1s` (`us`, `ms`, `s`)";
const CPU_WEIGHT: &str = "a weight (`1` to `10000`, or `idle`)";
const IO_WEIGHT: &str = "a weight (`1` to `10000`)";
const NUMBERS: &str = "a list of numbers and ranges (`0-3,8`), each below 8192";

impl CpuQuota {
    /// Parses `50%`, `400%`, `infinity`.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else, for zero and for a number without `%`.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue { text: text.to_owned(), expected: CPU_QUOTA };
        if text == "infinity" {
            return Ok(Self::Infinity);
        }
        let digits = text.strip_suffix('%').ok_or_else(bad)?;
        let percent = number(digits).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        percent.map(Self::Percent).ok_or_else(bad)
    }
}

impl Micros {
    /// The period of `CPUQuota=` where none is written, systemd.resource-control(5).
    pub const DEFAULT_PERIOD: Self = Self(100_000);

    /// Parses `1ms` to `1s`, what the kernel takes as a period of `cpu.max`; a number alone is seconds.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else.
    pub fn parse_period(text: &str) -> Result<Self, InvalidValue> {
        let units = [("us", 1), ("ms", 1000), ("s", 1_000_000), ("", 1_000_000)];
        let split = units.into_iter().find_map(|(unit, micros)| Some((text.strip_suffix(unit)?, micros)));
        split
            .and_then(|(digits, micros)| number(digits)?.checked_mul(micros))
            .filter(|micros| (1000..=1_000_000).contains(micros))
            .map(Self)
            .ok_or_else(|| InvalidValue { text: text.to_owned(), expected: PERIOD })
    }
}

impl Weight {
    /// Parses `1` to `10000`, and `idle` where a group can be that.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else.
    pub fn parse(text: &str, accepts_idle: bool) -> Result<Self, InvalidValue> {
        let expected = if accepts_idle { CPU_WEIGHT } else { IO_WEIGHT };
        match number(text).and_then(|n| u16::try_from(n).ok()).filter(|n| (1..=10_000).contains(n)) {
            Some(weight) => Ok(Self::Value(weight)),
            None if accepts_idle && text == "idle" => Ok(Self::Idle),
            None => Err(InvalidValue { text: text.to_owned(), expected }),
        }
    }
}

impl NumberList {
    /// More than any kernel has of processors or nodes.
    const NUMBER_MAX: u32 = 8191;

    /// Parses `0-3,8` and `0-3 8`, in any order.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else, for a range that runs backwards, and for no number at all.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue { text: text.to_owned(), expected: NUMBERS };
        let one = |digits: &str| {
            number(digits).and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= Self::NUMBER_MAX)
        };
        let range = |part: &str| match part.split_once('-') {
            Some((first, last)) => Some((one(first)?, one(last)?)).filter(|(first, last)| first <= last),
            None => one(part).map(|number| (number, number)),
        };
        let parts = text.split([',', ' ', '\t', '\n']).filter(|part| !part.is_empty());
        let mut ranges: Vec<(u32, u32)> = parts.map(range).collect::<Option<_>>().ok_or_else(bad)?;
        if ranges.is_empty() || text.contains(",,") {
            return Err(bad());
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Ok(Self(merged))
    }

    /// How many numbers.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    /// Each of them, in order.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// Whether each number is one of `other`'s.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.iter().all(|(first, last)| other.0.iter().any(|(from, to)| from <= first && last <= to))
    }
}

impl fmt::Display for NumberList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |(first, last): &(u32, u32)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        f.write_str(&self.0.iter().map(range).collect::<Vec<_>>().join(","))
    }
}

kept_as_text!(NumberList, NumberList::parse);

impl fmt::Display for CpuQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Infinity => f.write_str("infinity"),
        }
    }
}

kept_as_text!(CpuQuota, CpuQuota::parse);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_shares_and_lists() {
        assert_eq!(CpuQuota::parse("400%"), Ok(CpuQuota::Percent(400)));
        assert_eq!(CpuQuota::parse("infinity"), Ok(CpuQuota::Infinity));
        for text in ["400", "0%", "-1%", "%", "4.5%", " 5%", "5 %", "99999999999%"] {
            assert!(CpuQuota::parse(text).is_err(), "{text:?}");
        }
        let list = |text| NumberList::parse(text).map(|list| (list.to_string(), list.count()));
        assert_eq!(list("8, 0-3 2-5"), Ok(("0-5,8".into(), 7)));
        assert_eq!(list("0-1,2"), Ok(("0-2".into(), 3)));
        for text in ["", " ", "3-1", "a", "0-", "-1", "9000", "0,,1", "0x1"] {
            assert!(NumberList::parse(text).is_err(), "{text:?}");
        }
        let within = |a, b| {
            let list = |text| NumberList::parse(text).expect("a list");
            list(a).is_within(&list(b))
        };
        assert!(within("1,3", "0-3") && !within("3-4", "0-3") && !within("0-8", "0-3,5-8"));
    }

    #[test]
    fn periods_are_what_the_kernel_takes() {
        assert_eq!(Micros::parse_period("100ms"), Ok(Micros(100_000)));
        assert_eq!(Micros::parse_period("1"), Ok(Micros(1_000_000)));
        assert_eq!(Micros::parse_period("1000us"), Ok(Micros(1000)));
        for text in ["999us", "2s", "0", "1m", "ms", "-1ms", "1.5ms"] {
            assert!(Micros::parse_period(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn weights_have_a_range_and_idle_is_the_processors() {
        assert_eq!(Weight::parse("10000", false), Ok(Weight::Value(10_000)));
        assert_eq!(Weight::parse("idle", true), Ok(Weight::Idle));
        for text in ["0", "10001", "idle", "", "1%"] {
            assert!(Weight::parse(text, false).is_err(), "{text:?}");
        }
    }
}
