//! Resource limits of processes: systemd's `Limit*` keys and units in, setrlimit(2)'s numbers out.
//!
//! Sources: systemd.exec(5), "Process properties"; getrlimit(2).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::value::{number, scaled};
use crate::{InvalidValue, Max, Origin};

/// A resource of getrlimit(2), named as in the key `Limit...=` of systemd.exec(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Resource {
    /// Processor time of one process, in seconds.
    CPU,
    /// Size of a file, in bytes.
    FSIZE,
    /// Data segment, in bytes.
    DATA,
    /// Stack, in bytes.
    STACK,
    /// Core file, in bytes.
    CORE,
    /// Resident set, in bytes; without effect on Linux.
    RSS,
    /// Open files of one process.
    NOFILE,
    /// Address space, in bytes.
    AS,
    /// Processes and threads of the user on the whole host.
    NPROC,
    /// Locked memory, in bytes.
    MEMLOCK,
    /// File locks; without effect on Linux.
    LOCKS,
    /// Queued signals of the user.
    SIGPENDING,
    /// Bytes in POSIX message queues of the user.
    MSGQUEUE,
    /// The least nice value, as 20 minus it.
    NICE,
    /// Realtime priority.
    RTPRIO,
    /// Realtime processor time without a blocking call, in microseconds.
    RTTIME,
}

/// How the value of a resource is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    Count,
    Seconds,
    Micros,
    Nice,
}

impl Resource {
    /// Every resource.
    pub const ALL: [Self; 16] = [
        Self::CPU,
        Self::FSIZE,
        Self::DATA,
        Self::STACK,
        Self::CORE,
        Self::RSS,
        Self::NOFILE,
        Self::AS,
        Self::NPROC,
        Self::MEMLOCK,
        Self::LOCKS,
        Self::SIGPENDING,
        Self::MSGQUEUE,
        Self::NICE,
        Self::RTPRIO,
        Self::RTTIME,
    ];

    const fn unit(self) -> Unit {
        match self {
            Self::CPU => Unit::Seconds,
            Self::RTTIME => Unit::Micros,
            Self::NICE => Unit::Nice,
            Self::FSIZE
            | Self::DATA
            | Self::STACK
            | Self::CORE
            | Self::RSS
            | Self::AS
            | Self::MEMLOCK
            | Self::MSGQUEUE => Unit::Bytes,
            Self::NOFILE | Self::NPROC | Self::LOCKS | Self::SIGPENDING | Self::RTPRIO => Unit::Count,
        }
    }

    /// The constant of getrlimit(2).
    #[must_use]
    pub fn constant(self) -> String {
        format!("RLIMIT_{self:?}")
    }

    /// What a value looks like, for a message.
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self.unit() {
            Unit::Bytes => {
                "bytes (`64M`, `8M:infinity` for soft and hard, `infinity`; K to E are powers of 1024)"
            }
            Unit::Count => "a number (`1024`, `1024:524288` for soft and hard, `infinity`)",
            Unit::Seconds => {
                "a time (`600`, `10min`, `1h:2h` for soft and hard, `infinity`; a number alone is seconds)"
            }
            Unit::Micros => {
                "a time (`50ms`, `1s:2s` for soft and hard, `infinity`; a number alone is microseconds)"
            }
            Unit::Nice => "a nice value (`+5`, `-5`) or the kernel's number for it (`0` to `40`)",
        }
    }
}

/// The key of systemd.exec(5).
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limit{self:?}")
    }
}

/// A soft and a hard limit, as a profile asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// The one that holds; the job may change it up to the hard one.
    pub soft: Max,
    /// The greatest soft one; none: what was inherited, and the soft one no more than that.
    pub hard: Option<Max>,
}

impl Rlimit {
    /// Parses `1024`, `1024:524288`, `infinity`, in the units of the resource.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else, and for a soft limit above the hard one.
    pub fn parse(resource: Resource, text: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue { text: text.to_owned(), expected: resource.example() };
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        let soft = value(resource.unit(), soft).ok_or_else(bad)?;
        let hard = value(resource.unit(), hard).ok_or_else(bad)?;
        if soft > hard {
            let expected = "a pair of limits: the soft one comes first and is not above the hard one";
            return Err(InvalidValue { text: text.to_owned(), expected });
        }
        Ok(Self { soft, hard: Some(hard) })
    }
}

fn value(unit: Unit, text: &str) -> Option<Max> {
    if text == "infinity" {
        return Some(Max::Infinity);
    }
    let number = match unit {
        Unit::Count => number(text),
        Unit::Bytes => match text.strip_suffix(['P', 'E']) {
            Some(digits) => number(digits)?.checked_mul(1 << if text.ends_with('P') { 50 } else { 60 }),
            None => scaled(text, 1024),
        },
        // The kernel counts whole seconds, systemd.exec(5) rounds up.
        Unit::Seconds => time(text, 1_000_000).map(|micros| micros.div_ceil(1_000_000)),
        Unit::Micros => time(text, 1),
        Unit::Nice => nice(text),
    }?;
    // The greatest number is the kernel's infinity.
    (number < u64::MAX).then_some(Max::Value(number))
}

/// `+5` is the nice value 5, of which the kernel makes 20 - 5; a number alone is the kernel's.
fn nice(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix('+') {
        return number(digits).filter(|n| *n <= 19).map(|n| 20 - n);
    }
    if let Some(digits) = text.strip_prefix('-') {
        return number(digits).filter(|n| *n <= 20).map(|n| 20 + n);
    }
    number(text).filter(|n| *n <= 40)
}

/// `90`, `10min`, `1h 30min`: microseconds; a number alone counts in `bare` of them. systemd.time(7).
pub(crate) fn time(text: &str, bare: u64) -> Option<u64> {
    let units = [
        ("us", 1),
        ("ms", 1000),
        ("min", 60_000_000),
        ("sec", 1_000_000),
        ("s", 1_000_000),
        ("m", 60_000_000),
        ("h", 3_600_000_000),
        ("d", 86_400_000_000),
        ("", bare),
    ];
    let mut sum = 0_u64;
    let mut parts = text.split_whitespace().peekable();
    parts.peek()?;
    for part in parts {
        let (digits, factor) =
            units.into_iter().find_map(|(unit, factor)| Some((part.strip_suffix(unit)?, factor)))?;
        sum = sum.checked_add(number(digits)?.checked_mul(factor)?)?;
    }
    Some(sum)
}

/// Limits that a process gets, and where they are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedRlimit {
    /// Of what.
    pub resource: Resource,
    /// Soft.
    pub soft: Max,
    /// Hard.
    pub hard: Max,
    /// Whether the supervisor must raise the hard limit: more than was inherited.
    pub raise: bool,
    /// File and line; none: the runner's own, which our start lost.
    pub origin: Option<Origin>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(resource: Resource, text: &str) -> Option<(Max, Max)> {
        Rlimit::parse(resource, text).ok().map(|limit| (limit.soft, limit.hard.expect("a file has both")))
    }

    fn both(value: u64) -> Option<(Max, Max)> {
        Some((Max::Value(value), Max::Value(value)))
    }

    #[test]
    fn units_are_those_of_the_resource() {
        assert_eq!(read(Resource::NOFILE, "1024"), both(1024));
        assert_eq!(read(Resource::NOFILE, "1024:524288"), Some((Max::Value(1024), Max::Value(524_288))));
        assert_eq!(read(Resource::LOCKS, "infinity"), Some((Max::Infinity, Max::Infinity)));
        assert_eq!(read(Resource::STACK, "8M:infinity"), Some((Max::Value(8 << 20), Max::Infinity)));
        assert_eq!(read(Resource::MEMLOCK, "1P"), both(1 << 50));
        assert_eq!(read(Resource::CPU, "600"), both(600));
        assert_eq!(read(Resource::CPU, "1h 30min"), both(5400));
        assert_eq!(read(Resource::CPU, "1500ms"), both(2), "rounded up");
        assert_eq!(read(Resource::RTTIME, "50"), both(50));
        assert_eq!(read(Resource::RTTIME, "50ms"), both(50_000));
        assert_eq!(read(Resource::NICE, "+5"), both(15));
        assert_eq!(read(Resource::NICE, "-5"), both(25));
        assert_eq!(read(Resource::NICE, "30"), both(30));
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        let everywhere =
            ["", ":", "1:", ":1", "-1", " 1", "1 :2", "2:1", "infinity:5", "1:2:3", "unlimited", "0x1"];
        for resource in Resource::ALL {
            for text in everywhere {
                // A time may have blanks, and a nice value a sign.
                if (resource == Resource::NICE && text == "-1")
                    || (text.contains(' ') && matches!(resource.unit(), Unit::Seconds | Unit::Micros))
                {
                    continue;
                }
                assert!(Rlimit::parse(resource, text).is_err(), "{resource}={text:?}");
            }
        }
        for (resource, text) in [
            (Resource::NOFILE, "1K"),
            (Resource::FSIZE, "8MB"),
            (Resource::FSIZE, "18446744073709551615"),
            (Resource::NICE, "+20"),
            (Resource::NICE, "41"),
            (Resource::CPU, "1w"),
        ] {
            assert!(Rlimit::parse(resource, text).is_err(), "{resource}={text:?}");
        }
    }
}
