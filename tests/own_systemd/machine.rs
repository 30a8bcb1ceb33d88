//! The machine as a site has it: accounts, installed programs, a configuration, runners as services of systemd.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use testbed::gitlab::{GitLab, IdToken, JobBuilder};
use testbed::host::{Level, Ran, Started, program};
use testbed::runner::JobResult;

pub(crate) const CI1: &str = "ci1";
pub(crate) const CI2: &str = "ci2";
/// Starts take ten times as long as on real hardware.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
pub(crate) const STATE: &str = "/var/lib/jacamar";

const RUNNER: &str = "gitlab-runner";
const PLACES: &str = "/srv/runners";

/// Built once: the machine is thrown away.
static MACHINE: LazyLock<()> = LazyLock::new(|| {
    assert!(
        Path::new("/run/systemd/system").is_dir() && Path::new("/host").is_dir(),
        "needs: a machine of its own with systemd; run hack/vm-tests --systemd"
    );
    for (name, more) in [
        (CI1, ["--uid", "4001", "--create-home"].as_slice()),
        (CI2, &["--uid", "4002", "--create-home"]),
        (RUNNER, &["--uid", "4000", "--create-home"]),
        ("jacamar", &["--system", "--user-group", "--no-create-home"]),
        ("jacamar-verify", &["--system", "--no-create-home"]),
    ] {
        let words: Vec<&str> = ["useradd"].into_iter().chain(more.iter().copied()).chain([name]).collect();
        done(&words);
    }
    fs::create_dir_all(PLACES).expect("root");
    for level in [Level::Root, Level::Capabilities] {
        let directory = bin(level);
        fs::create_dir_all(&directory).expect("root");
        for name in ["jacamar-auth", "jacamar"] {
            fs::copy(program(name).expect("built"), directory.join(name)).expect("root");
        }
    }
    let auth = bin(Level::Capabilities).join("jacamar-auth");
    chown(&auth, None, Some(4000)).expect("root");
    fs::set_permissions(&auth, fs::Permissions::from_mode(0o750)).expect("root");
    set_capabilities("cap_setuid,cap_setgid=ep");
    fs::copy(program("runner-standin").expect("built"), "/opt/runner-standin").expect("root");
});

fn bin(level: Level) -> PathBuf {
    PathBuf::from(if level == Level::Root { "/opt/jacamar/bin" } else { "/opt/jacamar-caps/bin" })
}

/// Gives `jacamar-auth` of the capability level these.
pub(crate) fn capabilities(all: &str) {
    LazyLock::force(&MACHINE);
    set_capabilities(all);
}

fn set_capabilities(all: &str) {
    done(&["setcap", all, &bin(Level::Capabilities).join("jacamar-auth").display().to_string()]);
}

/// A command of root's that succeeds without a word.
#[track_caller]
pub(crate) fn done(words: &[&str]) {
    assert_eq!(root(words).ok(), "");
}

/// A command of root's.
pub(crate) fn root(words: &[&str]) -> Ran {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    command.stdin(std::process::Stdio::null());
    Started::new(command).finish_within(PATIENCE)
}

/// What systemctl(1) says of a property of a unit.
pub(crate) fn property(unit: &str, name: &str) -> String {
    root(&["systemctl", "show", "--value", "--property", name, unit]).ok().trim().to_owned()
}

/// A service that is the runner of some jobs and ends with the last of them.
pub(crate) struct Service {
    pub(crate) unit: String,
    pub(crate) level: Level,
    pub(crate) directory: PathBuf,
    gitlab: GitLab,
    jobs: i64,
}

/// uid of a CI user.
pub(crate) fn uid(user: &str) -> u32 {
    if user == CI1 { 4001 } else { 4002 }
}

/// Whose a script is, and the script.
pub(crate) type Work<'a> = (&'a str, &'a str);

impl Service {
    /// Starts a service with `lines` in its unit, in which each of the jobs runs at the same time. `more` of the configuration
    /// begins in `[general]`.
    pub(crate) fn start(level: Level, lines: &str, more: &str, jobs: &[Work<'_>]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        LazyLock::force(&MACHINE);
        let owner = if level == Level::Root { "root" } else { "jacamar" };
        done(&["install", "-d", "-o", owner, "-g", owner, "-m", "0711", STATE]);
        done(&["chown", "-R", &format!("{owner}:{owner}"), STATE]);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let unit = format!("gitlab-runner-{number}.service");
        let directory = Path::new(PLACES).join(number.to_string());
        fs::create_dir_all(&directory).expect("root");
        let gitlab = GitLab::start().expect("a server");
        let service = Self { unit, level, directory, gitlab, jobs: i64::try_from(jobs.len()).expect("few") };
        service.configure(more);
        let mut line = String::new();
        for (at, (user, script)) in (0..).zip(jobs) {
            line += &format!("{} & ", service.admit(at, user, script));
        }
        let user = if level == Level::Root { String::new() } else { format!("User={RUNNER}\n") };
        let text = format!("[Service]\n{user}{lines}\nExecStart=/bin/sh -c '{line} wait'\n");
        fs::write(format!("/run/systemd/system/{}", service.unit), text).expect("root");
        service.give(&service.directory);
        done(&["systemctl", "daemon-reload"]);
        done(&["systemctl", "start", &service.unit]);
        service
    }

    fn give(&self, path: &Path) {
        if self.level != Level::Root {
            done(&["chown", "-R", RUNNER, &path.display().to_string()]);
        }
    }

    fn configure(&self, more: &str) {
        let url = self.gitlab.url();
        let text = format!(
            "[auth]\ndownscope = \"setuid\"\njwt_required_aud = \"{url}\"\n\
             [general]\nexecutor = \"shell\"\ndata_dir = \"$HOME\"\ngitlab_server = \"{url}\"\n\
             jwt_env_variable = \"SITE_ID_TOKEN\"\n{more}\n"
        );
        // Root's, as its directory: what the runner writes is beside it.
        let path = self.configuration();
        fs::write(&path, text).expect("root");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("root");
    }

    fn configuration(&self) -> String {
        format!("{PLACES}/{}.toml", self.unit)
    }

    /// The command of one job's runner.
    fn admit(&self, at: i64, user: &str, script: &str) -> String {
        let mut facts = self.gitlab.facts();
        facts.job_id += at;
        facts.user.login = user.to_owned();
        facts.user.email = format!("{user}@example.com");
        let token = IdToken::new(&facts, self.gitlab.url()).sign().expect("a key");
        let job = JobBuilder::new(facts).id_token_value("SITE_ID_TOKEN", token).without_sources();
        // A login shell with all of /etc/profile takes seconds here.
        let job = job.variable("JACAMAR_NO_BASH_PROFILE", "1").script([script]).after_script(["echo after"]);
        let job = self.gitlab.admit(job).response_json().expect("JSON");
        let driver = bin(self.level).join("jacamar-auth").display().to_string();
        let config = self.configuration();
        let runner = format!(
            "[[runners]]\nname = \"testbed\"\nurl = \"{}\"\nid = 3\ntoken = \"glrt-testbed\"\nexecutor = \"custom\"\n\
             [runners.custom]\nconfig_exec = \"{driver}\"\nconfig_args = [\"config\", \"--configuration\", \"{config}\"]\n\
             prepare_exec = \"{driver}\"\nprepare_args = [\"prepare\"]\nrun_exec = \"{driver}\"\nrun_args = [\"run\"]\n\
             cleanup_exec = \"{driver}\"\ncleanup_args = [\"cleanup\"]\ngraceful_kill_timeout = 30\n",
            self.gitlab.url()
        );
        let path = |name: &str| self.directory.join(format!("{at}-{name}"));
        fs::write(path("job.json"), job).expect("root");
        fs::write(path("runner.toml"), runner).expect("root");
        let text = |name: &str| path(name).display().to_string();
        format!(
            "TMPDIR={} /opt/runner-standin --quiet --config {} --job {} --result {}",
            self.directory.display(),
            text("runner.toml"),
            text("job.json"),
            text("result.json")
        )
    }

    /// Its control group in the v2 tree.
    pub(crate) fn group(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup/system.slice").join(&self.unit)
    }

    /// Our node.
    pub(crate) fn node(&self) -> PathBuf {
        match self.level {
            Level::Root => {
                let tops = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];
                let top = tops.into_iter().find(|top| Path::new(top).is_dir()).expect("the last one");
                Path::new(top).join("jacamar.slice")
            }
            _ => self.group().join("jacamar.slice"),
        }
    }

    /// Waits for the end of all its jobs.
    #[track_caller]
    pub(crate) fn finish(&self) -> Vec<JobResult> {
        wait("the service ends", || property(&self.unit, "ActiveState") != "active");
        (0..self.jobs).map(|at| self.result_of(at)).collect()
    }

    /// Waits for the end of one job.
    #[track_caller]
    pub(crate) fn result_of(&self, at: i64) -> JobResult {
        let path = self.directory.join(format!("{at}-result.json"));
        let read = || serde_json::from_str(&fs::read_to_string(&path).unwrap_or_default());
        let deadline = Instant::now() + PATIENCE;
        loop {
            match read() {
                Ok(result) => return result,
                Err(error) => assert!(Instant::now() < deadline, "job {at}: {error}\n{}", self.journal()),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A collection, by a service of its own, that leaves nothing to the next one; what it says.
    #[track_caller]
    pub(crate) fn gc(&self) -> String {
        let mut words = vec!["systemd-run", "--quiet", "--pipe", "--wait", "--collect"];
        if self.level != Level::Root {
            words.extend(["--uid=gitlab-runner", "--property=Delegate=yes"]);
        }
        let (driver, configuration) = (bin(self.level).join("jacamar-auth"), self.configuration());
        let driver = driver.display().to_string();
        words.extend([&driver, "gc", "--configuration", &configuration]);
        let first = root(&words);
        assert_eq!((first.code, first.err.as_str()), (0, ""), "{first}");
        let second = root(&words);
        assert_eq!((second.code, second.out.as_str(), second.err.as_str()), (0, "", ""), "after {first}");
        first.out
    }

    pub(crate) fn journal(&self) -> String {
        root(&["journalctl", "--no-pager", "-o", "cat", "-u", &self.unit]).out
    }

    /// The groups of running jobs, each of which has said that it is up: user's and jobs' nodes.
    #[track_caller]
    pub(crate) fn running(&self, user: &str, count: usize) -> (PathBuf, Vec<PathBuf>) {
        let names = |directory: &Path| -> Vec<PathBuf> {
            fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        let is_up = |path: &PathBuf| path.to_string_lossy().contains("/up.");
        let home = PathBuf::from(format!("/home/{user}"));
        let up = || names(&home).into_iter().filter(is_up).count();
        let deadline = Instant::now() + PATIENCE;
        while up() < count {
            assert!(
                Instant::now() < deadline,
                "{} of {count} jobs of {user} are up: {}",
                up(),
                self.journal()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        for path in names(&home).iter().filter(|path| is_up(path)) {
            fs::remove_file(path).expect("root");
        }
        let node = self.node().join(format!("jacamar-u{}.slice", uid(user)));
        let jobs = names(&node).into_iter().filter(|path| path.is_dir()).collect();
        (node, jobs)
    }

    /// Nothing of any job is left: records, private directories, users' groups, units.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        for directory in ["jobs", "tmp"] {
            let entries = fs::read_dir(Path::new(STATE).join(directory)).into_iter().flatten().flatten();
            let left: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            assert!(left.is_empty(), "{directory}: {left:?}\n{}", self.journal());
        }
        let entries = fs::read_dir(self.node()).into_iter().flatten().flatten().map(|entry| entry.path());
        let left: Vec<_> = entries.filter(|path| path.is_dir()).collect();
        assert!(left.is_empty(), "{left:?}");
        let units = root(&["systemctl", "list-units", "--all", "--no-legend", "--plain", "jacamar-u*"]).ok();
        assert_eq!(units, "");
    }
}

/// A profile of the site's that limits, and does nothing else.
pub(crate) fn profile(name: &str, job: &str) {
    fs::create_dir_all("/etc/jacamar/profiles.d").expect("root");
    let text = format!("description = \"a test\"\n[job]\n{job}\n");
    fs::write(format!("/etc/jacamar/profiles.d/{name}.toml"), text).expect("root");
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "it did not come: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until a fork was refused in a user's node or one of his jobs.
#[track_caller]
pub(crate) fn wait_for_refused_fork(user: &Path) {
    wait("a fork is refused", || {
        let jobs = fs::read_dir(user).into_iter().flatten().flatten().map(|entry| entry.path());
        let events = jobs.chain([user.to_owned()]).map(|path| path.join("pids.events"));
        events.filter_map(|path| fs::read_to_string(path).ok()).any(|text| !text.contains("max 0"))
    });
}

/// The text of a file, without its line end.
#[track_caller]
pub(crate) fn text(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}
