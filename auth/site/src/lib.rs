//! What the site wrote and who its people are.
//!
//! `site` reads files and asks the name service; it decides nothing. It grants no account, starts no program,
//! changes no file, opens no network connection of its own and looks at no environment variable. What it
//! reads is either root's (see [`trusted_file`]) or it is refused.
//!
//! - [`source`]: a text with a name, and errors that point into it.
//! - [`config`]: the keys of Jacamar's configuration and of `[sandbox]`, and what they mean.
//! - [`trusted_file`]: files and programs that only root (or the caller) can have written.
//! - [`profile`]: the keys of a sandbox profile, in systemd's vocabulary.
//! - [`accounts`]: passwd, groups, `login.defs`, `nologin`. The name service is asked here and nowhere else.
#![forbid(unsafe_code)]

pub mod accounts;
pub mod config;
pub mod profile;
pub mod source;
pub mod trusted_file;
