//! A request that is none: never a panic, always a system failure with a message.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use jacamar_contract::frame;
use jacamar_contract::stage_report::REPORT_BYTES;
use jacamar_plan::Stage;
use proptest::prelude::*;

use crate::host::{Host, JACAMAR, read_report, sealed};

fn refuses(word: &str, bytes: &[u8]) {
    let mut host = Host::new();
    host.request.report = false;
    let ran = host.start_with(word, bytes).wait();
    assert_eq!((ran.code, ran.out.as_str()), (Some(125), ""), "{word}: {ran:?}");
    assert!(ran.err.starts_with("jacamar: descriptor 0"), "{word}: {}", ran.err);
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}

const WORDS: [&str; 4] = ["run", "prepare", "cleanup", "resolve"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), word in prop::sample::select(&WORDS[..])) {
        refuses(word, &bytes);
    }

    #[test]
    fn a_good_request_with_one_byte_spoiled(at in 0_usize..400, by in 1..=255_u8) {
        let mut host = Host::new();
        host.request.report = false;
        host.request.script_bytes = 7;
        let mut container = host.request.encode(b"exit 9\n").expect("good");
        let at = at % (container.len() - 7);
        container[at] ^= by;
        let ran = host.start_with("run", &container).wait();
        // Some texts may have any character: another home, another shell.
        prop_assert!(matches!(ran.code, Some(125 | 9)), "{:?}", ran);
        prop_assert!(!ran.err.contains("panicked"), "{}", ran.err);
    }
}

#[test]
fn a_request_that_is_cut_off_too_long_or_for_another_stage() {
    let host = Host::new();
    let mut request = host.request.clone();
    request.script_bytes = 7;
    let container = request.encode(b"exit 9\n").expect("good");
    for end in [0, 1, 11, 12, 40, container.len() - 1] {
        refuses("run", &container[..end]);
    }
    refuses("run", &[&container[..], b"x"].concat());
    refuses("prepare", &container);
    refuses("cleanup", &container);
    request.stage = Stage::Exec;
    let container = request.encode(b"exit 9\n").expect("good");
    for word in WORDS {
        refuses(word, &container);
    }
}

#[test]
fn more_than_a_container_is_not_read() {
    let mut host = Host::new();
    host.request.report = false;
    host.before = "exec < <(head -c 100M /dev/zero)".to_owned();
    let ran = host.start_with("run", b"").wait();
    assert_eq!(ran.code, Some(125));
    assert!(ran.err.contains("has more than 67108864 bytes"), "{}", ran.err);
}

#[test]
fn a_request_by_a_pipe_as_sudo_has_it() {
    let mut host = Host::new();
    host.request.report = false;
    host.request.script_bytes = 7;
    let container = host.request.encode(b"exit 9\n").expect("good");
    let mut child = Command::new(JACAMAR).arg("run").stdin(Stdio::piped()).spawn().expect("jacamar");
    let mut pipe = child.stdin.take().expect("piped");
    for part in container.chunks(5) {
        pipe.write_all(part).expect("read");
    }
    drop(pipe);
    assert_eq!(child.wait().expect("ended").code(), Some(9));
}

#[test]
fn closed_descriptors() {
    let mut host = Host::new();
    host.request.report = false;
    for closed in ["exec <&-", "exec >&-", "exec 2>&-", "exec <&- >&- 2>&-"] {
        host.before = closed.to_owned();
        let ran = host.start_with("run", b"").wait();
        assert_eq!(ran.code, Some(125), "{closed}: {ran:?}");
    }
}

/// A report that cannot be written is noticed before the script runs.
#[test]
fn a_report_that_is_not_the_contracts() {
    let host = Host::new();
    let mut request = host.request.clone();
    request.script_bytes = 7;
    let container = request.encode(b"exit 9\n").expect("good");
    let begin = |redirect: &str| {
        let mut bare = Host::new();
        bare.request.report = false;
        bare.before = format!("exec {redirect}");
        bare.start_with("run", &container).wait()
    };
    for redirect in ["3>&-", "3</dev/null", "3>/dev/null", "3<>~/file", "3> >(cat)", "3<> /"] {
        let ran = begin(redirect);
        // bash itself ends with 1 where it cannot redirect.
        assert!(matches!(ran.code, Some(125 | 1)), "{redirect}: {ran:?}");
    }
    for length in [0, REPORT_BYTES as u64 - 1, REPORT_BYTES as u64 + 1] {
        let file = sealed(length);
        let ran = begin(&format!("3<>{}", path(&file)));
        assert_eq!(ran.code, Some(125), "{length}: {ran:?}");
        assert!(ran.err.contains("descriptor 3 (report) is not a memfd of"), "{}", ran.err);
    }
    let file = sealed(REPORT_BYTES as u64);
    assert_eq!(begin(&format!("3<>{}", path(&file))).code, Some(9));
    let report = read_report(&file).expect("written");
    assert_eq!(frame::encode(&report).expect("good").len(), REPORT_BYTES);
}

fn path(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(file))
}
