//! A shell that a start-up file ended, told apart from a script that failed.

use jacamar_contract::stage_report::{Reached, ShellEnd};
use jacamar_contract::stage_request::ProfileMode;

use crate::frames::{VERSIONS, frame};
use crate::host::Host;

#[test]
fn a_start_up_file_that_ends_the_shell_is_named() {
    for (profile, code) in [
        ("exit 3\n", 3),
        ("exit 0\n", 0),
        ("exit 42\n", 42),
        ("set -e\nfalse\necho not reached\n", 1),
        ("exec true\n", 0),
        ("exec sh -c 'exit 9'\n", 9),
    ] {
        for version in VERSIONS {
            let host = Host::with_profile(profile);
            let ran = host.run(&frame(version, "echo not reached\n"));
            assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{profile}: {ran:?}");
            let file = host.path("home/.bash_profile");
            let first = format!(
                "ERROR: /etc/profile or {}: ended the shell before the job's script began (exit code {code})",
                file.display()
            );
            assert!(ran.err.contains(&first), "{}", ran.err);
            assert!(ran.err.contains("\nvariables:\n  JACAMAR_NO_BASH_PROFILE: \"1\"\n"), "{}", ran.err);
            assert!(ran.err.contains("hpc@example.org (rule startup_file)"), "{}", ran.err);
            let report = ran.report.expect("a report");
            assert_eq!((report.reached, report.end), (Reached::StartupFiles, ShellEnd::Exited(code)));
        }
    }
}

#[test]
fn what_a_start_up_file_sets_stays() {
    let profile = "set -e\nset -x\nset +x\nexport FROM_PROFILE=yes\nalias ls=false\necho from the profile\n";
    let ran = Host::with_profile(profile).run(&frame("19.1", "echo $FROM_PROFILE\nexit 5\n"));
    assert_eq!((ran.code, ran.out.as_str()), (Some(5), "from the profile\nyes\n"), "{ran:?}");
}

#[test]
fn a_trace_of_the_profile_shows_nothing_of_ours() {
    let ran = Host::with_profile("set -x\n").run(b"#!/usr/bin/env bash\nexit 4\n");
    assert_eq!((ran.code, ran.err.as_str()), (Some(4), "+ exit 4\n"));
}

#[test]
fn a_start_up_file_that_eats_the_script_is_no_success() {
    let ran = Host::with_profile("cat > /dev/null\n").run(&frame("19.1", "echo not reached\n"));
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
    assert!(ran.err.contains("read the job's script"), "{}", ran.err);
    assert!(ran.err.contains("give it `< /dev/null`"), "{}", ran.err);
}

#[test]
fn another_shell_in_place_of_bash_runs_the_script() {
    let ran =
        Host::with_profile("exec sh\n").run(b"#!/bin/sh\necho in sh\nls /proc/self/fd | wc -l\nexit 7\n");
    assert_eq!((ran.code, ran.out.as_str()), (Some(7), "in sh\n4\n"), "{ran:?}");
}

#[test]
fn a_daemon_of_a_start_up_file_does_not_hold_the_stage() {
    let host = Host::with_profile("sleep 60 > /dev/null 2>&1 &\necho $! > ~/pid\nexit 3\n");
    let ran = host.run(&frame("19.1", "echo not reached\n"));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let pid = std::fs::read_to_string(host.path("home/pid")).expect("pid").trim().parse().expect("a number");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("was there");
}

#[test]
fn no_profile_reads_none_and_etc_profile_only_reads_that() {
    let script = b"#!/usr/bin/env bash\necho $FROM_PROFILE; shopt -q login_shell && echo login; exit 8\n";
    let mut host = Host::with_profile("export FROM_PROFILE=yes\n");
    assert_eq!(host.run(script).out, "yes\nlogin\n");
    std::fs::write(host.path("home/.bash_profile"), "exit 3\n").expect("profile");
    host.request.profile = ProfileMode::NoProfile;
    let ran = host.run(script);
    assert_eq!((ran.code, ran.out.as_str()), (Some(8), "\n"), "{ran:?}");
    host.request.profile = ProfileMode::EtcProfileOnly;
    let ran =
        host.run(b"#!/usr/bin/env bash\necho ${PATH:+path}; shopt -q login_shell && echo login; exit 8\n");
    assert_eq!((ran.code, ran.out.as_str()), (Some(8), "path\nlogin\n"), "{ran:?}");
}

#[test]
fn bash_env_can_end_a_shell_that_reads_no_profile() {
    let mut host = Host::new();
    let file = host.path("home/env");
    std::fs::write(&file, "exit 4\n").expect("file");
    host.request.profile = ProfileMode::NoProfile;
    host.request.environment = vec![("BASH_ENV".to_owned(), file.to_str().expect("UTF-8").to_owned())];
    let ran = host.run(&frame("19.1", "echo not reached\n"));
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
    assert!(ran.err.contains("ERROR: /bin/bash: ended the shell before"), "{}", ran.err);
    assert!(!ran.err.contains("hint:"), "{}", ran.err);
}

#[test]
fn a_shell_that_cannot_be_started_is_a_system_failure() {
    let mut host = Host::new();
    let plain = host.path("home/file");
    std::fs::write(&plain, "no program").expect("file");
    for (shell, cause) in [
        ("/nowhere/bash", "No such file or directory"),
        (plain.to_str().expect("UTF-8"), "Permission denied"),
    ] {
        host.request.shell = shell.to_owned();
        let ran = host.run(b"exit 0\n");
        assert_eq!((ran.code, ran.report), (Some(125), None), "{ran:?}");
        assert!(ran.err.contains(&format!("{shell}: the shell cannot be started: {cause}")), "{}", ran.err);
        assert!(ran.err.contains("[general] shell_path"), "{}", ran.err);
    }
}
