//! Below systemd: whole jobs of runners that are services, in a machine that systemd has booted. `hack/vm-tests --systemd`
//! runs this; elsewhere it fails with the reason.
#![expect(clippy::indexing_slicing, reason = "what a test does not find fails it")]

mod machine;
mod reboot;
mod version1;
mod version2;

use std::fs;

use testbed::host::Level;
use testbed::runner::JobResult;

use crate::machine::Service;

pub(crate) const LEVELS: [Level; 2] = [Level::Root, Level::Capabilities];
/// What a unit for a runner has.
pub(crate) const UNIT: &str = "Delegate=yes\nLimitNOFILE=2048:4096\nTasksMax=500\nMemoryMax=1200M";
/// A script that says that it is up, and goes on when a file is there.
pub(crate) const WAITS: &str = "touch ~/up.$CI_JOB_ID; while [ ! -e ~/go ]; do sleep 0.2; done; echo went on";

/// Lets the waiting scripts of a user's go on, and waits for the end of the service.
pub(crate) fn go_on(service: &Service, user: &str) -> Vec<JobResult> {
    let path = format!("/home/{user}/go");
    fs::write(&path, "").expect("root");
    let results = service.finish();
    fs::remove_file(path).expect("root");
    results
}
