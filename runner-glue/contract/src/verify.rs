//! The question to `jacamar verify` and its answer.
//!
//! Three things are too large or too secret for a frame and travel as descriptors of their own: the runner's
//! response file (it holds the token, so the token is in no frame and in no argument), and the key set, opaque
//! bytes. See [`descriptor`] for their numbers and the limits for their sizes. `verify` asks the clock itself.
//!
//! The answer is one frame, [`Claims`] or [`VerifyRefused`], and the end of the pipe.

use crate::claims::{Claims, ISSUER_MAX_BYTES};
use crate::frame::{self, FrameError, Kind, Payload, Reader, Writer};
use crate::rule::{Reasoned, fixed_rules};
use crate::text::{Charset, check, check_optional};

/// Descriptors of `jacamar verify`. Descriptor 2 is for what a developer reads.
pub mod descriptor {
    /// The [`super::VerifyRequest`], one frame.
    pub const REQUEST: i32 = 0;
    /// The [`super::VerifyAnswer`], one frame.
    pub const ANSWER: i32 = 1;
    /// The runner's response file, open for reading.
    pub const RESPONSE: i32 = 3;
    /// The key set (JWKS) as fetched, open for reading.
    pub const KEYS: i32 = 4;
}

/// Largest response file that is read, in bytes. A job of a thousand variables of 8 KiB has half of it.
pub const RESPONSE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Longest token that is looked at, in bytes. GitLab's have about 2 KiB.
pub const TOKEN_MAX_BYTES: usize = 64 * 1024;

/// Longest name of the token's variable, in bytes.
pub const VARIABLE_MAX_BYTES: usize = 255;

/// What `jacamar-auth` wants to know. All of it comes from the site's configuration, nothing from the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyRequest {
    /// `iss` must be exactly this.
    pub issuer: String,
    /// `aud` must hold exactly this; `None`: any audience.
    pub audience: Option<String>,
    /// `runner_id` must be this; `None`: it is not compared.
    pub runner_id: Option<u64>,
    /// Name of the variable in the response file that holds the token.
    pub token_variable: String,
}

impl Payload for VerifyRequest {
    const KIND: Kind = Kind::VerifyRequest;

    fn check(&self) -> Result<(), FrameError> {
        check("issuer", &self.issuer, ISSUER_MAX_BYTES, Charset::Ascii)?;
        check_optional("audience", self.audience.as_deref(), ISSUER_MAX_BYTES, Charset::Ascii)?;
        check("token_variable", &self.token_variable, VARIABLE_MAX_BYTES, Charset::VariableName)?;
        Ok(())
    }

    fn write(&self, fields: &mut Writer) {
        fields.text(&self.issuer);
        fields.optional(self.audience.as_deref(), Writer::text);
        fields.optional(self.runner_id, Writer::number);
        fields.text(&self.token_variable);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FrameError> {
        Ok(Self {
            issuer: fields.text("issuer", ISSUER_MAX_BYTES)?,
            audience: fields.optional("audience", |fields| fields.text("audience", ISSUER_MAX_BYTES))?,
            runner_id: fields.optional("runner_id", |fields| fields.number("runner_id"))?,
            token_variable: fields.text("token_variable", VARIABLE_MAX_BYTES)?,
        })
    }
}

fixed_rules! {
    /// Why a job's token was not believed.
    VerifyRule in VerifyRefused {
        /// The response file has no such variable.
        NoToken = 1 "no_token" "is not set, so nobody vouches for this job"
        /// Longer than [`TOKEN_MAX_BYTES`].
        TokenTooLarge = 3 "token_too_large" "is longer than any token of GitLab's"
        /// Not three parts of base64url with JSON in them.
        Malformed = 4 "malformed" "is not a JSON Web Token"
        /// `alg` is not RS256.
        Algorithm = 5 "algorithm" "is not signed by RS256"
        /// The key set has no key with this `kid`.
        UnknownKey = 6 "unknown_key" "is signed with a key that the GitLab server does not have"
        /// The signature is not the key's.
        Signature = 7 "signature" "has a wrong signature"
        /// `exp` has passed.
        Expired = 8 "expired" "has expired"
        /// `nbf` or `iat` lies ahead.
        NotYetValid = 9 "not_yet_valid" "is not valid yet"
        /// `iss` is another server.
        Issuer = 10 "issuer" "comes from another server than the one this site trusts"
        /// `aud` does not hold the required audience.
        Audience = 11 "audience" "is for another audience than this site's"
        /// A claim that is needed is not there.
        ClaimMissing = 12 "claim_missing" "is missing"
        /// A claim does not have GitLab's form.
        ClaimInvalid = 13 "claim_invalid" "does not have GitLab's form"
        /// `job_id` is not the response file's.
        JobMismatch = 14 "job_mismatch" "belongs to another job"
        /// `job_project_id`, or else `project_id`, is not the response file's.
        ProjectMismatch = 15 "project_mismatch" "belongs to another project"
        /// `pipeline_id` is not the response file's.
        PipelineMismatch = 16 "pipeline_mismatch" "belongs to another pipeline"
        /// `user_id` is not the response file's, where that says one.
        UserMismatch = 17 "user_mismatch" "belongs to another user than the job"
        /// `runner_id` is not the configured one.
        RunnerMismatch = 18 "runner_mismatch" "is for another runner"
        /// The response file is not the JSON that the runner writes.
        ResponseUnreadable = 19 "response_unreadable" "is not what GitLab Runner writes"
        /// The response file is larger than [`RESPONSE_MAX_BYTES`].
        ResponseTooLarge = 20 "response_too_large" "is larger than 16 MiB"
        /// The key set is not a JSON Web Key Set.
        KeysUnreadable = 21 "keys_unreadable" "is not a JSON Web Key Set"
    }
}

impl VerifyRule {
    /// Whether the fault lies with the GitLab server or the configuration, so that the stage is broken and the
    /// runner may try again. Every other rule is a refusal.
    #[must_use]
    pub fn is_breakage(self) -> bool {
        self == Self::KeysUnreadable
    }
}

/// A token that was not believed.
pub type VerifyRefused = Reasoned<VerifyRule>;

/// What `jacamar verify` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyAnswer {
    /// The token is GitLab's, for this job.
    Claims(Box<Claims>),
    /// The token is not believed.
    Refused(VerifyRefused),
}

/// Claims that do not fit what was asked for: `verify` does not do its work, and the stage is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("verify answered claims with another {field} than it was asked for")]
pub struct Unasked {
    /// The claim.
    pub field: &'static str,
}

impl VerifyAnswer {
    /// The answer as one frame.
    ///
    /// # Errors
    /// [`FrameError`] if a text of the refusal is empty, too long or has control characters.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        match self {
            Self::Claims(claims) => frame::encode(claims.as_ref()),
            Self::Refused(refused) => frame::encode(refused),
        }
    }

    /// The answer of a frame that is all of `bytes`.
    ///
    /// # Errors
    /// [`FrameError`], with [`FrameError::OtherKind`] for a frame that is no answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        match frame::kind(bytes)? {
            Kind::VerifyRefused => frame::decode(bytes).map(Self::Refused),
            Kind::Claims
            | Kind::VerifyRequest
            | Kind::KeysRequest
            | Kind::KeysFetched
            | Kind::KeysFailed
            | Kind::StageRequest
            | Kind::StageReport
            | Kind::ResolveRequest
            | Kind::Resolved
            | Kind::ResolveRefused => frame::decode(bytes).map(|claims| Self::Claims(Box::new(claims))),
        }
    }
}

/// Compares the claims once more with the question, in the process that acts on them.
///
/// # Errors
/// [`Unasked`] with the first claim that is another.
pub fn compare(request: &VerifyRequest, claims: &Claims) -> Result<(), Unasked> {
    let claims = claims.fields();
    let field = if claims.issuer != request.issuer {
        "iss"
    } else if request.audience.is_some() && claims.audience != request.audience {
        "aud"
    } else if request.runner_id.is_some_and(|id| claims.runner_id != id) {
        "runner_id"
    } else {
        return Ok(());
    };
    Err(Unasked { field })
}
