//! The site's configuration: Jacamar's tables as its documentation gives them, and `[sandbox]`.
//!
//! One table, [`keys`], says for each key its type, its default and whether it is built; the check of a file,
//! the documentation and the tests all come from it. A key that is not built is refused by name unless its
//! value is its default, an unknown one with the nearest known name. Nothing is taken from the job.

mod check;
mod duration;
mod judge;
mod key;
mod keys;
mod limits;
mod path;
mod read;
mod settings;
mod url;

pub use duration::{Millis, parse as parse_duration};
pub(crate) use judge::is_variable;
pub use key::{Fallback, Key, Kind, Status, Word};
pub use keys::{keys, markdown};
pub(crate) use limits::JOBS_KEYS;
pub use limits::{JobsAtOnce, SandboxLimits, UserLimits};
pub use path::{AbsolutePath, DataDir};
pub use read::{Config, ReadError, read};
pub use settings::{
    Auth, Cgroup, Downscope, Executor, General, LogLevel, LogLocation, Logging, Mode, Sandbox, Settings,
};
pub use url::{ProxyUrl, Scheme, ServerUrl};

/// A value has the right type and is still not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to write instead; empty where nothing helps.
    pub hint: String,
    /// Whether the line in the file may hold a secret, so that it is not shown.
    pub secret: bool,
}

impl Invalid {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), secret: false }
    }

    fn secret(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { secret: true, ..Self::new(message, hint) }
    }
}
