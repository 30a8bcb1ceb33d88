//! Every error of a frame, by name.

use jacamar_contract::claims::{ClaimFields, Claims};
use jacamar_contract::frame::{
    self, Assembler, FrameError, HEADER_BYTES, Kind, PAYLOAD_MAX_BYTES, Payload, Reader, Writer,
};
use jacamar_contract::keys::{KeysFailed, KeysFetched, KeysRule};
use jacamar_contract::stage_request::StageRequest;
use jacamar_contract::text::InvalidText;
use jacamar_contract::verify::{Unasked, VerifyAnswer, VerifyRefused, VerifyRequest, VerifyRule, compare};

use crate::samples::{alice, field, framed, stage_request, verify_request};

fn request() -> Vec<u8> {
    frame::encode(&verify_request()).expect("good")
}

fn spoiled(at: usize, bytes: &[u8]) -> FrameError {
    let mut frame = request();
    frame.splice(at..at + bytes.len(), bytes.iter().copied());
    frame::decode::<VerifyRequest>(&frame).expect_err("spoiled")
}

#[test]
fn a_frame_is_these_bytes() {
    let frame = frame::encode(&KeysFetched { keys_bytes: 258 }).expect("good");
    assert_eq!(
        frame,
        [b"JCMR".as_slice(), &[0, 1], &[0, 5], &[0, 0, 0, 12], &[0, 0, 0, 8], &[0, 0, 0, 0, 0, 0, 1, 2]]
            .concat()
    );
}

#[test]
fn kinds_have_different_numbers() {
    for (position, kind) in Kind::ALL.iter().enumerate() {
        assert_eq!(usize::from(kind.number()), position + 1, "{kind:?}");
    }
}

#[test]
fn each_error_of_a_header() {
    assert_eq!(spoiled(0, b"GET "), FrameError::Magic { found: *b"GET " });
    assert_eq!(spoiled(4, &[0, 2]), FrameError::Version { found: 2 });
    assert_eq!(spoiled(6, &[0, 99]), FrameError::UnknownKind { number: 99 });
    assert_eq!(spoiled(6, &[0, 0]), FrameError::UnknownKind { number: 0 });
    assert_eq!(
        spoiled(6, &[0, 2]),
        FrameError::OtherKind { expected: Kind::VerifyRequest, found: Kind::Claims }
    );
    let bytes = PAYLOAD_MAX_BYTES + 1;
    assert_eq!(spoiled(8, &[0, 1, 0, 1]), FrameError::PayloadTooLong { bytes });
    assert_eq!(spoiled(8, &[0xff; 4]), FrameError::PayloadTooLong { bytes: u32::MAX as usize });
}

#[test]
fn a_frame_cut_off_anywhere_is_short() {
    let frame = request();
    for end in 0..frame.len() {
        let need_bytes = if end < HEADER_BYTES { HEADER_BYTES } else { frame.len() };
        assert_eq!(
            frame::decode::<VerifyRequest>(&frame[..end]),
            Err(FrameError::Short { have_bytes: end, need_bytes })
        );
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    let mut frame = request();
    frame.push(0);
    assert_eq!(frame::decode::<VerifyRequest>(&frame), Err(FrameError::Trailing { bytes: 1 }));
    let payload = [field(&[0; 8]), vec![1, 2, 3]].concat();
    let frame = framed(Kind::KeysFetched, &payload);
    assert_eq!(frame::decode::<KeysFetched>(&frame), Err(FrameError::Trailing { bytes: 3 }));
}

#[test]
fn each_error_of_a_field() {
    let decode = |payload: &[u8]| frame::decode::<VerifyRequest>(&framed(Kind::VerifyRequest, payload));
    assert_eq!(decode(&[]), Err(FrameError::FieldShort { field: "issuer" }));
    assert_eq!(decode(&[0, 0, 0]), Err(FrameError::FieldShort { field: "issuer" }));
    assert_eq!(decode(&[0, 0, 0, 2, b'x']), Err(FrameError::FieldShort { field: "issuer" }));
    assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff, b'x']), Err(FrameError::FieldShort { field: "issuer" }));
    assert_eq!(
        decode(&field(&[b'x'; 1025])),
        Err(FrameError::FieldTooLong { field: "issuer", bytes: 1025, max_bytes: 1024 })
    );
    assert_eq!(decode(&field(&[0xff])), Err(FrameError::NotUtf8 { field: "issuer" }));
    let issuer = field(b"x");
    assert_eq!(
        decode(&[issuer.clone(), field(&[2])].concat()),
        Err(FrameError::Meaningless { field: "audience", number: 2 })
    );
    assert_eq!(
        decode(&[issuer.clone(), field(&[0, 0])].concat()),
        Err(FrameError::FieldSize { field: "audience", bytes: 2, expected_bytes: 1 })
    );
    assert_eq!(
        decode(&[issuer.clone(), field(&[0]), field(&[1]), field(&[1, 2])].concat()),
        Err(FrameError::FieldSize { field: "runner_id", bytes: 2, expected_bytes: 8 })
    );
    let last = |name: &[u8]| [issuer.clone(), field(&[0]), field(&[0]), field(name)].concat();
    assert!(decode(&last(b"TOKEN")).is_ok());
    let said = decode(&last(b"TO\nKEN")).expect_err("a line end").to_string();
    assert_eq!(said, "field token_variable is not the name of a variable (letters, digits, `_`)");
}

#[test]
fn an_unknown_rule_has_no_meaning() {
    let payload = [field(&[0, 200]), field(b"x"), field(b"y")].concat();
    let expected = FrameError::Meaningless { field: "rule", number: 200 };
    assert_eq!(frame::decode::<VerifyRefused>(&framed(Kind::VerifyRefused, &payload)), Err(expected.clone()));
    assert_eq!(frame::decode::<KeysFailed>(&framed(Kind::KeysFailed, &payload)), Err(expected));
}

#[test]
fn the_rules_are_what_the_audit_line_says() {
    let words = |words: Vec<&'static str>| {
        let mut sorted = words.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), words.len(), "each rule its word");
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    };
    words(VerifyRule::ALL.iter().map(|rule| rule.word()).collect());
    words(KeysRule::ALL.iter().map(|rule| rule.word()).collect());
}

#[test]
fn nothing_is_sent_that_would_not_be_taken() {
    let request = VerifyRequest { token_variable: "A B".to_owned(), ..verify_request() };
    assert!(matches!(frame::encode(&request), Err(FrameError::Invalid(_))));
    let refused = VerifyRefused { cause: "a\nb".to_owned(), ..VerifyRefused::new(VerifyRule::NoToken, "x") };
    assert!(matches!(VerifyAnswer::Refused(refused).encode(), Err(FrameError::Invalid(_))));
    let value = "x".repeat(30_000);
    let environment = (0..3).map(|n| (format!("A{n}"), value.clone())).collect();
    let request = StageRequest { environment, ..stage_request() };
    assert!(matches!(frame::encode(&request), Err(FrameError::PayloadTooLong { .. })));
}

#[test]
fn claims_with_any_field_spoiled_are_refused_by_name() {
    let long = |bytes: usize| "a".repeat(bytes + 1);
    let text = |text: &str| text.to_owned();
    type Spoil = Box<dyn Fn(&mut ClaimFields)>;
    let mut table: Vec<(&str, Spoil)> = vec![
        ("iss", Box::new(|c| c.issuer.clear())),
        ("iss", Box::new(|c| c.issuer.push(' '))),
        ("aud", Box::new(|c| c.audience = Some("a\nb".to_owned()))),
        ("user_id", Box::new(|c| c.user_id = 0)),
        ("user_login", Box::new(|c| c.user_login.clear())),
        ("user_login", Box::new(move |c| c.user_login = long(255))),
        ("user_email", Box::new(|c| c.user_email = Some(String::new()))),
        ("user_access_level", Box::new(|c| c.user_access_level = Some("\x1b[2J".to_owned()))),
        ("project_id", Box::new(|c| c.project_id = 0)),
        ("project_path", Box::new(|c| c.project_path = "group/../etc".to_owned())),
        ("job_project_id", Box::new(|c| c.job_project_id = Some(0))),
        ("job_project_path", Box::new(|c| c.job_project_path = Some("/group".to_owned()))),
        ("namespace_id", Box::new(|c| c.namespace_id = Some(0))),
        ("namespace_path", Box::new(|c| c.namespace_path = "a//b".to_owned())),
        ("job_id", Box::new(|c| c.job_id = 0)),
        ("pipeline_id", Box::new(|c| c.pipeline_id = 0)),
        ("pipeline_source", Box::new(|c| c.pipeline_source = "a b".to_owned())),
        ("ref", Box::new(|c| c.reference = "a b".to_owned())),
        ("ref_type", Box::new(|c| c.reference_type.clear())),
        ("sha", Box::new(|c| c.sha.truncate(39))),
        ("sha", Box::new(|c| c.sha.make_ascii_uppercase())),
        ("runner_id", Box::new(|c| c.runner_id = 0)),
        ("runner_environment", Box::new(|c| c.runner_environment = Some("a.b".to_owned()))),
    ];
    for login in ["-x", "../x", "a/b", "a b", "a\n", "alice\0", "é", "x."] {
        let login = text(login);
        table.push(("user_login", Box::new(move |c| c.user_login.clone_from(&login))));
    }
    for (field, spoil) in table {
        let mut fields = alice();
        spoil(&mut fields);
        let refused: InvalidText = Claims::new(fields).expect_err(field);
        assert_eq!(refused.field, field);
    }
    assert!(Claims::new(alice()).is_ok());
}

/// Claims that pass no check: what a `verify` that was taken over could send.
struct Forged;

impl Payload for Forged {
    const KIND: Kind = Kind::Claims;
    fn check(&self) -> Result<(), FrameError> {
        Ok(())
    }
    fn write(&self, fields: &mut Writer) {
        let text = Writer::text;
        text(fields, "https://gitlab.example.com");
        fields.flag(false);
        fields.number(7);
        text(fields, "../../root");
        for _ in 0..2 {
            fields.flag(false);
        }
        fields.number(20);
        text(fields, "group/proj");
        for _ in 0..3 {
            fields.flag(false);
        }
        text(fields, "group");
        fields.number(302);
        fields.number(574);
        for word in ["push", "main", "branch"] {
            text(fields, word);
        }
        fields.flag(false);
        text(fields, "63fe2fa6960f105226bf0fe8d72403aec073c02f");
        fields.number(3);
        fields.flag(false);
        fields.flag(false);
    }
    fn read(_: &mut Reader<'_>) -> Result<Self, FrameError> {
        Ok(Self)
    }
}

#[test]
fn the_receiver_checks_a_forged_frame_itself() {
    let frame = frame::encode(&Forged).expect("no check");
    let error = VerifyAnswer::decode(&frame).expect_err("forged");
    assert!(matches!(error, FrameError::Invalid(InvalidText { field: "user_login", .. })), "{error}");
}

#[test]
fn the_largest_claims_fit_a_frame() {
    let path = format!("{}/x", "a".repeat(4094));
    let fields = ClaimFields {
        issuer: "i".repeat(1024),
        audience: Some("a".repeat(1024)),
        user_login: "l".repeat(255),
        user_email: Some("e".repeat(320)),
        user_access_level: Some("l".repeat(64)),
        project_path: path.clone(),
        job_project_path: Some(path.clone()),
        namespace_path: path,
        pipeline_source: "s".repeat(64),
        reference: "r".repeat(4096),
        reference_type: "t".repeat(64),
        sha: "0".repeat(64),
        runner_environment: Some("e".repeat(64)),
        ..alice()
    };
    let claims = Claims::new(fields).expect("well-formed");
    let frame = frame::encode(&claims).expect("fits");
    assert_eq!(frame::decode::<Claims>(&frame), Ok(claims));
}

#[test]
fn the_digest_names_exactly_these_claims() {
    let digest = |fields| Claims::new(fields).expect("well-formed").digest();
    let one = digest(alice());
    assert_eq!(one.len(), 64);
    assert_eq!(one, digest(alice()));
    assert_ne!(one, digest(ClaimFields { job_id: 303, ..alice() }));
    // No two neighbours can be shifted into each other.
    let shifted = ClaimFields { pipeline_source: "pushm".to_owned(), reference: "ain".to_owned(), ..alice() };
    assert_ne!(one, digest(shifted));
}

#[test]
fn claims_are_compared_with_the_question() {
    let claims = Claims::new(alice()).expect("well-formed");
    assert_eq!(compare(&verify_request(), &claims), Ok(()));
    let open = VerifyRequest { audience: None, runner_id: None, ..verify_request() };
    assert_eq!(compare(&open, &claims), Ok(()));
    for (field, request) in [
        ("iss", VerifyRequest { issuer: "https://gitlab.example.com/".to_owned(), ..verify_request() }),
        ("aud", VerifyRequest { audience: Some("x".to_owned()), ..verify_request() }),
        ("runner_id", VerifyRequest { runner_id: Some(4), ..verify_request() }),
    ] {
        assert_eq!(compare(&request, &claims), Err(Unasked { field }));
    }
    let silent = Claims::new(ClaimFields { audience: None, ..alice() }).expect("well-formed");
    assert_eq!(compare(&verify_request(), &silent), Err(Unasked { field: "aud" }));
}

#[test]
fn an_assembler_takes_a_frame_and_nothing_more() {
    let frame = request();
    let stream = [&frame[..], b"body"].concat();
    for piece in [1, 3, HEADER_BYTES, HEADER_BYTES + 1, stream.len()] {
        let (mut assembler, mut taken) = (Assembler::default(), 0);
        for bytes in stream.chunks(piece) {
            taken += assembler.push(bytes).expect("good");
        }
        assert_eq!(taken, frame.len(), "pieces of {piece}");
        assert_eq!(assembler.finish().as_deref(), Ok(&frame[..]), "pieces of {piece}");
    }
    let mut assembler = Assembler::default();
    assert_eq!(assembler.push(&frame[..20]), Ok(20));
    assert!(!assembler.is_complete());
    assert_eq!(assembler.finish(), Err(FrameError::Short { have_bytes: 20, need_bytes: frame.len() }));
    let mut assembler = Assembler::default();
    assert_eq!(assembler.push(b"GET / HTTP/1.1\r\n"), Err(FrameError::Magic { found: *b"GET " }));
}
