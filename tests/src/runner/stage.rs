//! The sub-stages of `run`, and the words for them.

/// One script of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SubStage {
    PrepareScript,
    GetSources,
    ClearWorktree,
    RestoreCache,
    DownloadArtifacts,
    /// `step_script`, `step_release`, ...
    Step(String),
    AfterScript,
    ArchiveCache,
    ArchiveCacheOnFailure,
    UploadArtifactsOnSuccess,
    UploadArtifactsOnFailure,
    CleanupFileVariables,
}

impl SubStage {
    /// The runner's own name, in section lines and messages.
    pub(crate) fn name(&self) -> &str {
        match self {
            SubStage::PrepareScript => "prepare_script",
            SubStage::GetSources => "get_sources",
            SubStage::ClearWorktree => "clear_worktree",
            SubStage::RestoreCache => "restore_cache",
            SubStage::DownloadArtifacts => "download_artifacts",
            SubStage::Step(name) => name,
            SubStage::AfterScript => "after_script",
            SubStage::ArchiveCache => "archive_cache",
            SubStage::ArchiveCacheOnFailure => "archive_cache_on_failure",
            SubStage::UploadArtifactsOnSuccess => "upload_artifacts_on_success",
            SubStage::UploadArtifactsOnFailure => "upload_artifacts_on_failure",
            SubStage::CleanupFileVariables => "cleanup_file_variables",
        }
    }

    /// The name a driver is given: `step_script` is still `build_script` there.
    pub(crate) fn driver_name(&self) -> &str {
        match self.name() {
            "step_script" => "build_script",
            other => other,
        }
    }

    /// The line in cyan.
    pub(crate) fn description(&self) -> String {
        match self {
            SubStage::PrepareScript => "Preparing environment".into(),
            SubStage::GetSources => "Getting source from Git repository".into(),
            SubStage::ClearWorktree => {
                "Deleting all tracked and untracked files due to source fetch failure".into()
            }
            SubStage::RestoreCache => "Restoring cache".into(),
            SubStage::DownloadArtifacts => "Downloading artifacts".into(),
            SubStage::Step(name) => format!("Executing \"{name}\" stage of the job script"),
            SubStage::AfterScript => "Running after_script".into(),
            SubStage::ArchiveCache => "Saving cache for successful job".into(),
            SubStage::ArchiveCacheOnFailure => "Saving cache for failed job".into(),
            SubStage::UploadArtifactsOnSuccess => "Uploading artifacts for successful job".into(),
            SubStage::UploadArtifactsOnFailure => "Uploading artifacts for failed job".into(),
            SubStage::CleanupFileVariables => "Cleaning up project directory and file based variables".into(),
        }
    }
}
