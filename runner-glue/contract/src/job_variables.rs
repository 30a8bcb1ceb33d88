//! The job variables that a setting names: wishes of the job's author, and hints for messages.
//!
//! Every `CUSTOM_ENV_*` can be set or replaced by whoever writes the pipeline. So this is a fixed list, each value
//! is bounded, and nothing here says who the user is, which project it is or where a key comes from. `config`
//! alone reads it; what it read stands in the record. The token's value is not kept: `jacamar verify` takes it
//! from the response file.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use jacamar_plan::Refusal;
use serde::{Deserialize, Serialize};

use crate::environment::PATH_MAX_BYTES;
use crate::stage_request::ProfileMode;
use crate::text::Charset;

/// What GitLab Runner puts before the name of a job variable.
pub const JOB_VARIABLE_PREFIX: &str = "CUSTOM_ENV_";

/// GitLab's own shortest time limit of a job.
pub const TIMEOUT_MIN_S: u64 = 10 * 60;
/// GitLab's own longest one, a month.
pub const TIMEOUT_MAX_S: u64 = 31 * 24 * 3600;
/// What an older GitLab does not tell.
pub const TIMEOUT_DEFAULT_S: u64 = 7 * 24 * 3600;

/// What the settings say about job variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    /// `[general] jwt_env_variable`.
    pub token: &'a str,
    /// `[auth] max_env_chars`, taken as bytes: longest value of a wish.
    pub value_max_bytes: usize,
}

/// The job variables that count for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobVariables {
    /// What the job's author wishes.
    pub wishes: Wishes,
    /// `CI_JOB_ID`, for messages before the token is verified; never for a decision.
    pub job_id_hint: Option<u64>,
    /// `CI_JOB_TIMEOUT` (GitLab 15.7) in seconds, from [`TIMEOUT_MIN_S`] to [`TIMEOUT_MAX_S`]; [`TIMEOUT_DEFAULT_S`] where
    /// it is unset or no number. It only says from when on `gc` may take a job that nobody can be asked about for dead.
    pub timeout_s: u64,
    /// Whether the token's variable is there at all, so that its absence can be said before a process is started.
    pub token: TokenHint,
}

/// What the job's author wishes, as far as settings allow it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wishes {
    /// `JACAMAR_NO_BASH_PROFILE`, `JACAMAR_ETC_PROFILE_ONLY`: which start-up files the job's Bash reads.
    pub profile: ProfileMode,
    /// `CUSTOM_CI_BUILDS_DIR`. Empty is unset.
    pub builds_dir: Option<String>,
    /// `SCHEDULER_PARAMETERS`. Empty is unset.
    pub scheduler_parameters: Option<String>,
    /// `JACAMAR_REPORT`: a file for what the job used, from the project's directory on. Empty is unset.
    pub report: Option<String>,
}

/// Whether the token's variable is in the environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenHint {
    /// No such variable.
    #[default]
    Absent,
    /// The variable is there, without a value.
    Empty,
    /// The variable has a value.
    Present,
}

impl JobVariables {
    /// Reads the job variables out of all pairs. The last pair of a name counts.
    ///
    /// # Errors
    /// A [`Refusal`] (rule `job_variable`) that names a wish which is too long, has characters that its purpose
    /// does not allow, or is not what it should be (yes or no).
    pub fn read(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        names: Names<'_>,
    ) -> Result<Self, Refusal> {
        let mut found = Found::default();
        for (name, value) in variables {
            let Some(name) = name.as_bytes().strip_prefix(JOB_VARIABLE_PREFIX.as_bytes()) else { continue };
            if name == names.token.as_bytes() {
                found.token = if value.is_empty() { TokenHint::Empty } else { TokenHint::Present };
            }
            if let Some(slot) = found.slot(name) {
                *slot = Some(value);
            }
        }
        found.judge(names.value_max_bytes)
    }
}

const NO_PROFILE: &str = "JACAMAR_NO_BASH_PROFILE";
const ETC_PROFILE_ONLY: &str = "JACAMAR_ETC_PROFILE_ONLY";
const BUILDS_DIR: &str = "CUSTOM_CI_BUILDS_DIR";
const SCHEDULER_PARAMETERS: &str = "SCHEDULER_PARAMETERS";
const REPORT: &str = "JACAMAR_REPORT";

/// The raw values of the names that are looked for.
#[derive(Default)]
struct Found {
    no_profile: Option<OsString>,
    etc_profile_only: Option<OsString>,
    builds_dir: Option<OsString>,
    scheduler_parameters: Option<OsString>,
    report: Option<OsString>,
    job_id: Option<OsString>,
    timeout: Option<OsString>,
    token: TokenHint,
}

impl Found {
    fn slot(&mut self, name: &[u8]) -> Option<&mut Option<OsString>> {
        match name {
            b"JACAMAR_NO_BASH_PROFILE" => Some(&mut self.no_profile),
            b"JACAMAR_ETC_PROFILE_ONLY" => Some(&mut self.etc_profile_only),
            b"CUSTOM_CI_BUILDS_DIR" => Some(&mut self.builds_dir),
            b"SCHEDULER_PARAMETERS" => Some(&mut self.scheduler_parameters),
            b"JACAMAR_REPORT" => Some(&mut self.report),
            b"CI_JOB_ID" => Some(&mut self.job_id),
            b"CI_JOB_TIMEOUT" => Some(&mut self.timeout),
            _ => None,
        }
    }

    fn judge(self, max_bytes: usize) -> Result<JobVariables, Refusal> {
        let no_profile = yes(NO_PROFILE, self.no_profile, max_bytes)?;
        let etc_profile_only = yes(ETC_PROFILE_ONLY, self.etc_profile_only, max_bytes)?;
        let profile = match (no_profile, etc_profile_only) {
            (false, false) => ProfileMode::Login,
            (true, false) => ProfileMode::NoProfile,
            (false, true) => ProfileMode::EtcProfileOnly,
            (true, true) => {
                let cause =
                    format!("{ETC_PROFILE_ONLY} is set as well, and only one of them can be followed");
                return Err(refusal(NO_PROFILE, cause, "set one of the two variables".to_owned()));
            }
        };
        let builds_dir = path(BUILDS_DIR, self.builds_dir, max_bytes)?;
        let report = path(REPORT, self.report, max_bytes.min(PATH_MAX_BYTES))?;
        let scheduler_parameters = text(SCHEDULER_PARAMETERS, self.scheduler_parameters, max_bytes)?;
        let line = |c: char| matches!(c, '\n' | '\t') || crate::text::is_shown(c);
        if scheduler_parameters.as_deref().is_some_and(|text| !text.chars().all(line)) {
            let cause = "has control characters".to_owned();
            return Err(refusal(SCHEDULER_PARAMETERS, cause, "remove them".to_owned()));
        }
        Ok(JobVariables {
            wishes: Wishes { profile, builds_dir, scheduler_parameters, report },
            job_id_hint: number(self.job_id),
            timeout_s: number(self.timeout)
                .map_or(TIMEOUT_DEFAULT_S, |wish| wish.clamp(TIMEOUT_MIN_S, TIMEOUT_MAX_S)),
            token: self.token,
        })
    }
}

fn refusal(name: &str, cause: String, hint: String) -> Refusal {
    Refusal { rule: "job_variable".to_owned(), object: format!("job variable {name}"), cause, hint }
}

/// A number of GitLab's own that is never refused.
fn number(value: Option<OsString>) -> Option<u64> {
    value?.to_str()?.parse().ok()
}

/// A path in one line.
fn path(name: &str, value: Option<OsString>, max_bytes: usize) -> Result<Option<String>, Refusal> {
    let path = text(name, value, max_bytes)?;
    if path.as_deref().is_some_and(|path| !Charset::Shown.holds(path)) {
        let cause = "has control characters, such as a line end".to_owned();
        return Err(refusal(name, cause, "write the path in one line".to_owned()));
    }
    Ok(path)
}

/// The value as text; unset and empty are `None`.
fn text(name: &str, value: Option<OsString>, max_bytes: usize) -> Result<Option<String>, Refusal> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    if value.len() > max_bytes {
        let cause = format!("has {} bytes, at most {max_bytes} are taken", value.len());
        return Err(refusal(name, cause, "shorten it".to_owned()));
    }
    match value.into_string() {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(refusal(name, "is not UTF-8".to_owned(), "write it in UTF-8".to_owned())),
    }
}

/// The words of Go's `strconv.ParseBool`, and yes, no, on, off. Unset and empty are no.
fn yes(name: &str, value: Option<OsString>, max_bytes: usize) -> Result<bool, Refusal> {
    let Some(word) = text(name, value, max_bytes)? else { return Ok(false) };
    match word.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "yes" | "on" => Ok(true),
        "0" | "f" | "false" | "no" | "off" => Ok(false),
        _ => {
            let hint = format!("write {name}: \"true\" or {name}: \"false\"");
            Err(refusal(name, "is neither true nor false".to_owned(), hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    const NAMES: Names<'static> = Names { token: "SITE_ID_TOKEN", value_max_bytes: 100 };

    fn read(pairs: &[(&str, &str)]) -> Result<JobVariables, Refusal> {
        JobVariables::read(pairs.iter().map(|(name, value)| (name.into(), value.into())), NAMES)
    }

    fn profile(pairs: &[(&str, &str)]) -> ProfileMode {
        read(pairs).expect("good").wishes.profile
    }

    #[test]
    fn an_unprefixed_name_is_no_job_variable() {
        let read = read(&[("JACAMAR_NO_BASH_PROFILE", "1"), ("CI_JOB_ID", "7"), ("SITE_ID_TOKEN", "x")]);
        let nothing = JobVariables {
            wishes: Wishes::default(),
            job_id_hint: None,
            timeout_s: TIMEOUT_DEFAULT_S,
            token: TokenHint::Absent,
        };
        assert_eq!(read, Ok(nothing));
    }

    #[test]
    fn start_up_files_are_a_wish() {
        let (no, etc) = ("CUSTOM_ENV_JACAMAR_NO_BASH_PROFILE", "CUSTOM_ENV_JACAMAR_ETC_PROFILE_ONLY");
        assert_eq!(profile(&[]), ProfileMode::Login);
        for word in ["1", "true", "TRUE", "True", "t", "yes", "On"] {
            assert_eq!(profile(&[(no, word)]), ProfileMode::NoProfile, "{word}");
            assert_eq!(profile(&[(etc, word)]), ProfileMode::EtcProfileOnly, "{word}");
        }
        for word in ["", "0", "false", "F", "no", "off"] {
            assert_eq!(profile(&[(no, word), (etc, word)]), ProfileMode::Login, "{word:?}");
        }
        let refused = read(&[(no, "perhaps")]).expect_err("neither");
        assert_eq!(refused.rule, "job_variable");
        assert_eq!(refused.to_string(), "job variable JACAMAR_NO_BASH_PROFILE: is neither true nor false");
        assert!(read(&[(no, "1"), (etc, "1")]).is_err(), "both");
    }

    #[test]
    fn an_empty_builds_dir_is_unset() {
        // Jacamar CI printed a coloured message where the runner expects JSON.
        let name = "CUSTOM_ENV_CUSTOM_CI_BUILDS_DIR";
        assert_eq!(read(&[(name, "")]).expect("good").wishes.builds_dir, None);
        let wish = read(&[(name, "$HOME/ci")]).expect("good").wishes.builds_dir;
        assert_eq!(wish.as_deref(), Some("$HOME/ci"));
        for bad in ["/a\n", "/a\x1b[2J", &"x".repeat(101)] {
            let refused = read(&[(name, bad)]).expect_err("bad");
            assert_eq!(refused.object, "job variable CUSTOM_CI_BUILDS_DIR");
        }
    }

    #[test]
    fn scheduler_parameters_may_have_lines() {
        let name = "CUSTOM_ENV_SCHEDULER_PARAMETERS";
        let wish = read(&[(name, "-N 1\n\t-t 5\n")]).expect("good").wishes.scheduler_parameters;
        assert_eq!(wish.as_deref(), Some("-N 1\n\t-t 5\n"));
        assert!(read(&[(name, "-N 1\x07")]).is_err());
    }

    #[test]
    fn what_is_not_utf_8_is_refused_by_name() {
        let pair = (OsString::from("CUSTOM_ENV_SCHEDULER_PARAMETERS"), OsString::from_vec(vec![b'a', 0xff]));
        let refused = JobVariables::read([pair], NAMES).expect_err("not text");
        assert_eq!(refused.to_string(), "job variable SCHEDULER_PARAMETERS: is not UTF-8");
    }

    #[test]
    fn the_token_is_seen_and_not_kept() {
        let name = "CUSTOM_ENV_SITE_ID_TOKEN";
        assert_eq!(read(&[(name, "")]).expect("good").token, TokenHint::Empty);
        let read = read(&[(name, "eyJsecret")]).expect("good");
        assert_eq!(read.token, TokenHint::Present);
        assert!(!format!("{read:?}").contains("eyJsecret"));
    }

    #[test]
    fn hints_never_refuse() {
        for (value, hint) in [("302", Some(302)), ("", None), ("x", None), ("-1", None)] {
            assert_eq!(
                read(&[("CUSTOM_ENV_CI_JOB_ID", value)]).expect("good").job_id_hint,
                hint,
                "{value:?}"
            );
        }
    }

    #[test]
    fn a_time_limit_is_bounded_and_never_refused() {
        for (value, limit) in [
            ("3600", 3600),
            ("1", TIMEOUT_MIN_S),
            ("99999999999", TIMEOUT_MAX_S),
            ("", TIMEOUT_DEFAULT_S),
            ("-1", TIMEOUT_DEFAULT_S),
            ("1h", TIMEOUT_DEFAULT_S),
        ] {
            assert_eq!(
                read(&[("CUSTOM_ENV_CI_JOB_TIMEOUT", value)]).expect("good").timeout_s,
                limit,
                "{value:?}"
            );
        }
    }

    #[test]
    fn the_last_of_two_counts_and_a_hundred_thousand_are_one_pass() {
        let id = |value: String| (OsString::from("CUSTOM_ENV_CI_JOB_ID"), OsString::from(value));
        let read = JobVariables::read((0..100_000_u32).map(|n| id(n.to_string())), NAMES).expect("good");
        assert_eq!(read.job_id_hint, Some(99_999));
    }
}
