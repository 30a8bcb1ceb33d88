//! What most scripts begin with: all variables, and what `$GITLAB_ENV` collected.

use super::urls;
use super::writer::Writer;
use crate::runner::build::Build;

/// The file in which a job collects variables for later stages.
pub(crate) const GITLAB_ENV: &str = "gitlab_runner_env";
/// Git configuration with the job's credentials.
pub(crate) const GIT_EXTERNAL: &str = ".gitlab-runner.ext.conf";
/// What `GIT_CONFIG_GLOBAL` names under `FF_GIT_URLS_WITHOUT_TOKENS`.
pub(crate) const GIT_GLOBAL: &str = ".glr.gconf";

/// Whether the contents of file variables are written anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    Write,
    NameOnly,
}

pub(crate) fn exports(w: &mut Writer<'_>, build: &Build, files: Files) {
    for variable in build.variables().iter() {
        if variable.file && files == Files::NameOnly {
            w.export(&variable.key, &build.tmp_file(&variable.key));
        } else {
            w.variable(variable);
        }
    }
    let path = build.tmp_file(GITLAB_ENV);
    w.export("GITLAB_ENV", &path);
    w.source_env(&path);
    if build.is_on("FF_GIT_URLS_WITHOUT_TOKENS") {
        w.export_expanding("GIT_CONFIG_GLOBAL", &build.tmp_file(GIT_GLOBAL));
    }
}

/// Exports, then into the project directory.
pub(crate) fn exports_and_cd(w: &mut Writer<'_>, build: &Build) {
    exports(w, build, Files::Write);
    w.cd(&build.build_dir);
}

/// Makes a credential helper of the user's forget the job's token.
pub(crate) fn clear_git_credentials(w: &mut Writer<'_>, build: &Build) {
    let remote = urls::remote(build).only_scheme_and_host();
    if remote.host.is_empty() || !matches!(remote.scheme.as_str(), "http" | "https" | "ssh") {
        return;
    }
    let input = format!("url={remote}\nusername=gitlab-ci-token");
    w.best_effort_with_input(&input, &["git", "credential", "reject"]);
}

/// Gives files to the user of the build container; without that file nothing happens.
pub(crate) fn change_ownership(w: &mut Writer<'_>, build: &Build, directories: &[&str]) {
    let marker = format!("{}/.gitlab-build-uid-gid", build.root_dir);
    w.if_path("-e", &marker);
    for directory in directories.iter().filter(|directory| !directory.trim().is_empty()) {
        w.if_path("-d", directory);
        w.line(&format!("chown -R \"$(stat -c '%u:%g' '{marker}')\" '{directory}'"));
        if build.settings().debug_trace {
            w.line(&format!("echo \"Setting ownership for {directory} to $(stat -c '%u:%g' '{marker}')\""));
        }
        w.end_if();
    }
    w.end_if();
}

/// Lines of a user's script, each announced in green.
pub(crate) fn commands(w: &mut Writer<'_>, lines: &[String]) {
    for line in lines {
        let command = line.trim();
        if command.is_empty() {
            w.empty_line();
        } else if let Some((first, _)) = command.split_once('\n') {
            w.notice(&format!("$ {first} # collapsed multi-line command"));
        } else {
            w.notice(&format!("$ {command}"));
        }
        w.line(command);
        w.check_errors();
    }
}
