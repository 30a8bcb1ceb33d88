//! Fixed lists of rules: a number in a frame, a word in the audit line, the default cause in the job log.

/// Defines an enum whose list, numbers, words and causes cannot drift apart.
macro_rules! fixed_rules {
    ($(#[$meta:meta])* $name:ident in $kind:ident { $($(#[$doc:meta])* $variant:ident = $number:literal $word:literal $cause:literal)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum $name {
            $($(#[$doc])* $variant = $number,)*
        }

        impl $name {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word of the audit line.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// The cause in the job log, where nothing more is known.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self {
                    $(Self::$variant => $cause,)*
                }
            }

        }

        impl crate::rule::Rule for $name {
            const KIND: crate::frame::Kind = crate::frame::Kind::$kind;

            fn cause(self) -> &'static str {
                self.cause()
            }

            fn number(self) -> u16 {
                self as u16
            }

            fn from_number(number: u16) -> Option<Self> {
                Self::ALL.iter().find(|rule| **rule as u16 == number).copied()
            }
        }
    };
}
pub(crate) use fixed_rules;

use crate::frame::{FrameError, Kind, Payload, Reader, Writer};
use crate::text::{Charset, check};

/// Bytes of the object and of the cause in a [`Reasoned`].
pub const REASON_MAX_BYTES: usize = 1024;

/// The rules of one kind of frame.
pub trait Rule: Copy + std::fmt::Debug {
    /// The frame that carries them.
    const KIND: Kind;

    /// The cause in the job log, where nothing more is known.
    fn cause(self) -> &'static str;

    /// As it travels.
    fn number(self) -> u16;

    /// The rule with this number.
    fn from_number(number: u16) -> Option<Self>;
}

/// A "no" of a process of ours: the rule, what it says no to, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {cause}")]
pub struct Reasoned<R: Rule> {
    /// The rule that says no.
    pub rule: R,
    /// What it says no to: a URL, `token SITE_ID_TOKEN`, `claim sha`. At most [`REASON_MAX_BYTES`].
    pub object: String,
    /// Why, with the values that help and without any part of a token. At most [`REASON_MAX_BYTES`].
    pub cause: String,
}

impl<R: Rule> Reasoned<R> {
    /// With the rule's own cause.
    #[must_use]
    pub fn new(rule: R, object: impl Into<String>) -> Self {
        Self { rule, object: object.into(), cause: rule.cause().to_owned() }
    }
}

impl<R: Rule> Payload for Reasoned<R> {
    const KIND: Kind = R::KIND;

    fn check(&self) -> Result<(), FrameError> {
        check("object", &self.object, REASON_MAX_BYTES, Charset::Shown)?;
        check("cause", &self.cause, REASON_MAX_BYTES, Charset::Shown)?;
        Ok(())
    }

    fn write(&self, fields: &mut Writer) {
        fields.word(self.rule.number());
        fields.text(&self.object);
        fields.text(&self.cause);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FrameError> {
        let number = fields.word("rule")?;
        let meaningless = FrameError::Meaningless { field: "rule", number: u64::from(number) };
        Ok(Self {
            rule: R::from_number(number).ok_or(meaningless)?,
            object: fields.text("object", REASON_MAX_BYTES)?,
            cause: fields.text("cause", REASON_MAX_BYTES)?,
        })
    }
}
