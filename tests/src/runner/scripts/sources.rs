//! `get_sources`, `clear_worktree`, and the clean-up of Git files that both it and the last script do.

use super::head::{self, Files, GIT_EXTERNAL, GIT_GLOBAL};
use super::writer::Writer;
use super::{submodules, urls};
use crate::gitlab::entries;
use crate::runner::build::Build;
use crate::runner::failure::Failure;
use crate::runner::go;
use crate::runner::settings::GitStrategy;

pub(super) const EXTERNAL_VARIABLE: &str = "GLR_EXT_GIT_CONFIG_PATH";

/// Git asks a helper, the helper answers with the job's token.
const CREDENTIAL_HELPER: &str =
    r#"!f(){ if [ "$1" = "get" ] ; then echo "password=${CI_JOB_TOKEN}" ; fi ; } ; f"#;

pub(super) fn get_sources(w: &mut Writer<'_>, build: &Build) -> Result<(), Failure> {
    head::exports(w, build, Files::Write);
    w.export("GIT_TERMINAL_PROMPT", "0");
    w.export("GCM_INTERACTIVE", "Never");
    tokenless_global_config(w, build);
    hook(w, build, "pre_get_sources_script", &build.runner.pre_get_sources_script);
    clone_or_fetch(w, build);
    submodules::update(w, build)?;
    hook(w, build, "post_get_sources_script", &build.runner.post_get_sources_script);
    head::change_ownership(w, build, &[&build.root_dir]);
    head::clear_git_credentials(w, build);
    Ok(())
}

/// The runner's script before the job's, after the sources the other way round.
fn hook(w: &mut Writer<'_>, build: &Build, name: &str, runners: &str) {
    let mut lines: Vec<String> = Vec::new();
    let job = entries(&build.job.hooks).iter().find(|hook| hook.name == name);
    lines.extend(job.into_iter().flat_map(|hook| entries(&hook.script).iter().cloned()));
    if !runners.is_empty() {
        let at = if name.starts_with("pre") { 0 } else { lines.len() };
        lines.insert(at, runners.to_owned());
    }
    if !build.settings().without_repository() {
        head::commands(w, &lines);
    }
}

fn credential_helper(w: &mut Writer<'_>, build: &Build) {
    let section = format!("credential.{}", urls::remote(build).only_scheme_and_host());
    let file = build.tmp_file(GIT_EXTERNAL);
    let helper = w.escape(&format!("{section}.helper"));
    let user = w.escape(&format!("{section}.username"));
    let command = w.escape(CREDENTIAL_HELPER);
    w.line(&format!(
        "git config -f \"{file}\" --replace-all {helper} \"\" && git config -f \"{file}\" --add {helper} {command} && git config -f \"{file}\" {user} gitlab-ci-token"
    ));
    w.check_errors();
}

/// `FF_GIT_URLS_WITHOUT_TOKENS`: a global configuration of the job's own that includes the user's.
fn tokenless_global_config(w: &mut Writer<'_>, build: &Build) {
    if !build.is_on("FF_GIT_URLS_WITHOUT_TOKENS") {
        return;
    }
    let (seed, external) = (build.tmp_file(GIT_GLOBAL), build.tmp_file(GIT_EXTERNAL));
    w.remove_file(&seed);
    for users in ["$HOME/.gitconfig", "$HOME/.config/git/config"] {
        w.if_path("-r", users);
        w.command_expanding(&["git", "config", "--file", &seed, "--add", "include.path", users]);
        w.end_if();
    }
    w.command_expanding(&["git", "config", "--file", &seed, "--add", "include.path", &external]);
    if build.settings().without_repository() {
        w.remove_file(&external);
        credential_helper(w, build);
    }
}

fn clone_or_fetch(w: &mut Writer<'_>, build: &Build) {
    let settings = build.settings();
    if !settings.lfs_skip_smudge {
        w.export("GIT_LFS_SKIP_SMUDGE", "1");
    }
    match settings.strategy {
        GitStrategy::Fetch | GitStrategy::Clone => {
            clean_up(w, build);
            let (template, remote) = template_dir(w, build);
            if settings.strategy == GitStrategy::Clone {
                clone(w, build, &template, &remote);
            } else {
                fetch(w, build, &template, &remote);
            }
        }
        GitStrategy::None => {
            w.notice("Skipping Git repository setup");
            w.make_dir(&build.build_dir);
        }
        GitStrategy::Empty => {
            w.notice("Skipping Git repository setup and creating an empty build directory");
            w.remove_dir(&build.build_dir);
            w.make_dir(&build.build_dir);
        }
    }
    if settings.checkout() {
        checkout(w, build);
    } else {
        w.notice("Skipping Git checkout");
    }
}

fn checkout(w: &mut Writer<'_>, build: &Build) {
    let git = &build.job.git_info;
    let short: String = git.sha.chars().take(8).collect();
    w.notice(&format!("Checking out {short} as detached HEAD (ref is {})...", git.reference));
    let proactive = proactive_auth(build);
    let mut words = vec!["git", "-c", "submodule.recurse=false"];
    words.extend(proactive.iter().map(String::as_str));
    words.extend(["checkout", "-f", "-q", &git.sha]);
    w.command(&words);
    let settings = build.settings();
    if !settings.clean_flags.is_empty() {
        w.command(&with(&["git", "clean"], &settings.clean_flags));
    }
    if !settings.lfs_skip_smudge {
        w.if_command(&["git", "lfs", "version"]);
        w.command(&["git", "lfs", "pull"]);
        w.empty_line();
        w.end_if();
    }
}

pub(super) fn with<'a>(words: &[&'a str], more: &'a [String]) -> Vec<&'a str> {
    words.iter().copied().chain(more.iter().map(String::as_str)).collect()
}

fn proactive_auth(build: &Build) -> Vec<String> {
    if !build.is_on("FF_USE_GIT_PROACTIVE_AUTH") {
        return Vec::new();
    }
    let host = urls::remote(build).only_scheme_and_host();
    vec!["-c".into(), format!("http.{host}.proactiveAuth=basic")]
}

fn user_agent(build: &Build) -> String {
    format!("http.userAgent=gitlab-runner {} linux/amd64", build.version.number())
}

fn fetch(w: &mut Writer<'_>, build: &Build, template: &str, remote: &str) {
    let git = &build.job.git_info;
    match git.depth {
        1.. => w.notice(&format!("Fetching changes with git depth set to {}...", git.depth)),
        _ => w.notice("Fetching changes..."),
    }
    let mut init = vec!["git", "init", &build.build_dir, "--template", template];
    if !matches!(git.repo_object_format.as_str(), "" | "sha1") {
        init.extend(["--object-format", &git.repo_object_format]);
    }
    w.command(&init);
    w.cd(&build.build_dir);
    w.if_command(&["git", "remote", "add", "origin", remote]);
    w.notice("Created fresh repository.");
    w.otherwise();
    w.command(&["git", "remote", "set-url", "origin", remote]);
    let file = format!("${EXTERNAL_VARIABLE}");
    include(w, ".git/config", &file, GIT_EXTERNAL);
    w.end_if();

    let (agent, proactive, depth) = (user_agent(build), proactive_auth(build), git.depth.to_string());
    let mut words = vec!["git", "-c", &agent];
    words.extend(proactive.iter().map(String::as_str));
    words.extend(["fetch", "origin", "--no-recurse-submodules"]);
    words.extend(entries(&git.refspecs).iter().map(String::as_str));
    if git.depth > 0 {
        words.extend(["--depth", &depth]);
    }
    words.extend(build.settings().fetch_flags.iter().map(String::as_str));
    if git.depth > 0 {
        w.command(&words);
        return;
    }
    w.if_path("-e", ".git/shallow");
    let mut whole = words.clone();
    whole.push("--unshallow");
    w.command(&whole);
    w.otherwise();
    w.command(&words);
    w.end_if();
}

fn clone(w: &mut Writer<'_>, build: &Build, template: &str, remote: &str) {
    w.remove_dir(&build.build_dir);
    if !build.is_on("FF_USE_GIT_NATIVE_CLONE") {
        fetch(w, build, template, remote);
        return;
    }
    w.if_git_at_least("2.49");
    native_clone(w, build, template, remote);
    w.otherwise();
    fetch(w, build, template, remote);
    w.end_if();
}

fn native_clone(w: &mut Writer<'_>, build: &Build, template: &str, remote: &str) {
    let git = &build.job.git_info;
    let (agent, proactive, depth) = (user_agent(build), proactive_auth(build), git.depth.to_string());
    w.notice(&match (git.depth, git.reference.as_str()) {
        (1.., name) => format!("Cloning repository for {name} with git depth set to {depth}..."),
        (_, "") => "Cloning repository...".to_owned(),
        (_, name) => format!("Cloning repository for {name}..."),
    });
    let mut words = vec!["git", "-c", &agent];
    words.extend(proactive.iter().map(String::as_str));
    words.extend(["clone", "--no-checkout", remote, &build.build_dir, "--template", template]);
    if git.depth > 0 {
        words.extend(["--depth", &depth]);
    }
    if git.reference.starts_with("refs/") {
        words.extend(["--revision", &git.reference]);
    } else if !git.reference.is_empty() {
        words.extend(["--branch", &git.reference]);
    }
    words.extend(build.settings().clone_flags.iter().map(String::as_str));
    w.command(&words);
    w.cd(&build.build_dir);
}

/// One `include.path` per file name.
fn include(w: &mut Writer<'_>, target: &str, file: &str, name: &str) {
    let pattern = format!("{}$", go::quote_meta(name));
    w.command_expanding(&[
        "git",
        "config",
        "--file",
        target,
        "--replace-all",
        "include.path",
        file,
        &pattern,
    ]);
}

/// The template for `git init`, and the clone URL without credentials.
fn template_dir(w: &mut Writer<'_>, build: &Build) -> (String, String) {
    let template = go::join(&[&build.tmp_dir(), "git-template"]);
    w.make_dir(&template);
    let config = go::join(&[&template, "config"]);
    let external = build.tmp_file(GIT_EXTERNAL);
    if build.runner.safe_directory_checkout == Some(true) {
        w.command(&["git", "config", "--global", "--add", "safe.directory", &build.build_dir]);
    }
    for (key, value) in [
        ("init.defaultBranch", "none"),
        ("fetch.recurseSubmodules", "false"),
        ("credential.interactive", "never"),
        ("gc.autoDetach", "false"),
    ] {
        w.command(&["git", "config", "-f", &config, key, value]);
    }
    let remote = external_config(w, build, &external);
    include(w, &config, &external, GIT_EXTERNAL);
    w.export_expanding(EXTERNAL_VARIABLE, &external);
    (template, remote)
}

fn external_config(w: &mut Writer<'_>, build: &Build, external: &str) -> String {
    w.remove_file(external);
    if build.is_on("FF_USE_GITALY_CORRELATION_ID") {
        let id = &build.correlation_id;
        let header = format!("X-Gitaly-Correlation-ID: {id}");
        w.command_expanding(&["git", "config", "-f", external, "http.extraHeader", &header]);
        w.notice(&format!("Gitaly correlation ID: {id}"));
    }
    if build.is_on("FF_USE_GIT_BUNDLE_URIS") {
        w.command_expanding(&["git", "config", "-f", external, "transfer.bundleURI", "true"]);
    }
    let remote = urls::remote(build);
    if build.ca_chain.is_some() {
        let key = format!("http.{}.sslCAInfo", remote.only_scheme_and_host());
        w.command_expanding(&["git", "config", "-f", external, &key, "$CI_SERVER_TLS_CA_FILE"]);
    }
    for (new, old) in urls::instead_of(build) {
        let (key, pattern) = (format!("url.{new}.insteadOf"), format!("^{}$", go::quote_meta(&old)));
        w.command_expanding(&["git", "config", "--file", external, "--replace-all", &key, &old, &pattern]);
    }
    if build.is_on("FF_GIT_URLS_WITHOUT_TOKENS") {
        credential_helper(w, build);
    }
    go::Url { user: None, ..remote }.to_string()
}

/// Removes what a killed Git left behind, and configuration that a job may have planted.
pub(super) fn clean_up(w: &mut Writer<'_>, build: &Build) {
    let in_git = |name: &str| go::join(&[&build.build_dir, ".git", name]);
    let submodules = build.settings().has_submodules();
    for file in ["index.lock", "shallow.lock", "HEAD.lock", "hooks/post-checkout", "config.lock"] {
        w.remove_file(&in_git(file));
        if submodules {
            w.remove_files_below(&in_git("modules"), go::base(file));
        }
    }
    w.remove_files_below(&in_git("refs"), "*.lock");
    let wanted = build.runner.clean_git_config.unwrap_or(build.settings().strategy != GitStrategy::None);
    if !wanted {
        return;
    }
    for directory in [build.tmp_file("git-template"), in_git("")] {
        w.remove_file(&go::join(&[&directory, "config"]));
        w.remove_dir(&go::join(&[&directory, "hooks"]));
    }
    if submodules {
        w.remove_files_below(&in_git("modules"), "config");
        w.remove_dirs_below(&in_git("modules"), "hooks");
    }
}

pub(super) fn clear_worktree(w: &mut Writer<'_>, build: &Build) {
    w.notice("Deleting tracked and untracked files...");
    w.if_path("-d", &build.build_dir);
    w.cd(&build.build_dir);
    w.command(&["git", "rm", "-rf", "--ignore-unmatch", "--quiet", "."]);
    w.command(&["git", "clean", "-ffdx", "-q"]);
    w.end_if();
}
