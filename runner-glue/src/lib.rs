//! The user side: shell, keys, verify, tools. Never privileged.
#![forbid(unsafe_code)]

mod answer;
mod cli;
mod exec;
mod inherited;
mod keys;
mod shell;
mod stage;
mod verify;

pub use cli::run;
