//! A frame that arrives in pieces.

use super::{FrameError, HEADER_BYTES, Header};

/// Puts a frame together from what a pipe gives, piece by piece.
///
/// It takes no byte beyond the frame, so that what follows (a body) stays with the caller, and it holds at most
/// a header and the payload that the checked header announces. After an error it takes nothing more.
#[derive(Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
    header: Option<Header>,
}

impl Assembler {
    /// Takes the next bytes and says how many of them belong to the frame.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the header is there and is not one.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<usize, FrameError> {
        let mut taken = 0;
        while !bytes.is_empty() && !self.is_complete() {
            let (now, later) = bytes.split_at(bytes.len().min(self.need_bytes() - self.bytes.len()));
            self.bytes.extend_from_slice(now);
            taken += now.len();
            bytes = later;
            if self.header.is_none() && self.bytes.len() == HEADER_BYTES {
                self.header = Some(Header::read(&self.bytes)?);
            }
        }
        Ok(taken)
    }

    /// Whether the whole frame is there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.header.is_some() && self.bytes.len() == self.need_bytes()
    }

    /// The frame, for [`super::decode`].
    ///
    /// # Errors
    /// [`FrameError::Short`] if the other end closed before the frame was complete.
    pub fn finish(self) -> Result<Vec<u8>, FrameError> {
        if self.is_complete() {
            Ok(self.bytes)
        } else {
            Err(FrameError::Short { have_bytes: self.bytes.len(), need_bytes: self.need_bytes() })
        }
    }

    fn need_bytes(&self) -> usize {
        self.header.map_or(HEADER_BYTES, Header::frame_bytes)
    }
}
