//! What the tests need of the world outside: a GitLab, a GitLab Runner and (later) a host of their own.
//!
//! Nothing here is part of the product, and the product never reads it: no mock, no switch and no weaker check
//! of the product's lives in this crate. The stand-ins do what the real programs do, so that the shipped
//! programs can be tested whole.
#![forbid(unsafe_code)]

pub mod gitlab;
pub mod host;
pub mod runner;
