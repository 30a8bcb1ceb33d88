//! Values with units, spelled as systemd spells them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
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

impl Memory {
    /// Parses `8G`, `512M`, `1048576`, `75%`, `infinity`.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else, for zero and for more than fits into 64 bits.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue { text: text.to_owned(), expected: MEMORY };
        if text == "infinity" {
            return Ok(Self::Infinity);
        }
        if let Some(percent) = percent(text) {
            return percent.map(Self::Percent).ok_or_else(bad);
        }
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'K') => (text.trim_end_matches('K'), 10),
            Some(b'M') => (text.trim_end_matches('M'), 20),
            Some(b'G') => (text.trim_end_matches('G'), 30),
            Some(b'T') => (text.trim_end_matches('T'), 40),
            _ => (text, 0),
        };
        // `8GG` lost two suffixes above.
        if text.len() - digits.len() > 1 {
            return Err(bad());
        }
        let bytes =
            number(digits).and_then(|n| n.checked_mul(1u64 << shift)).filter(|n| *n > 0).ok_or_else(bad)?;
        Ok(Self::Bytes(bytes))
    }

    /// The limit in bytes on a machine with `total` bytes of memory, rounded down to pages as the kernel
    /// does, but never to none; `None` is no limit.
    #[must_use]
    pub fn resolve(self, total: Bytes) -> Option<Bytes> {
        const PAGE: u64 = 4096;
        match self {
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
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

macro_rules! text_form {
    ($type:ty, $number:path, $percent:path, $infinity:path) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $number(n) => write!(f, "{n}"),
                    $percent(n) => write!(f, "{n}%"),
                    $infinity => f.write_str("infinity"),
                }
            }
        }
        impl TryFrom<String> for $type {
            type Error = InvalidValue;
            fn try_from(text: String) -> Result<Self, InvalidValue> {
                Self::parse(&text)
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}
text_form!(Memory, Memory::Bytes, Memory::Percent, Memory::Infinity);
text_form!(Tasks, Tasks::Count, Tasks::Percent, Tasks::Infinity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_suffixes_are_powers_of_1024() {
        assert_eq!(Memory::parse("8G"), Ok(Memory::Bytes(8 << 30)));
        assert_eq!(Memory::parse("1T"), Ok(Memory::Bytes(1 << 40)));
        assert_eq!(Memory::parse("3K"), Ok(Memory::Bytes(3072)));
        assert_eq!(Memory::parse("75%"), Ok(Memory::Percent(75)));
        assert_eq!(Memory::parse("infinity"), Ok(Memory::Infinity));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let bad = [
            "", "0", "-1", "+1", " 1", "1 ", "0x10", "8GB", "8GG", "8g", "1.5G", "G", "0%", "101%", "%",
            "20E",
        ];
        for text in bad.into_iter().chain(["18446744073709551615T", "99999999999999999999"]) {
            assert!(Memory::parse(text).is_err(), "{text:?}");
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
            assert_eq!(Memory::parse(text).map(String::from).as_deref(), Ok(text));
        }
    }
}
