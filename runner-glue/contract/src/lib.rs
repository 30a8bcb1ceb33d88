//! GitLab Runner's contract with a custom executor driver, and the frames between our own processes.
//!
//! `contract` performs no I/O, reads no clock and no environment: bytes and pairs come in, values come out.
//! It knows neither JSON Web Tokens nor the runner's response file: `jacamar verify` alone parses those.
//!
//! - [`driver`]: what the runner types; [`environment`] and [`job_variables`]: what it exports;
//! - [`config_json`]: what `config_exec` answers; [`exit`]: how a stage ends for the runner;
//! - [`frame`] and the values that travel in frames: [`claims`], [`verify`], [`keys`], [`rule`], [`resolve`], [`stage_request`],
//!   [`stage_report`];
//! - [`joblog`]: the words for the person who reads the job log.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod claims;
pub mod config_json;
pub mod driver;
pub mod environment;
pub mod exit;
pub mod frame;
pub mod job_variables;
pub mod joblog;
pub mod keys;
pub mod resolve;
pub mod rule;
pub mod stage_report;
pub mod stage_request;
pub mod text;
pub mod verify;
