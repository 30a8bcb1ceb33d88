//! What a text may be before anyone believes it: a maximum in bytes and a set of characters.

use std::fmt;

/// The characters that a text may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// Any character that a terminal shows as itself (see [`is_shown`]), the blank included.
    Shown,
    /// As [`Charset::Shown`], without white space: references, addresses of people.
    Graphic,
    /// ASCII from `!` to `~`: URLs, audiences.
    Ascii,
    /// `A-Z a-z 0-9 _ -`: GitLab's fixed words (`merge_request_event`, `self-hosted`).
    Word,
    /// A GitLab login: `A-Z a-z 0-9 _ . -`, not first `-`, not last `.`
    /// (GitLab's `lib/gitlab/path_regex.rb`, `NAMESPACE_FORMAT_REGEX`).
    Login,
    /// A GitLab path: one or more names of `A-Z a-z 0-9 _ . -` with `/` between; no name is empty, `.`, `..`
    /// or begins with `-` (the same file, `PROJECT_PATH_FORMAT_REGEX`; the two dots are our own).
    GitlabPath,
    /// `0-9 a-f`.
    Hex,
    /// The name of a shell variable: `A-Z a-z 0-9 _`, not first a digit.
    VariableName,
    /// An absolute path of a file system: begins with `/`, no component is `.` or `..`, shown characters only.
    AbsolutePath,
    /// Anything but NUL, which no environment and no path can hold.
    NoNul,
}

/// A text that its field does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidText {
    /// Name of the field.
    pub field: &'static str,
    /// What is wrong with it. Never the text itself: it may be a secret, and it is a stranger's.
    pub problem: TextProblem,
}

/// What is wrong with a text or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextProblem {
    /// Nothing is there.
    #[error("is empty")]
    Empty,
    /// More bytes than the field's maximum.
    #[error("has {bytes} bytes, at most {max_bytes} are taken")]
    TooLong {
        /// Bytes found.
        bytes: usize,
        /// Bytes allowed.
        max_bytes: usize,
    },
    /// A character outside of the field's set.
    #[error("is not {0}")]
    Characters(Charset),
    /// Zero, where GitLab counts from one.
    #[error("is 0")]
    Zero,
    /// Outside of the field's range.
    #[error("is {found}, at most {max} is taken")]
    TooLarge {
        /// Value found.
        found: u64,
        /// Largest value allowed.
        max: u64,
    },
    /// Not in the form that GitLab or a site uses.
    #[error("is not {0}")]
    Form(&'static str),
}

/// Accepts `text` for `field`, or says why not.
///
/// # Errors
/// [`InvalidText`] for an empty text, for more than `max_bytes` bytes (UTF-8) and for other characters.
pub fn check(field: &'static str, text: &str, max_bytes: usize, charset: Charset) -> Result<(), InvalidText> {
    let problem = if text.is_empty() {
        TextProblem::Empty
    } else if text.len() > max_bytes {
        TextProblem::TooLong { bytes: text.len(), max_bytes }
    } else if !charset.holds(text) {
        TextProblem::Characters(charset)
    } else {
        return Ok(());
    };
    Err(InvalidText { field, problem })
}

/// As [`check`] for a text that may be absent.
///
/// # Errors
/// As [`check`]; an empty text is not an absent one.
pub fn check_optional(
    field: &'static str,
    text: Option<&str>,
    max_bytes: usize,
    charset: Charset,
) -> Result<(), InvalidText> {
    text.map_or(Ok(()), |text| check(field, text, max_bytes, charset))
}

/// Whether a terminal shows this character as itself and in its place: no control character (escape sequences),
/// no line or paragraph separator, no mark that turns the direction of writing (CVE-2021-42574).
#[must_use]
pub fn is_shown(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

impl Charset {
    /// Whether all of `text` is in the set. The empty text is.
    #[must_use]
    pub fn holds(self, text: &str) -> bool {
        let name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        match self {
            Self::Shown => text.chars().all(is_shown),
            Self::Graphic => text.chars().all(|c| is_shown(c) && !c.is_whitespace()),
            Self::Ascii => text.bytes().all(|b| b.is_ascii_graphic()),
            Self::Word => text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')),
            Self::Login => text.bytes().all(name_byte) && !text.starts_with('-') && !text.ends_with('.'),
            Self::GitlabPath => text.split('/').all(|name| {
                !matches!(name, "" | "." | "..") && !name.starts_with('-') && name.bytes().all(name_byte)
            }),
            Self::Hex => text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
            Self::VariableName => {
                !text.starts_with(|c: char| c.is_ascii_digit())
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            }
            Self::AbsolutePath => {
                text.starts_with('/')
                    && text.chars().all(is_shown)
                    && text.split('/').all(|component| !matches!(component, "." | ".."))
            }
            Self::NoNul => !text.contains('\0'),
        }
    }
}

impl fmt::Display for Charset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shown => "free of control characters",
            Self::Graphic => "free of blanks and control characters",
            Self::Ascii => "printable ASCII without blanks",
            Self::Word => "a word of letters, digits, `_` and `-`",
            Self::Login => "a GitLab login (letters, digits, `_`, `.`, `-`)",
            Self::GitlabPath => "a GitLab path (names of letters, digits, `_`, `.`, `-`, with `/` between)",
            Self::Hex => "lower-case hexadecimal",
            Self::VariableName => "the name of a variable (letters, digits, `_`)",
            Self::AbsolutePath => "an absolute path without `.`, `..` and control characters",
            Self::NoNul => "free of NUL",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_charset_takes_and_refuses() {
        use Charset as C;
        let table: &[(Charset, &[&str], &[&str])] = &[
            (
                C::Shown,
                &["a b", "grün", "日本"],
                &["a\nb", "\x1b[31m", "\u{7f}", "\u{9b}", "\u{202e}", "\u{2028}"],
            ),
            (C::Graphic, &["refs/heads/grün", "a@b"], &["a b", "a\u{a0}b", "a\tb"]),
            (C::Ascii, &["https://gitlab.example.com:8443/x?y"], &["a b", "grün", "a\n"]),
            (C::Word, &["self-hosted", "merge_request_event"], &["a.b", "a b", "é"]),
            (C::Login, &["alice", "A.b-c_d", "_x", ".x"], &["-x", "x.", "..", "a/b", "a b", "a$", "é"]),
            (
                C::GitlabPath,
                &["g/p", "g/sub/p.x", "_a/.b"],
                &["/g", "g/", "g//p", "g/../p", "./p", "g/-p", "g/p q", "g/p;"],
            ),
            (C::Hex, &["0af9"], &["0AF9", "g", " "]),
            (C::VariableName, &["_A1", "SITE_ID_TOKEN"], &["1A", "A-B", "A B", "Ä"]),
            (C::AbsolutePath, &["/", "/a/b c", "/a/.b"], &["a", "/a/../b", "/a/.", "/a\n"]),
            (C::NoNul, &["a\nb\x1b"], &["a\0"]),
        ];
        for (charset, good, bad) in table {
            for text in *good {
                assert!(charset.holds(text), "{charset:?} takes {text:?}");
            }
            for text in *bad {
                assert!(!charset.holds(text), "{charset:?} refuses {text:?}");
            }
        }
    }

    #[test]
    fn the_error_names_field_and_problem_and_not_the_text() {
        let said = |text: &str| check("user_login", text, 5, Charset::Login).expect_err(text).to_string();
        assert_eq!(said(""), "user_login is empty");
        assert_eq!(said("secret"), "user_login has 6 bytes, at most 5 are taken");
        assert_eq!(said("a/b"), "user_login is not a GitLab login (letters, digits, `_`, `.`, `-`)");
        assert_eq!(check("user_login", "alice", 5, Charset::Login), Ok(()));
        assert_eq!(check_optional("user_login", None, 5, Charset::Login), Ok(()));
        assert!(check_optional("user_login", Some(""), 5, Charset::Login).is_err());
    }
}
