//! Rates of disks and sums of huge pages.

use serde::{Deserialize, Serialize};

use super::{InvalidValue, Memory, scaled};

/// What a device may do in a second: `IOReadBandwidthMax=` and its relatives, systemd.resource-control(5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// The device, or a file on it.
    pub path: String,
    /// Bytes or operations in a second; none: no limit.
    pub per_second: Option<u64>,
}

/// Memory in huge pages of one size, kernel document `admin-guide/cgroup-v2.rst`, "HugeTLB".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HugePages {
    /// Size of a page, in bytes.
    pub size: u64,
    /// The greatest sum.
    pub max: Memory,
}

pub(crate) const RATE: &str =
    "a device, or a file on it, and a rate (`/scratch 10M`; K, M, G, T are powers of 1000; `infinity`)";
pub(crate) const HUGE_PAGES: &str = "a page size and an amount (`2M 1G`, `1G infinity`)";

impl Rate {
    /// Parses `/dev/sda 10M`, `/scratch infinity`.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else, for zero and for a path that is not absolute.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue { text: text.to_owned(), expected: RATE };
        let (path, rate) = text.trim().rsplit_once([' ', '\t']).ok_or_else(bad)?;
        let path = path.trim_end();
        if !path.starts_with('/') || path.contains('\0') {
            return Err(bad());
        }
        let per_second = match rate {
            "infinity" => None,
            rate => Some(scaled(rate, 1000).filter(|rate| *rate > 0).ok_or_else(bad)?),
        };
        Ok(Self { path: path.to_owned(), per_second })
    }
}

impl HugePages {
    /// Parses `2M 1G`, `1G infinity`.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue { text: text.to_owned(), expected: HUGE_PAGES };
        let (size, max) = text.trim().split_once([' ', '\t']).ok_or_else(bad)?;
        let size = scaled(size, 1024).filter(|size| size.is_power_of_two()).ok_or_else(bad)?;
        let max = Memory::parse(max.trim_start(), true).map_err(|_| bad())?;
        if matches!(max, Memory::Percent(_)) {
            return Err(bad());
        }
        Ok(Self { size, max })
    }

    /// The size as it stands in names of files: `64KB`, `2MB`, `1GB`.
    #[must_use]
    pub fn size_name(self) -> String {
        match self.size {
            size if size >= 1 << 30 => format!("{}GB", size >> 30),
            size if size >= 1 << 20 => format!("{}MB", size >> 20),
            size => format!("{}KB", size >> 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_powers_of_1000_and_name_a_path() {
        let rate = |text| Rate::parse(text).map(|rate| (rate.path, rate.per_second));
        assert_eq!(rate("/dev/sda 10M"), Ok(("/dev/sda".into(), Some(10_000_000))));
        assert_eq!(rate("/my scratch infinity"), Ok(("/my scratch".into(), None)));
        for text in ["/dev/sda", "10M", "sda 10M", "/dev/sda 0", "/dev/sda -1", "/dev/sda 10MB", ""] {
            assert!(rate(text).is_err(), "{text:?}");
        }
        let pages = |text| HugePages::parse(text).map(|pages| (pages.size_name(), pages.max));
        assert_eq!(pages("2M 1G"), Ok(("2MB".into(), Memory::Bytes(1 << 30))));
        assert_eq!(pages("1G infinity"), Ok(("1GB".into(), Memory::Infinity)));
        for text in ["2M", "3M 1G", "0 1G", "2M 50%", "2M -1"] {
            assert!(pages(text).is_err(), "{text:?}");
        }
    }
}
