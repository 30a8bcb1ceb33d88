//! The only program that ever holds privilege.
//!
//! It parses no token, speaks no HTTP and links no database. What strangers wrote is parsed by processes that cannot
//! act.
#![forbid(unsafe_code)]

mod cli;
mod exec;

pub use cli::run;
