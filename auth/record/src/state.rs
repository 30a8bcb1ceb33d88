//! The state directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use jacamar_plan::Level;

/// State directory of root and the keeper. Nothing moves it: no key, no option, no variable.
const SHARED: &str = "/var/lib/jacamar";

/// `XDG_STATE_HOME` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("XDG_STATE_HOME must be an absolute path, not {}", .0.display())]
pub struct StateError(PathBuf);

/// Where state lives: `/var/lib/jacamar`; at user level `$XDG_STATE_HOME/jacamar`, else `~/.local/state/jacamar`
/// (XDG Base Directory Specification 0.8). `xdg` is the variable's value and is not looked at on other levels.
///
/// # Errors
/// [`StateError`]
pub fn state_directory(level: Level, home: &str, xdg: Option<OsString>) -> Result<PathBuf, StateError> {
    match level {
        Level::Root | Level::Capabilities => Ok(PathBuf::from(SHARED)),
        Level::User => {
            let base = match xdg.filter(|value| !value.is_empty()) {
                Some(base) => PathBuf::from(base),
                None => Path::new(home).join(".local/state"),
            };
            if base.is_absolute() { Ok(base.join("jacamar")) } else { Err(StateError(base)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_state_of_root_and_the_keeper() {
        for level in [Level::Root, Level::Capabilities] {
            let directory = state_directory(level, "/home/u", Some("/tmp/x".into())).expect("fixed");
            assert_eq!(directory, Path::new("/var/lib/jacamar"));
        }
    }

    #[test]
    fn user_level_follows_the_specification() {
        let at = |xdg: Option<&str>| state_directory(Level::User, "/home/u", xdg.map(OsString::from));
        assert_eq!(at(Some("/s")).expect("absolute"), Path::new("/s/jacamar"));
        for unset in [None, Some("")] {
            assert_eq!(at(unset).expect("home"), Path::new("/home/u/.local/state/jacamar"));
        }
        assert_eq!(at(Some("s")), Err(StateError("s".into())));
    }
}
