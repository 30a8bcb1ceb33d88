//! `jacamar cleanup`: exactly what the record says, never through a link.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use jacamar_plan::Stage;

use crate::host::{Host, Ran, exists};

const PROJECT: &str = "data/builds/3/login1/000/group/proj";

fn host() -> Host {
    let mut host = Host::new();
    let temporary = host.path(&format!("{PROJECT}.tmp"));
    fs::create_dir_all(temporary.join("deep/er")).expect("made");
    fs::create_dir_all(host.path(PROJECT)).expect("made");
    for name in ["CI_SERVER_TLS_CA_FILE", "deep/er/secret"] {
        fs::write(temporary.join(name), "secret").expect("written");
    }
    host.request.remove = vec![temporary.to_str().expect("UTF-8").to_owned()];
    host
}

fn cleanup(host: &Host) -> Ran {
    host.stage("cleanup", Stage::Cleanup)
}

#[test]
fn what_is_listed_goes_and_the_rest_stays() {
    let mut host = host();
    let file = host.path("data/builds/3/login1/000/group/file");
    fs::write(&file, "").expect("written");
    host.request.remove.push(file.to_str().expect("UTF-8").to_owned());
    for _ in 0..2 {
        let ran = cleanup(&host);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "", ""), "{ran:?}");
        assert!(!exists(&host.path(&format!("{PROJECT}.tmp"))) && !exists(&file));
        assert!(exists(&host.path(PROJECT)));
    }
    fs::remove_dir_all(host.path("data")).expect("removed");
    assert_eq!(cleanup(&host).code, Some(0), "no builds_dir: nothing is left");
}

#[test]
fn a_link_is_removed_and_not_followed() {
    let host = host();
    let outside = host.path("home/keep");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("file"), "").expect("written");
    symlink(&outside, host.path(&format!("{PROJECT}.tmp/deep/link"))).expect("link");
    assert_eq!(cleanup(&host).code, Some(0));
    assert!(exists(&outside.join("file")));
    symlink(&outside, host.path(&format!("{PROJECT}.tmp"))).expect("link");
    assert_eq!(cleanup(&host).code, Some(0));
    assert!(exists(&outside.join("file")) && !exists(&host.path(&format!("{PROJECT}.tmp"))));
}

#[test]
fn a_link_on_the_way_is_refused() {
    let host = host();
    let group = host.path("data/builds/3/login1/000/group");
    fs::rename(&group, host.path("home/group")).expect("moved");
    symlink(host.path("home/group"), &group).expect("link");
    let ran = cleanup(&host);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("proj.tmp: not removed: Not a directory"), "{}", ran.err);
    assert!(exists(&host.path("home/group/proj.tmp/CI_SERVER_TLS_CA_FILE")));
}

#[test]
fn directories_without_rights_are_emptied_too() {
    let mut host = host();
    let data = host.path("data");
    if nix::unistd::geteuid().is_root() {
        host.as_nobody = true;
        let mut paths = vec![data];
        while let Some(path) = paths.pop() {
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).expect("root");
            if path.is_dir() {
                paths.extend(fs::read_dir(&path).expect("own").flatten().map(|entry| entry.path()));
            }
        }
    }
    for (name, mode) in [("deep/er", 0), ("deep", 0o555), ("", 0o100)] {
        let path = host.path(&format!("{PROJECT}.tmp/{name}"));
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("own");
    }
    let ran = cleanup(&host);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!exists(&host.path(&format!("{PROJECT}.tmp"))));
}

#[test]
fn a_tree_that_is_too_deep_is_named() {
    let host = host();
    let mut path = host.path(&format!("{PROJECT}.tmp"));
    for _ in 0..70 {
        path.push("d");
        fs::create_dir(&path).expect("made");
    }
    let ran = cleanup(&host);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.starts_with("jacamar: /") && ran.err.contains(": not removed: "), "{}", ran.err);
}
