//! The audit log: where each line goes, what it says, and that nothing happens which it cannot tell.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use testbed::host::Started;

use crate::direct::Direct;
use crate::left;
use crate::place::{Place, STATE, Setup};

/// A place whose site has written this below `[auth.logging]`.
fn logging(text: &str) -> Place {
    let place = Place::usual();
    let own = format!("location = \"{}\"", place.path("audit.jsonl"));
    place.configure(&place.configuration().replace(&own, text));
    place
}

/// A mount namespace of this thread's own, and of what it starts.
fn own_namespace() {
    unshare(CloneFlags::CLONE_NEWNS).expect("root");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("root");
}

fn tmpfs(on: &str) {
    fs::create_dir_all(on).expect("root");
    mount(Some("tmpfs"), on, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("root");
}

/// A socket that listens, as journald or a syslog daemon has one.
fn listen(path: &str) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("a free name");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    socket
}

fn receive(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = vec![0; 65536];
    let length = socket.recv(&mut buffer).expect("a line");
    buffer.truncate(length);
    buffer
}

/// Fields of a datagram in journald's own format.
fn journal_fields(mut bytes: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8(bytes[..end].to_vec()).expect("text");
        bytes = &bytes[end + 1..];
        if let Some((name, value)) = line.split_once('=') {
            fields.push((name.to_owned(), value.to_owned()));
            continue;
        }
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        let length = usize::try_from(length).expect("small");
        fields.push((line, String::from_utf8(bytes[8..8 + length].to_vec()).expect("text")));
        bytes = &bytes[8 + length + 1..];
    }
    fields
}

#[test]
fn journald_gets_each_field() {
    let place = logging("");
    own_namespace();
    tmpfs("/run/systemd/journal");
    let journal = listen("/run/systemd/journal/socket");
    // Its queue holds few lines, and a stage waits for room.
    let (sender, lines) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        loop {
            let fields = journal_fields(&receive(&journal));
            let last = fields.contains(&("JACAMAR_EVENT".into(), "cleanup".into()));
            sender.send(fields).expect("a test that reads");
            if last {
                return;
            }
        }
    });
    let job = place.gitlab.admit(place.small(["true"]));
    let direct = Direct::new(&place, &job).prepared();
    assert_eq!(direct.run("exit 3\n").finish().code, 1);
    assert_eq!(direct.cleanup().code, 0);
    reader.join().expect("no panic");
    let is_debug =
        |fields: &Vec<(String, String)>| fields.contains(&("JACAMAR_EVENT".into(), "debug".into()));
    let (debug, lines): (Vec<_>, Vec<_>) = lines.iter().partition(is_debug);
    assert!(!debug.is_empty());
    assert_eq!(lines.len(), 4, "{lines:?}");
    for (event, fields) in ["granted", "prepare", "run", "cleanup"].into_iter().zip(lines) {
        let value = |name: &str| {
            let field = fields.iter().find(|(known, _)| known == name);
            field.map(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("{event}: no {name}: {fields:?}"))
        };
        assert_eq!((value("JACAMAR_EVENT"), value("PRIORITY")), (event, "6"), "{fields:?}");
        assert_eq!(value("SYSLOG_IDENTIFIER"), "jacamar-auth");
        assert_eq!((value("JACAMAR_ACCOUNT"), value("JACAMAR_PROJECT_PATH")), ("ci1", "group/proj"));
        if event == "run" {
            let said = (value("JACAMAR_STAGE"), value("JACAMAR_OUTCOME"), value("JACAMAR_EXIT_CODE"));
            assert_eq!(said, ("run build_script", "exited", "3"));
        }
        assert!(serde_json::from_str::<Value>(value("MESSAGE")).is_ok(), "{fields:?}");
    }
}

/// A daemon that hangs does not hang the runner.
#[test]
fn a_journal_that_does_not_read_is_not_waited_for_without_end() {
    let place = logging("");
    own_namespace();
    tmpfs("/run/systemd/journal");
    let journal = listen("/run/systemd/journal/socket");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a socket");
    while filler.send_to(b"full", "/run/systemd/journal/socket").is_ok() {}
    let started = Started::new(Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).command(&[
        "config",
        "--configuration",
        &place.path("config.toml"),
    ]));
    let ran = started.finish_within(Duration::from_secs(45));
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
    assert!(ran.err.contains("could not write the audit line"), "{ran}");
    drop(journal);
}

#[test]
fn syslog_gets_lines_of_authpriv() {
    let place = logging("location = \"syslog\"");
    own_namespace();
    // The host's /dev, with a socket in it: what is bound there stays, what is made there is ours.
    let kept = ["null", "zero", "full", "random", "urandom"];
    let from = place.path("dev");
    fs::create_dir(&from).expect("a directory");
    mount(Some("/dev"), from.as_str(), None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .expect("root");
    tmpfs("/dev");
    for name in kept {
        File::create(format!("/dev/{name}")).expect("ours");
        let device = format!("{from}/{name}");
        let on = format!("/dev/{name}");
        mount(Some(device.as_str()), on.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .expect("root");
    }
    tmpfs("/dev/shm");
    let syslog = listen("/dev/log");
    let mut direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"])));
    assert_eq!(direct.config().code, 0);
    let mut lines = std::iter::repeat_with(|| String::from_utf8(receive(&syslog)).expect("text"));
    let line = lines.find(|line| !line.starts_with("<87>")).expect("endless");
    // Facility 10, priority 6.
    assert!(line.starts_with("<86>jacamar-auth: {") && line.contains("\"event\":\"granted\""), "{line}");
    assert_eq!(direct.cleanup().code, 0);
    drop(syslog);
    fs::remove_file("/dev/log").expect("ours");
    let ran = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).config();
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
    assert!(ran.err.contains("could not connect to /dev/log"), "{ran}");
}

/// Where nobody has read the configuration, lines go where a site without a wish has them.
#[test]
fn a_configuration_that_is_wrong_is_told_as_well() {
    let place = Place::usual();
    place.configure("[general]\nexecutor = 7\n");
    own_namespace();
    tmpfs("/run/systemd/journal");
    let journal = listen("/run/systemd/journal/socket");
    let ran = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).config();
    assert_eq!(ran.code, 2, "{ran}");
    let text = String::from_utf8_lossy(&receive(&journal)).into_owned();
    for part in ["PRIORITY=3\n", "broken", &place.path("config.toml"), "JACAMAR_UNVERIFIED_JOB_ID"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_cannot_be_told_is_a_breakage() {
    for downscope in ["setuid", "none"] {
        let place = Place::new(Setup { downscope, ..Setup::default() });
        let audit = place.path("audit.jsonl");
        let swap = |away: bool| {
            let kept = format!("{audit}.kept");
            if away {
                fs::rename(&audit, &kept).expect("root");
                fs::create_dir(&audit).expect("root");
            } else {
                fs::remove_dir(&audit).expect("root");
                fs::rename(&kept, &audit).expect("root");
            }
        };
        let direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).prepared();
        swap(true);
        let words = direct.script("echo out\n");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = Started::new(direct.command(&words)).finish();
        assert_eq!((ran.code, direct.exit_code_file()), (2, None), "{downscope}: {ran}");
        assert!(ran.err.contains("could not write the audit line run"), "{downscope}: {ran}");
        // Nothing is left all the same.
        let ran = direct.cleanup();
        assert_eq!(ran.code, 2, "{downscope}: {ran}");
        left::assert_nothing(&direct.state(), direct.record(), &[]);
        let ran = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).config();
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{downscope}: {ran}");
        assert!(ran.err.contains("could not write the audit line granted"), "{downscope}: {ran}");
        assert!(left::records_of(&place).is_empty(), "{downscope}");
        swap(false);
    }
    assert!(Path::new(STATE).is_dir());
}
