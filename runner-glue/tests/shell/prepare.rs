//! `jacamar prepare`: directories as the user, and the lines that say who runs where.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use jacamar_contract::stage_request::DirectoryMode;
use jacamar_plan::Stage;

use crate::host::{Host, Ran, exists};

fn prepare(host: &Host) -> Ran {
    host.stage("prepare", Stage::Prepare)
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("there").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("own");
}

fn refuses(host: &Host, path: &Path, words: &[&str]) {
    let ran = prepare(host);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains(&format!("ERROR: {}: ", path.display())), "{}", ran.err);
    for word in words.iter().chain(&["hpc@example.org (rule directory)"]) {
        assert!(ran.err.contains(word), "{word}: {}", ran.err);
    }
}

#[test]
fn directories_are_made_and_the_job_log_begins() {
    for (choice, bits) in [(DirectoryMode::Private, 0o700), (DirectoryMode::Group, 0o750)] {
        let mut host = Host::new();
        host.before = "umask 077".to_owned();
        host.request.directory_mode = choice;
        host.request.job_message = "Welcome.\nMaintenance on Monday.\n".to_owned();
        for _ in 0..2 {
            let ran = prepare(&host);
            assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
            assert_eq!(
                ran.out,
                "Welcome.\nMaintenance on Monday.\nRunning as alice on login1, sandbox profile default\n"
            );
            for name in ["data", "data/builds", "data/builds/3/login1/000", "data/cache"] {
                assert_eq!(mode(&host.path(name)), bits, "{name}");
            }
        }
    }
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let host = Host::new();
    assert_eq!(prepare(&host).code, Some(0));
    let builds = host.path("data/builds/3/login1/000");
    set_mode(&builds, 0o777);
    refuses(&host, &builds, &["can be written by every user of this host", "chmod o-w /"]);
    set_mode(&builds, 0o770);
    refuses(&host, &builds, &["can be written by its whole group", "chmod g-w /"]);
    set_mode(&builds, 0o755);
    assert_eq!(prepare(&host).code, Some(0), "what was open to readers stays so");
    // Above: the group's is the user's own decision, everybody's is not.
    set_mode(&host.path("data"), 0o770);
    assert_eq!(prepare(&host).code, Some(0));
    set_mode(&host.path("data"), 0o777);
    refuses(&host, &host.path("data"), &["every user"]);
    set_mode(&host.path("data"), 0o1777);
    assert_eq!(prepare(&host).code, Some(0), "as /tmp");
}

#[test]
fn a_link_or_a_file_in_the_path_is_refused() {
    let host = Host::new();
    fs::create_dir(host.path("data")).expect("made");
    symlink(host.path("home"), host.path("data/builds")).expect("link");
    refuses(&host, &host.path("data/builds"), &["is a symbolic link", "rm /"]);
    assert!(!exists(&host.path("home/3")), "nothing was made behind the link");
    fs::remove_file(host.path("data/builds")).expect("removed");
    fs::write(host.path("data/builds"), "").expect("file");
    refuses(&host, &host.path("data/builds"), &["is not a directory", "mv /"]);
}

#[test]
fn another_users_directory_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give a directory away");
        return;
    }
    let host = Host::new();
    assert_eq!(prepare(&host).code, Some(0));
    let give = |name: &str, uid| std::os::unix::fs::chown(host.path(name), Some(uid), None).expect("root");
    give("data/builds", 4242);
    refuses(&host, &host.path("data/builds"), &["belongs to uid 4242, not to the job's account (uid 0)"]);
    give("data/builds", 0);
    give("data/builds/3/login1/000", 4242);
    refuses(&host, &host.path("data/builds/3/login1/000"), &["belongs to uid 4242"]);
}

#[test]
fn a_place_that_is_closed_to_the_user_is_named() {
    let mut host = Host::new();
    host.as_nobody = true;
    let data = host.path("data");
    fs::create_dir(&data).expect("made");
    set_mode(&data, if nix::unistd::geteuid().is_root() { 0o755 } else { 0o555 });
    let builds = host.path("data/builds");
    refuses(&host, &builds, &["cannot be made: Permission denied", "ls -ld "]);
    set_mode(&data, 0o755);
}

#[test]
fn the_log_may_be_closed() {
    let mut host = Host::new();
    host.before = "exec >&- 2>&-".to_owned();
    assert_eq!(prepare(&host).code, Some(0));
    assert!(exists(&host.path("data/cache")));
}
