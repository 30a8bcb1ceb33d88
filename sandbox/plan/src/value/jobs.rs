//! How many jobs run at the same time, and how long one above that waits: keys of `[sandbox.user]`, in systemd's forms.

use super::{InvalidValue, number};
use crate::Max;
use crate::rlimit::time;

const JOBS: &str = "a number of jobs (`4`, at least `1`, or `infinity`)";
const WAIT: &str = "a time (`90s`, `10min`, `1h 30min`, `infinity`; a number alone is seconds)";

impl Max {
    /// Parses `4`, `infinity`: a number of jobs.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else and for zero: that would be no job at all.
    pub fn parse_jobs(text: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue { text: text.to_owned(), expected: JOBS };
        match text {
            "infinity" => Ok(Self::Infinity),
            digits => number(digits).filter(|n| *n > 0).map(Self::Value).ok_or_else(bad),
        }
    }

    /// Parses `90s`, `1h 30min`, `infinity`, systemd.time(7): milliseconds; `0` is no time at all.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything else.
    pub fn parse_wait(text: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue { text: text.to_owned(), expected: WAIT };
        match text {
            "infinity" => Ok(Self::Infinity),
            text => time(text, 1_000_000).map(|micros| Self::Value(micros.div_ceil(1000))).ok_or_else(bad),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written() {
        assert_eq!(Max::parse_jobs("1"), Ok(Max::Value(1)));
        assert_eq!(Max::parse_jobs("infinity"), Ok(Max::Infinity));
        let waits = [("0", 0), ("90", 90_000), ("1h 30min", 5_400_000), ("250ms", 250), ("1us", 1)];
        for (text, milliseconds) in waits {
            assert_eq!(Max::parse_wait(text), Ok(Max::Value(milliseconds)), "{text}");
        }
        assert_eq!(Max::parse_wait("infinity"), Ok(Max::Infinity));
    }

    #[test]
    fn what_is_none() {
        let never = ["", " ", "-1", "+1", "0x10", "1.5", "max", "Infinity", "99999999999999999999", "many"];
        for text in never.into_iter().chain(["0", "2 jobs", "4K", "50%", " 1", "1s"]) {
            assert!(Max::parse_jobs(text).is_err(), "{text:?}");
        }
        for text in never.into_iter().chain(["1 hour", "1x", "50%", "min", "99999999999999d"]) {
            assert!(Max::parse_wait(text).is_err(), "{text:?}");
        }
    }
}
