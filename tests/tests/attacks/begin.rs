//! How the launcher is started: descriptors, arguments, environment.

use jacamar_plan::Level;
use testbed::host::{BIN, Host, PREFIX, Start, Started, compile};

use crate::{STATUS, assert_whole, places};

#[test]
fn closed_standard_descriptors_are_no_files_of_ours() {
    let host = Host::shared();
    for place in places() {
        for combination in 0..8 {
            let closed: Vec<u32> = (0..3).filter(|fd| combination & (1 << fd) != 0).collect();
            let before: String = closed.iter().map(|fd| format!("exec {fd}>&-\n")).collect();
            // /tmp of the job is its own, so the answer goes to the home directory.
            let file = format!("closed-{}-{combination}", place.level);
            let script = format!(
                "ls /proc/$$/fd > ~/{file}; for n in 0 1 2; do readlink /proc/$$/fd/$n >> ~/{file}; done; :"
            );
            // dash holds descriptors of its own while it redirects.
            let start = Start { before: &before, command: &["bash", "-c", &script], ..Start::default() };
            let ran = place.start(&start).finish();
            assert_eq!(ran.code, 0, "{place}: {closed:?}: {ran}");
            let answer =
                Started::new(host.as_root(&["cat", &format!("{}/{file}", place.user().home)])).finish().ok();
            let lines: Vec<&str> = answer.lines().collect();
            assert!(lines.len() == 6 && lines[..3] == ["0", "1", "2"], "{place}: {closed:?}: {answer}");
            for fd in closed {
                // glibc opens the latter in programs with file capabilities, before main.
                let opened = lines[3 + usize::try_from(fd).expect("small")];
                assert!(["/dev/null", "/dev/full"].contains(&opened), "{place}: {fd}: {answer}");
            }
        }
    }
}

#[test]
fn cve_2021_4034_no_arguments_at_all() {
    let host = Host::shared();
    let begin = compile(host, "begin");
    for program in [
        format!("{PREFIX}/bin/jacamar-auth"),
        format!("{PREFIX}/bin/jacamar"),
        format!("{BIN}/capability-level"),
    ] {
        for user in ["ci1", "gitlab-runner", "root"] {
            let command = [begin.as_str(), "bare", &program];
            let command = if user == "root" { host.as_root(&command) } else { host.as_user(user, &command) };
            let ran = Started::new(command).finish();
            assert_eq!((ran.code, ran.out.as_str()), (125, ""), "{program}, {user}: {ran}");
        }
    }
}

#[test]
fn cve_2021_3156_another_name_changes_nothing() {
    let host = Host::shared();
    let begin = compile(host, "begin");
    let program = format!("{PREFIX}/bin/jacamar-auth");
    for name in ["sudoedit", "", "-", "--help", "%s%n", "jacamar", "/bin/sh"] {
        let command = [
            begin.as_str(),
            "named",
            name,
            &program,
            "exec",
            "--user",
            "ci1",
            "--profile",
            "default",
            "--",
            "id",
            "-un",
        ];
        let ran = Started::new(host.as_root(&command)).finish();
        assert_eq!(ran.ok(), "ci1\n", "{name:?}");
    }
}

#[test]
fn an_environment_of_100_000_variables() {
    let begin = compile(Host::shared(), "begin");
    for place in places() {
        let before = format!("ulimit -s unlimited; set -- {begin} crowded 100000 \"$@\"");
        let script = format!("{STATUS}; echo count=$(env | grep -c ^V)");
        let start = Start { before: &before, command: &["sh", "-c", &script], ..Start::default() };
        let ran = place.start(&start).finish();
        assert_whole(&ran, &place);
        // At user level it is the caller's own environment; else none of it is passed on.
        let expected = if place.level == Level::User { "100000" } else { "0" };
        assert_eq!(ran.value("count"), expected, "{place}");
    }
}

/// A caller that hands over a false /proc: everything that is written below it would go to its maker.
#[test]
fn cve_2019_16884_and_19921_a_false_proc_is_refused() {
    for place in places() {
        for kind in ["tmpfs", "bind", "links"] {
            let mount = match kind {
                "tmpfs" => "mount -t tmpfs tmpfs /proc",
                "bind" => "mkdir -p /tmp/proc/self; mount --bind /tmp/proc /proc",
                // The true one can be read through it, but it is not what it seems to be.
                _ => {
                    "mkdir -p /tmp/true; mount --bind /proc /tmp/true; mount -t tmpfs tmpfs /proc; \
                     for f in /tmp/true/[a-z]*; do ln -s $f /proc/${f##*/}; done; \
                     rm /proc/self; ln -s /tmp/true/$$ /proc/$$; ln -s $$ /proc/self"
                }
            };
            let line = format!("{mount} && exec \"$@\"");
            let under = ["unshare", "-m", "sh", "-c", &line, "sh"];
            let ran = place
                .start(&Start { under: &under, command: &["sh", "-c", "echo ran"], ..Start::default() })
                .finish();
            assert_eq!((ran.code, ran.out.as_str()), (125, ""), "{place}, {kind}: {ran}");
            // EMEDIUMTYPE: the child asked what it is.
            assert!(kind != "links" || ran.err.contains("Wrong medium type"), "{place}, {kind}: {ran}");
        }
    }
}
