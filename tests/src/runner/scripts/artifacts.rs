//! `download_artifacts`, `upload_artifacts_on_success` and `upload_artifacts_on_failure`.

use std::time::Duration;

use super::cache::guard_helper;
use super::head;
use super::writer::Writer;
use crate::gitlab::{Artifact, Dependency, entries, when_fits};
use crate::runner::build::Build;
use crate::runner::clock::go_duration;

/// Whether there was anything to do.
pub(super) fn download(w: &mut Writer<'_>, build: &Build) -> bool {
    head::exports_and_cd(w, build);
    let others: Vec<&Dependency> = entries(&build.job.dependencies)
        .iter()
        .filter(|dependency| !dependency.artifacts_file.filename.is_empty())
        .collect();
    if others.is_empty() {
        return false;
    }
    guard_helper(w, "Artifacts downloading", |w| {
        for other in others {
            let id = other.id.to_string();
            w.notice(&format!("Downloading artifacts for {} ({id})...", other.name));
            w.command(&[
                "gitlab-runner",
                "artifacts-downloader",
                "--url",
                &build.runner.url,
                "--token",
                &other.token,
                "--id",
                &id,
            ]);
        }
    });
    head::change_ownership(w, build, &[&build.cache_dir, &build.root_dir]);
    true
}

/// Whether there was anything to do.
pub(super) fn upload(w: &mut Writer<'_>, build: &Build, success: bool) -> bool {
    if build.runner.url.is_empty() {
        return false;
    }
    head::exports_and_cd(w, build);
    let mut any = false;
    for artifact in entries(&build.job.artifacts) {
        if when_fits(&artifact.when, success) {
            any |= upload_one(w, build, artifact);
        }
    }
    any
}

fn upload_one(w: &mut Writer<'_>, build: &Build, artifact: &Artifact) -> bool {
    let timeouts = &build.runner.artifact;
    let timeout = go_duration(timeouts.upload_timeout.unwrap_or(Duration::from_secs(3600)));
    let header_timeout = go_duration(timeouts.response_header_timeout.unwrap_or(Duration::from_secs(600)));
    let id = build.job.id.to_string();
    let mut paths: Vec<&str> = Vec::new();
    for path in entries(&artifact.paths) {
        paths.extend(["--path", path]);
    }
    for path in entries(&artifact.exclude) {
        paths.extend(["--exclude", path]);
    }
    if artifact.untracked {
        paths.push("--untracked");
    }
    if paths.is_empty() {
        return false;
    }
    let mut words = vec![
        "gitlab-runner",
        "artifacts-uploader",
        "--url",
        &build.runner.url,
        "--token",
        &build.job.token,
        "--id",
        &id,
        "--timeout",
        &timeout,
        "--response-header-timeout",
        &header_timeout,
    ];
    words.extend(paths);
    for (flag, value) in [
        ("--name", &artifact.name),
        ("--expire-in", &artifact.expire_in),
        ("--artifact-format", &artifact.artifact_format),
        ("--artifact-type", &artifact.artifact_type),
    ] {
        if !value.is_empty() {
            words.extend([flag, value.as_str()]);
        }
    }
    guard_helper(w, "Uploading artifacts", |w| {
        w.notice("Uploading artifacts...");
        w.command(&words);
    });
    true
}
