//! A runner that is an ordinary user's process, with `downscope = "none"`.

use std::fs;
use std::os::unix::fs::chown;

use testbed::gitlab::JobBuilder;
use testbed::host::{BIN, PATIENCE, Started};
use testbed::runner::JobResult;

use crate::place::{Place, write};

/// Starts the runner stand-in as the place's account; its result comes in the file `result.json`.
pub(crate) fn start(place: &Place, job: JobBuilder) -> Started {
    let account = place.account();
    for name in ["state", "runner"] {
        let path = place.directory.join(name);
        fs::create_dir_all(&path).expect("a directory");
        chown(&path, Some(account.uid), Some(account.gid)).expect("root");
    }
    let job = place.gitlab.admit(job).response_json().expect("JSON");
    for (name, content) in
        [("runner.toml", place.runner_configuration().as_bytes()), ("job.json", &job), ("result.json", b"")]
    {
        write(&place.path(name), content, 0o600);
        chown(place.directory.join(name), Some(account.uid), Some(account.gid)).expect("root");
    }
    let program = format!("{BIN}/runner-standin");
    let (config, job, result) =
        (place.path("runner.toml"), place.path("job.json"), place.path("result.json"));
    let words = [&program, "--config", &config, "--job", &job, "--result", &result];
    let mut command = place.host.as_user(place.setup.user, &words);
    command.env("HOME", &account.home).env("USER", account.name).env("TMPDIR", place.path("runner"));
    command.env("XDG_STATE_HOME", place.path("state"));
    Started::new(command)
}

/// Runs a job.
pub(crate) fn run(place: &Place, job: JobBuilder) -> JobResult {
    let ran = start(place, job).finish_within(PATIENCE);
    let text = fs::read_to_string(place.path("result.json")).expect("readable");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {ran}"))
}
