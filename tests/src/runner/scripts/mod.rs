//! The scripts of a job, as GitLab Runner writes them: one for each sub-stage of `run`.

mod artifacts;
mod cache;
mod cleanup;
mod head;
mod quote;
mod sources;
mod submodules;
mod urls;
mod writer;

use super::build::Build;
use super::failure::Failure;
use super::go;
use super::stage::SubStage;
use crate::gitlab::{Step, entries};
use writer::Writer;

/// The shells whose scripts can be written here.
pub(crate) const SHELLS: [&str; 2] = ["bash", "sh"];

/// The script of a sub-stage; `None` if it has nothing to do.
pub(crate) fn generate(build: &mut Build, stage: &SubStage, shell: &str) -> Result<Option<String>, Failure> {
    if *stage == SubStage::Step("step_release".into()) {
        expand_release(build);
    }
    let build: &Build = build;
    let mut w = Writer::new(build);
    let any = match stage {
        SubStage::PrepareScript => {
            prepare(&mut w, build);
            true
        }
        SubStage::GetSources => {
            sources::get_sources(&mut w, build)?;
            true
        }
        SubStage::ClearWorktree => {
            sources::clear_worktree(&mut w, build);
            true
        }
        SubStage::RestoreCache => cache::restore(&mut w, build)?,
        SubStage::DownloadArtifacts => artifacts::download(&mut w, build),
        SubStage::Step(name) => user_script(&mut w, build, name),
        SubStage::AfterScript => after_script(&mut w, build),
        SubStage::ArchiveCache => cache::archive(&mut w, build, true)?,
        SubStage::ArchiveCacheOnFailure => cache::archive(&mut w, build, false)?,
        SubStage::UploadArtifactsOnSuccess => artifacts::upload(&mut w, build, true),
        SubStage::UploadArtifactsOnFailure => artifacts::upload(&mut w, build, false),
        SubStage::CleanupFileVariables => {
            cleanup::cleanup(&mut w, build);
            true
        }
    };
    Ok(any.then(|| w.finish(shell)))
}

/// Whether a sub-stage has anything to do, for shells whose scripts are not written here.
pub(crate) fn exists(build: &Build, stage: &SubStage) -> bool {
    let mut copy = build.clone();
    generate(&mut copy, stage, "bash").is_ok_and(|script| script.is_some())
}

/// The host name is put into the double quotes as the driver sent it: `$(...)` in it is run.
fn prepare(w: &mut Writer<'_>, build: &Build) {
    let text = if build.hostname.is_empty() {
        "Running on $(hostname)...".to_owned()
    } else {
        format!("Running on $(hostname) via {}...", build.hostname)
    };
    w.line(&format!("echo {}", go::quote(&text)));
    w.remove_file(&build.tmp_file(head::GITLAB_ENV));
    w.remove_file(&build.tmp_file("masking.db"));
}

/// `step_NAME` of a step GitLab sent.
pub(crate) fn stage_of(step: &Step) -> String {
    format!("step_{}", step.name.to_lowercase())
}

/// References in a release script are replaced by the runner, and stay so.
fn expand_release(build: &mut Build) {
    let variables = build.variables().clone();
    for step in build.job.steps.iter_mut().flatten().filter(|step| step.name == "release") {
        for line in step.script.iter_mut().flatten() {
            *line = variables.expand_value(line);
        }
    }
}

fn user_script(w: &mut Writer<'_>, build: &Build, stage: &str) -> bool {
    let Some(step) = entries(&build.job.steps).iter().find(|step| stage_of(step) == stage) else {
        return false;
    };
    head::exports_and_cd(w, build);
    if !build.runner.pre_build_script.is_empty() {
        head::commands(w, std::slice::from_ref(&build.runner.pre_build_script));
    }
    head::commands(w, entries(&step.script));
    if !build.runner.post_build_script.is_empty() {
        head::commands(w, std::slice::from_ref(&build.runner.post_build_script));
    }
    true
}

fn after_script(w: &mut Writer<'_>, build: &Build) -> bool {
    let step = entries(&build.job.steps).iter().find(|step| step.name == "after_script");
    let script = step.map(|step| entries(&step.script)).unwrap_or_default();
    if script.is_empty() {
        return false;
    }
    head::exports_and_cd(w, build);
    w.notice("Running after script...");
    head::commands(w, script);
    true
}
