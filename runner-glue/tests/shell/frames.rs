//! The frames of GitLab Runner's versions: exit codes and standard input through each.

use jacamar_contract::stage_report::{Reached, ShellEnd, StageReport};

use crate::host::Host;

/// The runner's versions that differ.
pub(crate) const VERSIONS: [&str; 6] =
    ["19.1", "19.1 legacy eval", "18.0", "18.0 eval strategy", "17.4", "17.3"];

/// A script as that version writes it.
pub(crate) fn frame(version: &str, body: &str) -> Vec<u8> {
    let body = quoted(body);
    let old =
        "if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\nset +o noclobber\n";
    let middle = match version {
        "19.1" => format!(
            "trap 'exit 1' TERM\n\ncase \"$(set -o)\" in *\"pipefail\"*) set -o pipefail;; esac; set -o errexit\n\
             set +o noclobber\n(trap 'exit 1' TERM; eval {body}) < /dev/null\n"
        ),
        "19.1 legacy eval" => format!(
            "trap 'exit 1' TERM\n\ncase \"$(set -o)\" in *\"pipefail\"*) set -o pipefail;; esac; set -o errexit\n\
             set +o noclobber\n: | eval {body}\n"
        ),
        "18.0" | "17.4" => format!("trap exit 1 TERM\n\n{old}: | eval {body}\n"),
        "18.0 eval strategy" => format!("trap exit 1 TERM\n\n{old}: | (eval {body})\n"),
        "17.3" => format!("{old}: | eval {body}\n"),
        other => panic!("no runner {other}"),
    };
    format!("#!/usr/bin/env bash\n\n{middle}exit 0\n").into_bytes()
}

/// ANSI-C quoting, as the runner's helpers/shell_escape.go.
fn quoted(body: &str) -> String {
    let mut text = String::from("$'");
    for character in body.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\'' => text.push_str("\\'"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            other => text.push(other),
        }
    }
    text.push('\'');
    text
}

#[test]
fn an_exit_code_comes_out_unchanged() {
    let host = Host::new();
    for version in VERSIONS {
        for code in [0_u8, 1, 2, 42, 125, 126, 127, 143, 255] {
            let ran = host.run(&frame(version, &format!("echo begin\nexit {code}\n")));
            assert_eq!(ran.code, Some(code.into()), "{version}: {ran:?}");
            assert_eq!((ran.out.as_str(), ran.err.as_str()), ("begin\n", ""), "{version}");
            let report = StageReport { reached: Reached::Script, end: ShellEnd::Exited(code) };
            assert_eq!(ran.report, Some(report), "{version}");
        }
    }
}

#[test]
fn a_failing_command_ends_the_script() {
    for version in VERSIONS {
        let ran = Host::new().run(&frame(version, "ls /nowhere-at-all\necho not reached\n"));
        // The subshell of the newer frames has the command's code; for `: | eval` Bash itself says 1.
        let code = if version == "19.1" || version.ends_with("strategy") { 2 } else { 1 };
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{version}: {ran:?}");
    }
}

#[test]
fn standard_input_of_the_commands_is_empty() {
    for version in VERSIONS {
        let ran = Host::new().run(&frame(version, "cat\nread -r line || echo end of file\nwc -c\n"));
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), "end of file\n0\n"), "{version}: {ran:?}");
    }
}

#[test]
fn a_script_ended_by_a_signal_is_128_and_the_signal() {
    for (signal, number) in [("KILL", 9_u8), ("TERM", 15), ("SEGV", 11)] {
        let ran = Host::new().run(format!("#!/usr/bin/env bash\nkill -{signal} $$\n").as_bytes());
        assert_eq!(ran.code, Some(i32::from(number) + 128), "{ran:?}");
        assert!(
            ran.err.contains(&format!("jacamar: the shell was ended by SIG{signal} (exit code")),
            "{}",
            ran.err
        );
        let report = StageReport { reached: Reached::Script, end: ShellEnd::Signalled(number) };
        assert_eq!(ran.report, Some(report));
    }
}

#[test]
fn a_script_of_20_mib() {
    let body = format!("# {}\necho end\nexit 9\n", "x".repeat(20 * 1024 * 1024));
    for script in [frame("19.1", &body), format!("#!/usr/bin/env bash\n{body}").into_bytes()] {
        let ran = Host::new().run(&script);
        assert_eq!((ran.code, ran.out.as_str()), (Some(9), "end\n"));
    }
}

#[test]
fn a_script_keeps_its_bytes_and_line_numbers() {
    let host = Host::new();
    let ran = host.run(b"#!/usr/bin/env bash\nprintf '%s' \xff\xfe\n\necho $LINENO\nexit 0");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "\u{fffd}\u{fffd}4\n"), "{ran:?}");
    let ran = host.run(b"if true\nthen exit 6\nfi\n");
    assert_eq!(ran.code, Some(6), "no first line of `#!`: {ran:?}");
    let ran = host.run(b"");
    assert_eq!(ran.code, Some(0), "an empty script is one: {ran:?}");
}
