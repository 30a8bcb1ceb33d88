//! Durations as Go's `time.ParseDuration` writes them: `"120s"`, `"1h30m"`, `"1.5h"`, `"500ms"`.
//!
//! Jacamar reads them with that function (<https://pkg.go.dev/time#ParseDuration>), so the same texts are
//! accepted here, a negative one and one above the key's maximum excepted.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Invalid;

/// A span of time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// So many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds as u64 * 1000)
    }

    /// For functions of the standard library.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Millis {
    /// In the largest unit that gives a whole number: `120000` is `2m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
        match units.iter().find(|(length, _)| self.0 > 0 && self.0.is_multiple_of(*length)) {
            Some((length, unit)) => write!(f, "{}{unit}", self.0 / length),
            None => write!(f, "{}ms", self.0),
        }
    }
}

/// Units of Go and their length in nanoseconds. Both letters for micro are Go's.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1000),
    ("\u{b5}s", 1000),
    ("\u{3bc}s", 1000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration; a rest below one millisecond counts as one millisecond.
///
/// # Errors
/// Not Go's form, negative, or more than `max`.
pub fn parse(text: &str, max: Millis) -> Result<Millis, Invalid> {
    let shape = || {
        let form = "a duration is a number with a unit, such as \"120s\", \"2m\", \"1h30m\" or \"500ms\"";
        Invalid::new(format!("{text:?} is not a duration"), form)
    };
    let above = || Invalid::new(format!("{text:?} is more than {max}"), "");
    let unsigned = match text.strip_prefix('-') {
        Some(_) => return Err(Invalid::new(format!("{text:?} is negative"), "")),
        None => text.strip_prefix('+').unwrap_or(text),
    };
    if unsigned == "0" {
        return Ok(Millis(0)); // the one number that needs no unit
    }
    if unsigned.is_empty() {
        return Err(shape());
    }
    let mut rest = unsigned;
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let (part, after) = leading_part(rest).ok_or_else(shape)?;
        nanoseconds = part.and_then(|part| nanoseconds.checked_add(part)).ok_or_else(above)?;
        rest = after;
    }
    let milliseconds = nanoseconds.div_ceil(1_000_000);
    match u64::try_from(milliseconds) {
        Ok(milliseconds) if milliseconds <= max.0 => Ok(Millis(milliseconds)),
        Ok(_) | Err(_) => Err(above()),
    }
}

/// One number with its unit in nanoseconds (`None` if too large for the type) and the text after it;
/// nothing if the text does not begin with one.
fn leading_part(text: &str) -> Option<(Option<u128>, &str)> {
    let (whole, after) = digits(text);
    let (fraction, after) = match after.strip_prefix('.') {
        Some(after_point) => digits(after_point),
        None => ("", after),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
    let (name, rest) = after.split_at(end);
    let unit = u128::from(UNITS.iter().find(|(unit, _)| *unit == name)?.1);
    Some((part_nanoseconds(whole, fraction, unit), rest))
}

fn part_nanoseconds(whole: &str, fraction: &str, unit: u128) -> Option<u128> {
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    // No unit has more than 3.6e12 nanoseconds: later digits are below one.
    let fraction: String = fraction.chars().take(18).collect();
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()? };
    (u128::from(whole) * unit).checked_add(u128::from(fraction) * unit / scale)
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Millis = Millis::from_secs(3600);
    const FOREVER: Millis = Millis(u64::MAX);

    #[test]
    fn reads_what_go_reads() {
        for (text, milliseconds) in [
            ("0", 0),
            ("+0", 0),
            ("0s", 0),
            ("120s", 120_000),
            ("+5s", 5000),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            (".5s", 500),
            ("1.s", 1000),
            ("1s1s", 2000),
            ("1m0.25s", 60_250),
            ("1ns", 1),
            ("1000us", 1),
            ("1001\u{b5}s", 2),
            ("2000\u{3bc}s", 2),
            ("1.0000000000000000000000001s", 1000),
        ] {
            assert_eq!(parse(text, FOREVER), Ok(Millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_with_words() {
        let form = "is not a duration";
        for (text, cause) in [
            ("", form),
            ("+", form),
            ("120", form),
            ("1h30", form),
            ("s", form),
            (".s", form),
            (".", form),
            ("1 s", form),
            (" 1s", form),
            ("1d", form),
            ("1S", form),
            ("1s ", form),
            ("0x1s", form),
            ("--1s", "is negative"),
            ("-1s", "is negative"),
            ("61m", "is more than 1h"),
            ("1h1ns", "is more than 1h"),
            ("99999999999999999999h", "is more than 1h"),
            ("9223372036854775807h9223372036854775807h", "is more than 1h"),
        ] {
            let error = parse(text, HOUR).expect_err(text);
            assert_eq!(error.message, format!("{text:?} {cause}"), "{text}");
        }
    }

    #[test]
    fn shows_itself_in_the_largest_whole_unit() {
        for (milliseconds, text) in
            [(0, "0ms"), (500, "500ms"), (90_000, "90s"), (120_000, "2m"), (3_600_000, "1h")]
        {
            assert_eq!(Millis(milliseconds).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-+0-9.hmsnu\u{b5} ]{0,24}|\\PC*") {
            if let Ok(found) = parse(&text, HOUR) {
                prop_assert!(found <= HOUR);
            }
        }

        #[test]
        fn reads_its_own_display(milliseconds in 0_u64..=u64::MAX / 4_000_000) {
            prop_assert_eq!(parse(&Millis(milliseconds).to_string(), FOREVER), Ok(Millis(milliseconds)));
        }

        #[test]
        fn parts_add_up(h in 0_u64..1000, m in 0_u64..1000, s in 0_u64..1000, ms in 0_u64..1000) {
            let expected = ((h * 60 + m) * 60 + s) * 1000 + ms;
            prop_assert_eq!(parse(&format!("{h}h{m}m{s}.{ms:03}s"), FOREVER), Ok(Millis(expected)));
        }
    }
}
