//! The question to `jacamar resolve` and its answer: canonical forms of directories, as the CI user sees them.
//!
//! Home directories may be closed to root, so `config` asks a child that has become the user. Nothing is made. The
//! answer is the user's word: it is checked as text and used with the user's rights only.
//!
//! The answer is one frame, [`Resolved`] or [`ResolveRefused`], and the end of the pipe.

use jacamar_plan::Refusal;

use crate::environment::PATH_MAX_BYTES;
use crate::frame::{self, FrameError, HEADER_BYTES, Kind, PAYLOAD_MAX_BYTES, Payload, Reader, Writer};
use crate::rule::REASON_MAX_BYTES;
use crate::stage_request::read_count;
use crate::text::{Charset, InvalidText, TextProblem, check};

/// Descriptors of `jacamar resolve`. Descriptor 2 is for what a developer reads.
pub mod descriptor {
    /// The [`super::ResolveRequest`], one frame.
    pub const REQUEST: i32 = 0;
    /// The [`super::ResolveAnswer`], one frame.
    pub const ANSWER: i32 = 1;
}

/// Most paths of one question.
pub const PATHS_MAX_COUNT: usize = 8;

/// Longest answer, in bytes: nobody has to read more.
pub const ANSWER_MAX_BYTES: usize = HEADER_BYTES + PAYLOAD_MAX_BYTES;

/// Longest object of a refusal, in bytes: a path, or a path and where it came from.
const OBJECT_MAX_BYTES: usize = 2 * PATH_MAX_BYTES + REASON_MAX_BYTES;

/// Which directories, in what order: `data_dir`, `builds_dir`, `cache_dir`, whatever `config` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveRequest {
    /// Absolute paths, 1 to [`PATHS_MAX_COUNT`]. Their last components may not exist yet.
    pub paths: Vec<String>,
}

/// The same directories without any symbolic link in them, in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Canonical form of the longest part that exists, and the rest as it was.
    pub paths: Vec<String>,
}

/// A directory that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveRefused {
    /// The component.
    pub object: String,
    /// Why.
    pub cause: String,
    /// What helps; may be empty.
    pub hint: String,
}

/// What `resolve` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolveAnswer {
    /// As many paths as were asked for.
    Resolved(Resolved),
    /// None of them: this one cannot be used.
    Refused(ResolveRefused),
}

impl ResolveAnswer {
    /// The frame.
    ///
    /// # Errors
    /// [`FrameError`]
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        match self {
            Self::Resolved(resolved) => frame::encode(resolved),
            Self::Refused(refused) => frame::encode(refused),
        }
    }

    /// The answer of all bytes that the pipe gave to this question.
    ///
    /// # Errors
    /// [`FrameError`], with [`FrameError::Meaningless`] for another number of paths than was asked for.
    pub fn decode(bytes: &[u8], request: &ResolveRequest) -> Result<Self, FrameError> {
        match frame::kind(bytes)? {
            Kind::ResolveRefused => frame::decode(bytes).map(Self::Refused),
            Kind::Resolved
            | Kind::VerifyRequest
            | Kind::Claims
            | Kind::VerifyRefused
            | Kind::KeysRequest
            | Kind::KeysFetched
            | Kind::KeysFailed
            | Kind::StageRequest
            | Kind::StageReport
            | Kind::ResolveRequest => {
                let resolved: Resolved = frame::decode(bytes)?;
                if resolved.paths.len() != request.paths.len() {
                    let number = resolved.paths.len() as u64;
                    return Err(FrameError::Meaningless { field: "paths", number });
                }
                Ok(Self::Resolved(resolved))
            }
        }
    }
}

impl From<ResolveRefused> for Refusal {
    fn from(refused: ResolveRefused) -> Self {
        let ResolveRefused { object, cause, hint } = refused;
        Self { rule: "directory".to_owned(), object, cause, hint }
    }
}

fn check_paths(paths: &[String]) -> Result<(), FrameError> {
    if paths.is_empty() {
        return Err(InvalidText { field: "paths", problem: TextProblem::Empty }.into());
    }
    if paths.len() > PATHS_MAX_COUNT {
        let (count, max_count) = (paths.len(), PATHS_MAX_COUNT);
        return Err(FrameError::TooMany { field: "paths", count, max_count });
    }
    for path in paths {
        check("paths", path, PATH_MAX_BYTES, Charset::AbsolutePath)?;
    }
    Ok(())
}

fn write_paths(paths: &[String], fields: &mut Writer) {
    fields.number(paths.len() as u64);
    for path in paths {
        fields.text(path);
    }
}

fn read_paths(fields: &mut Reader<'_>) -> Result<Vec<String>, FrameError> {
    let count = read_count(fields, "paths", PATHS_MAX_COUNT)?;
    (0..count).map(|_| fields.text("paths", PATH_MAX_BYTES)).collect()
}

impl Payload for ResolveRequest {
    const KIND: Kind = Kind::ResolveRequest;

    fn check(&self) -> Result<(), FrameError> {
        check_paths(&self.paths)
    }

    fn write(&self, fields: &mut Writer) {
        write_paths(&self.paths, fields);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FrameError> {
        Ok(Self { paths: read_paths(fields)? })
    }
}

impl Payload for Resolved {
    const KIND: Kind = Kind::Resolved;

    fn check(&self) -> Result<(), FrameError> {
        check_paths(&self.paths)
    }

    fn write(&self, fields: &mut Writer) {
        write_paths(&self.paths, fields);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FrameError> {
        Ok(Self { paths: read_paths(fields)? })
    }
}

impl Payload for ResolveRefused {
    const KIND: Kind = Kind::ResolveRefused;

    fn check(&self) -> Result<(), FrameError> {
        check("object", &self.object, OBJECT_MAX_BYTES, Charset::Shown)?;
        check("cause", &self.cause, REASON_MAX_BYTES, Charset::Shown)?;
        if self.hint.is_empty() {
            return Ok(());
        }
        check("hint", &self.hint, OBJECT_MAX_BYTES, Charset::Shown)?;
        Ok(())
    }

    fn write(&self, fields: &mut Writer) {
        fields.text(&self.object);
        fields.text(&self.cause);
        fields.text(&self.hint);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FrameError> {
        Ok(Self {
            object: fields.text("object", OBJECT_MAX_BYTES)?,
            cause: fields.text("cause", REASON_MAX_BYTES)?,
            hint: fields.text("hint", OBJECT_MAX_BYTES)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(list: &[&str]) -> Vec<String> {
        list.iter().map(|path| (*path).to_owned()).collect()
    }

    fn refused() -> ResolveRefused {
        let text = str::to_owned;
        ResolveRefused { object: text("/a"), cause: text("permission denied"), hint: String::new() }
    }

    #[test]
    fn an_answer_belongs_to_its_question() {
        let two = ResolveRequest { paths: paths(&["/a", "/b/c"]) };
        let one = ResolveRequest { paths: paths(&["/a"]) };
        assert_eq!(frame::decode(&frame::encode(&two).expect("good")), Ok(two.clone()));
        let answer = ResolveAnswer::Resolved(Resolved { paths: paths(&["/x", "/y z"]) });
        let bytes = answer.encode().expect("good");
        assert_eq!(ResolveAnswer::decode(&bytes, &two), Ok(answer));
        let error = FrameError::Meaningless { field: "paths", number: 2 };
        assert_eq!(ResolveAnswer::decode(&bytes, &one), Err(error));
        let answer = ResolveAnswer::Refused(refused());
        assert_eq!(ResolveAnswer::decode(&answer.encode().expect("good"), &one), Ok(answer));
        let request = frame::encode(&one).expect("good");
        assert!(matches!(ResolveAnswer::decode(&request, &one), Err(FrameError::OtherKind { .. })));
    }

    #[test]
    fn what_is_no_path_is_not_sent() {
        for list in [paths(&[]), paths(&["a"]), paths(&["/a/../b"]), paths(&["/a\n"]), paths(&["/a"; 9])] {
            assert!(frame::encode(&ResolveRequest { paths: list.clone() }).is_err(), "{list:?}");
            assert!(frame::encode(&Resolved { paths: list }).is_err());
        }
        assert!(frame::encode(&ResolveRefused { cause: "a\x1b[2J".to_owned(), ..refused() }).is_err());
        let longest = format!("/{}", "x".repeat(PATH_MAX_BYTES - 1));
        assert!(frame::encode(&Resolved { paths: vec![longest; PATHS_MAX_COUNT] }).is_ok());
    }

    #[test]
    fn a_refusal_has_its_rule() {
        assert_eq!(Refusal::from(refused()).rule, "directory");
    }
}
