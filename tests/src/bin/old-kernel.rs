//! Runs a command under a filter that answers ENOSYS, as an old kernel, to every system call that is newer than Linux
//! 4.18; with `--errno EPERM` those that the product makes get EPERM, as in containers.
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
    let (answer, command) = match arguments.as_slice() {
        [option, errno, dashes, command @ ..] if option == "--errno" && dashes == "--" => {
            (errno.as_str(), command)
        }
        [dashes, command @ ..] if dashes == "--" => ("ENOSYS", command),
        _ => bail!("usage: old-kernel [--errno ENOSYS|EPERM] -- COMMAND..."),
    };
    let answer = match answer {
        "ENOSYS" => Errno::ENOSYS,
        "EPERM" => Errno::EPERM,
        other => bail!("{other} is neither ENOSYS nor EPERM"),
    };
    let [program, rest @ ..] = command else { bail!("no command") };
    load_filter(&filter(answer)).context("could not load the filter (this takes root)")?;
    Err(Command::new(program).args(rest).exec()).with_context(|| format!("could not execute {program}"))
}

fn filter(answer: Errno) -> Vec<Instruction> {
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
    for (_, number) in OF_THE_PRODUCT {
        program.push(Instruction { code: JUMP_EQUAL, jt: 0, jf: 1, k: number });
        program.push(refuse(answer));
    }
    program.push(Instruction { code: JUMP_GREATER_EQUAL, jt: 0, jf: 1, k: FIRST_NEWER });
    program.push(refuse(Errno::ENOSYS));
    program.push(statement(RETURN, ALLOW));
    program
}
