//! Writes jobs: the payload of GitLab after GitLab Runner has read it.

use std::time::SystemTime;

use anyhow::Result;

use super::facts::Facts;
use super::predefined::{Predefined, masked, persisted, predefined, public};
use super::spec::{
    Artifact, ArtifactsFile, Cache, Credentials, Dependency, Features, GitInfo, Hook, Image, Job, JobInfo,
    List, RunnerInfo, Step, Variable,
};
use super::token::IdToken;
use crate::runner::clock;

/// The failure reasons that a GitLab of 18.8 knows.
const FAILURE_REASONS: [&str; 15] = [
    "unknown_failure",
    "script_failure",
    "api_failure",
    "stuck_or_timeout_failure",
    "runner_system_failure",
    "job_execution_timeout",
    "archived_failure",
    "unmet_prerequisites",
    "scheduler_failure",
    "data_integrity_failure",
    "job_canceled",
    "image_pull_failure",
    "configuration_error",
    "runner_interrupted",
    "runner_unsupported",
];

/// Collects what a job is made of.
#[derive(Clone, Debug)]
pub struct JobBuilder {
    facts: Facts,
    predefined: Predefined,
    repo_url: Option<String>,
    refspecs: Vec<String>,
    depth: i64,
    tokens: Vec<Variable>,
    variables: Vec<Variable>,
    script: Vec<String>,
    release: List<String>,
    after_script: List<String>,
    hooks: Vec<Hook>,
    artifacts: Vec<Artifact>,
    cache: Vec<Cache>,
    dependencies: Vec<Dependency>,
    image: String,
    services: Vec<Image>,
}

fn lines<S: Into<String>>(texts: impl IntoIterator<Item = S>) -> Vec<String> {
    texts.into_iter().map(Into::into).collect()
}

impl JobBuilder {
    /// A job with these facts, all predefined variables and the script `true`.
    pub fn new(facts: Facts) -> JobBuilder {
        let (full, short) = (facts.ref_path(), &facts.reference);
        let refspec = match facts.ref_type.as_str() {
            "tag" => format!("+{full}:{full}"),
            _ => format!("+{full}:refs/remotes/origin/{short}"),
        };
        JobBuilder {
            refspecs: vec![refspec],
            facts,
            predefined: Predefined::All,
            repo_url: None,
            depth: 20,
            tokens: Vec::new(),
            variables: Vec::new(),
            script: vec!["true".into()],
            release: None,
            after_script: None,
            hooks: Vec::new(),
            artifacts: Vec::new(),
            cache: Vec::new(),
            dependencies: Vec::new(),
            image: String::new(),
            services: Vec::new(),
        }
    }

    /// The facts; tokens are made from them.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Leaves GitLab's predefined variables out, or takes them in.
    #[must_use]
    pub fn predefined(mut self, which: Predefined) -> Self {
        self.predefined = which;
        self
    }

    /// Another place to clone from, such as `file:///srv/proj.git`.
    #[must_use]
    pub fn repo_url(mut self, url: impl Into<String>) -> Self {
        self.repo_url = Some(url.into());
        self
    }

    /// The depth of the clone; 0 is everything.
    #[must_use]
    pub fn depth(mut self, depth: i64) -> Self {
        self.depth = depth;
        self
    }

    /// The refspecs to fetch, in place of the one of the job's own ref.
    #[must_use]
    pub fn refspecs<S: Into<String>>(mut self, specs: impl IntoIterator<Item = S>) -> Self {
        self.refspecs = lines(specs);
        self
    }

    /// `GIT_STRATEGY=none`: no repository is touched.
    #[must_use]
    pub fn without_sources(self) -> Self {
        self.variable("GIT_STRATEGY", "none")
    }

    /// The lines of `before_script` and `script`, one list as GitLab sends them.
    #[must_use]
    pub fn script<S: Into<String>>(mut self, script: impl IntoIterator<Item = S>) -> Self {
        self.script = lines(script);
        self
    }

    /// The lines of `after_script`.
    #[must_use]
    pub fn after_script<S: Into<String>>(mut self, script: impl IntoIterator<Item = S>) -> Self {
        self.after_script = Some(lines(script));
        self
    }

    /// The lines of the step that `release:` becomes.
    #[must_use]
    pub fn release<S: Into<String>>(mut self, script: impl IntoIterator<Item = S>) -> Self {
        self.release = Some(lines(script));
        self
    }

    /// One of `hooks:`, such as `pre_get_sources_script`.
    #[must_use]
    pub fn hook<S: Into<String>>(mut self, name: &str, script: impl IntoIterator<Item = S>) -> Self {
        self.hooks.push(Hook { name: name.into(), script: Some(lines(script)) });
        self
    }

    /// A variable of the author's.
    #[must_use]
    pub fn variable(self, key: &str, value: impl Into<String>) -> Self {
        self.variable_as(public(key, value))
    }

    /// A masked variable of the author's.
    #[must_use]
    pub fn masked(self, key: &str, value: impl Into<String>) -> Self {
        self.variable_as(masked(key, value))
    }

    /// A variable of type file.
    #[must_use]
    pub fn file(self, key: &str, content: impl Into<String>) -> Self {
        self.variable_as(Variable { file: true, public: false, ..public(key, content) })
    }

    /// A variable whose value is not expanded.
    #[must_use]
    pub fn raw(self, key: &str, value: impl Into<String>) -> Self {
        self.variable_as(Variable { raw: true, ..public(key, value) })
    }

    /// A variable as it stands.
    #[must_use]
    pub fn variable_as(mut self, variable: Variable) -> Self {
        self.variables.push(variable);
        self
    }

    /// `id_tokens:` with a good token for this audience.
    ///
    /// # Errors
    /// If the token cannot be signed.
    pub fn id_token(self, name: &str, audience: &str) -> Result<Self> {
        let token = IdToken::new(&self.facts, audience).sign()?;
        Ok(self.id_token_value(name, token))
    }

    /// The given text where GitLab puts an ID token.
    #[must_use]
    pub fn id_token_value(mut self, name: &str, token: impl Into<String>) -> Self {
        self.tokens.push(masked(name, token));
        self
    }

    /// Artifacts of these paths, kept if `when` fits.
    #[must_use]
    pub fn artifact<S: Into<String>>(
        self,
        name: &str,
        paths: impl IntoIterator<Item = S>,
        when: &str,
    ) -> Self {
        self.artifact_as(Artifact {
            name: name.into(),
            paths: Some(lines(paths)),
            when: when.into(),
            artifact_type: "archive".into(),
            artifact_format: "zip".into(),
            ..Artifact::default()
        })
    }

    /// Artifacts as they stand.
    #[must_use]
    pub fn artifact_as(mut self, artifact: Artifact) -> Self {
        self.artifacts.push(artifact);
        self
    }

    /// A cache of these paths.
    #[must_use]
    pub fn cache<S: Into<String>>(self, key: &str, paths: impl IntoIterator<Item = S>, when: &str) -> Self {
        self.cache_as(Cache {
            key: key.into(),
            policy: "pull-push".into(),
            paths: Some(lines(paths)),
            when: when.into(),
            ..Cache::default()
        })
    }

    /// A cache as it stands.
    #[must_use]
    pub fn cache_as(mut self, cache: Cache) -> Self {
        self.cache.push(cache);
        self
    }

    /// A job whose artifacts are downloaded first.
    #[must_use]
    pub fn dependency(mut self, id: i64, name: &str, token: &str) -> Self {
        self.dependencies.push(Dependency {
            id,
            token: token.into(),
            name: name.into(),
            artifacts_file: ArtifactsFile { filename: "artifacts.zip".into(), size: 144 },
        });
        self
    }

    /// `image:`; the custom executor passes it on.
    #[must_use]
    pub fn image(mut self, name: &str) -> Self {
        self.image = name.into();
        self
    }

    /// `services:`; the custom executor passes them on.
    #[must_use]
    pub fn service(mut self, name: &str, alias: &str) -> Self {
        self.services.push(Image { name: name.into(), alias: alias.into(), ..Image::default() });
        self
    }

    fn step(&self, name: &str, script: &[String], when: &str) -> Step {
        Step {
            name: name.into(),
            script: Some(script.to_vec()),
            timeout: self.facts.timeout_s,
            when: when.into(),
            allow_failure: when == "always",
        }
    }

    /// The job.
    pub fn build(self) -> Job {
        let facts = &self.facts;
        let mut variables = persisted(facts, &clock::rfc3339(SystemTime::now()));
        variables.extend(self.tokens.clone());
        if self.predefined == Predefined::All {
            variables.extend(predefined(facts));
        }
        variables.extend(self.variables.clone());
        let mut steps = vec![self.step("script", &self.script, "on_success")];
        if let Some(release) = &self.release {
            steps.push(self.step("release", release, "on_success"));
        }
        if let Some(after) = &self.after_script {
            steps.push(self.step("after_script", after, "always"));
        }
        Job {
            id: facts.job_id,
            token: facts.job_token.clone(),
            allow_git_fetch: true,
            job_info: job_info(facts),
            git_info: GitInfo {
                repo_url: self.repo_url.clone().unwrap_or_else(|| facts.repository_url()),
                repo_object_format: "sha1".into(),
                reference: facts.reference.clone(),
                sha: facts.sha.clone(),
                before_sha: "0".repeat(40),
                ref_type: facts.ref_type.clone(),
                refspecs: Some(self.refspecs),
                depth: self.depth,
                protected: Some(facts.protected),
            },
            runner_info: RunnerInfo { uuid: String::new(), timeout: facts.timeout_s },
            inputs: (),
            variables: Some(variables),
            steps: Some(steps),
            image: Image { name: self.image, ..Image::default() },
            services: Some(self.services),
            artifacts: Some(self.artifacts),
            cache: Some(self.cache),
            credentials: Some(vec![Credentials {
                kind: "registry".into(),
                url: facts.authority().into(),
                username: "gitlab-ci-token".into(),
                password: facts.job_token.clone(),
            }]),
            dependencies: Some(self.dependencies),
            features: Features {
                trace_sections: true,
                token_mask_prefixes: Some(lines(["glpat-", "glcbt-", "gldt-", "glrt-"])),
                failure_reasons: Some(lines(FAILURE_REASONS)),
                tracing: None,
            },
            hooks: if self.hooks.is_empty() { None } else { Some(self.hooks) },
            ..Job::default()
        }
    }
}

fn job_info(facts: &Facts) -> JobInfo {
    let project = &facts.project;
    JobInfo {
        name: facts.job_name.clone(),
        stage: facts.job_stage.clone(),
        pipeline_id: facts.pipeline_id,
        project_id: project.id,
        project_name: project.name().into(),
        project_full_path: project.path.clone(),
        namespace_id: project.namespace_id,
        root_namespace_id: project.namespace_id,
        organization_id: 1,
        instance_id: "b1d2c3e4-0000-4000-8000-000000000001".into(),
        instance_uuid: "b1d2c3e4-0000-4000-8000-000000000002".into(),
        user_id: facts.user.id,
        scoped_user_id: None,
        time_in_queue_seconds: 0.5,
        project_jobs_running_on_instance_runners_count: "+Inf".into(),
        queue_size: 0,
        queue_depth: 0,
    }
}
