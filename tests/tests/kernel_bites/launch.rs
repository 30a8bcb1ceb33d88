//! What the kernel sees of a launch, told by strace and by /proc, not by us.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use jacamar_plan::Level;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use syscalls::Sysno;
use testbed::host::newer_calls::{FIRST_NEWER, OF_THE_PRODUCT};
use testbed::host::{Host, LEVELS, Place, Start, Started, Surroundings, program};

fn place(level: Level, surroundings: Surroundings) -> Place<'static> {
    Place { host: Host::shared(), level, surroundings }
}

/// Runs a job under strace, which follows every process; its lines, `PID call(...) = ...`.
fn traced(place: &Place<'_>, calls: &str) -> Vec<String> {
    let file = format!(
        "/tmp/strace-{}-{}",
        place.level,
        std::thread::current().name().unwrap_or("x").replace(':', "_")
    );
    let filter = format!("trace={calls}");
    let under = ["strace", "-f", "-e", &filter, "-e", "signal=none", "-o", &file];
    let ran = place
        .start(&Start { under: &under, command: &["sh", "-c", "cat /proc/self/cgroup"], ..Start::default() })
        .finish();
    assert_eq!(ran.code, 0, "{place} (strace is needed): {ran}");
    Started::new(place.host.as_root(&["cat", &file])).finish().ok().lines().map(str::to_owned).collect()
}

#[test]
fn the_child_is_in_its_group() {
    for surroundings in [Surroundings::AsItIs, Surroundings::OldKernel, Surroundings::Container] {
        let place = place(Level::Root, surroundings);
        let ran = place.run("default", "cat /proc/self/cgroup; cat /proc/1/cgroup");
        if !ran.out.contains("0::") {
            return;
        }
        let own = ran.out.lines().find(|line| line.starts_with("0::")).unwrap_or_default();
        assert!(
            own.starts_with("0::/jacamar.slice/jacamar-u") && own.ends_with("/exec.scope"),
            "{surroundings:?}: {ran}"
        );
    }
    let lines = traced(&place(Level::Root, Surroundings::AsItIs), "clone,clone3,write");
    let into = lines
        .iter()
        .filter(|line| line.contains("CLONE_INTO_CGROUP") && line.contains("CLONE_NEWPID"))
        .count();
    assert_eq!(into, 1, "{lines:#?}");
}

#[test]
fn the_supervisor_never_has_a_second_thread() {
    for level in LEVELS {
        let place = place(level, Surroundings::AsItIs);
        let lines = traced(&place, "clone,clone3,fork,vfork,execve");
        // From the launcher's start (its exec) on, its own process id.
        let names = ["/jacamar-auth\"", "/jacamar\"", "/capability-level\""];
        let start = lines
            .iter()
            .position(|line| names.iter().any(|name| line.contains(name)) && line.contains("execve("));
        let start = start.unwrap_or_else(|| panic!("{place}: {lines:#?}"));
        let pid = lines[start].split(' ').next().expect("a pid");
        let own: Vec<&String> = lines[start..].iter().filter(|line| line.starts_with(pid)).collect();
        assert!(own.iter().any(|line| line.contains("clone")), "{place}: {own:#?}");
        let threads: Vec<_> =
            own.iter().filter(|l| l.contains("CLONE_THREAD") || l.contains("CLONE_VM")).collect();
        assert!(threads.is_empty(), "{place}: {threads:#?}");

        let job =
            place.start(&Start { command: &["sh", "-c", "echo up; exec sleep 77777"], ..Start::default() });
        job.wait_for("up");
        let status = fs::read_to_string(format!("/proc/{}/status", job.pid())).expect("it runs");
        assert!(status.contains("Threads:\t1\n"), "{place}: {status}");
    }
}

#[test]
fn the_list_of_newer_calls_is_complete() {
    let listed: BTreeSet<&str> = OF_THE_PRODUCT.iter().map(|(name, _)| *name).collect();
    for (name, number) in OF_THE_PRODUCT {
        assert_eq!(Sysno::from_str(name).map(|call| call.id()), Ok(i32::try_from(number).expect("small")));
    }
    let is_newer = |name: &str| {
        let number = Sysno::from_str(name).map_or(0, |call| call.id());
        u32::try_from(number).is_ok_and(|number| number >= FIRST_NEWER)
    };
    // Those that the sources name.
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/kernel/src");
    for entry in fs::read_dir(&kernel).expect("sources") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a source");
        for name in text
            .split("libc::SYS_")
            .skip(1)
            .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
        {
            assert!(
                !is_newer(name) || listed.contains(name),
                "{name} is newer than Linux 4.18 and not listed"
            );
        }
    }
    // Those that a launch makes, its libraries included.
    for level in LEVELS {
        let lines = traced(&place(level, Surroundings::AsItIs), "all");
        let called: BTreeSet<&str> = lines
            .iter()
            .filter_map(|line| line.split_whitespace().nth(1)?.split('(').next())
            .filter(|name| is_newer(name))
            .collect();
        assert!(called.contains("close_range") && called.is_subset(&listed), "{level}: {called:?}");
    }
}

#[test]
fn std_passes_blocked_signals_on_and_we_do_not() {
    let status = "while read -r n v; do case $n in SigBlk:) echo blocked=$v;; esac; done < /proc/$$/status";
    let place = place(Level::Root, Surroundings::AsItIs);
    let start = Start { command: &["sh", "-c", status], ..Start::default() };
    let mut by_std = std::process::Command::new("sh");
    by_std.args(["-c", status]);
    let by_us = place.command(&start);
    let mut old = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut old)).expect("a mask");
    let (by_std, by_us) = (Started::new(by_std), Started::new(by_us));
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&old), None).expect("a mask");
    let (by_std, by_us) = (by_std.finish(), by_us.finish());
    assert_ne!(by_std.value("blocked"), "0000000000000000", "std resets the mask now");
    assert_eq!(by_us.value("blocked"), "0000000000000000");
}

/// cgroups-rs brings zbus into the tree; none of it may be in the privileged program, which has busctl(1) ask systemd.
/// Debug information names what was compiled and left out by the linker, so it is taken away first.
#[test]
fn the_privileged_program_has_no_message_bus() {
    let directory = tempfile::tempdir().expect("a directory");
    let stripped = directory.path().join("jacamar-auth");
    let mut strip = std::process::Command::new("strip");
    strip.arg("-o").arg(&stripped).arg(program("jacamar-auth").expect("built"));
    let ran = Started::new(strip).finish();
    assert_eq!(ran.code, 0, "{ran}");
    let bytes = fs::read(stripped).expect("readable");
    let has = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
    // Ours is in it, so the search finds what there is.
    assert!(has(b"cgroup.procs"));
    for word in [&b"zbus"[..], b"zvariant", b"org.freedesktop.DBus", b"rustls", b"jsonwebtoken", b"sqlite"] {
        assert!(!has(word), "{}", String::from_utf8_lossy(word));
    }
}
