//! The stages of the user side with a real Bash: the built `jacamar`, real processes.

mod bytes;
mod cleanup;
mod frames;
mod host;
mod prepare;
mod processes;
mod resolve;
mod script;
mod startup;
