//! A host that goes down in mid-job and comes up again: `hack/vm-tests --reboot` boots two machines one after the other, and
//! the second one has on its disk what the first one had at that moment.

use std::path::{Path, PathBuf};

use testbed::host::Level;
use testbed::runner::State;

use crate::machine::{CI1, STATE, Service, done, root};
use crate::{LEVELS, UNIT, WAITS, go_on};

const SANDBOX: &str = "[sandbox]\nprofile = \"default\"";

/// What both machines see.
fn disk(level: Level) -> PathBuf {
    let shared =
        std::env::var_os("JACAMAR_VM_SHARED").expect("needs: two machines; run hack/vm-tests --reboot");
    Path::new(&shared).join(format!("{level}.tar"))
}

#[test]
fn before() {
    for level in LEVELS {
        let service = Service::start(level, UNIT, SANDBOX, &[(CI1, &format!("echo x > /tmp/x; {WAITS}"))]);
        service.running(CI1, 1);
        done(&["tar", "-C", "/", "-cpf", &disk(level).display().to_string(), "var/lib/jacamar", "home/ci1"]);
        let result = go_on(&service, CI1).remove(0);
        assert_eq!(result.state, Some(State::Success), "{level}: {}", result.plain_log());
    }
}

#[test]
fn then_gc_leaves_nothing_and_the_next_job_works() {
    for level in LEVELS {
        // Whose configuration the collection reads.
        let service = Service::start(level, UNIT, SANDBOX, &[(CI1, "true")]);
        assert_eq!(service.finish()[0].state, Some(State::Success));
        done(&["rm", "-rf", STATE, "/home/ci1"]);
        done(&["tar", "-C", "/", "-xpf", &disk(level).display().to_string()]);
        let before = root(&[
            "find",
            &format!("{STATE}/jobs"),
            &format!("{STATE}/tmp"),
            "-name",
            "x",
            "-o",
            "-name",
            "record.json",
        ]);
        assert_eq!(before.ok().lines().count(), 2, "{level}: a record and a file of the job's");
        let said = service.gc();
        assert_eq!(said, "finished job 302 of ci1: the host restarted\n", "{level}");
        service.assert_nothing_left();
        let next = Service::start(level, UNIT, SANDBOX, &[(CI1, "pwd")]);
        let result = next.finish().remove(0);
        let log = result.plain_log();
        assert_eq!(result.state, Some(State::Success), "{level}: {log}");
        // The build directory of the lost job is free again.
        assert!(log.contains("/000/"), "{level}: {log}");
        next.assert_nothing_left();
    }
}
