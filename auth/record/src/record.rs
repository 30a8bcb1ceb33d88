//! What a record holds.

use jacamar_contract::stage_request::ProfileMode;
use jacamar_plan::{Grant, Host, Level, Max, Origin, Profile, Site, SubStage};
use serde::{Deserialize, Serialize};

use crate::ProcessId;

/// Version of the format. A program of another version finishes a record or refuses it by name, it never guesses.
pub const FORMAT: u32 = 4;

/// The project and job, of the verified claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Id of the project in which the job runs.
    pub project_id: u64,
    /// `group/project`
    pub project_path: String,
    /// Id of the pipeline.
    pub pipeline_id: u64,
    /// Id of the job.
    pub job_id: u64,
}

/// What two jobs must have in common to need different build directories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotKey {
    /// Account.
    pub uid: u32,
    /// The resolved data directory.
    pub data_dir: String,
    /// Runner id of the claims.
    pub runner_id: u64,
    /// Project id.
    pub project_id: u64,
}

/// Settings of the job's shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShellSettings {
    /// The Bash.
    pub path: String,
    /// Further variables of its environment, in order.
    pub environment: Vec<(String, String)>,
    /// Which start-up files it reads.
    pub profile: ProfileMode,
}

/// How many jobs of one user run at the same time on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobsAtOnce {
    /// So many.
    pub max: u64,
    /// Where that is written.
    pub origin: Origin,
    /// How long one above that waits, in milliseconds.
    pub wait: Max,
    /// Where that is written; none: nowhere, it is the default.
    pub wait_origin: Option<Origin>,
}

/// Where audit lines go, and which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSettings {
    /// Where to; none: nowhere, the site said so.
    pub location: Option<AuditLocation>,
    /// The least important line that is written: 3 errors, 4 refusals too, 6 grants and stages too, 7 all; the numbers of
    /// syslog(3).
    pub priority_max: u8,
    /// The site's label for this configuration.
    pub name: String,
}

/// `[auth.logging] location`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditLocation {
    /// journald's socket, else /dev/log, else `<state>/audit.jsonl`.
    Auto,
    /// /dev/log.
    Syslog,
    /// This file.
    File(String),
}

/// The record of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`FORMAT`]
    pub format: u32,
    /// The boot in which it was written: its processes, mounts and control groups are gone in another.
    pub boot_id: String,
    /// Host name.
    pub host: String,
    /// The GitLab server.
    pub server: String,
    /// Runner id of the claims.
    pub runner_id: u64,
    /// Project and job.
    pub project: Project,
    /// The account and why.
    pub grant: Grant,
    /// The profile itself, not its name: a file that changes touches new jobs only.
    pub profile: Profile,
    /// The site's limits, and those of this user.
    pub site: Site,
    /// How many of his jobs run at the same time; none: any number.
    pub jobs_at_once: Option<JobsAtOnce>,
    /// Host facts.
    pub host_facts: Host,
    /// Level.
    pub level: Level,
    /// Path of `jacamar`.
    pub jacamar_path: String,
    /// Base of the job's private directories, which are named as the record.
    pub tmp_base: String,
    /// Which build directory.
    pub slot_key: SlotKey,
    /// Its number.
    pub slot: u32,
    /// As answered to the runner.
    pub builds_dir: String,
    /// As answered to the runner.
    pub cache_dir: String,
    /// The job's shell.
    pub shell: ShellSettings,
    /// Between SIGTERM and the end, in milliseconds.
    pub kill_timeout_ms: u64,
    /// The job's time limit in seconds, as far as its variables tell: a wish, within bounds.
    pub timeout_s: u64,
    /// Sub-stages that run; empty: all.
    pub run_stage_allowlist: Vec<SubStage>,
    /// Whether the job log says at its end what the job used.
    pub usage_report: bool,
    /// The file for what the job used, as an absolute path; none is wanted: empty.
    pub usage_file: String,
    /// Text at the start of the job log.
    pub job_message: String,
    /// Whom a CI user asks.
    pub support_contact: String,
    /// Where audit lines go.
    pub audit: AuditSettings,
    /// The process that started `config`: the runner, or a wrapper of it.
    pub runner: ProcessId,
    /// Its account: at the capability level nobody else drives the job.
    pub starter: u32,
}

/// The processes of a running stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Running {
    /// `jacamar-auth` of that stage.
    pub supervisor: ProcessId,
    /// Process 1 of the stage, by its number on the host.
    pub init: ProcessId,
}

/// Who started `prepare`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    /// The runner, or a wrapper of it.
    pub parent: ProcessId,
    /// The pid namespace in which it has that number.
    pub pid_namespace: String,
}

/// The place of a job among those of its user: written before anything of the job happens, gone with its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// Who came first has the lower one.
    pub number: u64,
    /// Whether it has come.
    pub state: TurnState,
}

/// Whether a job's turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TurnState {
    /// Its `prepare` waits, as long as it holds the record's lock.
    Waiting,
    /// The job counts until its record is removed.
    Come,
}
