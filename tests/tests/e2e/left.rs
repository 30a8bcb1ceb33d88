//! What a job must not leave behind.

use std::fs;
use std::path::{Path, PathBuf};

use testbed::host::{Process, alive};

use crate::place::{Place, STATE};

/// Paths of a job that are still there: record, private directories, control groups.
pub(crate) fn of_job(state: &Path, record: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["jobs", "tmp"].iter().map(|name| state.join(name).join(record)).collect();
    found.retain(|path| path.symlink_metadata().is_ok());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let groups =
        mounts.lines().filter(|line| line.contains(" - cgroup2 ")).filter_map(|line| line.split(' ').nth(4));
    for group in groups {
        // A delegated node may be anywhere.
        named(Path::new(group), record, &mut found);
    }
    found
}

fn named(directory: &Path, part: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().contains(part) {
                found.push(entry.path());
            } else {
                named(&entry.path(), part, found);
            }
        }
    }
}

/// Neither paths nor processes.
#[track_caller]
pub(crate) fn assert_nothing(state: &Path, record: &str, processes: &[Process]) {
    let paths = of_job(state, record);
    assert!(paths.is_empty(), "left behind: {paths:?}");
    let left = alive(processes);
    assert!(left.is_empty(), "still alive: {left:?}");
}

/// Records of jobs of this place's GitLab.
pub(crate) fn records_of(place: &Place) -> Vec<PathBuf> {
    let jobs = fs::read_dir(Path::new(STATE).join("jobs"));
    let ours = |path: &PathBuf| {
        // A record of another test may go meanwhile.
        let text = fs::read_to_string(path.join("record.json")).unwrap_or_default();
        text.contains(place.gitlab.url())
    };
    jobs.into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).filter(ours).collect()
}
