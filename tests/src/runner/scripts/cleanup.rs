//! `cleanup_file_variables`: the last script of a job.

use super::head::{self, Files, GIT_EXTERNAL, GIT_GLOBAL, GITLAB_ENV};
use super::sources::{clean_up, with};
use super::writer::Writer;
use crate::runner::build::Build;
use crate::runner::go;
use crate::runner::settings::{GitStrategy, Submodules};

pub(super) fn cleanup(w: &mut Writer<'_>, build: &Build) {
    head::exports(w, build, Files::NameOnly);
    head::clear_git_credentials(w, build);
    for name in [GITLAB_ENV, "masking.db", GIT_EXTERNAL, GIT_GLOBAL] {
        w.remove_file(&build.tmp_file(name));
    }
    for variable in build.variables().iter().filter(|variable| variable.file) {
        w.remove_file(&build.tmp_file(&variable.key));
    }
    if build.is_on("FF_ENABLE_JOB_CLEANUP") {
        project_directory(w, build);
    }
    clean_up(w, build);
    w.remove_file(&go::join(&[&build.root_dir, ".gitlab-build-uid-gid"]));
}

/// `FF_ENABLE_JOB_CLEANUP`
fn project_directory(w: &mut Writer<'_>, build: &Build) {
    let settings = build.settings();
    match settings.strategy {
        GitStrategy::Clone | GitStrategy::Empty => w.remove_dir(&build.build_dir),
        GitStrategy::None => w.notice("Skipping build directory cleanup step"),
        GitStrategy::Fetch => {
            w.cd(&build.build_dir);
            let clean = with(&["git", "clean"], &settings.clean_flags);
            if !settings.clean_flags.is_empty() {
                w.command(&clean);
            }
            w.command(&["git", "reset", "--hard"]);
            if settings.has_submodules() {
                let mut foreach = vec!["git", "submodule", "foreach"];
                if settings.submodules() == Submodules::Recursive {
                    foreach.push("--recursive");
                }
                if !settings.clean_flags.is_empty() {
                    w.command(&[&foreach[..], &clean].concat());
                }
                w.command(&[&foreach[..], &["git", "reset", "--hard"]].concat());
            }
        }
    }
}
