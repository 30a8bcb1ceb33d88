//! The words that every crate of the house shares.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::StepError;

/// What our process may do on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The runner runs as root: namespaces without a user namespace, site cgroup, setuid helpers possible.
    Root,
    /// `jacamar-auth` has the file capabilities `cap_setuid` and `cap_setgid`: a user namespace that maps
    /// exactly the CI user's ids, owned by the keeper.
    Capabilities,
    /// No privilege at all: a user namespace with the caller's own uid and gid.
    User,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Capabilities => "capabilities",
            Self::User => "user",
        })
    }
}

/// One call of the driver by GitLab Runner, or one `exec` by a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// `config_exec`: decides once.
    Config,
    /// `prepare_exec`: makes the job's directories.
    Prepare,
    /// `run_exec`: one script of the job.
    Run(SubStage),
    /// `cleanup_exec`: ends and removes what is left.
    Cleanup,
    /// A command of a person, without GitLab.
    Exec,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => f.write_str("config"),
            Self::Prepare => f.write_str("prepare"),
            Self::Run(sub_stage) => write!(f, "run {sub_stage}"),
            Self::Cleanup => f.write_str("cleanup"),
            Self::Exec => f.write_str("exec"),
        }
    }
}

/// GitLab Runner's name for one script of `run` (`get_sources`, `build_script`, ...).
///
/// The runner adds names in new versions, so any name of the right shape is accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubStage(String);

/// Who wrote the text of a sub-stage's script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubStageKind {
    /// The job's author: `build_script` (also sent as `step_script`), `step_*`, `after_script`.
    User,
    /// GitLab Runner: git, cache, artifacts. (Variables of the job's author still act in it.)
    Predefined,
}

/// The name of a sub-stage is empty, longer than [`SubStage::LENGTH_MAX`] or has other characters than
/// `A-Z a-z 0-9 _ - .`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a sub-stage (letters, digits, `_`, `-`, `.`; at most 64 characters)")]
pub struct InvalidSubStage(String);

impl SubStage {
    /// Longest accepted name, in bytes.
    pub const LENGTH_MAX: usize = 64;

    /// Accepts what GitLab Runner sent as the last argument of `run_exec`.
    ///
    /// # Errors
    /// [`InvalidSubStage`] with the (shortened) text.
    pub fn new(name: &str) -> Result<Self, InvalidSubStage> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > Self::LENGTH_MAX || !name.bytes().all(good) {
            return Err(InvalidSubStage(name.chars().take(Self::LENGTH_MAX).collect()));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as the runner sent it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Who wrote the script's text. An unknown name is predefined.
    #[must_use]
    pub fn kind(&self) -> SubStageKind {
        if self.is_build_script() || self.0 == "after_script" || self.0.starts_with("step_") {
            SubStageKind::User
        } else {
            SubStageKind::Predefined
        }
    }

    /// `before_script` and `script` of the job. The runner calls it `build_script`, and its own code
    /// `step_script`; both names are announced.
    #[must_use]
    pub fn is_build_script(&self) -> bool {
        self.0 == "build_script" || self.0 == "step_script"
    }
}

impl fmt::Display for SubStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SubStage {
    type Error = InvalidSubStage;
    fn try_from(name: String) -> Result<Self, InvalidSubStage> {
        Self::new(&name)
    }
}

impl From<SubStage> for String {
    fn from(sub_stage: SubStage) -> Self {
        sub_stage.0
    }
}

/// A local account, as NSS described it once, in `config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All groups of getgrouplist(3), the primary one included, sorted, each once.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// The authorized account and why it was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Whose job it is.
    pub account: Account,
    /// SHA-256 of the verified claims, in hex; empty where nobody made claims (`exec`).
    pub claims_digest: String,
    /// The rule that granted it, e.g. `user_allowlist` or `exec`.
    pub rule: String,
}

/// A "no" that a person reads: one message with object, cause, what to type next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{object}: {cause}")]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Name of the rule, for the audit line (`user_blocklist`, `no_token`, ...).
    pub rule: String,
    /// What was refused: an account, a file, a key, a protection.
    pub object: String,
    /// Why.
    pub cause: String,
    /// What helps: what to type or paste, whom to ask. Empty where nothing helps.
    pub hint: String,
}

/// How a launched plan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended with this exit code.
    Exited(i32),
    /// The command was ended by this signal.
    Signalled(i32),
    /// Nothing was started, because a rule says no.
    Refused(Refusal),
    /// A step failed; the command was never started, or its end is not known.
    Broken(StepError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_stage_accepts_what_the_runner_sends_and_new_names() {
        for name in
            ["prepare_script", "get_sources", "step_script", "step_release", "after_script", "new.one-2"]
        {
            assert_eq!(SubStage::new(name).expect(name).as_str(), name);
        }
    }

    #[test]
    fn sub_stage_refuses_other_shapes() {
        for name in ["", "../x", "a b", "a\nb", "é", &"x".repeat(65)] {
            assert!(SubStage::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn sub_stage_knows_whose_text_it_is() {
        let kind = |name| SubStage::new(name).expect(name).kind();
        for name in ["build_script", "step_script", "step_release", "after_script"] {
            assert_eq!(kind(name), SubStageKind::User, "{name}");
        }
        for name in ["prepare_script", "get_sources", "clear_worktree", "unheard_of"] {
            assert_eq!(kind(name), SubStageKind::Predefined, "{name}");
        }
    }
}
