//! From a file to [`Settings`]: defaults are filled in, and each value is judged by itself.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use jacamar_plan::SubStage;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::check::{Check, place};
use super::judge::{assignment, cgroup, claim, log_location, name, profile, variable};
use super::key::Fallback;
use super::keys::keys;
use super::limits;
use super::{
    AbsolutePath, Auth, Cgroup, DataDir, Downscope, Executor, General, Invalid, LogLevel, LogLocation,
    Logging, Millis, Mode, ProxyUrl, Sandbox, SandboxLimits, ServerUrl, Settings, parse_duration,
};
use crate::accounts::UidMin;
use crate::source::{ConfigError, ConfigErrors, Document, Origin};
use crate::trusted_file::{self, Trust, Untrusted};

/// Longest `kill_timeout`.
const KILL_TIMEOUT_MAX: Millis = Millis::from_secs(24 * 3600);
/// Longest `jwt_exp_delay`, as in Jacamar.
const JWT_EXP_DELAY_MAX: Millis = Millis::from_secs(3600);

/// A configuration and where each of its values was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What it says.
    pub settings: Settings,
    /// File and line of each key that was written, by `table.key`; `auth.minimum_uid` may be from login.defs.
    pub origins: BTreeMap<String, Origin>,
}

/// The configuration could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Others than root (or the caller) could have written it, or it cannot be read.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// It is wrong.
    #[error(transparent)]
    Invalid(#[from] ConfigErrors),
}

/// Opens a configuration that only `trust` can have written, and reads it.
///
/// # Errors
/// [`ReadError`]
pub fn read(path: &Path, trust: Trust, uid_min: &UidMin) -> Result<Config, ReadError> {
    let file = trusted_file::read(path, trust)?;
    Ok(Config::parse(&file, uid_min)?)
}

impl Config {
    /// Reads the text of a configuration. `uid_min` is the default of `minimum_uid`.
    ///
    /// # Errors
    /// All that is wrong, in the order of the file; a text that is no TOML has one error.
    pub fn parse(document: &Document, uid_min: &UidMin) -> Result<Self, ConfigErrors> {
        let tree = document.parse()?;
        let check = Check::of(document, tree.get_ref());
        let (limits, of_limits) = limits::read(document, tree.get_ref());
        ConfigErrors::none_of(check.errors.into_iter().chain(of_limits).collect())?;
        let mut values =
            Values { document, errors: Vec::new(), origins: check.origins, tables: check.tables };
        let settings = values.settings(document.fill(tree)?, limits, uid_min);
        ConfigErrors::none_of(values.errors)?;
        // Without an error nothing required is missing; said again so that no path leads around it.
        let settings = settings.ok_or_else(|| document.error(0..0, "a required key is missing", ""))?;
        Ok(Self { settings, origins: values.origins })
    }

    /// `/etc/jacamar/site.toml:12`, or `default`. The key is written `table.key`.
    #[must_use]
    pub fn origin(&self, key: &str) -> String {
        self.origins.get(key).map_or_else(|| "default".to_owned(), Origin::to_string)
    }
}

/// The file as serde sees it, after [`Check`]: keys that are not built have their default and no field here.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawConfig {
    general: RawGeneral,
    auth: RawAuth,
    sandbox: RawSandbox,
}

type Text = Option<Spanned<String>>;
type List = Vec<Spanned<String>>;
type Number = Option<Spanned<u64>>;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawGeneral {
    executor: Option<Executor>,
    data_dir: Text,
    gitlab_server: Text,
    retain_logs: bool,
    name: String,
    kill_timeout: Text,
    shell_path: Text,
    job_message: String,
    support_contact: String,
    #[serde(rename = "tls-ca-file")]
    tls_ca_file: Text,
    https_proxy: Text,
    jwt_env_variable: Text,
    set_stack_size: bool,
    user_bash_env: List,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawAuth {
    downscope: Option<Downscope>,
    jacamar_path: Text,
    jwt_issuer: Text,
    jwt_required_aud: Text,
    jwt_exp_delay: Text,
    runner_id: Number,
    minimum_uid: Number,
    user_allowlist: List,
    user_blocklist: List,
    groups_blocklist: List,
    groups_allowlist: List,
    shell_allowlist: List,
    pipeline_source_allowlist: List,
    run_stage_allowlist: List,
    allow_bot_accounts: bool,
    enforce_nologin: bool,
    no_new_privs: bool,
    max_env_chars: Number,
    logging: RawLogging,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawLogging {
    enabled: Option<bool>,
    location: Text,
    level: Option<LogLevel>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawSandbox {
    profile: Text,
    mode: Option<Mode>,
    cgroup: Text,
    tmp_dir: Text,
    usage_report: Option<bool>,
}

/// Turns raw values into settings and keeps what was wrong.
struct Values<'d> {
    document: &'d Document,
    errors: Vec<ConfigError>,
    origins: BTreeMap<String, Origin>,
    tables: BTreeMap<String, Range<usize>>,
}

impl Values<'_> {
    fn settings(&mut self, raw: RawConfig, limits: SandboxLimits, uid_min: &UidMin) -> Option<Settings> {
        let general = self.general(raw.general);
        let server = general.as_ref().map(|general| general.gitlab_server.as_str());
        let auth = self.auth(raw.auth, server, uid_min);
        let sandbox = self.sandbox(raw.sandbox, limits);
        Some(Settings { general: general?, auth: auth?, sandbox: sandbox? })
    }

    fn general(&mut self, raw: RawGeneral) -> Option<General> {
        let executor = self.required("general.executor", raw.executor);
        let data_dir = self.required_text("general.data_dir", raw.data_dir, DataDir::new);
        let gitlab_server = self.required_text("general.gitlab_server", raw.gitlab_server, ServerUrl::new);
        let kill_timeout = self.text("general.kill_timeout", raw.kill_timeout, |text| {
            let timeout = parse_duration(text, KILL_TIMEOUT_MAX)?;
            let hint = "give a job at least `1ms` to end by itself, or remove the line";
            if timeout == Millis(0) { Err(Invalid::new("no time at all", hint)) } else { Ok(timeout) }
        });
        let shell_path = self.text("general.shell_path", raw.shell_path, AbsolutePath::new);
        let tls_ca_file = self.text("general.tls-ca-file", raw.tls_ca_file, AbsolutePath::new);
        let https_proxy = self.text("general.https_proxy", raw.https_proxy, ProxyUrl::new);
        let jwt_env_variable = self.text("general.jwt_env_variable", raw.jwt_env_variable, variable);
        let user_bash_env = self.list("general.user_bash_env", raw.user_bash_env, assignment);
        Some(General {
            executor: executor?,
            data_dir: data_dir?,
            gitlab_server: gitlab_server?,
            retain_logs: raw.retain_logs,
            name: raw.name,
            kill_timeout: kill_timeout.unwrap_or(Millis::from_secs(120)),
            shell_path,
            job_message: raw.job_message,
            support_contact: raw.support_contact,
            tls_ca_file,
            https_proxy,
            jwt_env_variable: jwt_env_variable.unwrap_or_else(|| "CI_JOB_JWT".to_owned()),
            set_stack_size: raw.set_stack_size,
            user_bash_env,
        })
    }

    fn auth(&mut self, raw: RawAuth, server: Option<&str>, uid_min: &UidMin) -> Option<Auth> {
        let downscope = self.required("auth.downscope", raw.downscope);
        let issuer = self.text("auth.jwt_issuer", raw.jwt_issuer, claim);
        // Type and maximum are Jacamar's; nothing needs the value, because no stage after `config` reads a token.
        self.text("auth.jwt_exp_delay", raw.jwt_exp_delay, |text| parse_duration(text, JWT_EXP_DELAY_MAX));
        let minimum_uid = self.number("auth.minimum_uid", raw.minimum_uid, 0, u64::from(u32::MAX - 1));
        let max_env_chars = self.number("auth.max_env_chars", raw.max_env_chars, 1, u64::from(u32::MAX));
        if let (None, Some(origin)) = (minimum_uid, &uid_min.origin) {
            self.origins.insert("auth.minimum_uid".to_owned(), origin.clone());
        }
        let as_u32 = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Some(Auth {
            jacamar_path: self.text("auth.jacamar_path", raw.jacamar_path, AbsolutePath::new),
            jwt_required_aud: self.text("auth.jwt_required_aud", raw.jwt_required_aud, claim),
            runner_id: self.number("auth.runner_id", raw.runner_id, 1, u64::MAX),
            minimum_uid: minimum_uid.map_or(uid_min.uid, as_u32),
            user_allowlist: self.list("auth.user_allowlist", raw.user_allowlist, name),
            user_blocklist: self.list("auth.user_blocklist", raw.user_blocklist, name),
            groups_blocklist: self.list("auth.groups_blocklist", raw.groups_blocklist, name),
            groups_allowlist: self.list("auth.groups_allowlist", raw.groups_allowlist, name),
            shell_allowlist: self.list("auth.shell_allowlist", raw.shell_allowlist, AbsolutePath::new),
            pipeline_source_allowlist: self.list(
                "auth.pipeline_source_allowlist",
                raw.pipeline_source_allowlist,
                name,
            ),
            run_stage_allowlist: self.list("auth.run_stage_allowlist", raw.run_stage_allowlist, |text| {
                SubStage::new(text).map_err(|error| Invalid::new(error.to_string(), ""))
            }),
            allow_bot_accounts: raw.allow_bot_accounts,
            enforce_nologin: raw.enforce_nologin,
            no_new_privs: raw.no_new_privs,
            max_env_chars: max_env_chars.map_or(10_000, as_u32),
            logging: Logging {
                enabled: raw.logging.enabled.unwrap_or(true),
                location: self
                    .text("auth.logging.location", raw.logging.location, log_location)
                    .unwrap_or(LogLocation::Auto),
                level: raw.logging.level.unwrap_or(LogLevel::Debug),
            },
            downscope: downscope?,
            jwt_issuer: match issuer {
                Some(issuer) => issuer,
                None => server?.to_owned(),
            },
        })
    }

    fn sandbox(&mut self, raw: RawSandbox, limits: SandboxLimits) -> Option<Sandbox> {
        let profile = self.text("sandbox.profile", raw.profile, profile);
        let cgroup = self.text("sandbox.cgroup", raw.cgroup, cgroup);
        let tmp_dir = self.text("sandbox.tmp_dir", raw.tmp_dir, AbsolutePath::new);
        Some(Sandbox {
            profile,
            mode: raw.mode.unwrap_or(Mode::Enforce),
            cgroup: cgroup.unwrap_or(Cgroup::Auto),
            tmp_dir,
            usage_report: raw.usage_report.unwrap_or(true),
            limits,
        })
    }

    fn required<T>(&mut self, full: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            let (table, name) = table_and_name(full);
            let known = keys().iter().find(|key| (key.table, key.name) == (table, name));
            let meaning = known.map_or("", |key| key.meaning);
            let example = match known.map(|key| key.default) {
                Some(Fallback::Required(example)) => example,
                Some(
                    Fallback::Off
                    | Fallback::On
                    | Fallback::Nothing(_)
                    | Fallback::Text(_)
                    | Fallback::Number(_)
                    | Fallback::Duration(_),
                )
                | None => "...",
            };
            let message = format!("{} must be set: {meaning}", place(table, name));
            let hint = format!("below [{table}] add the line: {name} = {example}");
            let span = self.tables.get(table).cloned().unwrap_or(0..0);
            self.errors.push(self.document.error(span, message, hint));
        }
        value
    }

    fn required_text<T>(
        &mut self,
        full: &str,
        value: Text,
        judge: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Option<T> {
        let value = self.required(full, value.filter(|text| !text.get_ref().is_empty()));
        self.text(full, value, judge)
    }

    /// A text that is empty is the same as one that is not set.
    fn text<T>(&mut self, full: &str, value: Text, judge: impl Fn(&str) -> Result<T, Invalid>) -> Option<T> {
        let value = value.filter(|text| !text.get_ref().is_empty())?;
        self.judged(full, &value, &judge)
    }

    fn list<T>(&mut self, full: &str, values: List, judge: impl Fn(&str) -> Result<T, Invalid>) -> Vec<T> {
        values.iter().filter_map(|value| self.judged(full, value, &judge)).collect()
    }

    fn judged<T>(
        &mut self,
        full: &str,
        value: &Spanned<String>,
        judge: &impl Fn(&str) -> Result<T, Invalid>,
    ) -> Option<T> {
        match judge(value.get_ref()) {
            Ok(judged) => Some(judged),
            Err(invalid) => {
                let (table, name) = table_and_name(full);
                let message = format!("{}: {}", place(table, name), invalid.message);
                let error = self.document.error(value.span(), message, invalid.hint);
                self.errors.push(if invalid.secret { error.without_source() } else { error });
                None
            }
        }
    }

    fn number(&mut self, full: &str, value: Number, min: u64, max: u64) -> Option<u64> {
        let value = value?;
        let number = *value.get_ref();
        if (min..=max).contains(&number) {
            return Some(number);
        }
        let range = if number < min { format!("at least {min}") } else { format!("at most {max}") };
        let (table, name) = table_and_name(full);
        let message = format!("{}: {number} is not possible, {range}", place(table, name));
        self.errors.push(self.document.error(value.span(), message, ""));
        None
    }
}

/// `auth.logging.level` is `level` in `auth.logging`.
fn table_and_name(full: &str) -> (&str, &str) {
    full.rsplit_once('.').unwrap_or(("", full))
}

#[cfg(test)]
mod tests;
