//! How a job ends, and that nothing of it stays.

use testbed::host::{Start, Surroundings, alive, marked};

use crate::places;

pub(crate) fn exit_codes(surroundings: Surroundings) {
    for place in places(surroundings) {
        for code in [0, 1, 42, 125, 255] {
            let ran = place.run("default", &format!("exit {code}"));
            assert_eq!(ran.code, code, "{place}: {ran}");
            assert!(ran.out.is_empty() && ran.err.is_empty(), "{place}: {ran}");
        }
        for signal in [1, 9, 11, 15, 31] {
            let ran = place.run("default", &format!("kill -{signal} $$; sleep 77777"));
            assert_eq!(ran.code, 128 + signal, "{place}: {ran}");
        }
        let run = |command: &[&str]| place.start(&Start { command, ..Start::default() }).finish();
        for (command, code) in
            [("no-such-command", 127), ("/no/such/command", 127), ("/etc/passwd", 126), ("/etc", 126)]
        {
            let ran = run(&[command]);
            assert_eq!(ran.code, code, "{place}: {command}: {ran}");
            assert!(ran.err.contains(command), "{place}: {ran}");
        }
    }
}

pub(crate) fn daemons_end(surroundings: Surroundings) {
    for (number, place) in places(surroundings).iter().enumerate() {
        let mark = format!("MARK_{}_{surroundings:?}_{number}", std::process::id());
        let script = format!(
            "export {mark}=1; \
             (setsid sh -c '(trap \"\" HUP TERM INT; exec </dev/null >/dev/null 2>&1; cd /; sleep 77777) &' &) ; \
             setsid setsid sleep 77777 </dev/null >/dev/null 2>&1 & \
             (sleep 77777; sleep 77777) & \
             until [ $(ls -d /proc/[0-9]* | wc -l) -ge 6 ]; do :; done; echo up"
        );
        let ran = place.run("default", &script);
        assert_eq!(ran.out, "up\n", "{place}: {ran}");
        // All of them, at once: the launcher waits for the kernel.
        let left = alive(&marked(&mark));
        assert!(left.is_empty(), "{place}: {left:?}");
    }
}
