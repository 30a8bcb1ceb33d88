//! What our starter left open for us: descriptors with fixed numbers, read to their end.

use std::fs::File;
use std::io::{self, Read, Seek};

use jacamar_contract::frame::{self, HEADER_BYTES, PAYLOAD_MAX_BYTES, Payload};
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag, fstat};
use zeroize::Zeroizing;

/// Bytes that are never printed, and wiped when they are no longer needed.
pub(crate) struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A descriptor that the contract names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inherited {
    /// Its number.
    pub(crate) number: i32,
    /// What it should be.
    pub(crate) name: &'static str,
}

/// A descriptor that is not what the contract says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InheritedError {
    #[error("descriptor {number} ({name}) is not open")]
    Closed { number: i32, name: &'static str },
    #[error(
        "descriptor {number} ({name}) is {found}, not a file or a pipe; `jacamar-auth` starts this command"
    )]
    Kind { number: i32, name: &'static str, found: &'static str },
    #[error("descriptor {number} ({name}) has more than {max_bytes} bytes")]
    TooLarge { number: i32, name: &'static str, max_bytes: usize },
    #[error("descriptor {number} ({name}) grew while it was read")]
    Grew { number: i32, name: &'static str },
    #[error("descriptor {number} ({name}) could not be read")]
    Read { number: i32, name: &'static str, source: io::Error },
    #[error("descriptor {number} ({name}) is not the frame that was expected")]
    Frame { number: i32, name: &'static str, source: frame::FrameError },
}

impl Inherited {
    /// Everything that the descriptor gives, at most `max_bytes`.
    pub(crate) fn read(self, max_bytes: usize) -> Result<Secret, InheritedError> {
        let Self { number, name } = self;
        let read = |source: io::Error| InheritedError::Read { number, name, source };
        let fd = jacamar_kernel::inherited(number).map_err(|errno| self.not_opened(errno))?;
        let stat = fstat(&fd).map_err(|errno| read(errno.into()))?;
        let mut file = File::from(fd);
        let size = match kind(&stat) {
            Kind::File => Some(usize::try_from(stat.st_size).unwrap_or(usize::MAX)),
            Kind::Pipe => None,
            Kind::Other(found) => return Err(InheritedError::Kind { number, name, found }),
        };
        if size.is_some_and(|size| size > max_bytes) {
            return Err(InheritedError::TooLarge { number, name, max_bytes });
        }
        if size.is_some() {
            // The place in the file is shared with our starter, who may have read it too.
            file.rewind().map_err(read)?;
        }
        // One allocation that never moves: growing would leave copies that nobody wipes.
        let limit = size.unwrap_or(max_bytes).saturating_add(1);
        let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
        file.take(limit as u64).read_to_end(&mut bytes).map_err(read)?;
        match (bytes.len() < limit, size) {
            (true, _) => Ok(Secret(bytes)),
            (false, Some(_)) => Err(InheritedError::Grew { number, name }),
            (false, None) => Err(InheritedError::TooLarge { number, name, max_bytes }),
        }
    }

    /// The frame that is all that the descriptor gives.
    pub(crate) fn frame<P: Payload>(self) -> Result<P, InheritedError> {
        let Self { number, name } = self;
        let bytes = self.read(HEADER_BYTES + PAYLOAD_MAX_BYTES)?;
        frame::decode(bytes.as_bytes()).map_err(|source| InheritedError::Frame { number, name, source })
    }

    fn not_opened(self, errno: Errno) -> InheritedError {
        let Self { number, name } = self;
        if errno == Errno::EBADF {
            InheritedError::Closed { number, name }
        } else {
            InheritedError::Read { number, name, source: errno.into() }
        }
    }
}

/// What a descriptor can be.
pub(crate) enum Kind {
    /// A file, or a memfd.
    File,
    /// A pipe.
    Pipe,
    /// Anything else.
    Other(&'static str),
}

pub(crate) fn kind(stat: &FileStat) -> Kind {
    let found = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    match found {
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFIFO => Kind::Pipe,
        SFlag::S_IFCHR => Kind::Other("a terminal or a device"),
        SFlag::S_IFSOCK => Kind::Other("a socket"),
        SFlag::S_IFDIR => Kind::Other("a directory"),
        _ => Kind::Other("something else"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing() {
        let secret = Secret(Zeroizing::new(b"eyJhbGciOi".to_vec()));
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "Secret(..) Some(\n    Secret(..),\n)");
    }
}
