//! The user side: shell, keys, verify, tools. Never privileged.
#![forbid(unsafe_code)]

mod cli;
mod exec;

pub use cli::run;
