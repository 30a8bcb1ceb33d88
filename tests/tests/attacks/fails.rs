//! A launch that fails leaves neither a control group nor a directory.

use jacamar_plan::Level;
use testbed::host::{Host, Place, RUNNER, Ran, Start, Started, Surroundings};

/// A host on which no other test runs a job as the runner's account, and what is left of one.
struct Quiet {
    host: Host,
    find: String,
    sweep: String,
}

impl Quiet {
    fn new() -> Self {
        let host = Host::build().unwrap_or_else(|error| panic!("{error:#}"));
        let uid = host.accounts().get(RUNNER).uid;
        let groups = format!("find /sys/fs/cgroup -depth -type d -path '*/jacamar-u{uid}*'");
        Self {
            host,
            find: format!("ls -A /var/lib/jacamar/tmp; {groups}"),
            sweep: format!("rm -rf /var/lib/jacamar/tmp/*; {groups} -exec rmdir {{}} +"),
        }
    }

    /// A launch in which strace makes one call fail, as the kernel may; what it left, if that is anything.
    fn launch(&self, inject: &str) -> (Ran, Option<String>) {
        let place = Place { host: &self.host, level: Level::Root, surroundings: Surroundings::AsItIs };
        let call = inject.split(':').next().expect("a name");
        let (trace, inject) = (format!("trace={call}"), format!("inject={inject}"));
        let under = ["strace", "-f", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let start = Start { user: RUNNER, under: &under, command: &["echo", "ran"], ..Start::default() };
        let ran = place.start(&start).finish();
        let left = Started::new(self.host.as_root(&["sh", "-c", &self.find])).finish().out;
        // Swept, so that one does not hide the next. Groups of other tests go meanwhile: the exit code says nothing.
        let _swept = Started::new(self.host.as_root(&["sh", "-c", &self.sweep])).finish();
        let left = if left.is_empty() { None } else { Some(format!("{inject}: {} left\n{left}", ran.err)) };
        (ran, left)
    }
}

/// One test: two at once would find each other's groups.
#[test]
fn a_launch_that_fails_runs_and_leaves_nothing() {
    let quiet = Quiet::new();
    calls_of_the_supervisor(&quiet);
    steps_of_the_child(&quiet);
}

fn calls_of_the_supervisor(quiet: &Quiet) {
    let mut failures = Vec::new();
    // The first clone3 asks whether there is one.
    for inject in ["clone3:error=EAGAIN:when=2", "pipe2:error=EMFILE:when=1", "fchownat:error=EPERM:when=1"] {
        let (ran, left) = quiet.launch(inject);
        assert_eq!((ran.code, ran.out.as_str()), (125, ""), "{inject} (strace is needed): {ran}");
        failures.extend(left);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Each call of the child that must succeed, the first time, the second, and so on until it is called no more often.
fn steps_of_the_child(quiet: &Quiet) {
    let mut failures = Vec::new();
    for (call, errno, least) in [
        ("setsid", "EPERM", 1),
        ("mount", "EPERM", 9),
        ("setgroups", "EPERM", 1),
        ("setresgid", "EPERM", 2),
        // From the third on it is the proof, where this is what must happen.
        ("setresuid", "EAGAIN", 2),
        ("capset", "EPERM", 4),
        ("chdir", "EACCES", 1),
        ("seccomp", "EINVAL", 1),
    ] {
        let refused = (1..).take_while(|when| {
            // strace counts in each process.
            let (ran, left) = quiet.launch(&format!("{call}:error={errno}:when={when}"));
            failures.extend(left);
            assert!((ran.code == 0) == (ran.out == "ran\n"), "{call}, {when}: {ran}");
            ran.code != 0
        });
        let refused = refused.count();
        assert!(refused >= least, "{call}: {refused} times");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
