//! Fixed lists of rules: a number in a frame, a word in the audit line, the default cause in the job log.

/// Defines an enum whose list, numbers, words and causes cannot drift apart.
macro_rules! fixed_rules {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal $word:literal $cause:literal)* }) => {
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

            pub(crate) const fn number(self) -> u16 {
                self as u16
            }

            pub(crate) fn from_number(number: u16) -> Result<Self, crate::frame::FrameError> {
                let rule = Self::ALL.iter().find(|rule| rule.number() == number).copied();
                rule.ok_or(crate::frame::FrameError::Meaningless { field: "rule", number: u64::from(number) })
            }
        }
    };
}
pub(crate) use fixed_rules;
