//! What the shell reads: the job's script as it came, with one line of ours before its first character.
//!
//! The line announces the script on a private descriptor and closes that. It stands before the `#!` of the first
//! line, which is a comment to a shell that reads standard input, so the script's lines keep their numbers. It is
//! written for any shell: a start-up file may have replaced Bash (`exec zsh -l`), and Bash's own job is then that
//! shell's.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Context;
use jacamar_contract::stage_request::ProfileMode;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};

/// The private descriptor. One digit, as dash and zsh need it, and one that scripts seldom use.
pub(super) const ANNOUNCE: i32 = 8;

/// `2>/dev/null`: start-up files may have switched on `set -x`. A shell that cannot announce must not run the script,
/// or nobody could tell its end from that of a start-up file.
const ANNOUNCEMENT: &str = "{ printf . >&8 && exec 8>&-; } 2>/dev/null || exit 1";

/// What `bash --noprofile --login` leaves out and `JACAMAR_ETC_PROFILE_ONLY` wants.
const ETC_PROFILE: &str = "if [ -r /etc/profile ]; then . /etc/profile < /dev/null; fi; ";

/// The script in a file without a name, sealed, at its beginning.
#[derive(Debug)]
pub(crate) struct Feed(File);

impl Feed {
    pub(crate) fn new(profile: ProfileMode, script: &[u8]) -> anyhow::Result<Self> {
        let mut file = jacamar_kernel::memfd(c"script").context("could not make a memfd for the script")?;
        let first = first_line(profile, script);
        let written = file.write_all(first.as_bytes()).and_then(|()| file.write_all(script));
        written
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .context("could not write the script into its memfd")?;
        let seals =
            SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).context("could not seal the script's memfd")?;
        Ok(Self(file))
    }

    /// Whether anyone has read of it: the position is one for us and the shell.
    pub(super) fn was_read(&self) -> anyhow::Result<bool> {
        let mut file = &self.0;
        Ok(file.stream_position().context("could not ask the script's memfd for its position")? > 0)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn first_line(profile: ProfileMode, script: &[u8]) -> String {
    let before = match profile {
        ProfileMode::Login | ProfileMode::NoProfile => "",
        ProfileMode::EtcProfileOnly => ETC_PROFILE,
    };
    let after = if script.starts_with(b"#!") { " " } else { "\n" };
    format!("{before}{ANNOUNCEMENT}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_keeps_its_line_numbers() {
        let line = first_line(ProfileMode::Login, b"#!/usr/bin/env bash\n");
        assert!(line.ends_with("|| exit 1 ") && !line.contains('\n'), "{line}");
        let line = first_line(ProfileMode::EtcProfileOnly, b"if true\nthen :; fi\n");
        assert!(line.starts_with("if [ -r /etc/profile ]") && line.ends_with("|| exit 1\n"), "{line}");
        assert!(line.contains(&format!(">&{ANNOUNCE} && exec {ANNOUNCE}>&-")));
    }

    #[test]
    fn the_script_cannot_be_changed_by_whom_it_runs() {
        let feed = Feed::new(ProfileMode::Login, b"#!/bin/sh\nexit 0\n").expect("memfd");
        let mut file = &feed.0;
        assert!(file.write(b"x").is_err());
        assert!(file.set_len(0).is_err());
        assert!(!feed.was_read().expect("position"));
    }
}
