//! The answer of `keys` and `verify`: bytes on descriptor 1, and texts that fit into a frame.

use std::fs::File;
use std::io::Write;

use anyhow::{Context, bail};
use jacamar_contract::rule::REASON_MAX_BYTES;
use jacamar_contract::text::is_shown;
use nix::sys::stat::fstat;

use crate::inherited::{Kind, kind};

/// Writes the whole answer.
pub(crate) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let stdout = nix::unistd::dup(std::io::stdout()).context("descriptor 1 (answer)")?;
    if let Kind::Other(found) = kind(&fstat(&stdout).context("descriptor 1 (answer)")?) {
        bail!("descriptor 1 (answer) is {found}, not a file or a pipe; `jacamar-auth` starts this command");
    }
    File::from(stdout).write_all(bytes).context("descriptor 1 (answer)")
}

/// A text of a stranger or a library as a frame takes it: shown characters, at most [`REASON_MAX_BYTES`] bytes.
pub(crate) fn reason(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        let character = if is_shown(character) { character } else { '?' };
        if shown.len() + character.len_utf8() > REASON_MAX_BYTES {
            break;
        }
        shown.push(character);
    }
    if shown.is_empty() { "(empty)".to_owned() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_into_a_frame() {
        assert_eq!(reason("it's ä\n\x1b[31m"), "it's ä??[31m");
        assert_eq!(reason(""), "(empty)");
        assert_eq!(reason(&"ä".repeat(600)).len(), REASON_MAX_BYTES);
        assert_eq!(reason(&format!("a{}", "ä".repeat(600))).len(), REASON_MAX_BYTES - 1);
    }
}
