//! What the script finds: environment, directory, umask, signals, descriptors.

use std::process::{Command, Stdio};

use crate::frames::{VERSIONS, frame};
use crate::host::Host;

/// Variables as Bash alone makes them.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn the_environment_is_env_i_home_and_the_pairs() {
    let mut host = Host::new();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    host.request.environment =
        vec![pair("LMOD_ADMIN_FILE", "none"), pair("EMPTY", ""), pair("JACAMAR_CI_SHELL", "a b\nc=d")];
    let script = "#!/usr/bin/env bash\nenv\n";
    let ran = host.run(script.as_bytes());
    std::fs::write(host.path("script"), script).expect("script");
    let home = &host.request.home;
    let by_hand = Command::new("env")
        .args(["-i", &format!("HOME={home}"), "LMOD_ADMIN_FILE=none", "EMPTY=", "JACAMAR_CI_SHELL=a b\nc=d"])
        .args(["/bin/bash", "--login"])
        .stdin(Stdio::from(std::fs::File::open(host.path("script")).expect("script")))
        .current_dir(home)
        .output()
        .expect("env");
    assert_eq!(sorted(&ran.out), sorted(&String::from_utf8_lossy(&by_hand.stdout)));
    assert!(ran.out.contains(&format!("HOME={home}\n")) && !ran.out.contains("LEAK"), "{}", ran.out);
}

#[test]
fn nothing_of_the_starter_without_start_up_files() {
    let mut host = Host::new();
    host.request.profile = jacamar_contract::stage_request::ProfileMode::NoProfile;
    host.request.environment = vec![("HOME".to_owned(), "/other".to_owned())];
    let ran = host.run(b"tr '\\0' '\\n' < /proc/$$/environ\n");
    assert_eq!(ran.out, "HOME=/other\n", "the last of two counts, as with env(1)");
}

#[test]
fn a_script_begins_at_home_or_at_the_root() {
    let mut host = Host::new();
    assert_eq!(host.run(b"pwd\n").out, format!("{}\n", host.request.home));
    host.request.home = host.path("gone").to_str().expect("UTF-8").to_owned();
    let ran = host.run(b"pwd; echo $HOME; exit 3\n");
    assert_eq!((ran.code, ran.out), (Some(3), format!("/\n{}\n", host.request.home)));
    let home = &host.request.home;
    assert!(
        ran.err.starts_with(&format!("jacamar: home directory {home}: No such file or directory")),
        "{}",
        ran.err
    );
    assert!(ran.err.ends_with("; the script begins in /\n"), "{}", ran.err);
}

#[test]
fn umask_and_core_limit_are_those_of_the_starter() {
    let mut host = Host::new();
    host.request.profile = jacamar_contract::stage_request::ProfileMode::NoProfile;
    for umask in ["0022", "0077", "0007"] {
        host.before = format!("umask {umask}; ulimit -Sc 0; ulimit -Hc 4000; ulimit -Sc 3000");
        assert_eq!(host.run(b"umask; ulimit -Sc; ulimit -Hc\n").out, format!("{umask}\n3000\n4000\n"));
    }
}

#[test]
fn no_signal_is_blocked_or_ignored() {
    let mut host = Host::new();
    host.before = "trap '' HUP INT TERM PIPE USR1 CHLD XFSZ".to_owned();
    let ran = host.run(b"grep -E '^Sig(Blk|Ign)' /proc/self/status\n");
    assert_eq!(ran.out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn the_script_has_descriptors_0_1_2() {
    let mut host = Host::new();
    host.before = "exec 5</dev/null 7>/dev/null 64</dev/null".to_owned();
    for version in VERSIONS {
        // 3 is the directory that ls reads.
        let ran = host.run(&frame(version, "ls /proc/self/fd\n"));
        assert_eq!(ran.out, "0\n1\n2\n3\n", "{version}");
    }
    let ran = host.run(b"ls /proc/$$/fd\n");
    assert_eq!(ran.out, "0\n1\n2\n", "the shell itself");
}

#[test]
fn the_shell_is_called_as_the_site_calls_it() {
    let host = Host::new();
    let ran =
        host.run(b"tr '\\0' ' ' < /proc/$$/cmdline; echo; echo $0; bash -c 'ps -o args= $PPID' | cat\n");
    let mut lines = ran.out.lines();
    assert_eq!(lines.next(), Some("/bin/bash --login "), "{ran:?}");
    assert_eq!(lines.next(), Some("/bin/bash"));
}

/// The supervisor is root, the memfds are root's, the job is another user's.
#[test]
fn a_user_reports_into_the_supervisors_memfd() {
    let mut host = Host::new();
    host.as_nobody = true;
    let ran = host.run(b"id -u; ls -1 /proc/self/fd | wc -l; exit 7\n");
    let uid = if nix::unistd::geteuid().is_root() { 65534 } else { nix::unistd::geteuid().as_raw() };
    assert_eq!((ran.code, ran.out), (Some(7), format!("{uid}\n4\n")));
    assert_eq!(ran.report.map(|report| report.exit_code()), Some(7));
}
