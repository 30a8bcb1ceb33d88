//! Where a job of a test happens: a site with its configuration, a GitLab, a runner.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;
use testbed::gitlab::{Facts, GitLab, IdToken, Job, JobBuilder, Repository, Spoil};
use testbed::host::{
    Account, BIN, CAPS_PREFIX, CI1, ControlGroup, Host, KEEPER, Level, PREFIX, RUNNER, Started, program,
};
use testbed::runner::{JobResult, Pauses, Runner, Running, Version};

/// Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// No job of a test is longer.
const JOB_PATIENCE: Duration = Duration::from_secs(90);
/// Every directory above a place's configuration is root's, and everyone may pass.
const PLACES: &str = "/srv/testbed/e2e";
/// The state directory of the root level.
pub(crate) const STATE: &str = "/var/lib/jacamar";

/// The built host, as an open namespace.
static NAMESPACE: LazyLock<File> = LazyLock::new(|| {
    let runner = fs::read(program("runner-standin").expect("built")).expect("readable");
    let held = Started::new(Host::shared().as_root(&["sh", "-c", "echo up; exec sleep 77777"]));
    held.wait_for("up");
    let namespace = File::open(format!("/proc/{}/ns/mnt", held.pid())).expect("a namespace");
    enter_namespace(&namespace);
    write(&format!("{BIN}/runner-standin"), &runner, 0o755);
    fs::create_dir_all(PLACES).expect("a directory");
    fs::create_dir_all("/etc/profile.d").expect("a directory");
    // The helper of the runner's scripts, for login shells.
    write("/etc/profile.d/testbed.sh", format!("PATH={BIN}:$PATH\n").as_bytes(), 0o644);
    namespace
});

fn enter_namespace(namespace: &File) {
    // Root, working directory and mounts of this thread alone, and of what it starts.
    unshare(CloneFlags::CLONE_FS).expect("root");
    setns(namespace, CloneFlags::CLONE_NEWNS).expect("root");
}

/// Makes this thread one of the built host's.
pub(crate) fn enter() -> &'static Host {
    crate::golden::prepare();
    enter_namespace(&NAMESPACE);
    Host::shared()
}

/// Writes a file with this mode.
pub(crate) fn write(path: &str, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap_or_else(|e| panic!("{path}: {e}"));
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap_or_else(|e| panic!("{path}: {e}"));
}

/// What a site and a job have that is not as in most tests.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// GitLab login, and account, of who started the job.
    pub(crate) user: &'static str,
    /// `[sandbox] profile`; none: no `[sandbox]` at all.
    pub(crate) profile: Option<&'static str>,
    /// `[general]` besides.
    pub(crate) general: String,
    /// `[auth] downscope`
    pub(crate) downscope: &'static str,
    /// The runner is an ordinary account and `jacamar-auth` has file capabilities.
    pub(crate) capabilities: bool,
    /// `[auth]` besides.
    pub(crate) auth: String,
    /// `graceful_kill_timeout` of the runner, in seconds.
    pub(crate) graceful: u64,
    /// Of the runner.
    pub(crate) version: Version,
    /// Of the runner: lines of `[[runners]]`.
    pub(crate) runner: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            user: CI1,
            profile: Some("default"),
            general: String::new(),
            downscope: "setuid",
            capabilities: false,
            auth: String::new(),
            graceful: 20,
            version: Version::V19_4,
            runner: String::new(),
        }
    }
}

impl Setup {
    /// As in most tests, with a driver of this level.
    pub(crate) fn of_level(level: Level) -> Self {
        let downscope = if level == Level::User { "none" } else { "setuid" };
        Self { downscope, capabilities: level == Level::Capabilities, ..Self::default() }
    }
}

/// A site with GitLab and runner.
pub(crate) struct Place {
    pub(crate) host: &'static Host,
    pub(crate) gitlab: GitLab,
    pub(crate) setup: Setup,
    pub(crate) directory: PathBuf,
    /// Of the capability level: the control group that was delegated to the runner, as by `Delegate=yes`.
    pub(crate) delegated: Option<ControlGroup>,
    repository: Repository,
}

impl Place {
    pub(crate) fn new(setup: Setup) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let host = enter();
        let gitlab = GitLab::start().expect("a server");
        let repository = gitlab.repository("group/proj").expect("git");
        repository.commit([testbed::gitlab::File::from(("README", "hello\n"))], "First").expect("git");
        let directory = Path::new(PLACES).join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir_all(directory.join("runner")).expect("a directory");
        let delegated = setup.capabilities.then(|| {
            own_state(Some(host.accounts().get(KEEPER)));
            let group = ControlGroup::make().expect("root").expect("a host with cgroup v2");
            group.delegate(host.accounts().get(RUNNER)).expect("root");
            group
        });
        let place = Self { host, gitlab, setup, directory, delegated, repository };
        place.configure(&place.configuration());
        if place.starter().is_some() {
            let writer = if place.setup.capabilities { host.accounts().get(KEEPER) } else { place.account() };
            write(&place.path("audit.jsonl"), b"", 0o600);
            chown(place.path("audit.jsonl"), Some(writer.uid), Some(writer.gid)).expect("root");
        }
        place
    }

    /// With everything as in most tests.
    pub(crate) fn usual() -> Self {
        Self::new(Setup::default())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// The site's configuration.
    pub(crate) fn configuration(&self) -> String {
        let Setup { profile, general, downscope, auth, .. } = &self.setup;
        let url = self.gitlab.url();
        // Records of the user level are apart from root's, so two jobs would take the same build directory.
        let data_dir = match *downscope {
            _ if self.starter().is_some() => {
                format!("$HOME/{}", self.directory.file_name().unwrap_or_default().display())
            }
            _ => "$HOME".to_owned(),
        };
        let profile = profile.map(|name| format!("[sandbox]\nprofile = \"{name}\"\n")).unwrap_or_default();
        format!(
            "[general]\nexecutor = \"shell\"\ndata_dir = \"{data_dir}\"\ngitlab_server = \"{url}\"\n\
             jwt_env_variable = \"SITE_ID_TOKEN\"\nsupport_contact = \"support@hpc.example.com\"\n{general}\n\
             [auth]\ndownscope = \"{downscope}\"\njwt_required_aud = \"{url}\"\n{auth}\n\
             [auth.logging]\nlocation = \"{}\"\n{profile}",
            self.path("audit.jsonl")
        )
    }

    pub(crate) fn configure(&self, text: &str) {
        // At the user level the caller reads it; there is no secret in it.
        write(&self.path("config.toml"), text.as_bytes(), 0o644);
    }

    pub(crate) fn account(&self) -> &'static Account {
        self.host.accounts().get(self.setup.user)
    }

    /// Who starts the driver, where that is not root.
    pub(crate) fn starter(&self) -> Option<&'static Account> {
        if self.setup.capabilities {
            Some(self.host.accounts().get(RUNNER))
        } else if self.setup.downscope == "none" {
            Some(self.account())
        } else {
            None
        }
    }

    /// Gives a file or directory of the runner's to who starts the driver.
    pub(crate) fn give_to_starter(&self, path: &Path) {
        if let Some(account) = self.starter() {
            chown(path, Some(account.uid), Some(account.gid)).expect("root");
        }
    }

    /// The driver.
    pub(crate) fn driver(&self) -> String {
        format!("{}/bin/jacamar-auth", if self.setup.capabilities { CAPS_PREFIX } else { PREFIX })
    }

    /// For a command of root's: what executes the rest of the line where the runner is. At the capability level that is a
    /// control group, and root still, so that strace(1) does not take the file capabilities away.
    pub(crate) fn surroundings(&self) -> Vec<String> {
        match (&self.delegated, self.starter()) {
            (Some(group), _) => group.enter().into(),
            (None, Some(account)) => self.host.become_user(account.name),
            (None, None) => Vec::new(),
        }
    }

    /// What executes a program of the runner's there.
    pub(crate) fn runner_words(&self, program: &str) -> Vec<String> {
        let become_user = self.delegated.as_ref().map(|_| self.host.become_user(RUNNER));
        become_user.into_iter().flatten().chain([program.to_owned()]).collect()
    }

    /// What executes the driver there.
    pub(crate) fn driver_words(&self) -> Vec<String> {
        self.runner_words(&self.driver())
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        if self.setup.downscope == "none" { self.directory.join("state/jacamar") } else { STATE.into() }
    }

    pub(crate) fn facts(&self) -> Facts {
        let mut facts = self.gitlab.facts();
        facts.project.path = self.repository.path().to_owned();
        facts.sha = self.repository.head().expect("a commit");
        facts.user.login = self.setup.user.to_owned();
        facts.user.email = format!("{}@example.com", self.setup.user);
        facts
    }

    /// A job with a good token.
    pub(crate) fn job(&self) -> JobBuilder {
        self.job_of(&self.facts())
    }

    /// A job with these facts and a good token.
    pub(crate) fn job_of(&self, facts: &Facts) -> JobBuilder {
        let token = IdToken::new(facts, self.gitlab.url()).sign().expect("a key");
        JobBuilder::new(facts.clone()).id_token_value("SITE_ID_TOKEN", token)
    }

    /// A job without sources whose token is spoiled.
    pub(crate) fn spoiled(&self, spoil: Spoil) -> JobBuilder {
        let facts = self.facts();
        let token = IdToken::new(&facts, self.gitlab.url()).spoil(spoil).sign().expect("a key");
        JobBuilder::new(facts).id_token_value("SITE_ID_TOKEN", token).without_sources()
    }

    /// A job without sources, for what is not about them: it is shorter.
    pub(crate) fn small<S: Into<String>>(&self, script: impl IntoIterator<Item = S>) -> JobBuilder {
        self.job().without_sources().script(script)
    }

    /// `config.toml` of the runner.
    pub(crate) fn runner_configuration(&self) -> String {
        let driver = self.driver();
        let config = self.path("config.toml");
        format!(
            "[[runners]]\nname = \"testbed\"\nurl = \"{}\"\nid = 3\ntoken = \"glrt-testbed\"\n\
             executor = \"custom\"\n{}\n[runners.custom]\nconfig_exec = \"{driver}\"\n\
             config_args = [\"config\", \"--configuration\", \"{config}\"]\n\
             prepare_exec = \"{driver}\"\nprepare_args = [\"prepare\"]\nrun_exec = \"{driver}\"\n\
             run_args = [\"run\"]\ncleanup_exec = \"{driver}\"\n\
             cleanup_args = [\"cleanup\", \"--configuration\", \"{config}\"]\ngraceful_kill_timeout = {}\n",
            self.gitlab.url(),
            self.setup.runner,
            self.setup.graceful
        )
    }

    pub(crate) fn runner(&self) -> Runner {
        Runner::from_text(&self.runner_configuration())
            .expect("good")
            .temp_root(&self.directory.join("runner"))
            .version(self.setup.version)
            .pauses(Pauses { preparation: Duration::from_millis(20), ..Pauses::default() })
    }

    /// Starts a job with root as the runner's account.
    pub(crate) fn start(&self, job: JobBuilder) -> Running {
        self.runner().start(self.gitlab.admit(job)).expect("a driver")
    }

    /// Runs a job with root as the runner's account.
    pub(crate) fn run(&self, job: JobBuilder) -> JobResult {
        self.run_job(self.gitlab.admit(job))
    }

    pub(crate) fn run_job(&self, job: Job) -> JobResult {
        finish(self.runner().start(job).expect("a driver"))
    }

    /// The audit lines so far.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("audit.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// What differs from run to run is replaced.
    pub(crate) fn neutral(&self, text: &str) -> String {
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").expect("readable");
        let text = text
            .replace(self.gitlab.url(), "http://gitlab.example.com")
            .replace(&self.path(""), "/site/")
            .replace(&self.directory.display().to_string(), "/site")
            .replace(&self.account().uid.to_string(), "UID")
            .replace(&format!(" on {} ", hostname.trim()), " on login1 ")
            .replace(env!("CARGO_PKG_VERSION"), "VERSION");
        // A token of an hour ago may be a second older when it is looked at.
        let text = ["3599 seconds", "3601 seconds", "3602 seconds"]
            .iter()
            .fold(text, |text, near| text.replace(near, "3600 seconds"));
        neutral_names(&text)
    }
}

/// From now on this thread, and what it starts, has a state directory that nobody else has.
pub(crate) fn own_state(owner: Option<&Account>) {
    unshare(CloneFlags::CLONE_NEWNS).expect("root");
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).expect("root");
    mount(Some("tmpfs"), STATE, Some("tmpfs"), MsFlags::empty(), Some("mode=0711")).expect("root");
    if let Some(owner) = owner {
        chown(STATE, Some(owner.uid), Some(owner.gid)).expect("root");
    }
}

/// Waits for a job's end; a stage that never ends fails the test.
#[track_caller]
pub(crate) fn finish(running: Running) -> JobResult {
    let until = Instant::now() + JOB_PATIENCE;
    while !running.is_over() {
        let last = running.calls().last().map(|call| (call.stage.clone(), call.pid));
        assert!(Instant::now() < until, "no end within {JOB_PATIENCE:?}, in {last:?}:\n{}", running.log());
        std::thread::sleep(Duration::from_millis(2));
    }
    running.wait()
}

/// Names with random parts: directories of the runner, records.
fn neutral_names(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("custom-executor") {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        out.push_str("custom-executorN");
        rest = after["custom-executor".len()..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out.push_str(rest);
    out
}

/// The record that the driver's later calls were given.
pub(crate) fn record_of(result: &JobResult) -> String {
    let named = result.calls.iter().find_map(|call| call.env("JACAMAR_CI_RECORD"));
    named.unwrap_or_else(|| panic!("no record\n{}", result.plain_log())).to_owned()
}
