//! x
mod build;
pub(crate) mod clock;
mod config;
mod failure;
mod flags;
mod go;
mod scripts;
mod settings;
mod stage;
mod variables;
mod version;
