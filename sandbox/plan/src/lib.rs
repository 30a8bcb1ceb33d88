//! What will be done, as plain data.
//!
//! `plan` performs no I/O. It does not know what time it is, which user runs it or which kernel it runs on:
//! all of that comes in as [`Host`], [`Site`], [`Profile`] and [`Job`], and a [`Plan`] comes out. So every
//! question about behaviour is a unit test that needs no privileges.
#![forbid(unsafe_code)]

mod words;

pub use words::{Account, Grant, InvalidSubStage, Level, Outcome, Refusal, Stage, SubStage, SubStageKind};
