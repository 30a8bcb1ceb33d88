//! A launch that fails leaves neither a control group nor a directory.

use jacamar_plan::Level;
use testbed::host::{Host, Place, RUNNER, Start, Started, Surroundings};

/// strace makes one call of the supervisor fail, as the kernel may.
#[test]
fn a_launch_that_fails_leaves_nothing() {
    let host = Host::build().unwrap_or_else(|error| panic!("{error:#}"));
    let place = Place { host: &host, level: Level::Root, surroundings: Surroundings::AsItIs };
    // The account of the runner, for no other test runs a job as it.
    let find = format!(
        "ls -A /var/lib/jacamar/tmp; find /sys/fs/cgroup -type d -name 'jacamar-u{}*'",
        host.accounts().get(RUNNER).uid
    );
    // Told at the end, and swept, so that one does not hide the next.
    let sweep = format!(
        "rm -rf /var/lib/jacamar/tmp/*; find /sys/fs/cgroup -depth -type d -path '*/jacamar-u{}*' -exec rmdir {{}} +",
        host.accounts().get(RUNNER).uid
    );
    let mut failures = Vec::new();
    // The first clone3 asks whether there is one.
    for call in ["clone3:error=EAGAIN:when=2", "pipe2:error=EMFILE:when=1", "fchownat:error=EPERM:when=1"] {
        let inject = format!("inject={call}");
        let under = ["strace", "-o", "/dev/null", "-e", "trace=clone3,pipe2,fchownat", "-e", &inject];
        let start = Start { user: RUNNER, under: &under, command: &["echo", "ran"], ..Start::default() };
        let ran = place.start(&start).finish();
        assert_eq!((ran.code, ran.out.as_str()), (125, ""), "{call} (strace is needed): {ran}");
        let left = Started::new(host.as_root(&["sh", "-c", &find])).finish();
        if !left.out.is_empty() {
            failures.push(format!("{call}: {} left\n{}", ran.err, left.out));
        }
        // Groups of other tests go while find looks at them, so its exit code says nothing.
        let _swept = Started::new(host.as_root(&["sh", "-c", &sweep])).finish();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
