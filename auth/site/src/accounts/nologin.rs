//! nologin(5): while one of two files is there, nobody but root logs in.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Longest text that is shown, in bytes.
const TEXT_MAX_BYTES: u64 = 4096;
/// In the order of Jacamar's documentation.
const FILES: [&str; 2] = ["/etc/nologin", "/var/run/nologin"];

/// Logins are closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nologin {
    /// Which file says so.
    pub path: String,
    /// Its text, at most 4 KiB, for the job log; may be empty.
    pub text: String,
}

/// Whether logins are closed, and the site's words.
///
/// # Errors
/// A file is there, as far as can be seen, and cannot be read: `open` or `read` with its path. Whoever asks
/// should take this as closed.
pub fn nologin() -> Result<Option<Nologin>, NologinError> {
    for file in FILES {
        if let Some(found) = read(Path::new(file))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A nologin file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{call}({path:?})")]
pub struct NologinError {
    /// Name of the call.
    pub call: &'static str,
    /// The file.
    pub path: String,
    /// Its error.
    pub source: io::Error,
}

fn read(path: &Path) -> Result<Option<Nologin>, NologinError> {
    let name = path.display().to_string();
    // O_NONBLOCK: a pipe in the file's place does not hold us (open(2)).
    let file = match OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(NologinError { call: "open", path: name, source }),
    };
    let mut bytes = Vec::new();
    match file.take(TEXT_MAX_BYTES).read_to_end(&mut bytes) {
        Ok(_) => Ok(Some(Nologin { path: name, text: String::from_utf8_lossy(&bytes).into_owned() })),
        Err(source) => Err(NologinError { call: "read", path: name, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_closes_logins_with_its_text() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("nologin");
        assert_eq!(read(&path).expect("open"), None);
        fs::write(&path, "down until noon\n").expect("write");
        assert_eq!(read(&path).expect("open").expect("closed").text, "down until noon\n");
        fs::write(&path, "").expect("write");
        assert_eq!(read(&path).expect("open").expect("closed").text, "");
    }

    #[test]
    fn its_text_is_bounded_and_shown_as_it_can_be() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("nologin");
        fs::write(&path, [b'\xff'; 100_000]).expect("write");
        let text = read(&path).expect("open").expect("closed").text;
        assert_eq!(text.chars().count(), 4096);
        assert!(text.chars().all(|c| c == char::REPLACEMENT_CHARACTER));
    }

    #[test]
    fn what_is_there_and_cannot_be_read_is_an_error() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let error = read(directory.path()).expect_err("a directory");
        assert_eq!(error.call, "read");
        let error = read(&directory.path().join("x\0y")).expect_err("NUL");
        assert_eq!(error.call, "open");
    }
}
