//! One kill after the other.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use testbed::host::{Level, Ran, Started, marked, wait_gone};

use crate::collector::{Site, children};
use crate::direct::Direct;
use crate::place::{Setup, write};

/// Calls that change something outside of the process, or start or end one, and the end of the process itself.
const CALLS: [&str; 27] = [
    "mkdir",
    "mkdirat",
    "openat",
    "write",
    "rename",
    "renameat",
    "unlink",
    "unlinkat",
    "rmdir",
    "symlinkat",
    "fchmod",
    "fchmodat",
    "fchownat",
    "flock",
    "fsync",
    "clone",
    "clone3",
    "mount",
    "umount2",
    "kill",
    "pidfd_send_signal",
    "setfsuid",
    "memfd_create",
    "pipe2",
    "setresuid",
    "sendto",
    "exit_group",
];

/// A call at which the driver is killed: its name and which one of that name.
struct Point {
    call: String,
    number: usize,
    /// What it did when nobody was killed.
    line: String,
}

/// A part of the driver's work that is done again and again, each time anew.
struct Work<'a> {
    site: &'a Site,
    name: &'static str,
    /// Lines of sh(1) before it: `$D` is the driver, `$C` the configuration.
    before: String,
    /// The call that is traced.
    call: String,
    /// Whether a job was begun before.
    in_job: bool,
    /// Least number of kills that are worth the name.
    least: usize,
}

impl<'a> Work<'a> {
    fn in_job(site: &'a Site, name: &'static str, before: String, call: String, least: usize) -> Self {
        Self { site, name, before, call, in_job: true, least }
    }

    fn mark(&self) -> String {
        format!("MARK_FAULTS_{}_{}", std::process::id(), self.name.replace(['-', ' '], "_"))
    }

    /// Does it once, traced, by a runner that ends with it.
    fn once(&self, direct: &Direct<'_>, trace: &str) -> Ran {
        // What the first job of a host makes is made each time.
        for directory in ["jobs", "tmp"] {
            match fs::remove_dir(self.site.state().join(directory)) {
                Ok(()) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{directory}: {error}"),
            }
        }
        let (mark, before, call) = (self.mark(), &self.before, &self.call);
        let words = format!("export {mark}=1\n{before}\nstrace -D -o trace {trace} {call}\necho ended $?\n");
        if self.in_job {
            self.site.runner(direct, &words).finish()
        } else {
            let config = self.site.place.path("config.toml");
            let driver = self.site.place.driver_words().join(" ");
            let line = format!("D='{driver}'; C={config}\n{words}");
            Started::new(direct.any(&["sh", "-c", &line])).finish()
        }
    }

    /// Where nobody is killed: the calls that changed something.
    fn points(&self, direct: &Direct<'_>) -> Vec<Point> {
        let traced = CALLS.map(|call| format!("?{call}")).join(",");
        let ran = self.once(direct, &format!("-e trace={traced}"));
        assert!(ran.out.contains("ended 0\n"), "{}: {ran}", self.name);
        let trace = fs::read(direct.directory.join("trace")).expect("strace wrote it");
        let mut numbers = BTreeMap::new();
        let mut points = Vec::new();
        for line in String::from_utf8_lossy(&trace).lines() {
            let Some((call, rest)) = line.split_once('(') else { continue };
            let number = numbers.entry(call.to_owned()).or_insert(0);
            *number += 1;
            let written = ["O_CREAT", "O_WRONLY", "O_RDWR"].iter().any(|flag| rest.contains(flag));
            if !rest.contains(" = -1 ") && (call != "openat" || written) {
                points.push(Point { call: call.to_owned(), number: *number, line: rest.to_owned() });
            }
        }
        assert!(points.len() >= self.least, "{}: {} points", self.name, points.len());
        points
    }

    /// Nothing of it is left, by `gc` alone.
    #[track_caller]
    fn collect(&self, direct: &Direct<'_>, when: &str) {
        let site = self.site;
        let names = site.names("tmp");
        // Its age stands for its lock until it has one.
        site.age();
        let ran = site.gc(direct);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{when}: {ran}");
        site.assert_clean(when);
        for name in &names {
            // `exec` reads no configuration.
            let root = fs::canonicalize(format!("{}/../jacamar.slice", site.group.path()));
            let users = root.map(|path| children(&path)).unwrap_or_default();
            let mut groups = users.iter().flat_map(|user| children(user));
            let left = groups.find(|path| path.to_string_lossy().contains(name));
            assert_eq!(left, None, "{when}");
        }
        let ours: Vec<_> =
            marked(&self.mark()).into_iter().filter(|process| process.name != "strace").collect();
        let left = wait_gone(&ours, Duration::from_secs(1));
        assert!(left.is_empty(), "{when}: {left:?}");
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("readable");
        let base = site.state().display().to_string();
        let inside = mounts.lines().filter(|line| line.contains(&format!(" {base}/")));
        assert_eq!(inside.count(), 0, "{when}: {mounts}");
        let again = site.gc(direct);
        assert_eq!((again.code, again.out.as_str(), again.err.as_str()), (0, "", ""), "{when}");
    }

    fn killed_everywhere(&self) {
        let site = self.site;
        // Keys are fetched once.
        site.next_job_works(self.name);
        let direct = site.direct();
        let points = self.points(&direct);
        self.collect(&direct, self.name);
        let mut missed = Vec::new();
        for Point { call, number, line } in &points {
            let when = format!("{}, before {call} {number}: {line}", self.name);
            let ran =
                self.once(&direct, &format!("-e trace={call} -e inject={call}:signal=KILL:when={number}"));
            if !ran.out.contains("ended 137\n") {
                missed.push(format!("{when}: {ran}"));
            }
            self.collect(&direct, &when);
            // Whatever was half made is either whole or gone.
            if call.starts_with("mk") || call.starts_with("fch") || call.starts_with("rename") {
                site.next_job_works(&when);
            }
        }
        // Numbers of calls differ a little from time to time.
        assert!(missed.len() * 10 <= points.len(), "{} of {}: {missed:?}", missed.len(), points.len());
        site.next_job_works(self.name);
        eprintln!("{}: {} kills, {} missed", self.name, points.len() - missed.len(), missed.len());
    }
}

fn run_of(direct: &Direct<'_>) -> String {
    let script = "export MARK=1; sleep 0.01 & (setsid sleep 77777 >/dev/null 2>&1 &); echo up\n";
    format!("$D {}", direct.script(script).join(" "))
}

#[test]
fn config() {
    let site = Site::usual();
    let call = "$D config --configuration $C".to_owned();
    Work { site: &site, name: "config", before: String::new(), call, in_job: false, least: 40 }
        .killed_everywhere();
}

#[test]
fn prepare() {
    let site = Site::usual();
    Work::in_job(&site, "prepare", String::new(), "$D prepare".into(), 35).killed_everywhere();
}

#[test]
fn run() {
    let site = Site::usual();
    let before = "$D prepare".to_owned();
    Work::in_job(&site, "run", before, run_of(&site.direct()), 20).killed_everywhere();
}

/// Without a pid namespace.
#[test]
fn run_of_compat() {
    let site = Site::new(Setup { profile: Some("compat"), ..Setup::default() });
    let before = "$D prepare".to_owned();
    Work::in_job(&site, "run of compat", before, run_of(&site.direct()), 20).killed_everywhere();
}

#[test]
fn cleanup() {
    let site = Site::usual();
    let before = format!("$D prepare\n{}", run_of(&site.direct()));
    let call = "$D cleanup --configuration $C".to_owned();
    Work::in_job(&site, "cleanup", before, call, 40).killed_everywhere();
}

#[test]
fn exec() {
    for level in [Level::Root, Level::User] {
        let site = Site::of_level(level);
        let (user, name) =
            (site.place.setup.user, if level == Level::User { "exec of oneself" } else { "exec" });
        let call = format!("$D exec --user {user} --profile default -- sh -c 'echo x > /tmp/x'");
        Work { site: &site, name, before: String::new(), call, in_job: false, least: 25 }.killed_everywhere();
    }
}

/// The user level.
#[test]
fn stages_of_a_job_of_oneself() {
    let site = Site::of_level(Level::User);
    let run = run_of(&site.direct());
    let begun = format!("$D prepare\n{run}");
    Work::in_job(&site, "own prepare", String::new(), "$D prepare".into(), 25).killed_everywhere();
    Work::in_job(&site, "own cleanup", begun, "$D cleanup --configuration $C".into(), 30).killed_everywhere();
}

/// The keeper's supervisor, in a delegated group.
#[test]
fn stages_at_the_capability_level() {
    let site = Site::of_level(Level::Capabilities);
    let (before, run) = ("$D prepare".to_owned(), run_of(&site.direct()));
    let begun = format!("{before}\n{run}");
    Work::in_job(&site, "prepare of the keeper", String::new(), before.clone(), 35).killed_everywhere();
    Work::in_job(&site, "run of the keeper", before, run, 20).killed_everywhere();
    Work::in_job(&site, "cleanup of the keeper", begun, "$D cleanup --configuration $C".into(), 40)
        .killed_everywhere();
}

/// A collection that is killed itself: the next one goes on.
#[test]
fn gc() {
    let site = Site::usual();
    let begin = site.place.path("begin.sh");
    write(&begin, site.runner_script(&format!("$D prepare\n{}", run_of(&site.direct()))).as_bytes(), 0o644);
    let user = site.place.setup.user;
    let old = "touch -d '2 minutes ago'";
    let state = site.state().display().to_string();
    // A job whose runner is gone, a killed exec, and a record in the making.
    let before = format!(
        "sh {begin}\n\
         strace -D -o exec -e trace=clone3 -e inject=clone3:signal=KILL:when=2 $D exec --user {user} --profile default -- true\n\
         mkdir -m 700 {state}/jobs/0123456789abcdef0123456789abcdef\n\
         {old} {state}/tmp/* {state}/jobs/0*\n"
    );
    let call = "$D gc --configuration $C".to_owned();
    let work = Work { site: &site, name: "gc", before, call, in_job: false, least: 60 };
    let ran = work.once(&site.direct(), "-e trace=none");
    let done = ran.out.lines().filter(|line| line.starts_with("finished ") || line.starts_with("removed "));
    assert_eq!(done.count(), 3, "{ran}");
    work.killed_everywhere();
}
