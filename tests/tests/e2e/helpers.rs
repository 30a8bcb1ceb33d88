//! `keys` and `verify` as `config` launches them: what a taken-over one could do. Another program stands in their place.

use testbed::host::PREFIX;

use crate::direct::Direct;
use crate::place::{Place, write};

/// Tries to reach others, and tells what came of it. 127.0.0.1:9 would be refused, not unknown.
const TRIES: &str = r#"
{ (exec 9<>/dev/tcp/127.0.0.1/9) 2>&1 | sed -n 's/.*: /tcp=/p' | tail -n 1; } >&4
sleep 77 & other=$!
for signal in 0 9; do kill -$signal $other 2>&1 | sed "s/.*- /kill=/" >&4; done
unshare --mount true 2>&1 | sed 's/.*: /unshare=/' >&4
echo "groups=$(id -G | wc -w) user=$(id -un)" >&4
"#;

fn messages_of(word: &str) -> String {
    let mut place = Place::usual();
    place.setup.auth = format!("jacamar_path = \"{}\"", place.path("helper"));
    // Descriptor 2 is what config shows; the other word is the real program's.
    let script = format!(
        "#!/bin/bash\n[[ $1 == {word} ]] || exec {PREFIX}/bin/jacamar \"$@\"\nexec 4>&2\n{TRIES}\nexit 3\n"
    );
    write(&place.path("helper"), script.as_bytes(), 0o755);
    place.configure(&place.configuration());
    let ran = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).config();
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
    ran.err
}

#[test]
fn verify_has_no_network_and_neither_reaches_another() {
    for (word, tcp) in
        [("verify", "tcp=Address family not supported by protocol"), ("keys", "tcp=Connection refused")]
    {
        let said = messages_of(word);
        for expected in [
            tcp,
            "kill=Operation not permitted",
            "unshare=Operation not permitted",
            "user=jacamar-verify",
            "groups=1",
        ] {
            assert!(said.contains(expected), "{word}, {expected}: {said}");
        }
    }
}
