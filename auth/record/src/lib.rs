//! The record of one job between its stages, and where records and other state live.
//!
//! Who can write a record can name an account: at root and capability level everything here belongs to root or the
//! keeper, never to the runner's account.
#![forbid(unsafe_code)]

mod state;

pub use state::{StateError, state_directory};
