//! Who may have written a file: each test makes everything right and then spoils one property.
//!
//! They run as root, below a directory that only root can write. Not as root, they fail and say so.
#![forbid(unsafe_code)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use jacamar_site::accounts::UidMin;
use jacamar_site::config::{self, ReadError};
use jacamar_site::trusted_file::{FILE_MAX_BYTES, Trust, Untrusted, program, read};
use nix::sys::stat::Mode;
use nix::unistd::{getuid, mkfifo};
use tempfile::TempDir;

/// Somebody who is not root.
const SOMEBODY: u32 = 12_345;
/// The caller at user level.
const CALLER: u32 = 23_456;

/// `/run/jacamar-site-test-XXXX/etc/jacamar/site.toml`, where everything is root's.
struct Site {
    root: TempDir,
}

impl Site {
    fn new() -> Self {
        assert!(getuid().is_root(), "these tests change owners: run them as root");
        let root = tempfile::Builder::new().prefix("jacamar-site-test-").tempdir_in("/run").expect("/run");
        let site = Self { root };
        fs::create_dir_all(site.directory()).expect("directories");
        for directory in [site.root.path().join("etc"), site.directory()] {
            mode(&directory, 0o755);
        }
        fs::write(site.file(), "text\n").expect("file");
        mode(&site.file(), 0o644);
        assert_eq!(read(&site.file(), Trust::RootOnly).expect("everything is right").text(), "text\n");
        site
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("etc/jacamar")
    }

    fn file(&self) -> PathBuf {
        self.directory().join("site.toml")
    }

    /// The message with `$ROOT` for the test's directory, and the hint.
    #[track_caller]
    fn refused(&self, path: &Path, trust: Trust) -> (String, String) {
        let error = read(path, trust).expect_err("one property is spoilt");
        let plain = |text: String| text.replace(&*self.root.path().to_string_lossy(), "$ROOT");
        (plain(error.to_string()), plain(error.hint()))
    }
}

fn mode(path: &Path, bits: u32) {
    fs::set_permissions(path, Permissions::from_mode(bits)).expect("chmod");
}

fn give(path: &Path, uid: u32, gid: u32) {
    chown(path, Some(uid), Some(gid)).expect("chown");
}

#[track_caller]
fn check((message, hint): (String, String), expected: &str, expected_hint: &str) {
    assert_eq!((message.as_str(), hint.as_str()), (expected, expected_hint));
}

#[test]
fn the_file_s_owner() {
    let site = Site::new();
    give(&site.file(), SOMEBODY, 0);
    check(
        site.refused(&site.file(), Trust::RootOnly),
        "$ROOT/etc/jacamar/site.toml (a file) belongs to uid 12345, not to root",
        "chown root:root $ROOT/etc/jacamar/site.toml",
    );
}

#[test]
fn the_directory_s_owner() {
    let site = Site::new();
    give(&site.directory(), SOMEBODY, 0);
    check(
        site.refused(&site.file(), Trust::RootOnly),
        "$ROOT/etc/jacamar (a directory) belongs to uid 12345, not to root",
        "chown root:root $ROOT/etc/jacamar",
    );
}

#[test]
fn a_file_that_everybody_can_write() {
    let site = Site::new();
    mode(&site.file(), 0o646);
    check(
        site.refused(&site.file(), Trust::RootOnly),
        "$ROOT/etc/jacamar/site.toml (a file) can be written by others (mode 0646)",
        "chmod go-w $ROOT/etc/jacamar/site.toml",
    );
}

#[test]
fn a_file_that_another_group_can_write() {
    let site = Site::new();
    give(&site.file(), 0, SOMEBODY);
    mode(&site.file(), 0o664);
    check(
        site.refused(&site.file(), Trust::RootOnly),
        "$ROOT/etc/jacamar/site.toml (a file) can be written by others (mode 0664)",
        "chmod go-w $ROOT/etc/jacamar/site.toml",
    );
}

#[test]
fn a_directory_that_everybody_can_write() {
    let site = Site::new();
    mode(&site.root.path().join("etc"), 0o757);
    check(
        site.refused(&site.file(), Trust::RootOnly),
        "$ROOT/etc (a directory) can be written by others (mode 0757)",
        "chmod go-w $ROOT/etc",
    );
}

#[test]
fn a_sticky_directory() {
    let site = Site::new();
    mode(&site.directory(), 0o1777);
    check(
        site.refused(&site.file(), Trust::RootOnly),
        "$ROOT/etc/jacamar (a directory) can be written by others (mode 1777)",
        "# $ROOT/etc/jacamar is for everybody's files: move what lies below it, as to /etc/jacamar",
    );
}

#[test]
fn what_is_typed_as_the_hint_says_mends_it() {
    let site = Site::new();
    give(&site.file(), SOMEBODY, SOMEBODY);
    mode(&site.file(), 0o666);
    give(&site.directory(), SOMEBODY, SOMEBODY);
    mode(&site.directory(), 0o775);
    for _ in 0..2 {
        let error = read(&site.file(), Trust::RootOnly).expect_err("exposed");
        let status = std::process::Command::new("sh").args(["-ec", &error.hint()]).status().expect("sh");
        assert!(status.success(), "{}", error.hint());
    }
    read(&site.file(), Trust::RootOnly).expect("mended");
}

#[test]
fn a_link_that_somebody_else_made() {
    let site = Site::new();
    let link = site.directory().join("link.toml");
    symlink("site.toml", &link).expect("symlink");
    assert_eq!(
        read(&link, Trust::RootOnly).expect("root's link is followed").path(),
        link.to_str().expect("UTF-8")
    );
    lchown(&link, Some(SOMEBODY), None).expect("lchown");
    check(
        site.refused(&link, Trust::RootOnly),
        "$ROOT/etc/jacamar/link.toml (a symbolic link) belongs to uid 12345, not to root",
        "chown -h root:root $ROOT/etc/jacamar/link.toml",
    );
}

#[test]
fn a_link_to_where_others_write() {
    let site = Site::new();
    let elsewhere = site.root.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("mkdir");
    fs::write(elsewhere.join("x.toml"), "").expect("write");
    let link = site.directory().join("link.toml");
    for target in [elsewhere.join("x.toml"), PathBuf::from("../../elsewhere/x.toml")] {
        symlink(&target, &link).expect("symlink");
        mode(&elsewhere, 0o755);
        read(&link, Trust::RootOnly).expect("root's all the way");
        mode(&elsewhere, 0o777);
        check(
            site.refused(&link, Trust::RootOnly),
            "$ROOT/elsewhere (a directory) can be written by others (mode 0777)",
            "chmod go-w $ROOT/elsewhere",
        );
        fs::remove_file(&link).expect("rm");
    }
}

#[test]
fn a_directory_that_is_a_link_is_followed_like_a_file() {
    let site = Site::new();
    symlink("etc", site.root.path().join("opt")).expect("symlink");
    let path = site.root.path().join("opt/./jacamar//../jacamar/site.toml");
    assert_eq!(read(&path, Trust::RootOnly).expect("root's all the way").text(), "text\n");
    lchown(site.root.path().join("opt"), Some(SOMEBODY), None).expect("lchown");
    check(
        site.refused(&path, Trust::RootOnly),
        "$ROOT/opt (a symbolic link) belongs to uid 12345, not to root",
        "chown -h root:root $ROOT/opt",
    );
}

#[test]
fn links_in_a_circle() {
    let site = Site::new();
    let link = site.directory().join("link");
    symlink("link", &link).expect("symlink");
    check(
        site.refused(&link, Trust::RootOnly),
        "$ROOT/etc/jacamar/link leads through more than 40 symbolic links",
        "",
    );
}

#[test]
fn forty_links_are_followed_and_no_more() {
    let site = Site::new();
    let link = |number: u32| site.directory().join(format!("link{number}"));
    symlink("site.toml", link(1)).expect("symlink");
    for number in 2..=41 {
        symlink(link(number - 1), link(number)).expect("symlink");
    }
    read(&link(40), Trust::RootOnly).expect("as the kernel does");
    fs::read(link(40)).expect("as the kernel does");
    fs::read(link(41)).expect_err("as the kernel does");
    assert!(matches!(read(&link(41), Trust::RootOnly), Err(Untrusted::TooManyLinks { .. })));
}

#[test]
fn a_pipe_does_not_hold_us() {
    let site = Site::new();
    let pipe = site.directory().join("pipe");
    mkfifo(&pipe, Mode::from_bits_truncate(0o600)).expect("mkfifo");
    check(
        site.refused(&pipe, Trust::RootOnly),
        "$ROOT/etc/jacamar/pipe is a named pipe, not a regular file",
        "",
    );
}

#[test]
fn neither_a_directory_nor_a_device_is_a_file() {
    let site = Site::new();
    check(
        site.refused(&site.directory(), Trust::RootOnly),
        "$ROOT/etc/jacamar is a directory, not a regular file",
        "",
    );
    check(site.refused(Path::new("/"), Trust::RootOnly), "/ is a directory, not a regular file", "");
    check(
        site.refused(Path::new("/dev/null"), Trust::RootOnly),
        "/dev/null (a device) can be written by others (mode 0666)",
        "chmod go-w /dev/null",
    );
}

#[test]
fn a_file_that_is_too_large() {
    let site = Site::new();
    let text = "x".repeat(FILE_MAX_BYTES);
    fs::write(site.file(), &text).expect("write");
    assert_eq!(
        read(&site.file(), Trust::RootOnly).expect("as large as possible").text().len(),
        FILE_MAX_BYTES
    );
    fs::write(site.file(), text + "x").expect("write");
    check(
        site.refused(&site.file(), Trust::RootOnly),
        "$ROOT/etc/jacamar/site.toml has more than 1048576 bytes",
        "",
    );
}

#[test]
fn a_file_that_is_no_text() {
    let site = Site::new();
    fs::write(site.file(), b"one\ntwo \xff\n").expect("write");
    check(site.refused(&site.file(), Trust::RootOnly), "$ROOT/etc/jacamar/site.toml:2: not UTF-8", "");
}

#[test]
fn a_path_that_leads_nowhere() {
    let site = Site::new();
    check(
        site.refused(&site.directory().join("other.toml"), Trust::RootOnly),
        "openat(\"$ROOT/etc/jacamar/other.toml\")",
        "",
    );
    check(
        site.refused(&site.file().join("below"), Trust::RootOnly),
        "openat(\"$ROOT/etc/jacamar/site.toml\")",
        "",
    );
    check(site.refused(Path::new("site.toml"), Trust::RootOnly), "\"site.toml\" is not an absolute path", "");
    check(site.refused(Path::new(""), Trust::RootOnly), "\"\" is not an absolute path", "");
}

#[test]
fn the_caller_is_believed_at_user_level_alone() {
    let site = Site::new();
    give(&site.directory(), CALLER, CALLER);
    give(&site.file(), CALLER, CALLER);
    read(&site.file(), Trust::Caller(CALLER)).expect("his own");
    check(
        site.refused(&site.file(), Trust::RootOnly),
        "$ROOT/etc/jacamar (a directory) belongs to uid 23456, not to root",
        "chown root:root $ROOT/etc/jacamar",
    );
    check(
        site.refused(&site.file(), Trust::Caller(SOMEBODY)),
        "$ROOT/etc/jacamar (a directory) belongs to uid 23456, neither to root nor to uid 12345",
        "chown root:root $ROOT/etc/jacamar",
    );
    mode(&site.file(), 0o664);
    check(
        site.refused(&site.file(), Trust::Caller(CALLER)),
        "$ROOT/etc/jacamar/site.toml (a file) can be written by others (mode 0664)",
        "chmod go-w $ROOT/etc/jacamar/site.toml",
    );
}

#[test]
fn a_program_needs_an_execute_bit_and_has_a_path_without_links() {
    let site = Site::new();
    let link = site.directory().join("jacamar");
    symlink("../jacamar/site.toml", &link).expect("symlink");
    let error = program(&link, Trust::RootOnly).expect_err("mode 0644");
    let file = site.file().display().to_string();
    assert_eq!(
        (error.to_string(), error.hint()),
        (format!("{file} is not executable"), format!("chmod 0755 {file}"))
    );
    mode(&site.file(), 0o755);
    assert_eq!(program(&link, Trust::RootOnly).expect("executable"), site.file());
    mode(&site.file(), 0o757);
    assert!(matches!(program(&link, Trust::RootOnly), Err(Untrusted::Exposed(_))));
}

#[test]
fn a_configuration_is_read_through_the_same_door() {
    let site = Site::new();
    let text = "[general]\nexecutor = \"shell\"\ndata_dir = \"/ecp\"\ngitlab_server = \"https://h\"\n\
                [auth]\ndownscope = \"setuid\"\n";
    fs::write(site.file(), text).expect("write");
    let config = config::read(&site.file(), Trust::RootOnly, &UidMin::FALLBACK).expect("valid");
    assert_eq!(config.origin("general.data_dir"), format!("{}:3", site.file().display()));
    fs::write(site.file(), "[general]\n").expect("write");
    assert!(matches!(
        config::read(&site.file(), Trust::RootOnly, &UidMin::FALLBACK),
        Err(ReadError::Invalid(_))
    ));
    mode(&site.file(), 0o666);
    assert!(matches!(
        config::read(&site.file(), Trust::RootOnly, &UidMin::FALLBACK),
        Err(ReadError::Untrusted(_))
    ));
}
