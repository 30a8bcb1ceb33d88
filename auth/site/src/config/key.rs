//! What a key of the configuration is: its type, its default, and whether it is built.

use std::fmt;

/// One key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The table in which it stands, without brackets.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// What holds if it is not set.
    pub default: Fallback,
    /// Whether a value other than the default is possible.
    pub status: Status,
    /// What it does, in one line.
    pub meaning: &'static str,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// One line of text.
    Text,
    /// Text of several lines, escape sequences allowed.
    Prose,
    /// A list of texts of one line.
    List,
    /// A whole number, not negative.
    Number,
    /// A duration as Go writes it, in quotes.
    Duration,
    /// One of these words.
    Word(&'static [Word]),
}

/// A word that a [`Kind::Word`] can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// The word.
    pub text: &'static str,
    /// Whether it is possible already.
    pub status: Status,
}

/// What holds if a key is not set. An empty text or list is the same as a key that is not set, as in Jacamar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// It must be set; the example stands in the error.
    Required(&'static str),
    /// `false`.
    Off,
    /// `true`.
    On,
    /// Nothing is configured; the words say what that means.
    Nothing(&'static str),
    /// This text.
    Text(&'static str),
    /// This number.
    Number(u32),
    /// This duration, in Go's form.
    Duration(&'static str),
}

/// Whether a key or a word does what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Built,
    /// It is refused; the words name what is missing.
    NotYet(&'static str),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => f.write_str("`true` or `false`"),
            Self::Text => f.write_str("a text in quotes"),
            Self::Prose => f.write_str("a text in quotes, of several lines if you like"),
            Self::List => f.write_str("a list of texts in quotes"),
            Self::Number => f.write_str("a whole number"),
            Self::Duration => f.write_str("a duration in quotes"),
            Self::Word(words) => {
                let (built, later): (Vec<&Word>, Vec<&Word>) =
                    words.iter().partition(|word| word.status == Status::Built);
                let list =
                    |words: &[&Word]| words.iter().map(|word| format!("{:?}", word.text)).collect::<Vec<_>>();
                match list(&built).as_slice() {
                    [first @ .., last] if !first.is_empty() => write!(f, "{} or {last}", first.join(", "))?,
                    texts => f.write_str(&texts.concat())?,
                }
                if later.is_empty() {
                    return Ok(());
                }
                write!(f, " (not built yet: {})", list(&later).join(", "))
            }
        }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Required(_) => f.write_str("must be set"),
            Self::Off => f.write_str("`false`"),
            Self::On => f.write_str("`true`"),
            Self::Nothing(words) => f.write_str(words),
            Self::Text(text) | Self::Duration(text) => write!(f, "`{text:?}`"),
            Self::Number(number) => write!(f, "`{number}`"),
        }
    }
}
