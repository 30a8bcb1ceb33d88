//! `jacamar verify` where nothing of the network is there, and as somebody who may nothing.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use jacamar_contract::frame;
use jacamar_contract::verify::VerifyAnswer;
use testbed::gitlab::IdToken;

use crate::call::{AUDIENCE, Call, JACAMAR, answer, facts, file, key_set, response, verify_request};

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

/// The runner's file has mode 0600, and `jacamar-verify` is not the runner: what counts is the open descriptor.
#[test]
fn verify_reads_what_its_account_could_not_open() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become another account");
        return;
    }
    let token = IdToken::new(&facts(), AUDIENCE).sign().expect("signed");
    let (request, response, keys) =
        (file(&frame::encode(&verify_request()).expect("frame")), file(&response(&token)), file(&key_set()));
    for file in [&request, &response, &keys] {
        let mode = std::fs::Permissions::from_mode(0o600);
        file.as_file().set_permissions(mode).expect("mode");
    }
    // A place that every account can reach.
    let place =
        tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().expect("directory");
    let program = place.path().join("jacamar");
    std::fs::copy(JACAMAR, &program).expect("copied");
    let script = "exec <\"$1\" 3<\"$2\" 4<\"$3\"; exec setpriv --reuid 65534 --regid 65534 --clear-groups \
                  env -i \"$0\" verify";
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).arg(program).arg(request.path()).arg(response.path()).arg(keys.path());
    assert!(matches!(answer(&bash.output().expect("bash")), VerifyAnswer::Claims(_)));
}

#[test]
fn people_do_not_see_the_two_commands() {
    let help = Command::new(JACAMAR).arg("--help").output().expect("help");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("exec") && !help.contains("verify") && !help.contains("keys"), "{help}");
}
