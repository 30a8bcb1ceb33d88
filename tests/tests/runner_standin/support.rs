//! A place for one test: a directory, a plan for the driver, a runner that calls it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::gitlab::{Facts, JobBuilder, Predefined};
use testbed::runner::{JobResult, Pauses, Runner};

/// Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What the driver saw of itself in one call.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct Seen {
    pub(crate) stage: String,
    pub(crate) argv: Vec<String>,
    pub(crate) cwd: PathBuf,
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    pub(crate) umask: String,
    pub(crate) blocked: String,
    pub(crate) ignored: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) fds: BTreeMap<String, String>,
    pub(crate) modes: BTreeMap<String, String>,
    pub(crate) exit_code_file: Option<String>,
}

/// A directory with everything a test needs in it.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn builds(&self) -> String {
        self.path("builds").display().to_string()
    }

    /// What `config_exec` answers in most tests.
    pub(crate) fn config_output(&self) -> Value {
        json!({
            "driver": {"name": "fake", "version": "1.0"},
            "hostname": "login1",
            "builds_dir": self.builds(),
            "cache_dir": self.path("cache"),
            "job_env": {"DRIVER_STATE": "some-state"},
        })
    }

    /// Writes the driver's plan; acts by stage, such as `{"build_script": [{"exit": 7}]}`.
    pub(crate) fn plan(&self, acts: Value, run_scripts: bool) {
        self.plan_with(acts, run_scripts, self.config_output());
    }

    pub(crate) fn plan_with(&self, acts: Value, run_scripts: bool, config_output: Value) {
        let plan = json!({
            "record": self.path("record.jsonl"),
            "config_output": config_output.to_string(),
            "run_scripts": run_scripts,
            "calls": acts,
        });
        fs::write(self.path("plan.json"), plan.to_string()).unwrap();
    }

    /// The configuration file: `custom` are further lines of `[runners.custom]`, `runner` of `[[runners]]`.
    pub(crate) fn config_toml(&self, url: &str, runner: &str, custom: &str) -> String {
        let driver = env!("CARGO_BIN_EXE_fake-driver");
        let plan = self.path("plan.json");
        let plan = plan.display();
        let mut text = format!(
            "concurrent = 1\nshutdown_timeout = 2\n[[runners]]\nname = \"standin\"\nurl = \"{url}\"\nid = 3\ntoken = \"glrt-standin0000000000\"\nexecutor = \"custom\"\n{runner}\n[runners.custom]\n{custom}\n"
        );
        for stage in ["config", "prepare", "run", "cleanup"] {
            text.push_str(&format!(
                "{stage}_exec = \"{driver}\"\n{stage}_args = [\"{plan}\", \"{stage}\"]\n"
            ));
        }
        text
    }

    /// A runner whose temporary directories lie in this place.
    pub(crate) fn runner(&self, url: &str, runner: &str, custom: &str) -> Runner {
        let temp = self.path("tmp");
        fs::create_dir_all(&temp).unwrap();
        Runner::from_text(&self.config_toml(url, runner, custom))
            .unwrap()
            .temp_root(&temp)
            .path_first(&helper_directory())
            .pauses(short_pauses())
    }

    /// Runs a job with the plan that was written.
    pub(crate) fn run(&self, job: JobBuilder) -> JobResult {
        self.runner("http://127.0.0.1:9", "", "").run(job.build()).unwrap()
    }

    /// Waits until the driver acts in this stage, its signals caught and its record written.
    pub(crate) fn wait_for(&self, stage: &str) -> Seen {
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = self.seen().into_iter().find(|seen| seen.stage == stage) {
                return seen;
            }
            assert!(std::time::Instant::now() < until, "{stage} was never called");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        let text = fs::read_to_string(self.path("record.jsonl")).unwrap_or_default();
        // A line that is still being written has no end yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Pauses that do not hold a test up.
pub(crate) fn short_pauses() -> Pauses {
    Pauses {
        preparation: Duration::from_millis(20),
        stage_retry_min: Duration::from_millis(20),
        stage_retry_max: Duration::from_millis(100),
        ..Pauses::default()
    }
}

/// Where `gitlab-runner` is found.
pub(crate) fn helper_directory() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_gitlab-runner")).parent().unwrap().to_owned()
}

/// A small job without a repository.
pub(crate) fn small_job() -> JobBuilder {
    JobBuilder::new(Facts::new("http://127.0.0.1:9"))
        .predefined(Predefined::Few)
        .without_sources()
        .script(["echo hello"])
}

/// The text of a golden file.
pub(crate) fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/runner").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The cases of a golden file.
pub(crate) fn golden_cases<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    #[derive(serde::Deserialize)]
    struct Cases<T> {
        case: Vec<T>,
    }
    toml::from_str::<Cases<T>>(&golden(name)).unwrap_or_else(|error| panic!("{name}: {error}")).case
}

/// Checks all cases, some at a time, and reports every one that fails.
pub(crate) fn check_all<T: Sync>(cases: &[T], name: impl Fn(&T) -> &str + Sync, check: impl Fn(&T) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst)) {
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(case))).is_err() {
                        failed.lock().unwrap().push(name(case).to_owned());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "these cases fail: {failed:?}");
}

/// The last line of the job log that says something.
pub(crate) fn last_line(result: &JobResult) -> String {
    result.plain_log().lines().last().unwrap_or_default().to_owned()
}
