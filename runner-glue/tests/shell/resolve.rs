//! `jacamar resolve`: canonical forms, as the user sees them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jacamar_contract::frame;
use jacamar_contract::resolve::{ResolveAnswer, ResolveRequest};

use crate::host::{Host, exists};

struct Site {
    host: Host,
}

impl Site {
    /// `real/below` exists, `link` leads to `real`.
    fn new() -> Self {
        let mut host = Host::new();
        host.request.report = false;
        fs::create_dir_all(host.path("real/below")).expect("made");
        symlink("real", host.path("link")).expect("link");
        Self { host }
    }

    fn real(&self, name: &str) -> PathBuf {
        self.host.path("").canonicalize().expect("there").join(name)
    }

    fn ask(&self, names: &[&str]) -> ResolveAnswer {
        let text = |name: &&str| self.host.path(name).to_str().expect("UTF-8").to_owned();
        let request = ResolveRequest { paths: names.iter().map(text).collect() };
        let mut running = self.host.start_with("resolve", &frame::encode(&request).expect("good"));
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut running.child.stdout.take().expect("piped"), &mut answer)
            .expect("read");
        let code = running.child.wait().expect("ended").code();
        let answer = ResolveAnswer::decode(&answer, &request).expect("an answer");
        assert_eq!(code, Some(i32::from(matches!(answer, ResolveAnswer::Refused(_)))));
        answer
    }

    fn resolved(&self, names: &[&str]) -> Vec<PathBuf> {
        match self.ask(names) {
            ResolveAnswer::Resolved(resolved) => resolved.paths.into_iter().map(PathBuf::from).collect(),
            ResolveAnswer::Refused(refused) => panic!("{refused:?}"),
        }
    }

    fn refused(&self, name: &str, object: &Path, cause: &str) {
        match self.ask(&["real", name]) {
            ResolveAnswer::Refused(refused) => {
                assert_eq!(
                    (refused.object.as_str(), refused.cause.as_str()),
                    (object.to_str().expect("UTF-8"), cause)
                );
            }
            ResolveAnswer::Resolved(resolved) => panic!("{resolved:?}"),
        }
    }
}

#[test]
fn links_are_resolved_and_what_is_missing_is_kept() {
    let site = Site::new();
    symlink("../link/below", site.host.path("real/up")).expect("link");
    let names =
        ["real", "link", "link/below", "link/new", "link/new/er/000", "real/up", "real/up/x", "gone/x"];
    let expected =
        ["real", "real", "real/below", "real/new", "real/new/er/000", "real/below", "real/below/x", "gone/x"];
    assert_eq!(site.resolved(&names), expected.map(|name| site.real(name)));
    assert!(!exists(&site.host.path("real/new")) && !exists(&site.host.path("gone")), "nothing was made");
}

#[test]
fn what_cannot_be_a_directory_is_named() {
    let site = Site::new();
    fs::write(site.host.path("real/file"), "").expect("file");
    symlink("nowhere", site.host.path("dangling")).expect("link");
    symlink("loop", site.host.path("loop")).expect("link");
    symlink("real/file", site.host.path("to-file")).expect("link");
    site.refused("real/file", &site.real("real/file"), "is not a directory");
    site.refused("real/file/x", &site.real("real/file"), "is not a directory");
    site.refused("to-file", &site.real("real/file"), "is not a directory");
    let nowhere = "is a link that leads nowhere: ";
    let dangling = site.real("dangling");
    site.refused("dangling/x", &dangling, &format!("{nowhere}No such file or directory"));
    site.refused("loop", &site.real("loop"), &format!("{nowhere}Too many symbolic links encountered"));
    let long = "x".repeat(300);
    site.refused(&long, &site.real(&long), "File name too long");
    fs::create_dir(site.host.path("ctrl\n")).expect("made");
    symlink("ctrl\n", site.host.path("ctrl")).expect("link");
    site.refused("ctrl", &site.real("ctrl?"), "has control characters, is not UTF-8 or is too long");
}

#[test]
fn what_the_user_cannot_enter_is_named() {
    let mut site = Site::new();
    site.host.as_nobody = true;
    let closed = site.host.path("real");
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o600)).expect("own");
    let cause = "cannot be entered by the job's account: Permission denied";
    site.refused("home", &site.real("real"), cause);
    site.refused("link/below/x", &site.real("real"), cause);
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o755)).expect("own");
    assert_eq!(site.resolved(&["link/below"]), [site.real("real/below")]);
}

#[test]
fn bytes_that_are_no_question() {
    let site = Site::new();
    let ran = site.host.start_with("resolve", b"GET / HTTP/1.1\r\n\r\n").wait();
    assert_eq!((ran.code, ran.out.as_str()), (Some(125), ""));
}
