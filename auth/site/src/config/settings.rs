//! What a configuration says, with every default filled in. It goes into the record of each job as it is.

use jacamar_plan::SubStage;
use serde::{Deserialize, Serialize};

use super::{AbsolutePath, DataDir, Millis, ProxyUrl, SandboxLimits, ServerUrl};

/// The whole configuration. Keys that are not built have no field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `[general]`
    pub general: General,
    /// `[auth]`
    pub auth: Auth,
    /// `[sandbox]`
    pub sandbox: Sandbox,
}

/// `[general]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct General {
    /// Where the job's script runs.
    pub executor: Executor,
    /// Base of all files of jobs.
    pub data_dir: DataDir,
    /// The GitLab server.
    pub gitlab_server: ServerUrl,
    /// Keep the executor's files after the job.
    pub retain_logs: bool,
    /// A label for the audit log; may be empty.
    pub name: String,
    /// Time between SIGTERM and SIGKILL.
    pub kill_timeout: Millis,
    /// The Bash that starts a job's scripts; none: `/bin/bash`.
    pub shell_path: Option<AbsolutePath>,
    /// Text at the beginning of each job log; may be empty.
    pub job_message: String,
    /// Whom a refused CI user asks; may be empty.
    pub support_contact: String,
    /// Certificates that vouch for the server; none: the system's. Whose file it is has not been checked.
    pub tls_ca_file: Option<AbsolutePath>,
    /// The way to the server; none: straight.
    pub https_proxy: Option<ProxyUrl>,
    /// The job variable that holds the ID token.
    pub jwt_env_variable: String,
    /// Raise the soft stack limit to the hard one.
    pub set_stack_size: bool,
    /// `NAME=value` pairs for the environment of the login shell.
    pub user_bash_env: Vec<String>,
}

/// `[auth]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// How the job becomes its user.
    pub downscope: Downscope,
    /// The program on the user's side; none: the one beside `jacamar-auth`. Whose it is has not been checked.
    pub jacamar_path: Option<AbsolutePath>,
    /// Issuer that the token must name.
    pub jwt_issuer: String,
    /// Audience that the token must name; none: any.
    pub jwt_required_aud: Option<String>,
    /// The runner that the token must name; none: not compared.
    pub runner_id: Option<u64>,
    /// Accounts below get no job.
    pub minimum_uid: u32,
    /// Accounts that are accepted whatever the other lists say.
    pub user_allowlist: Vec<String>,
    /// Accounts that are refused.
    pub user_blocklist: Vec<String>,
    /// Groups whose members are refused.
    pub groups_blocklist: Vec<String>,
    /// Groups whose members are accepted; empty: any.
    pub groups_allowlist: Vec<String>,
    /// Login shells of accepted accounts; empty: any.
    pub shell_allowlist: Vec<AbsolutePath>,
    /// Values of CI_PIPELINE_SOURCE that are accepted; empty: any.
    pub pipeline_source_allowlist: Vec<String>,
    /// Sub-stages that are run; empty: every one.
    pub run_stage_allowlist: Vec<SubStage>,
    /// Accept GitLab's bots and service accounts.
    pub allow_bot_accounts: bool,
    /// Refuse jobs while a nologin file is there.
    pub enforce_nologin: bool,
    /// Set PR_SET_NO_NEW_PRIVS in every profile.
    pub no_new_privs: bool,
    /// Longest job variable that a setting names, in bytes.
    pub max_env_chars: u32,
    /// `[auth.logging]`
    pub logging: Logging,
}

/// `[auth.logging]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// Write the audit log.
    pub enabled: bool,
    /// Where to.
    pub location: LogLocation,
    /// The least important line that is written.
    pub level: LogLevel,
}

/// `[sandbox]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    /// Name of the profile; none: `compat`. It has letters, digits, `_` and `-` alone, so it is a file's name.
    pub profile: Option<String>,
    /// What the profile's rules do.
    pub mode: Mode,
    /// Where a job's cgroup is made.
    pub cgroup: Cgroup,
    /// Base of private /tmp directories; none: below the state directory.
    pub tmp_dir: Option<AbsolutePath>,
    /// Say at the end of a job log what the job used.
    pub usage_report: bool,
    /// Limits of the nodes above a job.
    pub limits: SandboxLimits,
}

/// `[general] executor`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Executor {
    /// On this host.
    Shell,
}

/// `[auth] downscope`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Downscope {
    /// `jacamar-auth` changes ids and groups itself.
    Setuid,
    /// The job runs as the caller.
    None,
}

/// `[sandbox] mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The rules hold.
    Enforce,
}

/// `[sandbox] cgroup`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroup {
    /// Where this host and level allow it.
    Auto,
    /// Nowhere.
    None,
    /// Below this cgroup.
    Path(AbsolutePath),
}

/// `[auth.logging] location`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLocation {
    /// Journald's socket, else /dev/log, else a file of ours.
    Auto,
    /// /dev/log.
    Syslog,
    /// This file.
    File(AbsolutePath),
}

/// `[auth.logging] level`, the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Breakages.
    Error,
    /// And refusals.
    Warn,
    /// And grants.
    Info,
    /// And what led to them.
    Debug,
}
