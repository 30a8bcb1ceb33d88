//! Job logs as they are checked in: `tests/golden/joblog/e2e-NAME.txt`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p testbed --test e2e` writes them anew and fails; read the difference.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::sync::LazyLock;

use testbed::runner::JobResult;

use crate::place::Place;

/// Opened on the real host: the tree may lie where the built one has something else.
static FOLDER: LazyLock<File> = LazyLock::new(|| {
    File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/joblog")).expect("the folder of job logs")
});

/// Opens the folder; to be called before the built host is entered.
pub(crate) fn prepare() {
    LazyLock::force(&FOLDER);
}

/// Compares a text with its file.
#[track_caller]
pub(crate) fn check(place: &Place, name: &str, text: &str) {
    let text = place.neutral(text);
    let path = format!("/proc/self/fd/{}/e2e-{name}.txt", FOLDER.as_raw_fd());
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if text != expected && std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).expect("writable");
        eprintln!("e2e-{name}.txt was written");
        return;
    }
    assert_eq!(text, expected, "e2e-{name}.txt: UPDATE_GOLDEN=1 writes it anew");
}

/// The part of a job log that comes after the runner's own first lines.
pub(crate) fn log_of(result: &JobResult) -> String {
    let log = result.plain_log();
    let start = "Preparing the \"custom\" executor\n";
    let from = log.find(start).map_or(0, |at| at + start.len());
    log[from..].to_owned()
}
