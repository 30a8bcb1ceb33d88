//! The question to `jacamar keys` and its answer.
//!
//! `keys` fetches the GitLab server's key set (JWKS) and knows nothing of any job. For whoever asked, what it
//! fetched is opaque bytes: only `verify` parses them. The site's CA bundle travels as a descriptor of its own
//! (see [`descriptor`]); a key set may be larger than a frame, so the answer is
//!
//! - [`KeysFetched`], a frame with the length, then exactly that many bytes, then the end of the pipe; or
//! - [`KeysFailed`], a frame, then the end of the pipe.
//!
//! A pipe that closes early is therefore never taken for a short key set.

use jacamar_plan::Refusal;

use crate::frame::{self, FrameError, HEADER_BYTES, Kind, PAYLOAD_MAX_BYTES, Payload, Reader, Writer};
use crate::rule::{Reasoned, fixed_rules};
use crate::text::{Charset, InvalidText, TextProblem, check, check_optional};

/// Descriptors of `jacamar keys`. Descriptor 2 is for what a developer reads.
pub mod descriptor {
    /// The [`super::KeysRequest`], one frame.
    pub const REQUEST: i32 = 0;
    /// The answer.
    pub const ANSWER: i32 = 1;
    /// The site's CA bundle (PEM), open for reading, if the request says so.
    pub const CA: i32 = 3;
}

/// Largest key set, in bytes. GitLab's has about 2 KiB.
pub const KEYS_MAX_BYTES: usize = 256 * 1024;

/// Largest answer, in bytes: nobody has to read more.
pub const ANSWER_MAX_BYTES: usize = HEADER_BYTES + PAYLOAD_MAX_BYTES + KEYS_MAX_BYTES;

/// Longest URL, in bytes.
pub const URL_MAX_BYTES: usize = 2048;

/// Longest time that a fetch may be given, in milliseconds.
pub const TIME_LIMIT_MAX_MS: u32 = 60_000;

/// What to fetch. All of it comes from the site's configuration, nothing from the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysRequest {
    /// The key set's URL.
    pub url: String,
    /// Whether `http://` is allowed: only where the site's own `gitlab_server` is one.
    pub allow_http: bool,
    /// Time for the whole fetch, in milliseconds, 1 to [`TIME_LIMIT_MAX_MS`].
    pub time_limit_ms: u32,
    /// Whether [`descriptor::CA`] is open; otherwise the host's own certificates count.
    pub own_ca: bool,
    /// The site's proxy (URL). The environment's `HTTPS_PROXY` never counts.
    pub proxy: Option<String>,
}

impl Payload for KeysRequest {
    const KIND: Kind = Kind::KeysRequest;

    fn check(&self) -> Result<(), FrameError> {
        check("url", &self.url, URL_MAX_BYTES, Charset::Ascii)?;
        let scheme = self.url.starts_with("https://") || (self.allow_http && self.url.starts_with("http://"));
        if !scheme {
            let wanted = if self.allow_http { "an http or https URL" } else { "an https URL" };
            return Err(InvalidText { field: "url", problem: TextProblem::Form(wanted) }.into());
        }
        check_optional("proxy", self.proxy.as_deref(), URL_MAX_BYTES, Charset::Ascii)?;
        let problem = match self.time_limit_ms {
            0 => TextProblem::Zero,
            1..=TIME_LIMIT_MAX_MS => return Ok(()),
            found => TextProblem::TooLarge { found: found.into(), max: TIME_LIMIT_MAX_MS.into() },
        };
        Err(InvalidText { field: "time_limit_ms", problem }.into())
    }

    fn write(&self, fields: &mut Writer) {
        fields.text(&self.url);
        fields.flag(self.allow_http);
        fields.number(self.time_limit_ms.into());
        fields.flag(self.own_ca);
        fields.optional(self.proxy.as_deref(), Writer::text);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FrameError> {
        let url = fields.text("url", URL_MAX_BYTES)?;
        let allow_http = fields.flag("allow_http")?;
        let found = fields.number("time_limit_ms")?;
        let time_limit_ms = u32::try_from(found).map_err(|_| InvalidText {
            field: "time_limit_ms",
            problem: TextProblem::TooLarge { found, max: TIME_LIMIT_MAX_MS.into() },
        })?;
        let own_ca = fields.flag("own_ca")?;
        let proxy = fields.optional("proxy", |fields| fields.text("proxy", URL_MAX_BYTES))?;
        Ok(Self { url, allow_http, time_limit_ms, own_ca, proxy })
    }
}

/// A key set follows this frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysFetched {
    /// Its length in bytes, 1 to [`KEYS_MAX_BYTES`].
    pub keys_bytes: u64,
}

impl Payload for KeysFetched {
    const KIND: Kind = Kind::KeysFetched;

    fn check(&self) -> Result<(), FrameError> {
        let max = KEYS_MAX_BYTES as u64;
        let problem = match self.keys_bytes {
            0 => TextProblem::Zero,
            found if found > max => TextProblem::TooLarge { found, max },
            _ => return Ok(()),
        };
        Err(InvalidText { field: "keys_bytes", problem }.into())
    }

    fn write(&self, fields: &mut Writer) {
        fields.number(self.keys_bytes);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FrameError> {
        Ok(Self { keys_bytes: fields.number("keys_bytes")? })
    }
}

fixed_rules! {
    /// Why there is no key set.
    KeysRule in KeysFailed {
        /// No connection: name, route, port, proxy.
        Unreachable = 1 "keys_unreachable" "no connection"
        /// The time limit passed.
        TimedOut = 2 "keys_timed_out" "no answer in time"
        /// The server's certificate is not one that is trusted.
        Certificate = 3 "keys_certificate" "the server's certificate is not trusted"
        /// Another status than 200.
        Status = 4 "keys_status" "another answer than 200 OK"
        /// More than [`KEYS_MAX_BYTES`].
        TooLarge = 5 "keys_too_large" "the key set is larger than 256 KiB"
        /// Nothing at all.
        Empty = 6 "keys_empty" "the answer is empty"
        /// The CA bundle holds no certificate that can be read.
        CaUnreadable = 7 "keys_ca_unreadable" "no certificate can be read from tls-ca-file"
        /// A redirect: the configured server alone counts.
        Redirect = 8 "keys_redirect" "the server sends us to another address"
    }
}

/// There is no key set. For the runner this is a system failure: the next attempt may do better.
pub type KeysFailed = Reasoned<KeysRule>;

impl Reasoned<KeysRule> {
    /// The same in the form that [`crate::joblog::message`] prints. The exit code stays that of a breakage.
    #[must_use]
    pub fn words(&self) -> Refusal {
        let hint = match self.rule {
            KeysRule::Unreachable | KeysRule::TimedOut | KeysRule::Status | KeysRule::Empty => {
                "the GitLab server's keys are needed to check the job's token; retry the job in a few minutes"
            }
            KeysRule::Certificate | KeysRule::CaUnreadable => {
                "the runner's administrators have to look at [general] tls-ca-file"
            }
            KeysRule::TooLarge | KeysRule::Redirect => {
                "the runner's administrators have to look at [general] gitlab_server"
            }
        };
        Refusal {
            rule: self.rule.word().to_owned(),
            object: self.object.clone(),
            cause: self.cause.clone(),
            hint: hint.to_owned(),
        }
    }
}

/// What `jacamar keys` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysAnswer<'a> {
    /// The key set, not parsed.
    Fetched(&'a [u8]),
    /// There is none.
    Failed(KeysFailed),
}

impl<'a> KeysAnswer<'a> {
    /// All bytes of the answer.
    ///
    /// # Errors
    /// [`FrameError`] for an empty or too large key set, and for a failure whose texts no frame takes.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        match self {
            Self::Fetched(keys) => {
                let mut answer = frame::encode(&KeysFetched { keys_bytes: keys.len() as u64 })?;
                answer.extend_from_slice(keys);
                Ok(answer)
            }
            Self::Failed(failed) => frame::encode(failed),
        }
    }

    /// The answer of all bytes that the pipe gave.
    ///
    /// # Errors
    /// [`FrameError`], with [`FrameError::Body`] if the key set is not as long as announced.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        match frame::kind(bytes)? {
            Kind::KeysFailed => frame::decode(bytes).map(Self::Failed),
            Kind::KeysFetched
            | Kind::VerifyRequest
            | Kind::Claims
            | Kind::VerifyRefused
            | Kind::KeysRequest
            | Kind::StageRequest
            | Kind::StageReport
            | Kind::ResolveRequest
            | Kind::Resolved
            | Kind::ResolveRefused => {
                let (fetched, keys) = frame::split::<KeysFetched>(bytes)?;
                let have_bytes = keys.len() as u64;
                if have_bytes != fetched.keys_bytes {
                    return Err(FrameError::Body { have_bytes, need_bytes: fetched.keys_bytes });
                }
                Ok(Self::Fetched(keys))
            }
        }
    }
}
