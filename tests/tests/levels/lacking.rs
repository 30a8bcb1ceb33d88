//! A host that refuses what the profile requires: `exec` presumes the namespaces, is refused one, asks the host and
//! plans again, so that people read what is lacking and not which call failed.

use jacamar_plan::Level;
use testbed::host::{Host, Place, Ran, Start, Surroundings};

/// A job of `default` after root has changed the host for it with a line of sh(1).
fn run(level: Level, line: &str) -> Ran {
    let place = Place { host: Host::shared(), level, surroundings: Surroundings::AsItIs };
    let line = format!("set -e; {line} \"$@\"");
    let under = ["unshare", "--mount", "sh", "-c", &line, "sh"];
    place.start(&Start { under: &under, command: &["echo", "ran"], ..Start::default() }).finish()
}

fn assert_refused(ran: &Ran, reason: &str, level: Level) {
    assert_eq!((ran.code, ran.out.as_str()), (125, ""), "{level}: {ran}");
    assert!(ran.err.contains("profile default, ") && ran.err.contains(reason), "{level}: {ran}");
    assert!(ran.err.contains("\nhint: "), "{level}: {ran}");
}

/// As by `ProtectKernelTunables=yes`, and in containers.
#[test]
fn a_covered_proc_is_named() {
    let cover = "mount -t tmpfs none /proc/fs; exec";
    assert_eq!(run(Level::Root, cover).ok(), "ran\n");
    for level in [Level::Capabilities, Level::User] {
        assert_refused(&run(level, cover), "a new /proc cannot be mounted", level);
    }
}

/// In a chroot(2) the kernel makes no user namespace, user_namespaces(7).
#[test]
fn missing_user_namespaces_are_named() {
    let chroot = "mount --rbind / /mnt; exec chroot /mnt";
    assert_eq!(run(Level::Root, chroot).ok(), "ran\n");
    for level in [Level::Capabilities, Level::User] {
        assert_refused(&run(level, chroot), "this host has no user namespaces for us", level);
    }
}
