//! System calls, one function each.
#![allow(unsafe_code, reason = "this is the one crate that may")]
