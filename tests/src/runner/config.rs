//! `config.toml`: the keys of GitLab Runner 19.4. An unknown key is an error here, though the runner itself only
//! complains about it in `lint`: a site that tries its own file wants to hear of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{clock, go};

const GLOBAL_KEYS: [&str; 15] = [
    "listen_address",
    "session_server",
    "labels",
    "concurrent",
    "check_interval",
    "log_level",
    "log_format",
    "user",
    "runners",
    "sentry_dsn",
    "connection_max_age",
    "machine",
    "experimental",
    "shutdown_timeout",
    "metrics_server",
];

const RUNNER_KEYS: [&str; 54] = [
    "name",
    "limit",
    "output_limit",
    "request_concurrency",
    "strict_check_interval",
    "unhealthy_requests_limit",
    "unhealthy_interval",
    "job_status_final_update_retry_limit",
    "experimental",
    "url",
    "id",
    "token",
    "token_obtained_at",
    "token_expires_at",
    "tls-ca-file",
    "tls-cert-file",
    "tls-key-file",
    "labels",
    "executor",
    "builds_dir",
    "cache_dir",
    "clone_url",
    "environment",
    "proxy_exec",
    "pre_get_sources_script",
    "post_get_sources_script",
    "pre_build_script",
    "post_build_script",
    "prepare_timeout",
    "get_sources_timeout",
    "debug_trace_disabled",
    "safe_directory_checkout",
    "clean_git_config",
    "shell",
    "custom_build_dir",
    "referees",
    "cache",
    "artifact",
    "feature_flags",
    "monitoring",
    "use_slot_cgroups",
    "slot_cgroup_template",
    "instance",
    "ssh",
    "docker",
    "parallels",
    "virtualbox",
    "machine",
    "kubernetes",
    "custom",
    "autoscaler",
    "step_runner_image",
    "pre_clone_script",
    "post_clone_script",
];

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the runner's own names")]
pub struct Config {
    pub concurrent: i64,
    pub log_level: Option<String>,
    pub shutdown_timeout: i64,
    pub runners: Vec<RunnerConfig>,
}

/// One `[[runners]]` entry: the keys that matter to a custom executor.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the runner's own names")]
pub struct RunnerConfig {
    pub name: String,
    pub output_limit: i64,
    pub url: String,
    pub id: i64,
    pub token: String,
    #[serde(rename = "tls-ca-file")]
    pub tls_ca_file: Option<String>,
    pub executor: String,
    pub builds_dir: String,
    pub cache_dir: String,
    pub clone_url: String,
    pub environment: Vec<String>,
    pub pre_get_sources_script: String,
    pub post_get_sources_script: String,
    pub pre_build_script: String,
    pub post_build_script: String,
    #[serde(deserialize_with = "duration")]
    pub prepare_timeout: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub get_sources_timeout: Option<Duration>,
    pub debug_trace_disabled: bool,
    pub safe_directory_checkout: Option<bool>,
    pub clean_git_config: Option<bool>,
    pub shell: String,
    pub custom_build_dir: CustomBuildDir,
    pub artifact: ArtifactConfig,
    pub feature_flags: BTreeMap<String, bool>,
    pub custom: Option<CustomConfig>,
}

/// `[runners.custom_build_dir]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the runner's own names")]
pub struct CustomBuildDir {
    pub enabled: Option<bool>,
}

/// `[runners.artifact]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the runner's own names")]
pub struct ArtifactConfig {
    #[serde(deserialize_with = "duration")]
    pub upload_timeout: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub response_header_timeout: Option<Duration>,
}

/// `[runners.custom]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the runner's own names")]
pub struct CustomConfig {
    pub config_exec: String,
    pub config_args: Vec<String>,
    pub config_exec_timeout: Option<i64>,
    pub prepare_exec: String,
    pub prepare_args: Vec<String>,
    pub prepare_exec_timeout: Option<i64>,
    pub run_exec: String,
    pub run_args: Vec<String>,
    pub cleanup_exec: String,
    pub cleanup_args: Vec<String>,
    pub cleanup_exec_timeout: Option<i64>,
    pub graceful_kill_timeout: Option<i64>,
    pub force_kill_timeout: Option<i64>,
}

/// Seconds, or the default where there are none; zero and less count as none.
pub(crate) fn seconds_or(configured: Option<i64>, default: Duration) -> Duration {
    match configured.and_then(|value| u64::try_from(value).ok()) {
        None | Some(0) => default,
        Some(value) => Duration::from_secs(value),
    }
}

/// Go's `time.Duration` in TOML: a text such as `1h30m`, or nanoseconds.
fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    use serde::de::Error as _;
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => clock::parse_go_duration(&text)
            .map(Some)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is not a duration"))),
        toml::Value::Integer(nanos) => Ok(u64::try_from(nanos).ok().map(Duration::from_nanos)),
        other => Err(D::Error::custom(format!("a {} is not a duration", other.type_str()))),
    }
}

fn known(table: &toml::Table, keys: &[&str], place: &str) -> Result<()> {
    for key in table.keys() {
        if !keys.contains(&key.as_str()) {
            bail!("unknown key `{key}` in {place}");
        }
    }
    Ok(())
}

impl Config {
    /// Reads a `config.toml`. `$NAME` in token and URL is taken from the environment, as the runner does.
    ///
    /// # Errors
    /// If the text is not TOML, or has an unknown key or a value of another type.
    pub fn parse(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Config> {
        let table: toml::Table = toml::from_str(text).context("read config.toml")?;
        known(&table, &GLOBAL_KEYS, "config.toml")?;
        let entries = table.get("runners").and_then(toml::Value::as_array);
        for (number, entry) in entries.into_iter().flatten().enumerate() {
            let Some(entry) = entry.as_table() else { bail!("`runners` is not a list of tables") };
            known(entry, &RUNNER_KEYS, &format!("[[runners]] number {}", number + 1))?;
        }
        let mut config: Config = toml::from_str(text).context("read config.toml")?;
        for runner in &mut config.runners {
            let value = |name: &str| environment(name).unwrap_or_default();
            runner.token = go::expand(&runner.token, value);
            runner.url = go::expand(&runner.url, value);
        }
        Ok(config)
    }

    /// Reads a `config.toml` from a file, with this process's environment.
    ///
    /// # Errors
    /// If the file cannot be read, and as [`Config::parse`].
    pub fn read(path: &Path) -> Result<Config> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Config::parse(&text, |name| std::env::var(name).ok()).with_context(|| path.display().to_string())
    }

    /// The only runner with a custom executor, or the one of this name.
    ///
    /// # Errors
    /// If there is none, or none of this name.
    pub fn runner(&self, name: Option<&str>) -> Result<&RunnerConfig> {
        let mut fitting = self
            .runners
            .iter()
            .filter(|runner| name.map_or(runner.executor == "custom", |name| runner.name == name));
        fitting.next().context("config.toml has no such runner with executor = \"custom\"")
    }
}

impl RunnerConfig {
    /// The token as the runner shows it: prefix away, then nine characters.
    pub fn short_token(&self) -> String {
        let mut token = self.token.as_str();
        if let Some(rest) = token.strip_prefix("glrt-") {
            token = rest;
        }
        for partition in ["t1_", "t2_", "t3_"] {
            if let Some(rest) = token.strip_prefix(partition) {
                token = rest;
                break;
            }
        }
        for prefix in ["glrtr-", "glcbt-"] {
            if let Some(rest) = token.strip_prefix(prefix) {
                token = rest;
            }
        }
        token.chars().take(9).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = r#"
concurrent = 4
check_interval = 0
[session_server]
  session_timeout = 1800
[[runners]]
  name = "hpc"
  url = "https://gitlab.example.com"
  token = "$RUNNER_TOKEN"
  executor = "custom"
  prepare_timeout = "90s"
  [runners.cache]
    MaxUploadedArchiveSize = 0
  [runners.custom]
    config_exec = "/opt/jacamar/bin/jacamar-auth"
    config_args = ["config", "--configuration", "/etc/jacamar/config.toml"]
    prepare_exec = "/opt/jacamar/bin/jacamar-auth"
    prepare_args = ["prepare"]
    run_exec = "/opt/jacamar/bin/jacamar-auth"
    run_args = ["run"]
    cleanup_exec = "/opt/jacamar/bin/jacamar-auth"
    cleanup_args = ["cleanup", "--configuration", "/etc/jacamar/config.toml"]
"#;

    #[test]
    fn a_sites_file_is_read() {
        let config = Config::parse(SITE, |_| Some("glrt-t3_abcdefghijkl".into())).unwrap();
        let runner = config.runner(None).unwrap();
        assert_eq!(runner.short_token(), "abcdefghi");
        assert_eq!(runner.prepare_timeout, Some(Duration::from_secs(90)));
        assert_eq!(runner.custom.as_ref().unwrap().run_args, ["run"]);
    }

    #[test]
    fn an_unknown_key_is_named() {
        for (from, to, name) in [
            ("concurrent = 4", "concurent = 4", "concurent"),
            ("  name = \"hpc\"", "  nam = \"hpc\"", "nam"),
            ("    run_args", "    run_arg = []\n    run_args", "run_arg"),
        ] {
            let error = Config::parse(&SITE.replace(from, to), |_| None).unwrap_err();
            assert!(format!("{error:#}").contains(name), "{error:#}");
        }
    }

    #[test]
    fn zero_and_less_mean_the_default() {
        let default = Duration::from_secs(600);
        assert_eq!(seconds_or(None, default), default);
        assert_eq!(seconds_or(Some(0), default), default);
        assert_eq!(seconds_or(Some(-1), default), default);
        assert_eq!(seconds_or(Some(5), default), Duration::from_secs(5));
    }
}
