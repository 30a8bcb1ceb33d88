//! The runner's fixed names in the driver's environment.
//!
//! A job's author chooses values and names of `CUSTOM_ENV_*` only; an unprefixed name comes from the runner's
//! own environment, from the runner, or from the `job_env` that our `config` answered. What is read here is
//! therefore the runner account's word: enough for exit codes and for where files lie, never for who may do what.
//!
//! `environment` looks at each pair once and keeps six values; an environment of 100,000 variables costs one pass.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::num::NonZeroU8;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::exit::ExitCodes;

/// Name of the record in `job_env`: it names the directory that holds what `config` decided.
pub const RECORD_VARIABLE: &str = "JACAMAR_CI_RECORD";

/// Longest path that the runner may name, in bytes: PATH_MAX of limits.h without its NUL.
pub const PATH_MAX_BYTES: usize = 4095;

/// The runner's fixed names, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerEnvironment {
    /// `BUILD_FAILURE_EXIT_CODE` and `SYSTEM_FAILURE_EXIT_CODE`; 1 and 2 where unset.
    pub exit_codes: ExitCodes,
    /// `TMPDIR`: the runner's private directory for this job.
    pub temporary_directory: Option<PathBuf>,
    /// `BUILD_EXIT_CODE_FILE`; unset before GitLab Runner 17.9.
    pub exit_code_file: Option<PathBuf>,
    /// `JOB_RESPONSE_FILE`; unset before GitLab Runner 14.1.
    pub response_file: Option<PathBuf>,
    /// `JACAMAR_CI_RECORD`. The caller of `config` ignores it: there it can only be left over from outside.
    pub record: RecordVariable,
}

/// What `JACAMAR_CI_RECORD` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordVariable {
    /// Not set: `config` did not run or failed.
    Unset,
    /// Set, and not the name of a record.
    Invalid,
    /// The name of a record, which may or may not exist.
    Named(RecordName),
}

/// The name of a record: 128 random bits as 32 hexadecimal digits. It has no other character, so that it can
/// be a path's component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordName(String);

impl RecordName {
    /// Length of a name, in bytes.
    pub const LENGTH_BYTES: usize = 32;

    /// Accepts 32 lower-case hexadecimal digits. `None` for anything else.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let good = name.len() == Self::LENGTH_BYTES && crate::text::Charset::Hex.holds(name);
        good.then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of the runner's names holds something else than the runner puts there.
///
/// It is not the job's fault: the program ends with [`EnvironmentError::exit_code`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value:?}: {problem}")]
pub struct EnvironmentError {
    /// The variable.
    pub name: &'static str,
    /// What it holds, at most 80 characters of it.
    pub value: String,
    /// What is wrong.
    pub problem: &'static str,
    /// The runner's system failure code; 2 where that variable is the broken one.
    pub exit_code: NonZeroU8,
}

impl RunnerEnvironment {
    /// Reads the runner's names out of all pairs. As in Go's os/exec the last pair of a name counts.
    ///
    /// # Errors
    /// [`EnvironmentError`] for an exit code that is not a number from 1 to 255, for two equal ones, and for a
    /// path that is not absolute or longer than [`PATH_MAX_BYTES`].
    pub fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, EnvironmentError> {
        let mut found = Found::default();
        for (name, value) in variables {
            if let Some(slot) = found.slot(&name) {
                *slot = Some(value);
            }
        }
        // The system failure code first: it is what every later error ends with.
        let system_failure = exit_code("SYSTEM_FAILURE_EXIT_CODE", found.system_failure.as_deref())
            .map_err(|unusable| unusable.with(ExitCodes::default().system_failure))?
            .unwrap_or(ExitCodes::default().system_failure);
        found.rest(system_failure).map_err(|unusable| unusable.with(system_failure))
    }
}

/// The raw values of the names that are looked for.
#[derive(Default)]
struct Found {
    build_failure: Option<OsString>,
    system_failure: Option<OsString>,
    temporary_directory: Option<OsString>,
    exit_code_file: Option<OsString>,
    response_file: Option<OsString>,
    record: Option<OsString>,
}

impl Found {
    fn slot(&mut self, name: &OsStr) -> Option<&mut Option<OsString>> {
        match name.as_bytes() {
            b"BUILD_FAILURE_EXIT_CODE" => Some(&mut self.build_failure),
            b"SYSTEM_FAILURE_EXIT_CODE" => Some(&mut self.system_failure),
            b"TMPDIR" => Some(&mut self.temporary_directory),
            b"BUILD_EXIT_CODE_FILE" => Some(&mut self.exit_code_file),
            b"JOB_RESPONSE_FILE" => Some(&mut self.response_file),
            name if name == RECORD_VARIABLE.as_bytes() => Some(&mut self.record),
            _ => None,
        }
    }

    fn rest(self, system_failure: NonZeroU8) -> Result<RunnerEnvironment, Unusable> {
        let build_failure = exit_code("BUILD_FAILURE_EXIT_CODE", self.build_failure.as_deref())?
            .unwrap_or(ExitCodes::default().build_failure);
        if build_failure == system_failure {
            let problem =
                "the same number as SYSTEM_FAILURE_EXIT_CODE, so the runner could not tell them apart";
            return Err(Unusable::new(
                "BUILD_FAILURE_EXIT_CODE",
                build_failure.to_string().as_ref(),
                problem,
            ));
        }
        Ok(RunnerEnvironment {
            exit_codes: ExitCodes { build_failure, system_failure },
            temporary_directory: path("TMPDIR", self.temporary_directory)?,
            exit_code_file: path("BUILD_EXIT_CODE_FILE", self.exit_code_file)?,
            response_file: path("JOB_RESPONSE_FILE", self.response_file)?,
            record: match self.record {
                None => RecordVariable::Unset,
                Some(name) => name
                    .to_str()
                    .and_then(RecordName::new)
                    .map_or(RecordVariable::Invalid, RecordVariable::Named),
            },
        })
    }
}

/// An [`EnvironmentError`] before it is known what the program ends with.
struct Unusable {
    name: &'static str,
    value: String,
    problem: &'static str,
}

impl Unusable {
    const VALUE_SHOWN_CHARACTERS: usize = 80;

    fn new(name: &'static str, value: &OsStr, problem: &'static str) -> Self {
        let value = value.to_string_lossy().chars().take(Self::VALUE_SHOWN_CHARACTERS).collect();
        Self { name, value, problem }
    }

    fn with(self, exit_code: NonZeroU8) -> EnvironmentError {
        EnvironmentError { name: self.name, value: self.value, problem: self.problem, exit_code }
    }
}

/// A number from 1 to 255 in digits: no sign, no blank, no leading zero.
fn exit_code(name: &'static str, value: Option<&OsStr>) -> Result<Option<NonZeroU8>, Unusable> {
    let Some(value) = value else { return Ok(None) };
    let digits = value.to_str().filter(|text| text.starts_with(|c: char| c.is_ascii_digit() && c != '0'));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(code) => Ok(Some(code)),
        None => Err(Unusable::new(name, value, "not an exit code from 1 to 255")),
    }
}

fn path(name: &'static str, value: Option<OsString>) -> Result<Option<PathBuf>, Unusable> {
    let Some(value) = value else { return Ok(None) };
    let problem = if !Path::new(&value).is_absolute() {
        "not an absolute path"
    } else if value.len() > PATH_MAX_BYTES {
        "longer than a path can be"
    } else {
        return Ok(Some(PathBuf::from(value)));
    };
    Err(Unusable::new(name, &value, problem))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<RunnerEnvironment, EnvironmentError> {
        RunnerEnvironment::read(pairs.iter().map(|(name, value)| (name.into(), value.into())))
    }

    const RECORD: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn the_runners_own_names() {
        let dir = "/tmp/custom-executor1";
        let environment = read(&[
            ("PATH", "/bin"),
            ("TMPDIR", dir),
            ("BUILD_FAILURE_EXIT_CODE", "1"),
            ("SYSTEM_FAILURE_EXIT_CODE", "2"),
            ("BUILD_EXIT_CODE_FILE", "/tmp/custom-executor1/build_exit_code"),
            ("JOB_RESPONSE_FILE", "/tmp/custom-executor1/response.json"),
            ("JACAMAR_CI_RECORD", RECORD),
            ("CUSTOM_ENV_CI_JOB_ID", "302"),
        ])
        .expect("good");
        assert_eq!(environment.exit_codes, ExitCodes::default());
        assert_eq!(environment.temporary_directory.as_deref(), Some(Path::new(dir)));
        assert_eq!(
            environment.exit_code_file.as_deref(),
            Some(Path::new("/tmp/custom-executor1/build_exit_code"))
        );
        assert_eq!(
            environment.response_file.as_deref(),
            Some(Path::new("/tmp/custom-executor1/response.json"))
        );
        assert_eq!(environment.record, RecordVariable::Named(RecordName::new(RECORD).expect("a name")));
    }

    #[test]
    fn nothing_set_is_the_runners_defaults() {
        let environment = read(&[]).expect("good");
        assert_eq!(environment.exit_codes, ExitCodes::default());
        assert_eq!(environment.temporary_directory, None);
        assert_eq!(environment.record, RecordVariable::Unset);
    }

    #[test]
    fn the_last_of_two_counts_as_in_go() {
        let environment = read(&[("TMPDIR", "/a"), ("TMPDIR", "/b")]).expect("good");
        assert_eq!(environment.temporary_directory.as_deref(), Some(Path::new("/b")));
    }

    #[test]
    fn an_exit_code_is_strict() {
        for bad in ["", "0", "256", "-1", "+1", "01", " 1", "1 ", "1\n", "0x1", "one", "999999999999"] {
            let error = read(&[("BUILD_FAILURE_EXIT_CODE", bad), ("SYSTEM_FAILURE_EXIT_CODE", "7")])
                .expect_err("not a code");
            assert_eq!(error.name, "BUILD_FAILURE_EXIT_CODE", "{bad:?}");
            assert_eq!(error.exit_code.get(), 7, "{bad:?}: the system failure code was readable");
            let error = read(&[("SYSTEM_FAILURE_EXIT_CODE", bad)]).expect_err("not a code");
            assert_eq!((error.name, error.exit_code.get()), ("SYSTEM_FAILURE_EXIT_CODE", 2), "{bad:?}");
        }
        for (good, code) in [("1", 1), ("200", 200), ("255", 255)] {
            let environment = read(&[("BUILD_FAILURE_EXIT_CODE", good)]).expect(good);
            assert_eq!(environment.exit_codes.build_failure.get(), code);
        }
    }

    #[test]
    fn equal_exit_codes_are_an_error() {
        let error = read(&[("BUILD_FAILURE_EXIT_CODE", "2")]).expect_err("2 is the other's default");
        assert_eq!(
            error.to_string(),
            "BUILD_FAILURE_EXIT_CODE=\"2\": the same number as SYSTEM_FAILURE_EXIT_CODE, so the runner could not \
             tell them apart"
        );
    }

    #[test]
    fn a_path_is_absolute_and_bounded() {
        let long = format!("/{}", "a".repeat(PATH_MAX_BYTES));
        for name in ["TMPDIR", "BUILD_EXIT_CODE_FILE", "JOB_RESPONSE_FILE"] {
            for bad in ["", "a/b", "./x", long.as_str()] {
                assert_eq!(read(&[(name, bad)]).expect_err("not a path").name, name, "{bad:.9}");
            }
        }
        assert!(read(&[("TMPDIR", &long[..PATH_MAX_BYTES])]).is_ok());
    }

    #[test]
    fn the_error_shows_little_of_a_long_value() {
        let error = read(&[("TMPDIR", &"x".repeat(100_000))]).expect_err("not absolute");
        assert_eq!(error.value.len(), Unusable::VALUE_SHOWN_CHARACTERS);
    }

    #[test]
    fn a_record_is_32_hexadecimal_digits() {
        let bad =
            ["", "../../etc", "0123", &RECORD.to_uppercase(), &format!("{RECORD}0"), &format!("{RECORD}\n")]
                .map(str::to_owned);
        for name in bad {
            let environment = read(&[("JACAMAR_CI_RECORD", &name)]).expect("the stage decides");
            assert_eq!(environment.record, RecordVariable::Invalid, "{name:?}");
        }
        let odd = (OsString::from("JACAMAR_CI_RECORD"), OsString::from_vec(vec![0xff; 32]));
        let environment = RunnerEnvironment::read([odd]).expect("the stage decides");
        assert_eq!(environment.record, RecordVariable::Invalid);
    }

    #[test]
    fn no_job_variable_is_taken_for_the_runners() {
        let names = ["TMPDIR", "BUILD_FAILURE_EXIT_CODE", "JOB_RESPONSE_FILE", "JACAMAR_CI_RECORD"];
        let pairs = names.map(|name| (OsString::from(format!("CUSTOM_ENV_{name}")), OsString::from("/evil")));
        assert_eq!(RunnerEnvironment::read(pairs), read(&[]));
    }

    #[test]
    fn a_hundred_thousand_variables_are_one_pass() {
        let pairs = (0..100_000_u32)
            .map(|n| (OsString::from(format!("CUSTOM_ENV_V{n}")), OsString::from("x")))
            .chain([(OsString::from("TMPDIR"), OsString::from("/t"))]);
        let environment = RunnerEnvironment::read(pairs).expect("good");
        assert_eq!(environment.temporary_directory.as_deref(), Some(Path::new("/t")));
    }
}
