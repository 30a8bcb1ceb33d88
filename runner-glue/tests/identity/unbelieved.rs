//! Response files, key sets and descriptors that are not what they should be.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use jacamar_contract::frame;
use jacamar_contract::keys::KEYS_MAX_BYTES;
use jacamar_contract::verify::{RESPONSE_MAX_BYTES, VerifyAnswer, VerifyRule};
use proptest::prelude::*;
use serde_json::{Value, json};
use testbed::gitlab::{IdToken, JobBuilder, Variable};

use crate::call::{
    AUDIENCE, Call, JACAMAR, NAME, answer, facts, file, key_set, response, verify, verify_request,
};

fn good() -> String {
    IdToken::new(&facts(), AUDIENCE).sign().expect("signed")
}

fn request() -> Vec<u8> {
    frame::encode(&verify_request()).expect("frame")
}

#[track_caller]
fn assert_refused(answer: VerifyAnswer, rule: VerifyRule) {
    match answer {
        VerifyAnswer::Refused(refused) => assert_eq!(refused.rule, rule, "{refused}"),
        VerifyAnswer::Claims(_) => panic!("believed in place of {rule:?}"),
    }
}

#[track_caller]
fn assert_believed(answer: &VerifyAnswer) {
    assert!(matches!(answer, VerifyAnswer::Claims(_)), "{answer:?}");
}

#[test]
fn a_truncated_response_file_is_refused() {
    let whole = response(&good());
    for length in [0, 1, whole.len() / 2, whole.len() - 2] {
        assert_refused(verify(&whole[..length], &key_set()).0, VerifyRule::ResponseUnreadable);
    }
    assert_believed(&verify(&whole, &key_set()).0);
}

/// Whitespace behind the job up to this size: what is refused is the size.
fn padded(bytes: u64) -> tempfile::NamedTempFile {
    let mut content = response(&good());
    content.resize(usize::try_from(bytes).expect("small"), b' ');
    file(&content)
}

#[test]
fn a_large_response_file_is_read_up_to_the_limit() {
    let keys = file(&key_set());
    let max = RESPONSE_MAX_BYTES as u64;
    let ask = |path: &Path| answer(&Call::new("verify", request()).third(path).fourth(keys.path()).run());
    assert_believed(&ask(padded(max).path()));
    assert_refused(ask(padded(max + 1).path()), VerifyRule::ResponseTooLarge);
    let sparse = file(&response(&good()));
    File::options()
        .write(true)
        .open(sparse.path())
        .expect("open")
        .set_len(64 * 1024 * 1024 + 1)
        .expect("sparse");
    assert_refused(ask(sparse.path()), VerifyRule::ResponseTooLarge);
}

#[test]
fn a_hundred_thousand_variables_take_no_time() {
    let mut job = JobBuilder::new(facts());
    for number in 0..50_000 {
        job = job.variable(&format!("A_{number}"), "<&> \"quoted\" \u{2028} \\ ü");
    }
    job = job.id_token_value(NAME, good());
    for number in 0..50_000 {
        job = job.variable(&format!("B_{number}"), "x".repeat(40));
    }
    let bytes = job.build().response_json().expect("JSON");
    let start = Instant::now();
    assert_believed(&verify(&bytes, &key_set()).0);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn what_go_writes_is_read() {
    let mut job = JobBuilder::new(facts())
        .script(["echo '<a>' && true > /dev/null"])
        .id_token_value(NAME, good())
        .build();
    let escaped = job.response_json().expect("JSON");
    assert!(String::from_utf8_lossy(&escaped).contains(r"\u003ca\u003e"), "the stand-in escapes as Go does");
    assert_believed(&verify(&escaped, &key_set()).0);
    // Nil slices are null; 17.3 has no inputs and `run` as text; a future runner sends what we do not know.
    let own = Variable { key: NAME.to_owned(), value: "mine".to_owned(), ..Variable::default() };
    job.variables.as_mut().expect("variables").push(own);
    let mut value = serde_json::to_value(&job).expect("JSON");
    for name in ["steps", "services", "artifacts", "cache", "credentials", "dependencies", "hooks", "secrets"]
    {
        value[name] = Value::Null;
    }
    value["run"] = json!("");
    value["inputs"] = json!({});
    value["new"] = json!({"deep": [[[{"x": null}]]]});
    value["job_info"]["queue_size"] = json!(i64::MIN);
    assert_believed(&verify(value.to_string().as_bytes(), &key_set()).0);
    value["variables"] = Value::Null;
    assert_refused(verify(value.to_string().as_bytes(), &key_set()).0, VerifyRule::NoToken);
}

#[test]
fn a_key_set_that_is_none_is_a_breakage() {
    let large = [key_set(), vec![b' '; KEYS_MAX_BYTES]].concat();
    for keys in [&b""[..], b"<html>", b"{}", &key_set()[..100], &large] {
        let (answer, _) = verify(&response(&good()), keys);
        let VerifyAnswer::Refused(refused) = answer else { panic!("believed") };
        assert!(refused.rule.is_breakage(), "{refused}");
    }
}

/// There is no answer, and the error says why without a word of the job.
#[track_caller]
fn assert_no_answer(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(output.stdout.is_empty(), "{said}");
    assert!(said.contains(why), "{said}");
    assert!(!said.contains("eyJ"), "{said}");
}

#[test]
fn descriptors_are_files_or_pipes() {
    let (response, keys) = (file(&response(&good())), file(&key_set()));
    let (response, keys) = (response.path(), keys.path());
    let call = || Call::new("verify", request());
    // The first number that is free gets our own signal descriptor.
    assert_no_answer(&call().fourth(keys).run(), "descriptor 3 (response file) is something else");
    assert_no_answer(&call().third(response).run(), "descriptor 4 (key set) is something else");
    assert_no_answer(&call().run(), "descriptor 3 (response file) is something else");
    let device = Path::new("/dev/zero");
    assert_no_answer(
        &call().third(device).fourth(keys).run(),
        "descriptor 3 (response file) is a terminal or a device",
    );
    assert_no_answer(
        &call().third(response).fourth(device).run(),
        "descriptor 4 (key set) is a terminal or a device",
    );
    let directory = Path::new("/tmp");
    assert_no_answer(&call().third(directory).fourth(keys).run(), "is a directory");
    for bytes in [Vec::new(), b"JCMR".to_vec(), vec![0; 100_000], [request(), vec![0]].concat()] {
        let output = Call::new("verify", bytes.clone()).third(response).fourth(keys).run();
        assert_no_answer(&output, "descriptor 0 (request)");
        assert_no_answer(&Call::new("keys", bytes).run(), "descriptor 0 (request)");
    }
}

#[test]
fn pipes_are_read_to_their_end_and_within_their_limit() {
    let (request, keys) = (file(&request()), file(&key_set()));
    let run = |response: &Path| {
        let script = "exec <\"$1\" 3< <(cat \"$2\") 4< <(sleep 0.2; cat \"$3\"); exec env -i \"$0\" verify";
        let mut bash = Command::new("bash");
        bash.args(["-c", script, JACAMAR]).arg(request.path()).arg(response).arg(keys.path());
        answer(&bash.output().expect("bash"))
    };
    assert_believed(&run(file(&response(&good())).path()));
    assert_believed(&run(padded(RESPONSE_MAX_BYTES as u64).path()));
    assert_refused(run(padded(RESPONSE_MAX_BYTES as u64 + 1).path()), VerifyRule::ResponseTooLarge);
}

#[test]
fn a_file_is_read_from_its_beginning() {
    let (request, response, keys) = (file(&request()), file(&response(&good())), file(&key_set()));
    let script = "exec <\"$1\" 3<\"$2\" 4<\"$3\"; head -c 9 <&3 >/dev/null; exec env -i \"$0\" verify";
    let mut bash = Command::new("bash");
    bash.args(["-c", script, JACAMAR]).arg(request.path()).arg(response.path()).arg(keys.path());
    assert_believed(&answer(&bash.output().expect("bash")));
}

#[test]
fn an_answer_that_nobody_can_take_is_a_breakage() {
    let (request, response, keys) = (file(&request()), file(&response(&good())), file(&key_set()));
    for (redirection, why) in [(">/dev/full", "a terminal or a device"), (">&-", "a terminal or a device")] {
        let script = format!("exec <\"$1\" 3<\"$2\" 4<\"$3\" {redirection}; exec env -i \"$0\" verify");
        let mut bash = Command::new("bash");
        bash.args(["-c", &script, JACAMAR]).arg(request.path()).arg(response.path()).arg(keys.path());
        assert_no_answer(&bash.output().expect("bash"), why);
    }
}

proptest! {
    // Each case is three processes; thousands of cases without a process are in src/verify/tests.
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        text in "[A-Za-z0-9_.-]{1,200}",
    ) {
        for (response, keys) in [
            (bytes.clone(), key_set()),
            (response(&good()), bytes.clone()),
            (response(&text), key_set()),
        ] {
            let (answer, _) = verify(&response, &keys);
            prop_assert!(matches!(answer, VerifyAnswer::Refused(_)), "{:?}", answer);
        }
    }
}
