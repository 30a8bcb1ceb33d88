//! The only program that ever holds privilege.
//!
//! It parses no token, speaks no HTTP and links no database. What strangers wrote is parsed by processes that cannot
//! act.
#![forbid(unsafe_code)]

mod audit;
mod cli;
mod debug;
mod exec;
mod gc;
mod helper;
mod identity;
mod keeper;
mod resolving;
mod stage;
mod stale;

pub use cli::run;
