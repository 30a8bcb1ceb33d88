//! `UID_MIN` of login.defs(5): from which uid on an account is a person's.

use std::io;
use std::path::Path;

use crate::source::{ConfigError, Document, Origin};
use crate::trusted_file::{self, Trust, Untrusted};

/// The first uid of a person where nothing else is said: the default of shadow-utils.
pub const UID_MIN_FALLBACK: u32 = 1000;
/// The administrator's file, and the distribution's where the first is not there (SUSE).
const FILES: [&str; 2] = ["/etc/login.defs", "/usr/etc/login.defs"];
const KEY: &str = "UID_MIN";

/// The first uid of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UidMin {
    /// The uid.
    pub uid: u32,
    /// Where it was written; none: [`UID_MIN_FALLBACK`], because nobody wrote one.
    pub origin: Option<Origin>,
}

impl UidMin {
    /// [`UID_MIN_FALLBACK`].
    pub const FALLBACK: Self = Self { uid: UID_MIN_FALLBACK, origin: None };
}

/// login.defs could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoginDefsError {
    /// Others could have written it, or it cannot be read.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// `UID_MIN` is no uid.
    #[error(transparent)]
    Invalid(#[from] ConfigError),
}

/// `UID_MIN` of this host.
///
/// # Errors
/// [`LoginDefsError`]
pub fn uid_min(trust: Trust) -> Result<UidMin, LoginDefsError> {
    for file in FILES {
        let found = login_defs(Path::new(file), trust)?;
        if found.origin.is_some() {
            return Ok(found);
        }
    }
    Ok(UidMin::FALLBACK)
}

/// `UID_MIN` of one file. A file that is not there, or does not have it, gives [`UidMin::FALLBACK`].
///
/// # Errors
/// [`LoginDefsError`]
pub fn login_defs(path: &Path, trust: Trust) -> Result<UidMin, LoginDefsError> {
    match trusted_file::read(path, trust) {
        Ok(document) => Ok(parse(&document)?),
        Err(Untrusted::Call { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(UidMin::FALLBACK)
        }
        Err(untrusted) => Err(untrusted.into()),
    }
}

/// The last `UID_MIN` counts, as in shadow-utils.
fn parse(document: &Document) -> Result<UidMin, ConfigError> {
    let mut found = UidMin::FALLBACK;
    let mut offset = 0;
    for line in document.text().split_inclusive('\n') {
        let span = offset..offset + line.trim_end().len();
        offset += line.len();
        let line = line.trim();
        let (name, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        if name != KEY {
            continue;
        }
        let value = value.trim_matches([' ', '\t', '"']);
        let uid = number(value).ok_or_else(|| {
            let message = format!("{KEY} is {value:?}, which is not a uid");
            document.error(span.clone(), message, format!("write for example: {KEY} {UID_MIN_FALLBACK}"))
        })?;
        found = UidMin { uid, origin: Some(document.origin(&span)) };
    }
    Ok(found)
}

/// Decimal, octal after `0`, hexadecimal after `0x`: login.defs(5). Neither sign nor spaces.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok().filter(|&uid| uid != u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<UidMin, ConfigError> {
        parse(&Document::new("/etc/login.defs", text))
    }

    #[test]
    fn reads_what_shadow_utils_reads() {
        for (text, uid, line) in [
            ("UID_MIN 500\n", 500, Some(1)),
            ("# comment\n\n  UID_MIN\t\t 1000  \nUID_MAX 60000\n", 1000, Some(3)),
            ("UID_MIN \"2000\"", 2000, Some(1)),
            ("UID_MIN 0x3e8\r\n", 1000, Some(1)),
            ("UID_MIN 01750\n", 1000, Some(1)),
            ("UID_MIN 0\n", 0, Some(1)),
            ("UID_MIN 1\nUID_MIN 2\n", 2, Some(2)),
            ("UID_MIN 4294967294\n", 4_294_967_294, Some(1)),
            ("#UID_MIN 500\nSYS_UID_MIN 100\nUID_MIN_X 5\nuid_min 5\n", 1000, None),
            ("", 1000, None),
        ] {
            let found = parsed(text).expect(text);
            assert_eq!((found.uid, found.origin.map(|origin| origin.line)), (uid, line), "{text:?}");
        }
    }

    #[test]
    fn garbage_is_an_error_with_its_line() {
        for value in [
            "",
            "many",
            "-1",
            "+1",
            "1.5",
            "1000 # first",
            "4294967295",
            "4294967296",
            "0x",
            "08",
            "1000\u{a0}x",
        ] {
            let error = parsed(&format!("# x\nUID_MIN {value}\n")).expect_err(value);
            assert_eq!(
                error.to_string(),
                format!("/etc/login.defs:2: UID_MIN is {value:?}, which is not a uid"),
            );
        }
    }

    #[test]
    fn this_host_has_one() {
        let found = uid_min(Trust::RootOnly).expect("login.defs");
        assert!(found.uid >= 100, "{found:?}");
    }

    #[test]
    fn a_file_that_is_not_there_gives_the_fallback() {
        let found = login_defs(Path::new("/etc/no-such-login.defs"), Trust::RootOnly).expect("fallback");
        assert_eq!(found, UidMin::FALLBACK);
    }

    proptest! {
        #[test]
        fn any_uid_is_read_back(uid in 0..u32::MAX, before in "[ \t]{0,3}", between in "[ \t]{1,3}", after in "[ \t]{0,3}") {
            let found = parsed(&format!("A b\n{before}UID_MIN{between}{uid}{after}\n#\n")).expect("a uid");
            prop_assert_eq!((found.uid, found.origin.map(|origin| origin.line)), (uid, Some(2)));
        }

        #[test]
        fn never_panics(text in "(UID_MIN|[ \t\n#x0-9\"])*|\\PC*") {
            if let Ok(found) = parsed(&text) {
                prop_assert!(found.uid != u32::MAX);
            }
        }
    }
}
