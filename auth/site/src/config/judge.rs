//! Judges of single values that are not worth a type: each gives the value or says what is wrong with it.

use super::{AbsolutePath, Cgroup, Invalid, LogLocation};

/// Longest name of a profile, in bytes.
const PROFILE_MAX_BYTES: usize = 64;
/// Longest name of an account or a group, in bytes (LOGIN_NAME_MAX of limits.h).
const NAME_MAX_BYTES: usize = 256;

/// Whether it can be the name of a variable of a shell.
pub(crate) fn is_variable(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && text.bytes().all(plain) && !text.starts_with(|first: char| first.is_ascii_digit())
}

/// The name of a job variable.
pub(super) fn variable(text: &str) -> Result<String, Invalid> {
    if !is_variable(text) {
        let hint = "a variable's name has letters, digits and `_`, and begins with no digit";
        return Err(Invalid::new(format!("{text:?} is not the name of a variable"), hint));
    }
    match text.strip_prefix("CUSTOM_ENV_") {
        Some(rest) => Err(Invalid::new(
            format!("{text:?} is the runner's name for the variable"),
            format!("write the job's name for it: {rest:?}"),
        )),
        None => Ok(text.to_owned()),
    }
}

/// `NAME=value`
pub(super) fn assignment(text: &str) -> Result<String, Invalid> {
    match text.split_once('=') {
        Some((name, _)) if is_variable(name) => Ok(text.to_owned()),
        Some(_) | None => Err(Invalid::new(format!("{text:?} is not of the form NAME=value"), "")),
    }
}

/// Issuers and audiences are compared as they are; only what cannot be one is refused.
pub(super) fn claim(text: &str) -> Result<String, Invalid> {
    if text.chars().any(char::is_whitespace) {
        return Err(Invalid::new(format!("{text:?} has spaces in it"), ""));
    }
    Ok(text.to_owned())
}

/// The name of an account, of a group or of a source of pipelines.
pub(super) fn name(text: &str) -> Result<String, Invalid> {
    if text.contains([',', ':']) || text.trim() != text {
        let hint = "each name is an entry of its own: [\"alice\", \"bob\"]";
        return Err(Invalid::new(format!("{text:?} is not one name"), hint));
    }
    if text.len() > NAME_MAX_BYTES {
        return Err(Invalid::new(
            format!("a name of {} bytes is longer than {NAME_MAX_BYTES}", text.len()),
            "",
        ));
    }
    Ok(text.to_owned())
}

/// `[auth.logging] location`
pub(super) fn log_location(text: &str) -> Result<LogLocation, Invalid> {
    match text {
        "syslog" => Ok(LogLocation::Syslog),
        path if path.starts_with('/') => AbsolutePath::new(path).map(LogLocation::File),
        other => Err(Invalid::new(
            format!("{other:?} is neither `syslog` nor an absolute path"),
            "remove the line for journald",
        )),
    }
}

/// `[sandbox] profile`
pub(super) fn profile(text: &str) -> Result<String, Invalid> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !text.bytes().all(plain) || text.len() > PROFILE_MAX_BYTES {
        let hint = "it has letters, digits, `_` and `-`, at most 64; the file is found by it";
        return Err(Invalid::new(format!("{text:?} is not the name of a profile"), hint));
    }
    Ok(text.to_owned())
}

/// `[sandbox] cgroup`
pub(super) fn cgroup(text: &str) -> Result<Cgroup, Invalid> {
    match text {
        "auto" => Ok(Cgroup::Auto),
        "none" => Ok(Cgroup::None),
        path if path.starts_with('/') => AbsolutePath::new(path).map(Cgroup::Path),
        other => {
            Err(Invalid::new(format!("{other:?} is neither `auto` nor `none` nor an absolute path"), ""))
        }
    }
}
