//! What `config_exec` answers on standard output: one JSON object and not one byte more.
//!
//! The runner gives all of standard output to Go's JSON parser: no byte at all means "nothing to say", a lone
//! line end is an error, and so is text after the object. With exactly one object and no line end there are two
//! states, answered or not, and an answer that was cut off is never a valid one.

use jacamar_plan::Refusal;
use serde_json::{Map, Value, json};

use crate::environment::{RECORD_VARIABLE, RecordName};
use crate::text::{self, Charset};

/// Longest builds or cache directory, in bytes. The runner appends group and project, git what the project has.
pub const DIRECTORY_MAX_BYTES: usize = 1024;

/// Longest host name, in bytes (RFC 1035).
pub const HOSTNAME_MAX_BYTES: usize = 253;

/// Longest version, in bytes.
pub const VERSION_MAX_BYTES: usize = 64;

/// The answer of a `config` that granted the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigAnswer {
    /// Version of the driver, shown in the job log. Left out if it has control characters.
    pub version: String,
    /// Name of the host, shown in the job log.
    pub hostname: Option<Hostname>,
    /// Where the runner puts the clone: it appends group and project.
    pub builds_dir: RunnerDirectory,
    /// Where the runner puts caches: it appends group and project.
    pub cache_dir: RunnerDirectory,
    /// What later stages find the decision by.
    pub record: RecordName,
}

impl ConfigAnswer {
    /// The bytes for standard output.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut driver = Map::from_iter([("name".to_owned(), json!("Jacamar CI"))]);
        if text::check("version", &self.version, VERSION_MAX_BYTES, Charset::Shown).is_ok() {
            driver.insert("version".to_owned(), json!(self.version));
        }
        let mut answer = Map::from_iter([
            ("driver".to_owned(), Value::Object(driver)),
            ("builds_dir".to_owned(), json!(self.builds_dir.0)),
            ("cache_dir".to_owned(), json!(self.cache_dir.0)),
            ("builds_dir_is_shared".to_owned(), json!(false)),
            ("job_env".to_owned(), json!({ RECORD_VARIABLE: self.record.as_str() })),
        ]);
        if let Some(hostname) = &self.hostname {
            answer.insert("hostname".to_owned(), json!(hostname.0));
        }
        Value::Object(answer).to_string()
    }
}

/// A host name that may stand in the runner's script.
///
/// The runner puts it into a double-quoted shell string of `prepare_script` and escapes neither `$` nor backtick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname(String);

impl Hostname {
    /// Accepts `A-Z a-z 0-9 . -`. `None` for anything else: the answer then leaves the name out, since a changed
    /// name would be a wrong one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
        let fits = !name.is_empty() && name.len() <= HOSTNAME_MAX_BYTES && name.bytes().all(good);
        fits.then(|| Self(name.to_owned()))
    }
}

/// A directory that may stand in the runner's scripts.
///
/// They hold it between double quotes without escapes wherever the shell has to expand something
/// (GitLab Runner, `CommandArgExpand`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerDirectory(String);

impl RunnerDirectory {
    /// Accepts an absolute path with no `.`, `..` or empty component that is safe between double quotes.
    /// `object` is what the refusal calls it: `builds_dir` or `cache_dir`.
    ///
    /// # Errors
    /// A [`Refusal`] (rule `directory_name`) with the path.
    pub fn new(object: &str, path: &str) -> Result<Self, Refusal> {
        let cause = if !path.starts_with('/') {
            "is not an absolute path"
        } else if path.len() > DIRECTORY_MAX_BYTES {
            "is longer than 1024 bytes"
        } else if !path.chars().all(text::is_shown) {
            "has control characters"
        } else if path.contains(['"', '$', '`', '\\']) {
            "has one of the characters \" $ ` \\, which the runner's scripts would let the shell act on"
        } else if path.split('/').skip(1).any(|name| matches!(name, "" | "." | "..")) {
            "has an empty component, `.` or `..`"
        } else {
            return Ok(Self(path.to_owned()));
        };
        let shown: String = path.chars().take(Self::SHOWN_CHARACTERS).collect();
        Err(Refusal {
            rule: "directory_name".to_owned(),
            object: format!("{object} {shown}"),
            cause: cause.to_owned(),
            hint: "choose another directory: [general] data_dir of the site, or CUSTOM_CI_BUILDS_DIR of the job \
                   where the site allows it"
                .to_owned(),
        })
    }

    /// Characters of a refused path that a message shows.
    const SHOWN_CHARACTERS: usize = 200;

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(hostname: &str) -> ConfigAnswer {
        ConfigAnswer {
            version: "1.0.0".to_owned(),
            hostname: Hostname::new(hostname),
            builds_dir: RunnerDirectory::new("builds_dir", "/scratch/alice/builds/3/login1/000")
                .expect("good"),
            cache_dir: RunnerDirectory::new("cache_dir", "/scratch/alice/cache").expect("good"),
            record: RecordName::new("0123456789abcdef0123456789abcdef").expect("good"),
        }
    }

    #[test]
    fn one_object_and_no_line_end() {
        let text = answer("login1.example.org").to_json();
        assert_eq!(
            text,
            concat!(
                r#"{"builds_dir":"/scratch/alice/builds/3/login1/000","builds_dir_is_shared":false,"#,
                r#""cache_dir":"/scratch/alice/cache","driver":{"name":"Jacamar CI","version":"1.0.0"},"#,
                r#""hostname":"login1.example.org","#,
                r#""job_env":{"JACAMAR_CI_RECORD":"0123456789abcdef0123456789abcdef"}}"#
            )
        );
    }

    #[test]
    fn an_answer_cut_off_is_not_valid() {
        let text = answer("login1").to_json();
        for end in 1..text.len() {
            assert!(serde_json::from_str::<serde_json::Value>(&text[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_host_name_that_a_shell_would_act_on_is_left_out() {
        for name in ["", "h$(id)", "h`id`", "a b", "a_b", "a\n", "h\"", "grün", &"a".repeat(254)] {
            assert_eq!(Hostname::new(name), None, "{name:?}");
            assert!(!answer(name).to_json().contains("hostname"));
        }
    }

    #[test]
    fn an_odd_version_is_left_out() {
        let odd = ConfigAnswer { version: "1\x1b[2J".to_owned(), ..answer("login1") };
        assert!(odd.to_json().contains(r#""driver":{"name":"Jacamar CI"}"#));
    }

    #[test]
    fn a_directory_is_refused_by_name_and_cause() {
        let long = format!("/{}", "a".repeat(DIRECTORY_MAX_BYTES));
        for (path, cause) in [
            ("", "absolute"),
            ("scratch", "absolute"),
            ("~/ci", "absolute"),
            ("$HOME/ci", "absolute"),
            (long.as_str(), "longer"),
            ("/a\nb", "control"),
            ("/a\x1b[2J", "control"),
            ("/a\"b", "shell"),
            ("/a$(id)", "shell"),
            ("/a`id`", "shell"),
            ("/a\\b", "shell"),
            ("/", "empty component"),
            ("/a//b", "empty component"),
            ("/a/", "empty component"),
            ("/a/./b", "empty component"),
            ("/a/../b", "empty component"),
        ] {
            let refused = RunnerDirectory::new("builds_dir", path).expect_err(path);
            assert!(refused.cause.contains(cause), "{path:?}: {}", refused.cause);
            assert!(refused.object.starts_with("builds_dir "), "{}", refused.object);
        }
        for path in ["/scratch/alice", "/a b/c'd", "/home/grün/.jacamar-ci"] {
            assert_eq!(RunnerDirectory::new("cache_dir", path).expect(path).as_str(), path);
        }
    }
}
