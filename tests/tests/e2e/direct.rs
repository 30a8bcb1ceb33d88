//! The driver's calls one by one, as the runner makes them, for what happens between and during them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use testbed::gitlab::{Job, entries};
use testbed::host::{Ran, Started};

use crate::place::{Place, write};

/// The runner's.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One job of which the test is the runner.
pub(crate) struct Direct<'p> {
    pub(crate) place: &'p Place,
    /// The runner's private directory.
    pub(crate) directory: PathBuf,
    environment: Vec<(String, String)>,
    record: Option<String>,
    /// At the capability level: in the control group that was delegated.
    in_group: bool,
}

impl<'p> Direct<'p> {
    /// At the level of the place.
    pub(crate) fn new(place: &'p Place, job: &Job) -> Self {
        let directory = (0..)
            .map(|number| place.directory.join("runner").join(format!("custom-executor{number}")))
            .find(|path| !path.exists())
            .expect("a number");
        fs::create_dir(&directory).expect("a directory");
        let text = |path: &Path| path.display().to_string();
        let mut environment: Vec<(String, String)> = [
            ("TMPDIR", text(&directory)),
            ("BUILD_FAILURE_EXIT_CODE", "1".into()),
            ("SYSTEM_FAILURE_EXIT_CODE", "2".into()),
            ("BUILD_EXIT_CODE_FILE", text(&directory.join("build_exit_code"))),
            ("JOB_RESPONSE_FILE", text(&directory.join("response.json"))),
            ("XDG_STATE_HOME", text(&place.directory.join("state"))),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for variable in entries(&job.variables) {
            environment.push((format!("CUSTOM_ENV_{}", variable.key), variable.value.clone()));
        }
        let direct = Self { place, directory, environment, record: None, in_group: true };
        direct.respond(&job.response_json().expect("JSON"));
        direct.give_away(&direct.directory);
        if place.setup.downscope == "none" {
            let state = place.directory.join("state");
            fs::create_dir_all(&state).expect("a directory");
            direct.give_away(&state);
        }
        direct
    }

    fn give_away(&self, path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("ours");
        self.place.give_to_starter(path);
    }

    /// Replaces the response file.
    pub(crate) fn respond(&self, response: &[u8]) {
        let path = self.directory.join("response.json");
        write(&path.display().to_string(), response, 0o600);
        self.place.give_to_starter(&path);
    }

    /// At the capability level: as if the unit had no `Delegate=yes`.
    pub(crate) fn outside_of_the_group(&mut self) {
        self.in_group = false;
    }

    /// Takes a variable away.
    pub(crate) fn unset(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    /// A call of the driver.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_under(&[], arguments)
    }

    /// A call of the driver by a command that executes it: setpriv, prlimit, env.
    pub(crate) fn command_under(&self, under: &[&str], arguments: &[&str]) -> Command {
        let driver = self.place.driver_words();
        let driver = driver.iter().map(String::as_str);
        let words: Vec<&str> = under.iter().copied().chain(driver).chain(arguments.iter().copied()).collect();
        self.any(&words)
    }

    /// Another command with the driver's environment.
    pub(crate) fn any(&self, words: &[&str]) -> Command {
        let before = if self.in_group { self.place.surroundings() } else { Vec::new() };
        let words: Vec<&str> = before.iter().map(String::as_str).chain(words.iter().copied()).collect();
        // In this thread's mount namespace, which may be another than the host's.
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().env("PATH", PATH).stdin(Stdio::null());
        let record = self.record.iter().map(|name| ("JACAMAR_CI_RECORD", name));
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).envs(record);
        command.current_dir(&self.directory).process_group(0);
        command
    }

    /// `config`; where it succeeds its record is taken over as the runner takes it.
    pub(crate) fn config(&mut self) -> Ran {
        let file = self.place.path("config.toml");
        let ran = Started::new(self.command(&["config", "--configuration", &file])).finish();
        if ran.code == 0 {
            let answer: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran}"));
            self.record = answer["job_env"]["JACAMAR_CI_RECORD"].as_str().map(str::to_owned);
        }
        ran
    }

    /// `config` and `prepare`, both of which succeed.
    #[track_caller]
    pub(crate) fn prepared(mut self) -> Self {
        let ran = self.config();
        assert_eq!(ran.code, 0, "{ran}");
        let ran = Started::new(self.command(&["prepare"])).finish();
        assert_eq!(ran.code, 0, "{ran}");
        self
    }

    /// Name of the record.
    pub(crate) fn record(&self) -> &str {
        self.record.as_deref().expect("config succeeded")
    }

    /// Pretends that `config` answered this name.
    pub(crate) fn set_record(&mut self, name: &str) {
        self.record = Some(name.to_owned());
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.place.state()
    }

    /// Writes a script as the runner does; the arguments of its `run`.
    pub(crate) fn script(&self, text: &str) -> [String; 3] {
        let path = self.directory.join("script");
        write(&path.display().to_string(), text.as_bytes(), 0o700);
        self.place.give_to_starter(&path);
        ["run".into(), path.display().to_string(), "build_script".into()]
    }

    /// Starts a script.
    pub(crate) fn run(&self, text: &str) -> Started {
        let words = self.script(text);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Started::new(self.command(&words))
    }

    /// `cleanup`.
    pub(crate) fn cleanup(&self) -> Ran {
        let file = self.place.path("config.toml");
        Started::new(self.command(&["cleanup", "--configuration", &file])).finish()
    }

    /// First line of `BUILD_EXIT_CODE_FILE`.
    pub(crate) fn exit_code_file(&self) -> Option<String> {
        fs::read_to_string(self.directory.join("build_exit_code")).ok()
    }
}
