//! Records that are not what `config` wrote.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;

use serde_json::{Value, json};
use testbed::host::{Ran, Started};

use crate::direct::Direct;
use crate::golden;
use crate::place::{Place, Setup, write};

fn prepared(place: &Place) -> Direct<'_> {
    Direct::new(place, &place.gitlab.admit(place.small(["true"]))).prepared()
}

fn directory(direct: &Direct<'_>) -> PathBuf {
    direct.state().join("jobs").join(direct.record())
}

/// No stage but cleanup does anything, and none guesses. The message of `run`.
#[track_caller]
fn stages_refuse(direct: &Direct<'_>, name: &str) -> Ran {
    let prepare = Started::new(direct.command(&["prepare"])).finish();
    assert_eq!((prepare.code, prepare.out.as_str()), (2, ""), "{name}: {prepare}");
    let run = direct.run("id; echo the script ran\n").finish();
    assert_eq!((run.code, run.out.as_str(), direct.exit_code_file()), (2, "", None), "{name}: {run}");
    let said = run.err.replace(direct.record(), "RECORD");
    golden::check(direct.place, name, &said);
    run
}

/// Changes the record's text, runs the stages, and puts it back so that cleanup can finish the job.
#[track_caller]
fn with_changed_record(name: &str, change: impl Fn(&str) -> String) {
    let place = Place::usual();
    let direct = prepared(&place);
    let path = directory(&direct).join("record.json").display().to_string();
    let good = fs::read_to_string(&path).expect("root");
    write(&path, change(&good).as_bytes(), 0o600);
    stages_refuse(&direct, name);
    write(&path, good.as_bytes(), 0o600);
    assert_eq!(direct.cleanup().code, 0, "{name}");
}

fn with(good: &str, field: &str, value: &Value) -> String {
    let mut record: Value = serde_json::from_str(good).expect("JSON");
    assert!(!record[field].is_null(), "{field}");
    record[field] = value.clone();
    record.to_string()
}

#[test]
fn a_record_that_is_not_as_it_was_written_is_refused() {
    with_changed_record("record-truncated", |good| {
        good[..good.find("\"grant\"").expect("a field")].to_owned()
    });
    with_changed_record("record-empty", |_| String::new());
    with_changed_record("record-format", |good| with(good, "format", &json!(99)));
    with_changed_record("record-other-boot", |good| {
        with(good, "boot_id", &json!("00000000-0000-0000-0000-000000000000"))
    });
    with_changed_record("record-unknown-field", |good| good.replacen('{', "{\"root\": true, ", 1));
    with_changed_record("record-level", |good| with(good, "level", &json!("user")));
}

/// Who can write a record can name an account: it belongs to root, and nobody else can write it.
#[test]
fn a_record_of_somebody_else_is_refused() {
    let place = Place::usual();
    let account = place.account();
    let direct = prepared(&place);
    let path = directory(&direct);
    let file = path.join("record.json");

    chown(&path, Some(account.uid), Some(account.gid)).expect("root");
    stages_refuse(&direct, "record-owner");
    chown(&path, Some(0), Some(0)).expect("root");

    chown(&file, Some(account.uid), None).expect("root");
    stages_refuse(&direct, "record-file-owner");
    chown(&file, Some(0), None).expect("root");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("root");
    stages_refuse(&direct, "record-mode");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("root");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o660)).expect("root");
    stages_refuse(&direct, "record-file-mode");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("root");

    // The record's name leads to a directory of the user's.
    let forged = format!("{}/forged", account.home);
    let own = path.display().to_string();
    let copy = |from: &str, to: &str| {
        let copied = Started::new(direct.any(&["cp", "-a", from, to])).finish();
        assert_eq!(copied.code, 0, "{copied}");
        fs::remove_dir_all(from).expect("root");
    };
    copy(&own, &forged);
    symlink(&forged, &path).expect("root");
    stages_refuse(&direct, "record-link");
    fs::remove_file(&path).expect("root");
    copy(&forged, &own);

    assert_eq!(direct.run("true\n").finish().code, 0, "all of it was mended");
    assert_eq!(direct.cleanup().code, 0);
}

#[test]
fn a_name_that_is_none_reaches_no_file() {
    let place = Place::usual();
    let direct = prepared(&place);
    let good = direct.record().to_owned();
    for name in [
        "../../../home/ci1/forged",
        "/var/lib/jacamar/jobs/0123456789abcdef",
        &format!("./{good}"),
        &format!("{good}/"),
        &good.to_uppercase(),
        "",
    ] {
        let mut other = Direct::new(&place, &place.gitlab.admit(place.small(["true"])));
        other.set_record(name);
        for call in ["prepare", "cleanup"] {
            let ran = Started::new(other.command(&[call])).finish();
            assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{name:?}: {ran}");
            golden::check(&place, &format!("record-name-{call}"), &ran.err);
        }
    }
    let other = Direct::new(&place, &place.gitlab.admit(place.small(["true"])));
    let ran = other.run("true\n").finish();
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
    golden::check(&place, "record-unset", &ran.err);
    assert_eq!(direct.run("echo still here\n").finish().out, "still here\n");
    assert_eq!(direct.cleanup().code, 0);
}

/// A stage that begins while cleanup ends the job does not run.
#[test]
fn a_closing_record_starts_nothing() {
    let place = Place::usual();
    let direct = prepared(&place);
    write(&directory(&direct).join("closing").display().to_string(), b"", 0o600);
    stages_refuse(&direct, "record-closing");
    assert_eq!(direct.cleanup().code, 0);
}

/// At the user level the record is the user's own, and nobody else's.
#[test]
fn at_the_user_level_a_record_of_roots_is_refused() {
    let place = Place::new(Setup { downscope: "none", ..Setup::default() });
    let direct = prepared(&place);
    let path = directory(&direct);
    let account = place.account();
    chown(&path, Some(0), Some(0)).expect("root");
    let run = direct.run("true\n").finish();
    assert_eq!((run.code, run.out.as_str()), (2, ""), "{run}");
    chown(&path, Some(account.uid), Some(account.gid)).expect("root");
    assert_eq!(direct.run("echo back\n").finish().out, "back\n");
    assert_eq!(direct.cleanup().code, 0);
}
