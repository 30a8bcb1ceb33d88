//! One job on one runner: its directories, its settings and all of its variables.

use std::time::Duration;

use super::config::RunnerConfig;
use super::failure::{Failure, Reason};
use super::settings::{Defaults, Settings};
use super::variables::Variables;
use super::version::Version;
use super::{clock, flags, go};
use crate::gitlab::{Job, List, Variable, entries};

/// What the runner knows about a job while it runs it.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    pub(crate) job: Job,
    pub(crate) runner: RunnerConfig,
    pub(crate) version: Version,
    pub(crate) concurrent_id: u32,
    pub(crate) concurrent_project_id: u32,
    /// The chain of GitLab's certificate, if it is reached over HTTPS.
    pub(crate) ca_chain: Option<String>,
    pub(crate) correlation_id: String,
    pub(crate) root_dir: String,
    pub(crate) build_dir: String,
    pub(crate) cache_dir: String,
    pub(crate) hostname: String,
    variables: Variables,
    settings: Settings,
}

/// An element of `CI_JOB_SERVICES`.
#[derive(serde::Serialize)]
struct ServiceJson<'a> {
    name: &'a str,
    alias: &'a str,
    entrypoint: &'a List<String>,
    command: &'a List<String>,
}

/// The job timeout where GitLab sends none.
const DEFAULT_TIMEOUT_S: u64 = 7200;

fn internal(key: &str, value: impl Into<String>) -> Variable {
    Variable { key: key.into(), value: value.into(), public: true, ..Variable::default() }
}

impl Build {
    pub(crate) fn new(job: Job, runner: RunnerConfig, version: Version) -> Build {
        let settings = Settings::read(
            &Variables::default(),
            &Defaults { allow_git_fetch: true, depth: 0, debug_trace_disabled: false },
            |_| None,
        );
        let mut build = Build {
            job,
            runner,
            version,
            concurrent_id: 0,
            concurrent_project_id: 0,
            ca_chain: None,
            correlation_id: String::new(),
            root_dir: String::new(),
            build_dir: String::new(),
            cache_dir: String::new(),
            hostname: String::new(),
            variables: Variables::default(),
            settings,
        };
        build.refresh();
        build
    }

    /// Image and services may be named by variables; they are expanded once, before anything is written.
    pub(crate) fn expand_images(&mut self) {
        let variables = self.variables.clone();
        let services = self.job.services.iter_mut().flatten();
        for image in std::iter::once(&mut self.job.image).chain(services) {
            image.name = variables.expand_value(&image.name);
            image.alias = variables.expand_value(&image.alias);
        }
        self.refresh();
    }

    pub(crate) fn variables(&self) -> &Variables {
        &self.variables
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn is_on(&self, flag: &str) -> bool {
        self.settings.flags.is_on(flag)
    }

    /// The sibling of the project directory that holds file variables and credentials.
    pub(crate) fn tmp_dir(&self) -> String {
        format!("{}.tmp", self.build_dir)
    }

    /// `$TMP/NAME`, by way of `$PWD` if the builds directory is relative.
    pub(crate) fn tmp_file(&self, name: &str) -> String {
        let path = go::join(&[&self.tmp_dir(), name]);
        if path.starts_with('/') || path.starts_with("$PWD") { path } else { go::join(&["$PWD", &path]) }
    }

    pub(crate) fn timeout(&self) -> Duration {
        let seconds = u64::try_from(self.job.runner_info.timeout).unwrap_or(0);
        Duration::from_secs(if seconds == 0 { DEFAULT_TIMEOUT_S } else { seconds })
    }

    /// A limit of the runner's configuration; larger than the job timeout counts as none.
    pub(crate) fn limit(&self, configured: Option<Duration>) -> Duration {
        let whole = self.timeout();
        configured.filter(|limit| !limit.is_zero() && *limit <= whole).unwrap_or(whole)
    }

    fn before_job(&self) -> Vec<Variable> {
        let mut all = Vec::new();
        if !self.job.image.name.is_empty() {
            all.push(internal("CI_JOB_IMAGE", &self.job.image.name));
        }
        all.push(internal("CI_RUNNER_SHORT_TOKEN", self.runner.short_token()));
        for entry in &self.runner.environment {
            if let Some((key, value)) = entry.split_once('=') {
                all.push(Variable { public: false, ..internal(key, value) });
            }
        }
        all.extend([
            internal("CI_BUILDS_DIR", &self.root_dir),
            internal("CI_PROJECT_DIR", &self.build_dir),
            internal("CI_CONCURRENT_ID", self.concurrent_id.to_string()),
            internal("CI_CONCURRENT_PROJECT_ID", self.concurrent_project_id.to_string()),
            internal("CI_SERVER", "yes"),
            internal("CI_JOB_STATUS", "running"),
            internal("CI_JOB_TIMEOUT", self.timeout().as_secs().to_string()),
        ]);
        if let Some(chain) = &self.ca_chain {
            all.push(Variable { file: true, ..internal("CI_SERVER_TLS_CA_FILE", chain) });
        }
        all
    }

    fn after_job(&self) -> Vec<Variable> {
        vec![
            internal("CI_SHARED_ENVIRONMENT", "true"),
            internal("CI_RUNNER_VERSION", self.version.number()),
            internal("CI_RUNNER_REVISION", self.version.revision()),
            internal("CI_RUNNER_EXECUTABLE_ARCH", "linux/amd64"),
            internal("RUNNER_TEMP_PROJECT_DIR", self.tmp_dir()),
        ]
    }

    /// Computes settings and variables anew. What was overwritten is lost, as in the runner.
    pub(crate) fn refresh(&mut self) {
        let job = entries(&self.job.variables);
        let with = |flags: Vec<Variable>, keep: &dyn Fn(&Variable) -> bool| {
            let kept = job.iter().filter(|variable| keep(variable)).cloned();
            let all = [flags, self.before_job(), kept.collect(), self.after_job()];
            Variables::new(all.concat()).expand()
        };
        let defaults: Vec<_> = flags::FLAGS.iter().map(|(name, on)| internal(name, on.to_string())).collect();
        let settings = Settings::read(
            &with(defaults, &|_| true),
            &Defaults {
                allow_git_fetch: self.job.allow_git_fetch,
                depth: self.job.git_info.depth,
                debug_trace_disabled: self.runner.debug_trace_disabled,
            },
            |flag| self.runner.feature_flags.get(flag).copied(),
        );
        let resolved: Vec<_> =
            settings.flags.all().iter().map(|(name, on)| internal(name, on.to_string())).collect();
        let variables = with(resolved, &|variable| !flags::is_flag(&variable.key));
        (self.settings, self.variables) = (settings, variables);
    }

    pub(crate) fn set_job_status(&mut self, status: &str) {
        self.variables.overwrite("CI_JOB_STATUS", status);
    }

    /// `/group/project` of the clone URL.
    fn slug(&self) -> Option<String> {
        let url = go::Url::parse(&self.job.git_info.repo_url);
        if url.host.is_empty() {
            return None;
        }
        let slug = go::clean(url.path.strip_suffix(".git").unwrap_or(&url.path));
        (slug != "." && !slug.contains("..")).then_some(slug)
    }

    fn unique_dir(&self, shared: bool) -> String {
        let mut dir = self.slug().unwrap_or_else(|| format!("project-{}", self.job.job_info.project_id));
        if shared {
            let number = self.concurrent_project_id.to_string();
            dir = go::join(&[&self.runner.short_token(), &number, &dir]);
        }
        if self.settings.strategy == super::settings::GitStrategy::Empty {
            dir.push_str("-empty");
        }
        dir
    }

    /// Fixes the directories once the configuration is known.
    pub(crate) fn start(&mut self, shared: bool) -> Result<(), Failure> {
        let configuration = |message: &str| Failure::build(Reason::RunnerConfiguration, message);
        if self.runner.builds_dir.is_empty() {
            return Err(configuration("the builds_dir is not configured"));
        }
        if self.runner.cache_dir.is_empty() {
            return Err(configuration("the cache_dir is not configured"));
        }
        self.root_dir = self.runner.builds_dir.clone();
        self.cache_dir = go::join(&[&self.runner.cache_dir, &self.unique_dir(false)]);
        self.refresh();
        let wanted = self.settings.clone_path.clone();
        self.build_dir = if wanted.is_empty() {
            go::join(&[&self.root_dir, &self.unique_dir(shared)])
        } else if self.runner.custom_build_dir.enabled != Some(true) {
            return Err(configuration(
                "setting GIT_CLONE_PATH is not allowed, enable `custom_build_dir` feature",
            ));
        } else {
            let inside = go::rel(&self.root_dir, &wanted).is_some_and(|rel| !rel.starts_with(".."));
            if !inside {
                return Err(configuration(&format!(
                    "the GIT_CLONE_PATH={} has to be within {}",
                    go::quote(&wanted),
                    go::quote(&self.root_dir)
                )));
            }
            go::clean(&wanted)
        };
        self.refresh();
        Ok(())
    }

    /// `CI_JOB_SERVICES`: JSON, or nothing without services.
    pub(crate) fn services_json(&self) -> String {
        let services = entries(&self.job.services);
        if services.is_empty() {
            return String::new();
        }
        let list: Vec<ServiceJson<'_>> = services
            .iter()
            .map(|service| ServiceJson {
                name: &service.name,
                alias: service.alias.split([',', ' ']).find(|alias| !alias.is_empty()).unwrap_or_default(),
                entrypoint: &service.entrypoint,
                command: &service.command,
            })
            .collect();
        serde_json::to_string(&list).unwrap_or_default()
    }

    /// Reads a timeout of the job's variables.
    pub(crate) fn timeout_variable(&self, name: &str) -> Option<Result<Duration, String>> {
        let text = self.variables.value(name);
        if text.trim().is_empty() {
            return None;
        }
        Some(clock::parse_go_duration(&text).ok_or(text))
    }
}
