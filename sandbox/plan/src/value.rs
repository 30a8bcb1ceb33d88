//! Values with units, spelled as systemd spells them.

/// A value that is kept as what a file would say: serde's `try_from` and `into` of String.
macro_rules! kept_as_text {
    ($type:ty, $parse:expr) => {
        impl TryFrom<String> for $type {
            type Error = InvalidValue;
            fn try_from(text: String) -> Result<Self, InvalidValue> {
                $parse(&text)
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

mod disks;
mod jobs;
mod processors;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use disks::{HUGE_PAGES, RATE};
pub use disks::{HugePages, Rate};
pub use processors::{CpuQuota, Micros, NumberList, Weight};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bytes(pub u64);

/// As people read it: `8 GiB`, `7.4 GiB`, `512 bytes`. A number that is not whole has one digit, rounded down.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let Some((shift, unit)) = units.into_iter().find(|(shift, _)| self.0 >> shift > 0) else {
            return write!(f, "{} bytes", self.0);
        };
        let whole = self.0 >> shift;
        let rest = self.0 - (whole << shift);
        match u64::try_from((u128::from(rest) * 10) >> shift).unwrap_or(9) {
            0 if rest == 0 => write!(f, "{whole} {unit}"),
            tenths => write!(f, "{whole}.{tenths} {unit}"),
        }
    }
}

/// An amount of memory: `MemoryMax=` and its relatives, systemd.resource-control(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Memory {
    /// A number of bytes; K, M, G, T are powers of 1024.
    Bytes(u64),
    /// A share of the machine's physical memory, in percent (1 to 100).
    Percent(u8),
    /// No limit.
    Infinity,
}

/// A number of tasks: `TasksMax=`, systemd.resource-control(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Tasks {
    /// So many tasks (processes and threads).
    Count(u64),
    /// A share of the machine's greatest number of tasks, in percent (1 to 100).
    Percent(u8),
    /// No limit.
    Infinity,
}

/// What dies when a job's memory runs out: `OOMPolicy=`, systemd.service(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OomPolicy {
    /// One process; the job goes on with the error that its parent makes of that.
    Continue,
    /// Every process of the stage.
    Kill,
}

/// A value that is not spelled as systemd spells it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct InvalidValue {
    /// What was written.
    pub text: String,
    /// What would have been accepted.
    pub expected: &'static str,
}

const MEMORY: &str = "an amount of memory (`8G`, `512M`, bytes without a suffix, `75%`, `infinity`; K, M, G, T are powers of 1024)";
const TASKS: &str = "a number of tasks (`4096`, `50%`, `infinity`)";
const OOM_POLICY: &str =
    "an OOM policy (`continue` or `kill`; systemd's `stop` would need a manager that watches)";
pub(crate) const SWAP: &str = "an amount of swap (`2G`, `0`, `infinity`; K, M, G, T are powers of 1024)";

impl Memory {
    /// Parses `8G`, `512M`, `1048576`, `75%`, `infinity`; `0` where it means something.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else and for more than fits into 64 bits.
    pub fn parse(text: &str, accepts_zero: bool) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue { text: text.to_owned(), expected: MEMORY };
        if text == "infinity" {
            return Ok(Self::Infinity);
        }
        if let Some(percent) = percent(text) {
            return percent.map(Self::Percent).ok_or_else(bad);
        }
        let bytes = scaled(text, 1024).filter(|bytes| *bytes > 0 || accepts_zero).ok_or_else(bad)?;
        Ok(Self::Bytes(bytes))
    }

    /// The limit in bytes on a machine with `total` bytes of memory, rounded down to pages as the kernel
    /// does, but never to none; `None` is no limit.
    #[must_use]
    pub fn resolve(self, total: Bytes) -> Option<Bytes> {
        const PAGE: u64 = 4096;
        match self {
            Self::Bytes(0) => Some(Bytes(0)),
            Self::Bytes(bytes) => Some(Bytes((bytes / PAGE * PAGE).max(PAGE))),
            Self::Percent(percent) => Some(Bytes((share(total.0, percent) / PAGE * PAGE).max(PAGE))),
            Self::Infinity => None,
        }
    }
}

impl Tasks {
    /// Parses `4096`, `50%`, `infinity`.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else and for zero.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue { text: text.to_owned(), expected: TASKS };
        if text == "infinity" {
            return Ok(Self::Infinity);
        }
        if let Some(percent) = percent(text) {
            return percent.map(Self::Percent).ok_or_else(bad);
        }
        number(text).filter(|n| *n > 0).map(Self::Count).ok_or_else(bad)
    }

    /// The limit on a machine that can have `total` tasks; `None` is no limit.
    #[must_use]
    pub fn resolve(self, total: u64) -> Option<u64> {
        match self {
            Self::Count(count) => Some(count),
            Self::Percent(percent) => Some(share(total, percent).max(1)),
            Self::Infinity => None,
        }
    }
}

impl OomPolicy {
    /// Parses `continue` and `kill`.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else, systemd's `stop` included.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "continue" => Ok(Self::Continue),
            "kill" => Ok(Self::Kill),
            _ => Err(InvalidValue { text: text.to_owned(), expected: OOM_POLICY }),
        }
    }
}

/// A number with a suffix K, M, G or T, powers of `base`.
pub(crate) fn scaled(text: &str, base: u64) -> Option<u64> {
    let suffixes = [('K', 1), ('M', 2), ('G', 3), ('T', 4)];
    let found = suffixes.into_iter().find_map(|(suffix, power)| Some((text.strip_suffix(suffix)?, power)));
    let (digits, power) = found.unwrap_or((text, 0));
    number(digits)?.checked_mul(base.checked_pow(power)?)
}

/// So many percent of `total`; `percent` is at most 100, so it fits.
fn share(total: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(total) * u128::from(percent) / 100).unwrap_or(total)
}

/// `Some(None)` is a percentage that is none: `0%`, `101%`, `x%`.
fn percent(text: &str) -> Option<Option<u8>> {
    let digits = text.strip_suffix('%')?;
    Some(number(digits).and_then(|n| u8::try_from(n).ok()).filter(|n| (1..=100).contains(n)))
}

/// Digits alone: no sign, no blank, no `0x` (sudo's CVE-2019-14287 began with a number that was read kindly).
pub(crate) fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

macro_rules! text_form {
    ($type:ty, $number:path, $percent:path, $infinity:path, $parse:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $number(n) => write!(f, "{n}"),
                    $percent(n) => write!(f, "{n}%"),
                    $infinity => f.write_str("infinity"),
                }
            }
        }
        kept_as_text!($type, $parse);
    };
}
text_form!(Memory, Memory::Bytes, Memory::Percent, Memory::Infinity, |text: &str| Memory::parse(text, true));
text_form!(Tasks, Tasks::Count, Tasks::Percent, Tasks::Infinity, Tasks::parse);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_suffixes_are_powers_of_1024() {
        assert_eq!(Memory::parse("8G", false), Ok(Memory::Bytes(8 << 30)));
        assert_eq!(Memory::parse("1T", false), Ok(Memory::Bytes(1 << 40)));
        assert_eq!(Memory::parse("3K", false), Ok(Memory::Bytes(3072)));
        assert_eq!(Memory::parse("75%", false), Ok(Memory::Percent(75)));
        assert_eq!(Memory::parse("infinity", false), Ok(Memory::Infinity));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let bad = [
            "", "0", "-1", "+1", " 1", "1 ", "0x10", "8GB", "8GG", "8g", "1.5G", "G", "0%", "101%", "%",
            "20E",
        ];
        for text in bad.into_iter().chain(["18446744073709551615T", "99999999999999999999"]) {
            assert!(Memory::parse(text, false).is_err(), "{text:?}");
            assert!(Tasks::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn limits_are_rounded_down_to_pages() {
        assert_eq!(Memory::Bytes(10_000).resolve(Bytes(1)), Some(Bytes(8192)));
        assert_eq!(Memory::Percent(50).resolve(Bytes(1 << 30)), Some(Bytes(536_870_912)));
        assert_eq!(Memory::Bytes(1).resolve(Bytes(1)), Some(Bytes(4096)));
        assert_eq!(Memory::Infinity.resolve(Bytes(1)), None);
        assert_eq!(Tasks::Percent(50).resolve(1000), Some(500));
        assert_eq!(Tasks::Percent(1).resolve(50), Some(1));
    }

    #[test]
    fn text_form_is_read_back() {
        for text in ["8192", "75%", "infinity"] {
            assert_eq!(Memory::parse(text, false).map(String::from).as_deref(), Ok(text));
        }
    }

    #[test]
    fn bytes_are_shown_as_people_read_them() {
        let shown = [
            (512, "512 bytes"),
            (8 << 30, "8 GiB"),
            ((7 << 30) + (400 << 20), "7.3 GiB"),
            ((1 << 20) + 1, "1.0 MiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (bytes, text) in shown {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn no_swap_is_a_wish_and_no_memory_a_mistake() {
        assert_eq!(Memory::parse("0", true), Ok(Memory::Bytes(0)));
        assert_eq!(Memory::Bytes(0).resolve(Bytes(1)), Some(Bytes(0)));
        assert!(Memory::parse("0", false).is_err());
    }
}
