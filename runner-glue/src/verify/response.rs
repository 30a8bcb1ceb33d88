//! The runner's response file: untrusted bytes, of which four facts and one variable are taken.
//!
//! The runner writes its own Go structure, not the server's bytes: lists and pointers may be `null`, numbers that
//! it does not know are 0, and what its version does not know is missing. Nothing here is printed or copied: all
//! texts borrow from the bytes that are wiped.

use std::borrow::Cow;

use jacamar_contract::verify::{VerifyRefused, VerifyRule};
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::is_object;

/// What is taken from the file. Every other key is skipped.
#[derive(Deserialize)]
pub(super) struct Response<'a> {
    id: u64,
    job_info: JobInfo,
    #[serde(default, borrow)]
    git_info: Option<GitInfo<'a>>,
    #[serde(default, borrow)]
    variables: Option<Vec<Variable<'a>>>,
}

#[derive(Deserialize)]
struct JobInfo {
    project_id: u64,
    #[serde(default)]
    pipeline_id: Option<u64>,
    /// GitLab Runner 18.5 and later.
    #[serde(default)]
    user_id: Option<u64>,
    #[serde(default)]
    scoped_user_id: Option<u64>,
}

#[derive(Deserialize)]
struct GitInfo<'a> {
    #[serde(default, borrow)]
    sha: Option<Cow<'a, str>>,
}

/// Key and value are always there: a list of empty objects would otherwise become much larger in memory.
#[derive(Deserialize)]
struct Variable<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    /// As it stands in the file: unescaping would make copies of every secret.
    #[serde(borrow)]
    value: &'a RawValue,
}

impl<'a> Response<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, VerifyRefused> {
        let unreadable = |cause: String| VerifyRefused {
            rule: VerifyRule::ResponseUnreadable,
            object: "response file".to_owned(),
            cause: format!("{}: {cause}", VerifyRule::ResponseUnreadable.cause()),
        };
        if !is_object(bytes) {
            return Err(unreadable("it does not begin with {".to_owned()));
        }
        serde_json::from_slice(bytes).map_err(|error| {
            // The library's own message repeats values.
            let what = match error.classify() {
                Category::Eof => "it ends too early",
                Category::Syntax => "it is not JSON",
                Category::Data => "a value is missing or of another type",
                Category::Io => "it cannot be read",
            };
            unreadable(format!("{what} (line {}, column {})", error.line(), error.column()))
        })
    }

    /// The value of the first variable with this name. GitLab puts an ID token before everything that a person
    /// can set, so a later one is somebody's own.
    pub(super) fn token(&self, name: &str) -> Result<&'a str, VerifyRefused> {
        let variables = self.variables.as_deref().unwrap_or_default();
        let Some(variable) = variables.iter().find(|variable| variable.key == name) else {
            return Err(VerifyRefused::new(VerifyRule::NoToken, format!("job variable {name}")));
        };
        // A text without escapes: no token has one.
        let text: Result<&'a str, _> = serde_json::from_str(variable.value.get());
        match text {
            Ok("") => Err(VerifyRefused::new(VerifyRule::NoToken, format!("job variable {name}"))),
            Ok(text) => Ok(text),
            Err(_) => Err(VerifyRefused::new(VerifyRule::Malformed, format!("token {name}"))),
        }
    }

    pub(super) fn job_id(&self) -> u64 {
        self.id
    }

    pub(super) fn project_id(&self) -> u64 {
        self.job_info.project_id
    }

    /// `None`: the runner did not send it.
    pub(super) fn pipeline_id(&self) -> Option<u64> {
        self.job_info.pipeline_id.filter(|id| *id != 0)
    }

    /// `None`: the runner did not send it.
    pub(super) fn user_id(&self) -> Option<u64> {
        self.job_info.user_id.filter(|id| *id != 0)
    }

    /// `None`: the runner did not send it.
    pub(super) fn sha(&self) -> Option<&str> {
        self.git_info.as_ref()?.sha.as_deref().filter(|sha| !sha.is_empty())
    }

    /// Whether a service account acts for a person.
    pub(super) fn has_composite_identity(&self) -> bool {
        self.job_info.scoped_user_id.is_some()
    }
}
