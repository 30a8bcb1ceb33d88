//! The variables that GitLab sends with a job, in its order: those of the persisted job, the ID tokens, the
//! predefined ones; the author's follow.

use super::facts::Facts;
use super::spec::Variable;

/// How many of GitLab's predefined variables a job carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predefined {
    /// All of them, as GitLab sends them.
    All,
    /// The persisted ones only: for tests that print or search an environment.
    Few,
}

pub(crate) fn public(key: &str, value: impl Into<String>) -> Variable {
    Variable { key: key.to_owned(), value: value.into(), public: true, ..Variable::default() }
}

fn raw(key: &str, value: impl Into<String>) -> Variable {
    Variable { raw: true, ..public(key, value) }
}

pub(crate) fn masked(key: &str, value: impl Into<String>) -> Variable {
    Variable { key: key.to_owned(), value: value.into(), masked: true, ..Variable::default() }
}

/// The first group: it precedes the ID tokens.
pub(crate) fn persisted(facts: &Facts, started_at: &str) -> Vec<Variable> {
    let project_url = format!("{}/{}", facts.server, facts.project.path);
    vec![
        public("CI_PIPELINE_ID", facts.pipeline_id.to_string()),
        public("CI_PIPELINE_URL", format!("{project_url}/-/pipelines/{}", facts.pipeline_id)),
        public("CI_JOB_ID", facts.job_id.to_string()),
        public("CI_JOB_URL", format!("{project_url}/-/jobs/{}", facts.job_id)),
        masked("CI_JOB_TOKEN", &facts.job_token),
        public("CI_JOB_STARTED_AT", started_at),
        public("CI_REGISTRY_USER", "gitlab-ci-token"),
        masked("CI_REGISTRY_PASSWORD", &facts.job_token),
        Variable { public: false, ..public("CI_REPOSITORY_URL", facts.repository_url()) },
        public("CI_DEPENDENCY_PROXY_USER", "gitlab-ci-token"),
        masked("CI_DEPENDENCY_PROXY_PASSWORD", &facts.job_token),
    ]
}

fn slug(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// The second group: it follows the ID tokens.
pub(crate) fn predefined(facts: &Facts) -> Vec<Variable> {
    let project = &facts.project;
    let (scheme, host, port) = facts.server_parts();
    let root = project.namespace().split('/').next().unwrap_or_default();
    let title = facts.commit_message.lines().next().unwrap_or_default();
    let description = facts.commit_message.split_once("\n\n").map_or("", |(_, rest)| rest);
    let short_sha: String = facts.sha.chars().take(8).collect();
    let mut all = vec![
        public("CI_JOB_NAME", &facts.job_name),
        public("CI_JOB_NAME_SLUG", slug(&facts.job_name)),
        public("CI_JOB_STAGE", &facts.job_stage),
        public("CI_NODE_TOTAL", "1"),
        public("CI_JOB_TIMEOUT", facts.timeout_s.to_string()),
        public("CI", "true"),
        public("GITLAB_CI", "true"),
        public("CI_SERVER_FQDN", facts.authority()),
        public("CI_SERVER_URL", &facts.server),
        public("CI_SERVER_HOST", host),
        public("CI_SERVER_PORT", port),
        public("CI_SERVER_PROTOCOL", scheme),
        public("CI_SERVER_NAME", "GitLab"),
        public("CI_SERVER_VERSION", "18.8.0"),
        public("CI_SERVER_VERSION_MAJOR", "18"),
        public("CI_SERVER_VERSION_MINOR", "8"),
        public("CI_SERVER_VERSION_PATCH", "0"),
        public("CI_SERVER_REVISION", "0000000000"),
        public("GITLAB_FEATURES", ""),
        public("CI_PROJECT_ID", project.id.to_string()),
        public("CI_PROJECT_NAME", project.name()),
        public("CI_PROJECT_TITLE", project.name()),
        public("CI_PROJECT_DESCRIPTION", "A project of the \"testbed\": $5 & more"),
        public("CI_PROJECT_PATH", &project.path),
        public("CI_PROJECT_PATH_SLUG", slug(&project.path)),
        public("CI_PROJECT_NAMESPACE", project.namespace()),
        public("CI_PROJECT_ROOT_NAMESPACE", root),
        public("CI_PROJECT_URL", format!("{}/{}", facts.server, project.path)),
        public("CI_PROJECT_VISIBILITY", &project.visibility),
        public("CI_DEFAULT_BRANCH", &project.default_branch),
        public("CI_API_V4_URL", format!("{}/api/v4", facts.server)),
        public("CI_PIPELINE_IID", facts.pipeline_iid.to_string()),
        public("CI_PIPELINE_SOURCE", &facts.pipeline_source),
        public("CI_PIPELINE_CREATED_AT", "2026-01-05T10:00:00Z"),
        public("CI_COMMIT_SHA", &facts.sha),
        public("CI_COMMIT_SHORT_SHA", short_sha),
        public("CI_COMMIT_BEFORE_SHA", "0".repeat(40)),
        public("CI_COMMIT_REF_NAME", &facts.reference),
        public("CI_COMMIT_REF_SLUG", slug(&facts.reference)),
    ];
    let kind = if facts.ref_type == "tag" { "CI_COMMIT_TAG" } else { "CI_COMMIT_BRANCH" };
    all.extend([
        public(kind, &facts.reference),
        raw("CI_COMMIT_MESSAGE", &facts.commit_message),
        raw("CI_COMMIT_TITLE", title),
        raw("CI_COMMIT_DESCRIPTION", description),
        public("CI_COMMIT_REF_PROTECTED", facts.protected.to_string()),
        public("CI_COMMIT_TIMESTAMP", "2026-01-05T09:59:00+00:00"),
        raw("CI_COMMIT_AUTHOR", format!("{} <{}>", facts.user.name, facts.user.email)),
        public("CI_RUNNER_ID", facts.runner_id.to_string()),
        public("CI_RUNNER_DESCRIPTION", &facts.runner_description),
        public("CI_RUNNER_TAGS", "[]"),
        public("GITLAB_USER_ID", facts.user.id.to_string()),
        public("GITLAB_USER_EMAIL", &facts.user.email),
        public("GITLAB_USER_LOGIN", &facts.user.login),
        public("GITLAB_USER_NAME", &facts.user.name),
    ]);
    all
}
