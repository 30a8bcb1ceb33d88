//! Builds the host of the tests and runs a command in it: what `make demo` uses, and what one starts to look around.
//!
//! `testbed-host [--as NAME] [--show DIRECTORY]... -- COMMAND...`; the command's exit code is its own.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a program for developers, whose messages go there")]

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use testbed::host::{Host, SHOWN, holder_main};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match holder_main(&arguments) {
        Some(held) => held.map(|()| 0),
        None => run(&arguments),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("testbed-host: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn run(arguments: &[String]) -> Result<u8> {
    let mut user = None;
    let mut shown = Vec::new();
    let mut rest = arguments.iter();
    loop {
        match rest.next().map(String::as_str) {
            Some("--as") => user = Some(rest.next().context("--as takes the name of an account")?.clone()),
            Some("--show") => shown.push(rest.next().context("--show takes a directory")?.clone()),
            Some("--") => break,
            Some(_) | None => {
                bail!(
                    "usage: testbed-host [--as NAME] [--show DIRECTORY]... -- COMMAND... (shown below {SHOWN})"
                )
            }
        }
    }
    let command: Vec<&str> = rest.map(String::as_str).collect();
    if command.is_empty() {
        bail!("no command after --");
    }
    let host = Host::build_with(&shown)?;
    let mut command = match &user {
        Some(name) => host.as_user(name, &command),
        None => host.as_root(&command),
    };
    let status = command.stdin(Stdio::inherit()).status().context("could not start nsenter")?;
    let code = status.code().or(status.signal().map(|signal| signal + 128)).unwrap_or(125);
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
