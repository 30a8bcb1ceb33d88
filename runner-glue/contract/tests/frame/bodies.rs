//! Requests and answers with something behind the frame: key sets and scripts.

use jacamar_contract::frame::{self, FrameError, Kind};
use jacamar_contract::keys::{ANSWER_MAX_BYTES, KEYS_MAX_BYTES, KeysAnswer, KeysRequest};
use jacamar_contract::stage_request::{
    CONTAINER_MAX_BYTES, ENVIRONMENT_MAX_COUNT, SCRIPT_MAX_BYTES, StageRequest,
};
use jacamar_contract::verify::VerifyAnswer;

use crate::samples::{field, framed, keys_request, stage_request, verify_request};

#[test]
fn an_answer_of_another_kind_is_no_answer() {
    let expected = FrameError::OtherKind { expected: Kind::Claims, found: Kind::VerifyRequest };
    assert_eq!(VerifyAnswer::decode(&frame::encode(&verify_request()).expect("good")), Err(expected));
    let expected = FrameError::OtherKind { expected: Kind::KeysFetched, found: Kind::VerifyRequest };
    assert_eq!(KeysAnswer::decode(&frame::encode(&verify_request()).expect("good")), Err(expected));
}

#[test]
fn a_keys_request_says_what_is_wrong() {
    let said = |request: KeysRequest| frame::encode(&request).expect_err("refused").to_string();
    let http = "http://gitlab.example.com/keys".to_owned();
    assert_eq!(said(KeysRequest { url: http.clone(), ..keys_request() }), "field url is not an https URL");
    assert!(frame::encode(&KeysRequest { url: http, allow_http: true, ..keys_request() }).is_ok());
    let file = KeysRequest { url: "file:///etc/shadow".to_owned(), allow_http: true, ..keys_request() };
    assert_eq!(said(file), "field url is not an http or https URL");
    assert_eq!(said(KeysRequest { time_limit_ms: 0, ..keys_request() }), "field time_limit_ms is 0");
    assert_eq!(
        said(KeysRequest { time_limit_ms: 60_001, ..keys_request() }),
        "field time_limit_ms is 60001, at most 60000 is taken"
    );
}

#[test]
fn a_key_set_has_exactly_the_announced_length() {
    let answer = KeysAnswer::Fetched(b"{\"keys\":[]}").encode().expect("good");
    assert_eq!(KeysAnswer::decode(&answer), Ok(KeysAnswer::Fetched(b"{\"keys\":[]}")));
    let short = &answer[..answer.len() - 1];
    assert_eq!(KeysAnswer::decode(short), Err(FrameError::Body { have_bytes: 10, need_bytes: 11 }));
    let long = [&answer[..], b"x"].concat();
    assert_eq!(KeysAnswer::decode(&long), Err(FrameError::Body { have_bytes: 12, need_bytes: 11 }));
    assert!(KeysAnswer::Fetched(b"").encode().is_err());
    assert!(KeysAnswer::Fetched(&vec![0; KEYS_MAX_BYTES + 1]).encode().is_err());
    let largest = vec![0; KEYS_MAX_BYTES];
    let largest = KeysAnswer::Fetched(&largest).encode().expect("just fits");
    assert!(largest.len() <= ANSWER_MAX_BYTES);
}

#[test]
fn a_script_has_exactly_the_announced_length() {
    let request = stage_request();
    let container = request.encode(b"echo 1\n\0").expect("good");
    assert_eq!(StageRequest::decode(&container), Ok((request.clone(), b"echo 1\n\0".as_slice())));
    let body = |have_bytes| FrameError::Body { have_bytes, need_bytes: 8 };
    assert_eq!(request.encode(b"echo"), Err(body(4)));
    assert_eq!(StageRequest::decode(&container[..container.len() - 1]), Err(body(7)));
    assert_eq!(StageRequest::decode(&[container, vec![0]].concat()), Err(body(9)));
    let endless = StageRequest { script_bytes: u64::MAX, ..stage_request() };
    let max_bytes = SCRIPT_MAX_BYTES as u64;
    assert_eq!(frame::encode(&endless), Err(FrameError::BodyTooLong { bytes: u64::MAX, max_bytes }));
}

#[test]
fn the_largest_script_fits_the_container() {
    let script = vec![b'x'; SCRIPT_MAX_BYTES];
    let request = StageRequest { script_bytes: SCRIPT_MAX_BYTES as u64, ..stage_request() };
    let container = request.encode(&script).expect("fits");
    assert!(container.len() <= CONTAINER_MAX_BYTES);
    assert_eq!(StageRequest::decode(&container).expect("good").1.len(), SCRIPT_MAX_BYTES);
}

#[test]
fn a_stage_request_is_refused_by_field() {
    let text = |text: &str| text.to_owned();
    let pair = |name: &str, value: &str| vec![(text(name), text(value))];
    let said = |request: StageRequest| frame::encode(&request).expect_err("refused").to_string();
    for (request, start) in [
        (StageRequest { shell: text("bash"), ..stage_request() }, "field shell is not an absolute path"),
        (StageRequest { home: text(""), ..stage_request() }, "field home is empty"),
        (
            StageRequest { builds_dir: text("/a/../b"), ..stage_request() },
            "field builds_dir is not an absolute",
        ),
        (
            StageRequest { cache_dir: text("/a\n"), ..stage_request() },
            "field cache_dir is not an absolute path",
        ),
        (
            StageRequest { environment: pair("A=B", "x"), ..stage_request() },
            "field environment is not the name",
        ),
        (
            StageRequest { environment: pair("A", "x\0"), ..stage_request() },
            "field environment is not free of NUL",
        ),
        (
            StageRequest { remove: vec![text("/scratch/alice/builds/3/login1/0001/x")], ..stage_request() },
            "field remove is not a path below builds_dir",
        ),
        (
            StageRequest { remove: vec![stage_request().builds_dir], ..stage_request() },
            "field remove is not a path below builds_dir",
        ),
        (
            StageRequest { remove: vec![format!("{}//x", stage_request().builds_dir)], ..stage_request() },
            "field remove is not a path below builds_dir",
        ),
        (StageRequest { host: text("a\x1b[2J"), ..stage_request() }, "field host is not free of control"),
        (StageRequest { remove: vec![text("/a"); 65], ..stage_request() }, "field remove has 65 entries"),
    ] {
        assert!(said(request.clone()).starts_with(start), "{}", said(request));
    }
    let many = vec![(text("A"), text("")); ENVIRONMENT_MAX_COUNT + 1];
    let many = StageRequest { environment: many, ..stage_request() };
    assert_eq!(said(many), "field environment has 257 entries, at most 256 are taken");
}

#[test]
fn only_run_has_a_sub_stage() {
    let payload =
        |stage: &str, sub_stage: &str| [field(stage.as_bytes()), field(sub_stage.as_bytes())].concat();
    for (stage, sub_stage, text) in [
        ("run", "", "field sub_stage is not the name of a sub-stage"),
        ("run", "../x", "field sub_stage is not the name of a sub-stage"),
        ("config", "x", "field sub_stage is not empty for this stage"),
        ("launch", "", "field stage is not a stage"),
    ] {
        let frame = framed(Kind::StageRequest, &payload(stage, sub_stage));
        let error = StageRequest::decode(&frame).expect_err(stage);
        assert_eq!(error.to_string(), text);
    }
}
