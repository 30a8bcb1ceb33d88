//! A site whose state directory and control groups no other test has, so that `gc` may be let loose on them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use testbed::host::{ControlGroup, Level, Ran, Started};

use crate::direct::Direct;
use crate::place::{Place, Setup, own_state};

pub(crate) struct Site {
    pub(crate) place: Place,
    /// The site's node of the root level.
    pub(crate) group: ControlGroup,
}

impl Site {
    pub(crate) fn new(setup: Setup) -> Self {
        let place = Place::new(setup);
        let group = ControlGroup::make().expect("root").expect("a host with cgroup v2");
        if !place.setup.capabilities {
            own_state(None);
        }
        let site = Self { place, group };
        if site.place.starter().is_none() {
            // [sandbox] is the last part.
            let node = format!("cgroup = \"{}\"\n", site.group.path());
            site.place.configure(&format!("{}{node}", site.place.configuration()));
        }
        site
    }

    pub(crate) fn usual() -> Self {
        Self::new(Setup::default())
    }

    pub(crate) fn of_level(level: Level) -> Self {
        Self::new(Setup::of_level(level))
    }

    /// A job without sources.
    pub(crate) fn direct(&self) -> Direct<'_> {
        Direct::new(&self.place, &self.place.gitlab.admit(self.place.small(["true"])))
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.place.state()
    }

    /// Names in a directory of the state.
    pub(crate) fn names(&self, of: &str) -> Vec<String> {
        let entries = fs::read_dir(self.state().join(of)).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Neither records nor private directories nor control groups are left.
    #[track_caller]
    pub(crate) fn assert_clean(&self, when: &str) {
        let left = (self.names("jobs"), self.names("tmp"), self.users());
        assert_eq!(left, (vec![], vec![], vec![]), "{when}");
    }

    /// Users' control groups.
    pub(crate) fn users(&self) -> Vec<PathBuf> {
        match &self.place.delegated {
            Some(group) => children(&Path::new(group.path()).join("jacamar.slice")),
            None => self.group.children(),
        }
    }

    /// All that was made so far was made long ago.
    pub(crate) fn age(&self) {
        for directory in ["jobs", "tmp"] {
            for name in self.names(directory) {
                let path = self.state().join(directory).join(name);
                for file in ["record.json", ""].map(|name| path.join(name)).iter().filter(|p| p.exists()) {
                    make_old(file, Duration::from_secs(120));
                }
            }
        }
        for user in self.users() {
            for path in children(&user).iter().chain([&user]) {
                make_old(path, Duration::from_secs(120));
            }
        }
    }

    /// The command of a collection, with this configuration.
    pub(crate) fn words(&self) -> Vec<String> {
        let more = ["gc".into(), "--configuration".into(), self.place.path("config.toml")];
        self.place.driver_words().into_iter().chain(more).collect()
    }

    pub(crate) fn start_gc(&self, direct: &Direct<'_>, more: &[&str]) -> Started {
        let words = self.words();
        let words: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Started::new(direct.any(&words))
    }

    pub(crate) fn gc(&self, direct: &Direct<'_>) -> Ran {
        self.start_gc(direct, &[]).finish()
    }

    /// It does nothing, and says so.
    #[track_caller]
    pub(crate) fn gc_finds_nothing(&self, direct: &Direct<'_>, when: &str) {
        let ran = self.gc(direct);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{when}: {ran}");
    }

    /// It says exactly this, and nothing is left.
    #[track_caller]
    pub(crate) fn gc_says(&self, direct: &Direct<'_>, said: &str, when: &str) {
        let ran = self.gc(direct);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, said, ""), "{when}: {ran}");
    }

    /// The next job of the user works, and in the first build directory: nobody holds it any more.
    #[track_caller]
    pub(crate) fn next_job_works(&self, when: &str) {
        let direct = self.direct().prepared();
        let text = fs::read_to_string(self.state().join("jobs").join(direct.record()).join("record.json"));
        let record: serde_json::Value = serde_json::from_str(&text.expect("ours")).expect("JSON");
        assert_eq!(record["slot"], 0, "{when}");
        let ran = direct.run("id -un; echo x > /tmp/x\n").finish();
        assert_eq!((ran.code, ran.out.trim_end()), (0, self.place.account().name), "{when}: {ran}");
        let ran = direct.cleanup();
        assert_eq!(ran.code, 0, "{when}: {ran}");
    }

    /// A process that is the runner of a job: it starts `config`, then what `more` says, and ends. `$D` is the driver,
    /// `$C` the configuration, `$KILL` has a stage killed when it takes the record's lock.
    pub(crate) fn runner(&self, direct: &Direct<'_>, more: &str) -> Started {
        Started::new(direct.any(&["sh", "-c", &self.runner_script(more)]))
    }

    /// What it executes.
    pub(crate) fn runner_script(&self, more: &str) -> String {
        let config = self.place.path("config.toml");
        format!(
            "D='{}'; C={config}\n\
             KILL='strace -o /dev/null -e trace=flock -e inject=flock:signal=KILL:when=1'\n\
             $D config --configuration $C > out.json || exit 9\n\
             export JACAMAR_CI_RECORD=$(grep -o '\"JACAMAR_CI_RECORD\":\"[0-9a-f]*' out.json | cut -d'\"' -f4)\n\
             {more}\n:\n",
            self.place.driver_words().join(" ")
        )
    }
}

/// Groups in a group.
pub(crate) fn children(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// As if it had been changed so long ago.
pub(crate) fn make_old(path: &Path, age: Duration) {
    let then = SystemTime::now() - age;
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.set_modified(then).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
