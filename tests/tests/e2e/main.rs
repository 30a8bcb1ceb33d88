//! Whole jobs from end to end: GitLab stand-in, runner stand-in, the installed programs, real accounts, and bad input of
//! every kind.
//!
//! A test's thread enters the built host's mount namespace and does all of its work there; so do the threads and
//! processes that it starts. Each has a GitLab, a configuration and a directory for the runner of its own.
#![expect(clippy::indexing_slicing, clippy::print_stderr, reason = "what a test does not find fails it")]

mod accounts;
mod audited;
mod breakages;
mod calls;
mod collector;
mod configuration;
mod direct;
mod exit_codes;
mod gc;
mod golden;
mod helpers;
mod keeper;
mod killed;
mod left;
mod place;
mod record;
mod refusal;
mod secrecy;
mod settings;
mod success;
mod tokens;
mod turns;
mod user_level;
