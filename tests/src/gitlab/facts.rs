//! Who runs which job: the facts from which payload, variables and ID token of a job are written, so that they
//! agree unless a test spoils one of them.

/// A user of the GitLab stand-in.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct User {
    pub id: i64,
    pub login: String,
    pub name: String,
    pub email: String,
    pub access_level: Option<String>,
}

/// A project of the GitLab stand-in.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct Project {
    pub id: i64,
    /// Group and name, as in the URL.
    pub path: String,
    pub namespace_id: i64,
    pub visibility: String,
    pub default_branch: String,
}

impl Project {
    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or(self.path.as_str(), |(_, name)| name)
    }

    /// Everything before the name.
    pub fn namespace(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(namespace, _)| namespace)
    }
}

/// The facts of one job.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "GitLab's own names")]
pub struct Facts {
    /// URL of GitLab, without a slash at its end.
    pub server: String,
    /// Issuer of ID tokens; GitLab can be told another one than its URL.
    pub issuer: String,
    pub job_id: i64,
    pub job_token: String,
    pub job_name: String,
    pub job_stage: String,
    pub pipeline_id: i64,
    pub pipeline_iid: i64,
    pub pipeline_source: String,
    pub project: Project,
    pub user: User,
    /// Branch or tag.
    pub reference: String,
    /// `branch` or `tag`.
    pub ref_type: String,
    pub protected: bool,
    pub sha: String,
    pub commit_message: String,
    pub runner_id: i64,
    pub runner_description: String,
    pub timeout_s: i64,
}

impl Facts {
    /// A job of alice's in `group/proj`, as a GitLab at this URL would have it.
    pub fn new(server: &str) -> Facts {
        let server = server.trim_end_matches('/').to_owned();
        Facts {
            issuer: server.clone(),
            server,
            job_id: 302,
            job_token: "glcbt-64_TESTBEDxTOKENx0302".into(),
            job_name: "test".into(),
            job_stage: "test".into(),
            pipeline_id: 574,
            pipeline_iid: 12,
            pipeline_source: "push".into(),
            project: Project {
                id: 20,
                path: "group/proj".into(),
                namespace_id: 10,
                visibility: "private".into(),
                default_branch: "main".into(),
            },
            user: User {
                id: 7,
                login: "alice".into(),
                name: "Alice Example".into(),
                email: "alice@example.com".into(),
                access_level: Some("developer".into()),
            },
            reference: "main".into(),
            ref_type: "branch".into(),
            protected: false,
            sha: "0123456789abcdef0123456789abcdef01234567".into(),
            commit_message: "A commit\n\nwith 'quotes', \"more\" and `ticks` $HOME\n".into(),
            runner_id: 3,
            runner_description: "standin".into(),
            timeout_s: 300,
        }
    }

    /// Scheme, host and port of the server.
    pub(crate) fn server_parts(&self) -> (&str, &str, &str) {
        let (scheme, rest) = self.server.split_once("://").unwrap_or(("http", &self.server));
        let authority = rest.split('/').next().unwrap_or(rest);
        match authority.rsplit_once(':') {
            Some((host, port)) => (scheme, host, port),
            None => (scheme, authority, if scheme == "https" { "443" } else { "80" }),
        }
    }

    /// Host with port, where the port is not the scheme's own.
    pub(crate) fn authority(&self) -> &str {
        let rest = self.server.split_once("://").map_or(self.server.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// The clone URL with the job's token in it, as GitLab sends it.
    pub(crate) fn repository_url(&self) -> String {
        let (scheme, _, _) = self.server_parts();
        format!(
            "{scheme}://gitlab-ci-token:{}@{}/{}.git",
            self.job_token,
            self.authority(),
            self.project.path
        )
    }

    /// The full name of the ref.
    pub(crate) fn ref_path(&self) -> String {
        let kind = if self.ref_type == "tag" { "tags" } else { "heads" };
        format!("refs/{kind}/{}", self.reference)
    }
}
