//! The driver is killed before each of its system calls that changes something, in every stage, in `exec` and in `gc`;
//! then `gc` alone leaves nothing of the job, and the next job of the same user works.
//!
//! strace(1) counts the calls of the supervisor, not of its children, and sends it SIGKILL on entry, so that the call does
//! not happen: what the one before it made is there, and what it makes is not. Each kill is a job of its own, whose runner
//! ends with the stage.
//!
//! Left out, because nothing outside of the process differs before and after: reads, polls, waits, descriptors that are
//! closed or opened for reading, memory, signals' masks. Left out besides: kills of process 1 and of the user's side
//! (`attacks/kills.rs`, `e2e/killed.rs`), calls of the child before it executes (`attacks/fails.rs`), `config` while it
//! fetches keys (a kill may leave a part of a file in `<state>/keys`), `config` below the root level, and at the user level
//! `run`.
#![expect(clippy::indexing_slicing, clippy::print_stderr, reason = "what a test does not find fails it")]
#![allow(dead_code, reason = "modules of e2e/, which uses all of them")]

#[path = "../e2e/collector.rs"]
mod collector;
#[path = "../e2e/direct.rs"]
mod direct;
#[path = "../e2e/golden.rs"]
mod golden;
mod kills;
#[path = "../e2e/place.rs"]
mod place;
