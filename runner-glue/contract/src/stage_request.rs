//! What `jacamar STAGE` gets, all of it in one sealed memfd as descriptor 0.
//!
//! A script may have megabytes, more than a frame takes, so the container is a frame with the settings and the
//! script's length, then exactly that many bytes, then the end. Nothing of it stands in an argument, in the
//! environment or in a file, where another user could read it, and descriptor 0 is the one that sudo(8) and su(1)
//! pass on. What comes back of a `run` is a [`crate::stage_report::StageReport`].

use jacamar_plan::{Stage, SubStage};
use serde::{Deserialize, Serialize};

use crate::environment::PATH_MAX_BYTES;
use crate::frame::{self, FrameError, HEADER_BYTES, Kind, PAYLOAD_MAX_BYTES, Payload, Reader, Writer};
use crate::text::{Charset, InvalidText, TextProblem, check};

/// The container's descriptor.
pub const DESCRIPTOR: i32 = 0;

/// Largest script, in bytes.
pub const SCRIPT_MAX_BYTES: usize = CONTAINER_MAX_BYTES - HEADER_BYTES - PAYLOAD_MAX_BYTES;

/// Largest container, in bytes.
pub const CONTAINER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Most variables for the job's shell.
pub const ENVIRONMENT_MAX_COUNT: usize = 256;

/// Longest name of such a variable, in bytes.
pub const NAME_MAX_BYTES: usize = 255;

/// Longest value of such a variable, in bytes. All of them together have to fit the frame.
pub const VALUE_MAX_BYTES: usize = 32 * 1024;

/// Most paths that `cleanup` removes.
pub const REMOVE_MAX_COUNT: usize = 64;

/// Longest `[general] job_message`, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 8 * 1024;

/// Longest name (account, host, sandbox profile) and longest contact, in bytes.
pub const SHOWN_MAX_BYTES: usize = 1024;

/// Mode of the directories that `prepare` makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DirectoryMode {
    /// 0700.
    #[default]
    Private,
    /// 0750 (`[general] group_permissions`).
    Group,
}

impl DirectoryMode {
    /// The bits for mkdir(2).
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Private => 0o700,
            Self::Group => 0o750,
        }
    }

    const fn number(self) -> u16 {
        match self {
            Self::Private => 1,
            Self::Group => 2,
        }
    }

    fn from_number(number: u16) -> Result<Self, FrameError> {
        match number {
            1 => Ok(Self::Private),
            2 => Ok(Self::Group),
            _ => Err(FrameError::Meaningless { field: "directory_mode", number: number.into() }),
        }
    }
}

/// Which start-up files the job's Bash reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProfileMode {
    /// All of a login shell.
    #[default]
    Login,
    /// None (`bash --noprofile`).
    NoProfile,
    /// `/etc/profile` alone.
    EtcProfileOnly,
}

impl ProfileMode {
    const fn number(self) -> u16 {
        match self {
            Self::Login => 1,
            Self::NoProfile => 2,
            Self::EtcProfileOnly => 3,
        }
    }

    fn from_number(number: u16) -> Result<Self, FrameError> {
        match number {
            1 => Ok(Self::Login),
            2 => Ok(Self::NoProfile),
            3 => Ok(Self::EtcProfileOnly),
            _ => Err(FrameError::Meaningless { field: "profile", number: number.into() }),
        }
    }
}

/// The settings of one stage for the shell executor, and the length of its script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageRequest {
    /// Which stage.
    pub stage: Stage,
    /// The shell, an absolute path (`[general] shell_path`, else what the supervisor found).
    pub shell: String,
    /// `HOME` of the job.
    pub home: String,
    /// The job's builds directory, as `config` answered it.
    pub builds_dir: String,
    /// The job's cache directory, as `config` answered it.
    pub cache_dir: String,
    /// Which start-up files the shell reads.
    pub profile: ProfileMode,
    /// Further variables for the shell, in order (`[general] user_bash_env`, `JACAMAR_CI_SHELL`).
    pub environment: Vec<(String, String)>,
    /// Mode of the directories that `prepare` makes.
    pub directory_mode: DirectoryMode,
    /// What `prepare` says first (`[general] job_message`); may be empty.
    pub job_message: String,
    /// The account's name, for messages; may be empty, as the next three.
    pub account: String,
    /// The host's name, for messages.
    pub host: String,
    /// The sandbox profile's name, for messages.
    pub sandbox_profile: String,
    /// Whom to ask, for messages (`[general] support_contact`).
    pub support_contact: String,
    /// Files and directories that `cleanup` removes, each of them below `builds_dir`.
    pub remove: Vec<String>,
    /// The control group whose counters `run` writes into `usage_file`; empty where there is none.
    pub usage_group: String,
    /// The file for what the job used so far; empty where nobody wants one.
    pub usage_file: String,
    /// Whether [`crate::stage_report::DESCRIPTOR`] is open for the report of `run`.
    pub report: bool,
    /// Length of the script that follows, in bytes; 0 in stages without one.
    pub script_bytes: u64,
}

impl StageRequest {
    /// The container: settings and script.
    ///
    /// # Errors
    /// [`FrameError`], with [`FrameError::Body`] if the script is not as long as the settings say. A caller
    /// that does not want the script copied writes [`frame::encode`] of the settings and then the script.
    pub fn encode(&self, script: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut container = frame::encode(self)?;
        self.compare(script)?;
        container.extend_from_slice(script);
        Ok(container)
    }

    /// Settings and script of a container that is all of `bytes`.
    ///
    /// # Errors
    /// [`FrameError`], with [`FrameError::Body`] if the script is not as long as the settings say.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), FrameError> {
        let (request, script) = frame::split::<Self>(bytes)?;
        request.compare(script)?;
        Ok((request, script))
    }

    fn compare(&self, script: &[u8]) -> Result<(), FrameError> {
        let have_bytes = script.len() as u64;
        if have_bytes == self.script_bytes {
            Ok(())
        } else {
            Err(FrameError::Body { have_bytes, need_bytes: self.script_bytes })
        }
    }

    fn words(&self) -> (&'static str, &str) {
        match &self.stage {
            Stage::Config => ("config", ""),
            Stage::Prepare => ("prepare", ""),
            Stage::Run(sub_stage) => ("run", sub_stage.as_str()),
            Stage::Cleanup => ("cleanup", ""),
            Stage::Exec => ("exec", ""),
        }
    }
}

/// The stage of its word and its sub-stage, which only `run` has.
fn stage(word: &str, sub_stage: &str) -> Result<Stage, FrameError> {
    let stage = match word {
        "config" => Stage::Config,
        "prepare" => Stage::Prepare,
        "run" => {
            let sub_stage =
                SubStage::new(sub_stage).map_err(|_| invalid("sub_stage", "the name of a sub-stage"))?;
            return Ok(Stage::Run(sub_stage));
        }
        "cleanup" => Stage::Cleanup,
        "exec" => Stage::Exec,
        _ => return Err(invalid("stage", "a stage")),
    };
    if sub_stage.is_empty() { Ok(stage) } else { Err(invalid("sub_stage", "empty for this stage")) }
}

/// Longest word of a stage, in bytes.
const STAGE_MAX_BYTES: usize = 8;

impl Payload for StageRequest {
    const KIND: Kind = Kind::StageRequest;

    fn check(&self) -> Result<(), FrameError> {
        check("shell", &self.shell, PATH_MAX_BYTES, Charset::AbsolutePath)?;
        check("home", &self.home, PATH_MAX_BYTES, Charset::AbsolutePath)?;
        check("builds_dir", &self.builds_dir, PATH_MAX_BYTES, Charset::AbsolutePath)?;
        check("cache_dir", &self.cache_dir, PATH_MAX_BYTES, Charset::AbsolutePath)?;
        check_count("environment", self.environment.len(), ENVIRONMENT_MAX_COUNT)?;
        for (name, value) in &self.environment {
            check("environment", name, NAME_MAX_BYTES, Charset::VariableName)?;
            if !value.is_empty() {
                check("environment", value, VALUE_MAX_BYTES, Charset::NoNul)?;
            }
        }
        check_shown("job_message", &self.job_message, MESSAGE_MAX_BYTES, Charset::NoNul)?;
        check_shown("account", &self.account, SHOWN_MAX_BYTES, Charset::Shown)?;
        check_shown("host", &self.host, SHOWN_MAX_BYTES, Charset::Shown)?;
        check_shown("sandbox_profile", &self.sandbox_profile, SHOWN_MAX_BYTES, Charset::Shown)?;
        check_shown("support_contact", &self.support_contact, SHOWN_MAX_BYTES, Charset::Shown)?;
        check_count("remove", self.remove.len(), REMOVE_MAX_COUNT)?;
        for path in &self.remove {
            check("remove", path, PATH_MAX_BYTES, Charset::AbsolutePath)?;
            let below = path.strip_prefix(&self.builds_dir).and_then(|rest| rest.strip_prefix('/'));
            if below.is_none_or(|rest| rest.split('/').any(str::is_empty)) {
                return Err(invalid("remove", "a path below builds_dir"));
            }
        }
        check_shown("usage_group", &self.usage_group, PATH_MAX_BYTES, Charset::AbsolutePath)?;
        check_shown("usage_file", &self.usage_file, PATH_MAX_BYTES, Charset::AbsolutePath)?;
        let max_bytes = SCRIPT_MAX_BYTES as u64;
        if self.script_bytes > max_bytes {
            return Err(FrameError::BodyTooLong { bytes: self.script_bytes, max_bytes });
        }
        Ok(())
    }

    fn write(&self, fields: &mut Writer) {
        let (stage, sub_stage) = self.words();
        fields.text(stage);
        fields.text(sub_stage);
        fields.text(&self.shell);
        fields.text(&self.home);
        fields.text(&self.builds_dir);
        fields.text(&self.cache_dir);
        fields.word(self.profile.number());
        fields.number(self.environment.len() as u64);
        for (name, value) in &self.environment {
            fields.text(name);
            fields.text(value);
        }
        fields.word(self.directory_mode.number());
        fields.text(&self.job_message);
        fields.text(&self.account);
        fields.text(&self.host);
        fields.text(&self.sandbox_profile);
        fields.text(&self.support_contact);
        fields.number(self.remove.len() as u64);
        for path in &self.remove {
            fields.text(path);
        }
        fields.text(&self.usage_group);
        fields.text(&self.usage_file);
        fields.flag(self.report);
        fields.number(self.script_bytes);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FrameError> {
        let word = fields.text("stage", STAGE_MAX_BYTES)?;
        let stage = stage(&word, &fields.text("sub_stage", SubStage::LENGTH_MAX)?)?;
        let shell = fields.text("shell", PATH_MAX_BYTES)?;
        let home = fields.text("home", PATH_MAX_BYTES)?;
        let builds_dir = fields.text("builds_dir", PATH_MAX_BYTES)?;
        let cache_dir = fields.text("cache_dir", PATH_MAX_BYTES)?;
        let profile = ProfileMode::from_number(fields.word("profile")?)?;
        let mut environment = Vec::new();
        for _ in 0..read_count(fields, "environment", ENVIRONMENT_MAX_COUNT)? {
            let name = fields.text("environment", NAME_MAX_BYTES)?;
            environment.push((name, fields.text("environment", VALUE_MAX_BYTES)?));
        }
        let directory_mode = DirectoryMode::from_number(fields.word("directory_mode")?)?;
        let job_message = fields.text("job_message", MESSAGE_MAX_BYTES)?;
        let account = fields.text("account", SHOWN_MAX_BYTES)?;
        let host = fields.text("host", SHOWN_MAX_BYTES)?;
        let sandbox_profile = fields.text("sandbox_profile", SHOWN_MAX_BYTES)?;
        let support_contact = fields.text("support_contact", SHOWN_MAX_BYTES)?;
        let mut remove = Vec::new();
        for _ in 0..read_count(fields, "remove", REMOVE_MAX_COUNT)? {
            remove.push(fields.text("remove", PATH_MAX_BYTES)?);
        }
        let usage_group = fields.text("usage_group", PATH_MAX_BYTES)?;
        let usage_file = fields.text("usage_file", PATH_MAX_BYTES)?;
        let report = fields.flag("report")?;
        let script_bytes = fields.number("script_bytes")?;
        Ok(Self {
            stage,
            shell,
            home,
            builds_dir,
            cache_dir,
            profile,
            environment,
            directory_mode,
            job_message,
            account,
            host,
            sandbox_profile,
            support_contact,
            remove,
            usage_group,
            usage_file,
            report,
            script_bytes,
        })
    }
}

/// A text that may be empty.
fn check_shown(
    field: &'static str,
    text: &str,
    max_bytes: usize,
    charset: Charset,
) -> Result<(), InvalidText> {
    if text.is_empty() { Ok(()) } else { check(field, text, max_bytes, charset) }
}

fn invalid(field: &'static str, form: &'static str) -> FrameError {
    InvalidText { field, problem: TextProblem::Form(form) }.into()
}

fn check_count(field: &'static str, count: usize, max_count: usize) -> Result<(), FrameError> {
    if count > max_count { Err(FrameError::TooMany { field, count, max_count }) } else { Ok(()) }
}

/// The length of a list, before anything is allocated for it.
pub(crate) fn read_count(
    fields: &mut Reader<'_>,
    field: &'static str,
    max_count: usize,
) -> Result<usize, FrameError> {
    let count = usize::try_from(fields.number(field)?).unwrap_or(usize::MAX);
    check_count(field, count, max_count)?;
    Ok(count)
}
