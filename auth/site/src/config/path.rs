//! Paths that a configuration names: text, checked for its shape. Whether something is there is not asked.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Invalid;

/// Longest accepted path, in bytes: PATH_MAX without its NUL (limits.h).
const PATH_MAX_BYTES: usize = 4095;
/// Jacamar's directory below a home directory.
const BELOW_HOME: &str = ".jacamar-ci";

/// An absolute path without `.`, `..`, empty parts or control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AbsolutePath(String);

impl AbsolutePath {
    /// Accepts a path; `//` and a `/` at the end are taken away.
    ///
    /// # Errors
    /// Not absolute, too long, with `.` or `..` as a part, or with control characters.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let Some(below) = text.strip_prefix('/') else {
            return Err(Invalid::new(format!("{text:?} is not an absolute path"), "begin it with a slash"));
        };
        Ok(Self(format!("/{}", parts(text, below)?)))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The parts of `below`, joined by single slashes; `whole` stands in the errors.
fn parts(whole: &str, below: &str) -> Result<String, Invalid> {
    if whole.len() > PATH_MAX_BYTES {
        let message = format!("a path of {} bytes is longer than {PATH_MAX_BYTES}", whole.len());
        return Err(Invalid::new(message, ""));
    }
    if whole.chars().any(char::is_control) {
        return Err(Invalid::new(format!("{whole:?} has control characters"), ""));
    }
    let parts: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(Invalid::new(format!("{whole:?} has `.` or `..` in it"), "write the path without them"));
    }
    Ok(parts.join("/"))
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for AbsolutePath {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(&text)
    }
}

impl From<AbsolutePath> for String {
    fn from(path: AbsolutePath) -> Self {
        path.0
    }
}

/// `[general] data_dir`: below which directory jobs keep their files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DataDir {
    /// `$HOME` or `$HOME/below`: below the CI user's home; `below` is empty or has no slash at its ends.
    Home {
        /// What follows `$HOME/`.
        below: String,
    },
    /// A directory that all users share; each gets one of its own in it.
    Shared(AbsolutePath),
}

impl DataDir {
    /// Accepts an absolute path, `$HOME` or `$HOME/...`.
    ///
    /// # Errors
    /// Everything else, with what to write.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let wrong =
            |hint| Invalid::new(format!("{text:?} is neither an absolute path nor below `$HOME`"), hint);
        match text.strip_prefix("$HOME") {
            Some(below) if below.is_empty() || below.starts_with('/') => {
                let below = parts(text, below)?;
                if below.contains('$') {
                    return Err(wrong("only `$HOME` at the beginning is replaced"));
                }
                Ok(Self::Home { below })
            }
            Some(_) => Err(wrong("put a slash after `$HOME`")),
            None if text.starts_with(['~', '$']) => Err(wrong("for the CI user's home write `$HOME`")),
            None if text.starts_with('/') && text.contains('$') => {
                Err(wrong("only `$HOME` at the beginning is replaced; the account's name is added anyway"))
            }
            None if text.starts_with('/') => AbsolutePath::new(text).map(Self::Shared),
            None => Err(wrong("write for example `data_dir = \"$HOME\"` or `data_dir = \"/ecp\"`")),
        }
    }

    /// The directory of one account: `<home>[/below]/.jacamar-ci` or `<shared>/<account>`.
    #[must_use]
    pub fn of(&self, account: &str, home: &str) -> String {
        let home = home.trim_end_matches('/');
        match self {
            Self::Home { below } if below.is_empty() => format!("{home}/{BELOW_HOME}"),
            Self::Home { below } => format!("{home}/{below}/{BELOW_HOME}"),
            Self::Shared(path) => format!("{}/{account}", path.as_str().trim_end_matches('/')),
        }
    }
}

impl fmt::Display for DataDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home { below } if below.is_empty() => f.write_str("$HOME"),
            Self::Home { below } => write!(f, "$HOME/{below}"),
            Self::Shared(path) => path.fmt(f),
        }
    }
}

impl TryFrom<String> for DataDir {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(&text)
    }
}

impl From<DataDir> for String {
    fn from(data_dir: DataDir) -> Self {
        data_dir.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn absolute_paths_are_made_plain() {
        for (text, plain) in
            [("/", "/"), ("/a", "/a"), ("//a///b/", "/a/b"), ("/a b/é", "/a b/é"), ("/...", "/...")]
        {
            assert_eq!(AbsolutePath::new(text).expect(text).as_str(), plain);
        }
    }

    #[test]
    fn other_paths_are_refused_with_words() {
        for (text, message) in [
            ("", "\"\" is not an absolute path"),
            ("a/b", "\"a/b\" is not an absolute path"),
            ("/a/../b", "\"/a/../b\" has `.` or `..` in it"),
            ("/a/.", "\"/a/.\" has `.` or `..` in it"),
            ("/a\n", "\"/a\\n\" has control characters"),
            ("/a\0", "\"/a\\0\" has control characters"),
        ] {
            assert_eq!(AbsolutePath::new(text).expect_err(text).message, message);
        }
        let long = format!("/{}", "a".repeat(4095));
        assert_eq!(
            AbsolutePath::new(&long).expect_err("long").message,
            "a path of 4096 bytes is longer than 4095"
        );
    }

    #[test]
    fn data_dir_is_home_or_shared() {
        for (text, of_alice) in [
            ("$HOME", "/home/alice/.jacamar-ci"),
            ("$HOME/", "/home/alice/.jacamar-ci"),
            ("$HOME//ci/x/", "/home/alice/ci/x/.jacamar-ci"),
            ("/ecp", "/ecp/alice"),
            ("/", "/alice"),
        ] {
            assert_eq!(DataDir::new(text).expect(text).of("alice", "/home/alice/"), of_alice, "{text}");
        }
    }

    #[test]
    fn other_data_dirs_are_refused_with_what_to_write() {
        let neither = "is neither an absolute path nor below `$HOME`";
        for (text, hint) in [
            ("", "write for example `data_dir = \"$HOME\"` or `data_dir = \"/ecp\"`"),
            ("work", "write for example `data_dir = \"$HOME\"` or `data_dir = \"/ecp\"`"),
            ("./work", "write for example `data_dir = \"$HOME\"` or `data_dir = \"/ecp\"`"),
            ("$HOMEx", "put a slash after `$HOME`"),
            ("~/ci", "for the CI user's home write `$HOME`"),
            ("${HOME}", "for the CI user's home write `$HOME`"),
            ("$SCRATCH", "for the CI user's home write `$HOME`"),
            ("$HOME/$USER", "only `$HOME` at the beginning is replaced"),
            ("/s/$USER", "only `$HOME` at the beginning is replaced; the account's name is added anyway"),
        ] {
            let error = DataDir::new(text).expect_err(text);
            assert_eq!((error.message, error.hint), (format!("{text:?} {neither}"), hint.to_owned()));
        }
        assert_eq!(
            DataDir::new("$HOME/../x").expect_err("..").message,
            "\"$HOME/../x\" has `.` or `..` in it"
        );
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_absolute_and_stays_so(text in "[/.a$\\PC]{0,20}|\\PC*") {
            if let Ok(path) = AbsolutePath::new(&text) {
                prop_assert!(path.as_str().starts_with('/'));
                prop_assert!(path.as_str().split('/').all(|part| part != ".." && part != "."));
                prop_assert_eq!(AbsolutePath::new(path.as_str()), Ok(path));
            }
        }

        #[test]
        fn a_data_dir_lies_below_home_or_is_absolute(text in "(\\$HOME)?[/.a$]{0,12}|\\PC*") {
            if let Ok(found) = DataDir::new(&text) {
                let of = found.of("alice", "/home/alice");
                prop_assert!(of.split('/').all(|part| part != ".."), "{}", of);
                prop_assert!(of.starts_with("/home/alice/") || of.ends_with("/alice"), "{}", of);
                prop_assert_eq!(DataDir::new(&found.to_string()), Ok(found));
            }
        }
    }
}
