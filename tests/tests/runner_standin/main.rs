//! The runner stand-in, the GitLab stand-in and the helper, without any part of the product: a scripted driver
//! stands where the product's driver will stand.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what a test does not find fails it")]

mod configuration;
mod exit_codes;
mod life;
mod order;
mod recordings;
mod scenario;
mod scripts;
mod support;
mod whole_job;
