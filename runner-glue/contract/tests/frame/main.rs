//! The frames between our own processes: each error by name, and what holds for every value.
#![forbid(unsafe_code)]

mod bodies;
mod errors;
mod properties;
mod samples;
