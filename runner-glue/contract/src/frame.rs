//! The frame: how two of our own processes say something to each other. No JSON, no format of somebody else.
//!
//! A frame is a header of 12 bytes and a payload of at most 64 KiB:
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | magic `JCMR` |
//! | 2 | version |
//! | 2 | kind |
//! | 4 | length of the payload |
//!
//! The payload is the kind's fields in fixed order, each with a length of 4 bytes before it. Numbers are big
//! endian. A field that may be absent is a flag, followed by the value if the flag says so. There is one encoding
//! of a value and every other sequence of bytes is an error with a name: bytes after the last field, a flag that
//! is neither 0 nor 1, a text that is not UTF-8 or not what its field takes.
//!
//! Both ends check: [`encode`] refuses to send what [`decode`] would refuse to take. Nothing is allocated
//! before its length was compared with a limit.

mod assembler;
mod field;

pub use assembler::Assembler;
pub use field::{Reader, Writer};

use crate::text::InvalidText;

/// The first bytes of every frame.
pub const MAGIC: [u8; 4] = *b"JCMR";

/// Version of all frames together. Both ends come from one installation, so there is no second one to speak.
pub const VERSION: u16 = 1;

/// Length of a header, in bytes.
pub const HEADER_BYTES: usize = 12;

/// Longest payload, in bytes.
pub const PAYLOAD_MAX_BYTES: usize = 64 * 1024;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// [`crate::verify::VerifyRequest`]
    VerifyRequest = 1,
    /// [`crate::claims::Claims`]
    Claims = 2,
    /// [`crate::verify::VerifyRefused`]
    VerifyRefused = 3,
    /// [`crate::keys::KeysRequest`]
    KeysRequest = 4,
    /// [`crate::keys::KeysFetched`]
    KeysFetched = 5,
    /// [`crate::keys::KeysFailed`]
    KeysFailed = 6,
    /// [`crate::stage_request::StageRequest`]
    StageRequest = 7,
    /// [`crate::stage_report::StageReport`]
    StageReport = 8,
    /// [`crate::resolve::ResolveRequest`]
    ResolveRequest = 9,
    /// [`crate::resolve::Resolved`]
    Resolved = 10,
    /// [`crate::resolve::ResolveRefused`]
    ResolveRefused = 11,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::VerifyRequest,
        Self::Claims,
        Self::VerifyRefused,
        Self::KeysRequest,
        Self::KeysFetched,
        Self::KeysFailed,
        Self::StageRequest,
        Self::StageReport,
        Self::ResolveRequest,
        Self::Resolved,
        Self::ResolveRefused,
    ];

    /// The number in the header.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    fn from_number(number: u16) -> Result<Self, FrameError> {
        let kind = Self::ALL.into_iter().find(|kind| kind.number() == number);
        kind.ok_or(FrameError::UnknownKind { number })
    }
}

/// Bytes that are not the frame that was asked for. The texts of strangers are not repeated in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end before the frame does.
    #[error("the frame ends after {have_bytes} of {need_bytes} bytes")]
    Short {
        /// Bytes there.
        have_bytes: usize,
        /// Bytes needed at least.
        need_bytes: usize,
    },
    /// The first four bytes are others.
    #[error("not a frame (it begins with {found:02x?})")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A frame of another version of ours.
    #[error("frame version {found}, this program speaks {VERSION}")]
    Version {
        /// The version.
        found: u16,
    },
    /// No kind has this number.
    #[error("frame kind {number} is unknown")]
    UnknownKind {
        /// The number.
        number: u16,
    },
    /// A frame of another kind than the one that was asked for.
    #[error("frame kind {found:?} in place of {expected:?}")]
    OtherKind {
        /// What was asked for.
        expected: Kind,
        /// What came.
        found: Kind,
    },
    /// A payload above [`PAYLOAD_MAX_BYTES`].
    #[error("the frame's payload has {bytes} bytes, at most {PAYLOAD_MAX_BYTES} are taken")]
    PayloadTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Bytes after the last field, or after the frame.
    #[error("{bytes} bytes after the end")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The payload ends inside of this field or before it.
    #[error("field {field} is cut off")]
    FieldShort {
        /// The field.
        field: &'static str,
    },
    /// The field is longer than it may be.
    #[error("field {field} has {bytes} bytes, at most {max_bytes} are taken")]
    FieldTooLong {
        /// The field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// Bytes allowed.
        max_bytes: usize,
    },
    /// A number or a flag of another size.
    #[error("field {field} has {bytes} bytes in place of {expected_bytes}")]
    FieldSize {
        /// The field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The length of its type.
        expected_bytes: usize,
    },
    /// A text that is not UTF-8.
    #[error("field {field} is not UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// A number that stands for nothing: a flag of neither 0 nor 1, an unknown rule.
    #[error("field {field} is {number}, which has no meaning")]
    Meaningless {
        /// The field.
        field: &'static str,
        /// The number.
        number: u64,
    },
    /// A list with more entries than it may have.
    #[error("field {field} has {count} entries, at most {max_count} are taken")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Its entries.
        count: usize,
        /// Entries allowed.
        max_count: usize,
    },
    /// A text or a number that its field does not take.
    #[error("field {0}")]
    Invalid(#[from] InvalidText),
    /// What follows the frame is not as long as the frame says.
    #[error("{have_bytes} bytes follow the frame, it announces {need_bytes}")]
    Body {
        /// Bytes there.
        have_bytes: u64,
        /// Bytes announced.
        need_bytes: u64,
    },
    /// What follows the frame is longer than it may be.
    #[error("{bytes} bytes would follow the frame, at most {max_bytes} are taken")]
    BodyTooLong {
        /// Bytes announced.
        bytes: u64,
        /// Bytes allowed.
        max_bytes: u64,
    },
}

/// A value that travels in a frame.
pub trait Payload: Sized {
    /// The frame's kind.
    const KIND: Kind;

    /// Whether every field is what it may be. Both [`encode`] and [`decode`] ask.
    ///
    /// # Errors
    /// The first field that is not.
    fn check(&self) -> Result<(), FrameError>;

    /// Writes the fields in their order.
    fn write(&self, fields: &mut Writer);

    /// Reads the fields in their order.
    ///
    /// # Errors
    /// The first field that cannot be read.
    fn read(fields: &mut Reader<'_>) -> Result<Self, FrameError>;
}

/// The value as a frame.
///
/// # Errors
/// What [`Payload::check`] says, and [`FrameError::PayloadTooLong`].
pub fn encode<P: Payload>(value: &P) -> Result<Vec<u8>, FrameError> {
    value.check()?;
    let mut fields = Writer::default();
    value.write(&mut fields);
    let payload = fields.into_bytes();
    let length = match u32::try_from(payload.len()) {
        Ok(length) if payload.len() <= PAYLOAD_MAX_BYTES => length,
        Ok(_) | Err(_) => return Err(FrameError::PayloadTooLong { bytes: payload.len() }),
    };
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&VERSION.to_be_bytes());
    frame.extend_from_slice(&P::KIND.number().to_be_bytes());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// The value of a frame that is all of `bytes`.
///
/// # Errors
/// [`FrameError`], with [`FrameError::Trailing`] for bytes after the frame.
pub fn decode<P: Payload>(bytes: &[u8]) -> Result<P, FrameError> {
    let (value, rest) = split(bytes)?;
    if rest.is_empty() { Ok(value) } else { Err(FrameError::Trailing { bytes: rest.len() }) }
}

/// The value of the frame that `bytes` begin with, and the bytes after it.
///
/// # Errors
/// [`FrameError`]
pub fn split<P: Payload>(bytes: &[u8]) -> Result<(P, &[u8]), FrameError> {
    let header = Header::read(bytes)?;
    if header.kind != P::KIND {
        return Err(FrameError::OtherKind { expected: P::KIND, found: header.kind });
    }
    let need_bytes = header.frame_bytes();
    let (Some(payload), Some(rest)) = (bytes.get(HEADER_BYTES..need_bytes), bytes.get(need_bytes..)) else {
        return Err(FrameError::Short { have_bytes: bytes.len(), need_bytes });
    };
    let mut fields = Reader::new(payload);
    let value = P::read(&mut fields)?;
    fields.finish()?;
    value.check()?;
    Ok((value, rest))
}

/// The kind of the frame that `bytes` begin with, where more than one may come.
///
/// # Errors
/// [`FrameError`] if the bytes do not begin with a whole header.
pub fn kind(bytes: &[u8]) -> Result<Kind, FrameError> {
    Header::read(bytes).map(|header| header.kind)
}

/// A header that was checked.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: Kind,
    payload_bytes: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, FrameError> {
        let short = FrameError::Short { have_bytes: bytes.len(), need_bytes: HEADER_BYTES };
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(short) };
        let [m0, m1, m2, m3, v0, v1, k0, k1, l0, l1, l2, l3] = *header;
        let found = [m0, m1, m2, m3];
        if found != MAGIC {
            return Err(FrameError::Magic { found });
        }
        let version = u16::from_be_bytes([v0, v1]);
        if version != VERSION {
            return Err(FrameError::Version { found: version });
        }
        let kind = Kind::from_number(u16::from_be_bytes([k0, k1]))?;
        let bytes = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if bytes > PAYLOAD_MAX_BYTES {
            return Err(FrameError::PayloadTooLong { bytes });
        }
        Ok(Self { kind, payload_bytes: bytes })
    }

    fn frame_bytes(self) -> usize {
        HEADER_BYTES + self.payload_bytes
    }
}
