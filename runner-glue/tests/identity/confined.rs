//! `jacamar verify` where nothing of the network is there, and as somebody who may nothing.

use jacamar_contract::frame;
use jacamar_contract::verify::VerifyAnswer;
use testbed::gitlab::IdToken;

use crate::call::{AUDIENCE, Call, answer, facts, file, key_set, response, verify_request};

#[test]
fn verify_needs_no_network_call() {
    let token = IdToken::new(&facts(), AUDIENCE).sign().expect("signed");
    let (response, keys, trace) = (file(&response(&token)), file(&key_set()), file(b""));
    let trace_path = trace.path().display().to_string();
    let call = Call::new("verify", frame::encode(&verify_request()).expect("frame"));
    let strace =
        ["strace", "-f", "-o", &trace_path, "-e", "trace=%network", "-e", "inject=%network:error=EPERM"];
    let output = call.third(response.path()).fourth(keys.path()).wrapper(&strace).run();
    assert!(matches!(answer(&output), VerifyAnswer::Claims(_)));
    let calls = std::fs::read_to_string(trace.path()).expect("trace");
    assert!(calls.contains("exited with 0"), "{calls}");
    assert!(!calls.contains('('), "no call of the network at all: {calls}");
}
