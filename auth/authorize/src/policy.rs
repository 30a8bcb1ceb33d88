//! What the site allows: `[auth]` of the configuration, typed.

use serde::{Deserialize, Serialize};

/// What `[auth]` of the configuration says about who may run jobs. An empty list says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Accounts that are accepted whatever the other three lists say.
    pub user_allowlist: Vec<String>,
    /// Accounts that are refused, unless on [`Policy::user_allowlist`].
    pub user_blocklist: Vec<String>,
    /// Groups whose members are refused, unless on [`Policy::user_allowlist`].
    pub groups_blocklist: Vec<String>,
    /// Groups whose members are accepted, unless a blocklist names them.
    pub groups_allowlist: Vec<String>,
    /// Login shells that an account must have one of.
    pub shell_allowlist: Vec<String>,
    /// `pipeline_source` claims that a job must have one of.
    pub pipeline_source_allowlist: Vec<String>,
    /// Whether accounts of GitLab that are no persons may run jobs.
    pub allow_bot_accounts: bool,
    /// Whether a nologin file of the host refuses every job.
    pub enforce_nologin: bool,
    /// Lowest uid that may run jobs (`UID_MIN` of login.defs(5), unless the site says another). 0 has no effect:
    /// root is refused by a rule of its own.
    pub minimum_uid: u32,
    /// How the user is changed.
    pub downscope: Downscope,
    /// GitLab's id of this runner; `None`: not compared.
    pub runner_id: Option<u64>,
}

/// How the user is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Downscope {
    /// By `jacamar-auth` itself (root or file capabilities).
    Setuid,
    /// By sudo(8).
    Sudo,
    /// By su(1).
    Su,
    /// Not at all: every job runs as the account that the runner has.
    None,
}
