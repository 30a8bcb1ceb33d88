//! Clone URLs, and the `insteadOf` rules by which Git gets the job's token without a URL that holds it.

use crate::runner::build::Build;
use crate::runner::go::Url;

fn authenticated(build: &Build) -> bool {
    !build.is_on("FF_GIT_URLS_WITHOUT_TOKENS")
}

/// The URL with the token, or without any user where tokens do not belong into URLs.
fn with_auth(build: &Build, url: &Url) -> Url {
    let mut url = url.clone();
    if url.scheme == "ssh" {
        url.user.get_or_insert_with(|| "git".into());
    } else if authenticated(build) {
        url.user = Some(format!("gitlab-ci-token:{}", build.job.token));
    } else {
        url.user = None;
    }
    url
}

/// Where the sources are fetched from.
pub(crate) fn remote(build: &Build) -> Url {
    let mut clone_url = Url::parse(&build.runner.clone_url);
    if clone_url.scheme.is_empty() {
        let repo = Url::parse(&build.job.git_info.repo_url);
        return if authenticated(build) { repo } else { with_auth(build, &repo) };
    }
    let project = build.variables().value("CI_PROJECT_PATH");
    clone_url.path = crate::runner::go::join(&[&clone_url.path, &format!("{project}.git")]);
    with_auth(build, &clone_url)
}

/// Pairs of new and old beginnings of a URL.
pub(crate) fn instead_of(build: &Build) -> Vec<(String, String)> {
    let remote = remote(build);
    let without = Url { user: None, ..remote.clone() };
    let mut pairs = Vec::new();
    if remote != without {
        pairs.push((remote.to_string(), without.to_string()));
    }
    let mut base = Url::parse(&build.runner.clone_url);
    if base.scheme.is_empty() {
        base = Url::parse(&build.runner.url);
    }
    if base.is_http() {
        if authenticated(build) {
            let authed = with_auth(build, &base).trimmed();
            pairs.push((authed.clone(), base.trimmed()));
            pairs.extend(ssh(build, &authed));
            let repo = Url::parse(&build.job.git_info.repo_url).only_scheme_and_host();
            if repo.is_http() {
                pairs.push((with_auth(build, &repo).trimmed(), repo.trimmed()));
            }
        } else {
            pairs.extend(ssh(build, &base.trimmed()));
        }
    }
    let mut unique: Vec<(String, String)> = Vec::new();
    for pair in pairs {
        if !unique.contains(&pair) {
            unique.push(pair);
        }
    }
    unique
}

/// `GIT_SUBMODULE_FORCE_HTTPS`
fn ssh(build: &Build, base: &str) -> Vec<(String, String)> {
    if !build.settings().submodule_force_https {
        return Vec::new();
    }
    let value = |key: &str| build.variables().value(key);
    let host = Some(value("CI_SERVER_SHELL_SSH_HOST")).filter(|host| !host.is_empty());
    let host = host.unwrap_or_else(|| value("CI_SERVER_HOST"));
    match value("CI_SERVER_SHELL_SSH_PORT").as_str() {
        "" | "22" => {
            vec![(format!("{base}/"), format!("git@{host}:")), (base.to_owned(), format!("ssh://git@{host}"))]
        }
        port => vec![(base.to_owned(), format!("ssh://git@{host}:{port}"))],
    }
}
