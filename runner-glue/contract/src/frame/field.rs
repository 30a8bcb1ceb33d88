//! The fields of a payload, written and read in the same order.

use super::FrameError;

/// Writes fields one after the other.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A text.
    pub fn text(&mut self, text: &str) {
        self.field(text.as_bytes());
    }

    /// A number of 8 bytes.
    pub fn number(&mut self, number: u64) {
        self.field(&number.to_be_bytes());
    }

    /// A number of 2 bytes that stands for something.
    pub fn word(&mut self, word: u16) {
        self.field(&word.to_be_bytes());
    }

    /// Yes or no.
    pub fn flag(&mut self, flag: bool) {
        self.field(&[u8::from(flag)]);
    }

    /// A flag and, if there is one, the value.
    pub fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn field(&mut self, bytes: &[u8]) {
        // A length that does not fit makes the payload longer than a frame takes: `encode` refuses it.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(bytes);
    }
}

/// Reads fields one after the other.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// A text of at most `max_bytes` bytes.
    ///
    /// # Errors
    /// [`FrameError::FieldShort`], [`FrameError::FieldTooLong`], [`FrameError::NotUtf8`]
    pub fn text(&mut self, field: &'static str, max_bytes: usize) -> Result<String, FrameError> {
        let bytes = self.field(field)?;
        if bytes.len() > max_bytes {
            return Err(FrameError::FieldTooLong { field, bytes: bytes.len(), max_bytes });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| FrameError::NotUtf8 { field })?;
        Ok(text.to_owned())
    }

    /// A number of 8 bytes.
    ///
    /// # Errors
    /// [`FrameError::FieldShort`], [`FrameError::FieldSize`]
    pub fn number(&mut self, field: &'static str) -> Result<u64, FrameError> {
        self.sized(field).map(u64::from_be_bytes)
    }

    /// A number of 2 bytes that stands for something.
    ///
    /// # Errors
    /// [`FrameError::FieldShort`], [`FrameError::FieldSize`]
    pub fn word(&mut self, field: &'static str) -> Result<u16, FrameError> {
        self.sized(field).map(u16::from_be_bytes)
    }

    /// Yes or no.
    ///
    /// # Errors
    /// [`FrameError::FieldShort`], [`FrameError::FieldSize`], [`FrameError::Meaningless`]
    pub fn flag(&mut self, field: &'static str) -> Result<bool, FrameError> {
        match self.sized(field)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(FrameError::Meaningless { field, number: u64::from(other) }),
        }
    }

    /// A flag and, if it says so, the value.
    ///
    /// # Errors
    /// Those of [`Reader::flag`] and of `read`.
    pub fn optional<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, FrameError>,
    ) -> Result<Option<T>, FrameError> {
        self.flag(field)?.then(|| read(self)).transpose()
    }

    pub(super) fn finish(self) -> Result<(), FrameError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FrameError::Trailing { bytes: self.rest.len() }) }
    }

    fn sized<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FrameError> {
        let bytes = self.field(field)?;
        bytes.try_into().map_err(|_| FrameError::FieldSize { field, bytes: bytes.len(), expected_bytes: N })
    }

    fn field(&mut self, field: &'static str) -> Result<&'a [u8], FrameError> {
        let short = FrameError::FieldShort { field };
        let Some((length, rest)) = self.rest.split_first_chunk::<4>() else { return Err(short) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((bytes, rest)) = rest.split_at_checked(length) else { return Err(short) };
        self.rest = rest;
        Ok(bytes)
    }
}
