//! A runner that is an ordinary account's process: with `downscope = "none"` the CI user's, at the capability level its own.

use std::fs;
use std::process::{Command, Stdio};

use testbed::gitlab::JobBuilder;
use testbed::host::{BIN, PATIENCE, Started};
use testbed::runner::JobResult;

use crate::direct::PATH;
use crate::place::{Place, write};

/// Starts the runner stand-in as that account, in this thread's mount namespace; its result comes in the file `result.json`.
pub(crate) fn start(place: &Place, job: JobBuilder) -> Started {
    let account = place.starter().expect("not root");
    for name in ["state", "runner"] {
        let path = place.directory.join(name);
        fs::create_dir_all(&path).expect("a directory");
        place.give_to_starter(&path);
    }
    let job = place.gitlab.admit(job).response_json().expect("JSON");
    for (name, content) in
        [("runner.toml", place.runner_configuration().as_bytes()), ("job.json", &job), ("result.json", b"")]
    {
        write(&place.path(name), content, 0o600);
        place.give_to_starter(&place.directory.join(name));
    }
    let program = format!("{BIN}/runner-standin");
    let (config, job, result) =
        (place.path("runner.toml"), place.path("job.json"), place.path("result.json"));
    let more = ["--config", &config, "--job", &job, "--result", &result].map(str::to_owned);
    let words = place.surroundings().into_iter().chain(place.runner_words(&program)).chain(more);
    let words: Vec<String> = words.collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_clear().env("PATH", PATH).stdin(Stdio::null());
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
