//! While the child wears the user, a process of that user outside tries to get at it.
//!
//! Seen to fail: with real and saved uid changed too in `Child::wear` (`set_resuid(Some(uid), Some(uid), None)`) the
//! signals arrive; with `set_dumpable(false)` left out of `await_release` files of /proc open.

use jacamar_plan::Level;
use testbed::host::{CI1, Host, Place, Start, Started, Surroundings, compile};

/// Mounts below /usr: each is one more step for the child while it wears the user.
const MOUNTS: u32 = 1 << 10;

/// A host on which the child wears the user for long: many mounts to make read-only.
fn slow_host() -> Host {
    let host = Host::build().unwrap_or_else(|error| panic!("{error:#}"));
    // Each binds the tree with all that is in it into itself: twice as many mounts.
    let script = "set -e; d=$(dirname $(cat /srv/testbed/shared/usr-directory)); for n in 1 2 3 4 5 6 7 8 9 10; do mkdir $d/$n; \
                  done; for n in 1 2 3 4 5 6 7 8 9 10; do mount --rbind $d $d/$n; done; wc -l < /proc/self/mountinfo";
    let ran = Started::new(host.as_root(&["sh", "-c", script])).finish();
    let count: u32 = ran.out.trim().parse().unwrap_or_default();
    assert!(ran.code == 0 && count > MOUNTS, "{ran}");
    host
}

#[test]
fn cve_2016_9962_and_2026_41163_a_launcher_cannot_be_traced_or_signalled() {
    let host = slow_host();
    let attack = compile(&host, "attack");
    for (level, name) in [(Level::Root, "jacamar-auth"), (Level::Capabilities, "capability-level")] {
        let place = Place { host: &host, level, surroundings: Surroundings::AsItIs };
        // In a session of its own: within one, SIGCONT passes between users.
        let mut hunt = host.as_user(CI1, &["setsid", &attack, "hunt", name]);
        hunt.stdin(std::process::Stdio::piped());
        let mut hunter = Started::new(hunt);
        hunter.wait_for("hunting");
        for _ in 0..15 {
            let ran = place.start(&Start { command: &["true"], ..Start::default() }).finish();
            assert_eq!(ran.code, 0, "{place}: {ran}");
        }
        hunter.feed(b"");
        let ran = hunter.finish();
        let breaches: Vec<&str> = ran.out.lines().filter(|line| line.starts_with("breach")).collect();
        assert!(breaches.is_empty(), "{place}: {breaches:?}");
        // It met the child in its worst moment, often enough for each kind of attempt.
        let met = |kind| ran.value(kind).parse::<u32>().expect("a number");
        assert!(met("worn") >= 200 && met("other") >= 50, "{place}: the attacker came too late: {ran}");
    }
}
