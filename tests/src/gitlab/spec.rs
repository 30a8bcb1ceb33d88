//! A job as GitLab Runner holds it in memory, and the bytes it writes to `JOB_RESPONSE_FILE`.
//!
//! The order of the fields is the order in the file. A list is `None` where the runner has a nil slice: it is
//! written as `null` then. Keys that GitLab sends and the runner does not know never get here.

use serde::{Deserialize, Serialize};

/// A list that may be `null`.
pub type List<T> = Option<Vec<T>>;

/// The entries of a list that may be `null`.
pub fn entries<T>(list: &List<T>) -> &[T] {
    list.as_deref().unwrap_or_default()
}

/// One job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct Job {
    pub id: i64,
    pub token: String,
    pub allow_git_fetch: bool,
    pub job_info: JobInfo,
    pub git_info: GitInfo,
    pub runner_info: RunnerInfo,
    #[serde(serialize_with = "empty_object", skip_deserializing)]
    pub inputs: (),
    pub variables: List<Variable>,
    pub steps: List<Step>,
    pub image: Image,
    pub services: List<Image>,
    pub artifacts: List<Artifact>,
    pub cache: List<Cache>,
    pub credentials: List<Credentials>,
    pub dependencies: List<Dependency>,
    pub features: Features,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "is_empty")]
    pub hooks: List<Hook>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<serde_json::Value>,
    pub policy_options: PolicyOptions,
    pub suspend_options: SuspendOptions,
}

impl Job {
    /// The bytes of `response.json`: one line, HTML characters escaped as Go's encoder does.
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn response_json(&self) -> serde_json::Result<Vec<u8>> {
        let plain = serde_json::to_string(self)?;
        let mut text = String::with_capacity(plain.len() + 64);
        for character in plain.chars() {
            match character {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    text.push_str(&format!("\\u{:04x}", u32::from(character)));
                }
                other => text.push(other),
            }
        }
        text.push('\n');
        Ok(text.into_bytes())
    }

    /// The value of the last variable with this name, as the job's scripts see it.
    pub fn variable(&self, key: &str) -> Option<&str> {
        entries(&self.variables).iter().rev().find(|v| v.key == key).map(|v| v.value.as_str())
    }
}

/// Who and what the job is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct JobInfo {
    pub name: String,
    pub stage: String,
    pub pipeline_id: i64,
    pub project_id: i64,
    pub project_name: String,
    pub project_full_path: String,
    pub namespace_id: i64,
    pub root_namespace_id: i64,
    pub organization_id: i64,
    pub instance_id: String,
    pub instance_uuid: String,
    pub user_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scoped_user_id: Option<i64>,
    #[serde(serialize_with = "number")]
    pub time_in_queue_seconds: f64,
    pub project_jobs_running_on_instance_runners_count: String,
    pub queue_size: i64,
    pub queue_depth: i64,
}

/// Where the sources are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct GitInfo {
    pub repo_url: String,
    pub repo_object_format: String,
    #[serde(rename = "ref")]
    pub reference: String,
    pub sha: String,
    pub before_sha: String,
    pub ref_type: String,
    pub refspecs: List<String>,
    pub depth: i64,
    pub protected: Option<bool>,
}

/// What GitLab says about the runner.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct RunnerInfo {
    pub uuid: String,
    pub timeout: i64,
}

/// One job variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct Variable {
    pub key: String,
    pub value: String,
    pub public: bool,
    pub file: bool,
    pub masked: bool,
    pub raw: bool,
}

/// One step: `script`, `release` or `after_script`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct Step {
    pub name: String,
    pub script: List<String>,
    pub timeout: i64,
    pub when: String,
    pub allow_failure: bool,
}

/// An image or a service. The custom executor only passes them on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct Image {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias: String,
    #[serde(skip_serializing_if = "is_empty")]
    pub command: List<String>,
    #[serde(skip_serializing_if = "is_empty")]
    pub entrypoint: List<String>,
    #[serde(skip_serializing_if = "is_empty")]
    pub variables: List<Variable>,
    #[serde(skip_serializing_if = "is_empty")]
    pub pull_policy: List<String>,
    pub executor_opts: ExecutorOptions,
}

/// Options of other executors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct ExecutorOptions {
    pub docker: DockerOptions,
    pub kubernetes: KubernetesOptions,
}

/// Options of the Docker executor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct DockerOptions {
    pub platform: String,
    pub user: String,
}

/// Options of the Kubernetes executor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct KubernetesOptions {
    pub user: String,
}

/// One `artifacts:` entry.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct Artifact {
    pub name: String,
    pub untracked: bool,
    pub paths: List<String>,
    pub exclude: List<String>,
    pub when: String,
    pub artifact_type: String,
    pub artifact_format: String,
    pub expire_in: String,
}

/// One `cache:` entry.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct Cache {
    pub key: String,
    pub untracked: bool,
    pub policy: String,
    pub paths: List<String>,
    pub when: String,
    pub fallback_keys: List<String>,
}

/// Whether `when:` of an artifact or a cache fits the state of the job.
pub(crate) fn when_fits(when: &str, success: bool) -> bool {
    match when {
        "always" => true,
        "" | "on_success" => success,
        "on_failure" => !success,
        _ => false,
    }
}

/// A registry's credentials.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct Credentials {
    #[serde(rename = "type")]
    pub kind: String,
    pub url: String,
    pub username: String,
    pub password: String,
}

/// A job whose artifacts this one downloads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct Dependency {
    pub id: i64,
    pub token: String,
    pub name: String,
    pub artifacts_file: ArtifactsFile,
}

/// The file of a dependency; no name: it has none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct ArtifactsFile {
    pub filename: String,
    pub size: i64,
}

/// What this GitLab understands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct Features {
    pub trace_sections: bool,
    pub token_mask_prefixes: List<String>,
    pub failure_reasons: List<String>,
    pub tracing: Option<serde_json::Value>,
}

/// `hooks:` of a job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct Hook {
    pub name: String,
    pub script: List<String>,
}

/// Pipeline execution policy.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct PolicyOptions {
    pub execution_policy_job: bool,
    pub policy_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_variables_override_allowed: Option<bool>,
    #[serde(skip_serializing_if = "is_empty")]
    pub policy_variables_override_exceptions: List<String>,
}

/// Suspended environments: never used by the custom executor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct SuspendOptions {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub suspend_on_success: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub suspend_on_failure: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime_environment_key: String,
}

fn is_empty<T>(list: &List<T>) -> bool {
    entries(list).is_empty()
}

fn empty_object<S: serde::Serializer>((): &(), serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap as _;
    serializer.serialize_map(Some(0))?.end()
}

/// Go writes a float that is whole without a fraction.
fn number<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^50")]
        return serializer.serialize_i64(*value as i64);
    }
    serializer.serialize_f64(*value)
}
