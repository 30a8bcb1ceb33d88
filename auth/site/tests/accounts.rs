//! The name service with files of our own: this program starts itself again in a mount namespace where
//! /etc/passwd, /etc/group and /etc/nsswitch.conf are the test's. Not as root, the tests fail and say so.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use jacamar_site::accounts::{Group, GroupName, NssError, exists, lookup, nologin};

/// Which [`inside`] of the second run; unset in the first.
const CASE: &str = "JACAMAR_SITE_TEST_CASE";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nalice:x:5000:6000::/home/alice:/bin/zsh\n\
                      lost:x:5001:6999::/:\nbad:x:5002:4294967295::/:\n";

/// Runs `case` where `mounts` (a script, with the files in `$D`) have been made.
#[track_caller]
fn outside(case: &str, files: &[(&str, &str)], mounts: &str) {
    assert!(nix::unistd::getuid().is_root(), "these tests mount: run them as root");
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        fs::write(directory.path().join(name), text).expect(name);
    }
    let program = std::env::current_exe().expect("our own path");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg(format!("{mounts}\nexec \"$0\" --exact inside --nocapture"))
        .arg(program)
        .env("D", directory.path())
        .env(CASE, case)
        .output()
        .expect("unshare");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{text}");
    assert!(text.contains(&format!("done: {case}")), "{text}");
}

const NSSWITCH: (&str, &str) = ("nsswitch.conf", "passwd: files\ngroup: files\n");
const BIND: &str = "for f in \"$D\"/*; do mount --bind \"$f\" \"/etc/${f##*/}\"; done";

#[test]
fn inside() {
    let Ok(case) = std::env::var(CASE) else { return };
    match case.as_str() {
        "groups" => groups(),
        "nameless" => nameless(),
        "broken" => broken(),
        "closed" => closed(),
        other => panic!("{other}"),
    }
    println!("done: {case}");
}

#[test]
fn an_account_has_all_its_groups_with_their_names() {
    let mut group = "users:x:6000:\n".to_owned();
    for gid in 7000..7070 {
        writeln!(group, "team{gid}:x:{gid}:bob,alice").expect("text");
    }
    // More members than the buffer of getgrgid can hold.
    let crowd: Vec<String> = (0..150_000).map(|number| format!("member{number}")).collect();
    writeln!(group, "crowd:x:6500:{},alice", crowd.join(",")).expect("text");
    outside("groups", &[NSSWITCH, ("passwd", PASSWD), ("group", &group)], BIND);
}

fn groups() {
    let found = lookup("alice").expect("NSS").expect("alice");
    let account = &found.account;
    assert_eq!((account.name.as_str(), account.uid, account.gid), ("alice", 5000, 6000));
    assert_eq!((account.home.as_str(), account.shell.as_str()), ("/home/alice", "/bin/zsh"));
    let expected: Vec<u32> = [6000, 6500].into_iter().chain(7000..7070).collect();
    assert_eq!(account.groups, expected);
    let named = |gid: u32, name: &str| Group { gid, name: GroupName::Named(name.to_owned()) };
    assert_eq!(found.groups.first(), Some(&named(6000, "users")));
    assert_eq!(found.groups.last(), Some(&named(7069, "team7069")));
    match &found.groups.get(1).expect("crowd").name {
        GroupName::Failed(cause) => assert!(cause.starts_with("getgrgid(6500): ERANGE"), "{cause}"),
        other => panic!("{other:?}"),
    }

    assert!(matches!(lookup("bad"), Err(NssError::Unusable { field: "a gid", .. })));
    assert_eq!(lookup("Alice").expect("NSS"), None);
    assert_eq!((exists(5000).expect("NSS"), exists(5009).expect("NSS")), (true, false));
}

#[test]
fn a_group_without_an_entry_has_no_name() {
    outside("nameless", &[NSSWITCH, ("passwd", PASSWD), ("group", "users:x:6000:\n")], BIND);
}

fn nameless() {
    let lost = lookup("lost").expect("NSS").expect("lost");
    assert_eq!(lost.groups, [Group { gid: 6999, name: GroupName::Unnamed }]);
    assert_eq!(lost.account.shell, "");
}

#[test]
fn a_broken_service_is_not_a_missing_account() {
    outside("broken", &[], "mount -t tmpfs none /etc");
}

fn broken() {
    assert!(!Path::new("/etc/passwd").exists());
    let error = lookup("alice").expect_err("no database at all");
    assert_eq!(error.to_string(), "getpwnam(\"alice\")");
    let error = exists(5000).expect_err("no database at all");
    assert_eq!(error.to_string(), "getpwuid(5000)");
}

#[test]
fn a_nologin_file_of_the_host_closes_it() {
    let mounts = "mount -t tmpfs none /run\nmount -t tmpfs none /etc";
    outside("closed", &[], mounts);
}

fn closed() {
    assert_eq!(nologin().expect("nothing there"), None);
    fs::create_dir_all("/var/run").expect("/var/run");
    fs::write("/var/run/nologin", "noon\n").expect("write");
    assert_eq!(nologin().expect("there").expect("closed").text, "noon\n");
    fs::write("/etc/nologin", "all day\n").expect("write");
    let found = nologin().expect("there").expect("closed");
    assert_eq!((found.path.as_str(), found.text.as_str()), ("/etc/nologin", "all day\n"));
}
