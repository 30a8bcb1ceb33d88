//! Runs a command under a filter that answers ENOSYS, as an old kernel, to every system call that is newer than Linux
//! 4.18; with `--errno EPERM` those that the product makes get EPERM, as in containers; with `--without CALL` that one of the
//! product's calls alone gets ENOSYS.
//!
//! Start it as root: no_new_privs is not set, so that programs with file capabilities keep them.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a program for developers, whose messages go there")]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use jacamar_kernel::{Errno, Instruction, load_filter};
use testbed::host::newer_calls::{FIRST_NEWER, OF_THE_PRODUCT};

fn main() -> ExitCode {
    // Only returns if it cannot execute the command.
    let error = match run() {
        Err(error) => error,
        Ok(never) => match never {},
    };
    eprintln!("old-kernel: {error:#}");
    ExitCode::from(125)
}

fn run() -> Result<std::convert::Infallible> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (filter, command) = match arguments.as_slice() {
        [option, errno, dashes, command @ ..] if option == "--errno" && dashes == "--" => {
            (old(errno)?, command)
        }
        [option, call, dashes, command @ ..] if option == "--without" && dashes == "--" => {
            (without(call)?, command)
        }
        [dashes, command @ ..] if dashes == "--" => (old("ENOSYS")?, command),
        _ => bail!("usage: old-kernel [--errno ENOSYS|EPERM | --without CALL] -- COMMAND..."),
    };
    let [program, rest @ ..] = command else { bail!("no command") };
    load_filter(&filter).context("could not load the filter (this takes root)")?;
    Err(Command::new(program).args(rest).exec()).with_context(|| format!("could not execute {program}"))
}

/// Every call newer than Linux 4.18.
fn old(answer: &str) -> Result<Vec<Instruction>> {
    let answer = match answer {
        "ENOSYS" => Errno::ENOSYS,
        "EPERM" => Errno::EPERM,
        other => bail!("{other} is neither ENOSYS nor EPERM"),
    };
    let calls: Vec<(u32, Errno)> = OF_THE_PRODUCT.iter().map(|(_, number)| (*number, answer)).collect();
    Ok(filter(&calls, Some(FIRST_NEWER)))
}

/// One of those that the product makes.
fn without(name: &str) -> Result<Vec<Instruction>> {
    let found = OF_THE_PRODUCT.iter().find(|(known, _)| *known == name);
    let (_, number) = found.with_context(|| format!("{name} is none of the product's newer calls"))?;
    Ok(filter(&[(*number, Errno::ENOSYS)], None))
}

/// Answers these calls, and ENOSYS to all from a number on.
fn filter(calls: &[(u32, Errno)], newer: Option<u32>) -> Vec<Instruction> {
    // `include/uapi/linux/bpf_common.h`, `seccomp.h`.
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_GREATER_EQUAL: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const OFFSET_NR: u32 = 0;
    const ALLOW: u32 = 0x7fff_0000;
    let statement = |code, k| Instruction { code, jt: 0, jf: 0, k };
    let refuse = |errno: Errno| statement(RETURN, 0x0005_0000 | (errno as i32).unsigned_abs());
    let mut program = vec![statement(LOAD, OFFSET_NR)];
    for (number, errno) in calls {
        program.push(Instruction { code: JUMP_EQUAL, jt: 0, jf: 1, k: *number });
        program.push(refuse(*errno));
    }
    if let Some(first) = newer {
        program.push(Instruction { code: JUMP_GREATER_EQUAL, jt: 0, jf: 1, k: first });
        program.push(refuse(Errno::ENOSYS));
    }
    program.push(statement(RETURN, ALLOW));
    program
}
