//! `exec --pty`: a terminal of the command's own, copied to and from ours.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testbed::host::{CI1, Host, PREFIX, Started};

/// `exec --pty` at the root and at the user level, with a pipe as input.
fn commands(script: &str) -> [(&'static str, Command); 2] {
    let host = Host::shared();
    let (auth, jacamar) = (format!("{PREFIX}/bin/jacamar-auth"), format!("{PREFIX}/bin/jacamar"));
    let tail = ["--profile", "default", "--pty", "--", "sh", "-c", script];
    let root = [&[auth.as_str(), "exec", "--user", CI1], tail.as_slice()].concat();
    let user = [&[jacamar.as_str(), "exec"], tail.as_slice()].concat();
    [("root", host.as_root(&root)), ("user", host.as_user(CI1, &user))].map(|(level, mut command)| {
        command.stdin(Stdio::piped());
        (level, command)
    })
}

#[test]
fn input_output_and_its_end_are_copied() {
    let script =
        "tty; stty -echo; echo ready; while read -r line; do echo \"got $line\"; done; echo end; exit 7";
    for (level, command) in commands(script) {
        let mut started = Started::new(command);
        started.wait_for("ready");
        started.feed(b"one\ntwo\n");
        let ran = started.finish();
        assert_eq!(ran.code, 7, "{level}: {ran}");
        assert!(ran.out.starts_with("/dev/pts/"), "{level}: {ran}");
        assert!(ran.out.ends_with("got one\r\ngot two\r\nend\r\n"), "{level}: {ran}");
    }
}

/// Its terminal takes no more than the command reads; the supervisor must not wait for that.
#[test]
fn a_command_that_does_not_read_can_be_ended() {
    for (level, command) in commands("stty -echo; echo ready; sleep 77777; sleep 77777") {
        let mut started = Started::new(command);
        started.wait_for("ready");
        let (pid, feeder) = (
            started.pid(),
            std::thread::spawn(move || {
                started.feed(&b"a line of many\n".repeat(50_000));
                started
            }),
        );
        // Until the pipe and the terminal are full.
        std::thread::sleep(Duration::from_millis(300));
        nix::sys::signal::kill(pid, Signal::SIGTERM).expect("our own child");
        let deadline = Instant::now() + Duration::from_secs(8);
        while !feeder.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if !feeder.is_finished() {
            nix::sys::signal::kill(pid, Signal::SIGKILL).expect("our own child");
        }
        let ran = feeder.join().expect("no panic").finish_within(Duration::from_secs(8));
        assert_eq!(ran.code, 143, "{level}: {ran}");
    }
}
