//! A token before anyone believes it: its three parts, its header, and the signature that opens it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jacamar_contract::verify::{TOKEN_MAX_BYTES, VerifyRefused, VerifyRule};
use jsonwebtoken::crypto::aws_lc;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use super::is_object;

/// A token of which the header alone was read.
pub(super) struct Token<'a> {
    /// Header and payload with the point between: what is signed.
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
    kid: String,
    /// The variable it came from, for messages.
    variable: &'a str,
}

/// The members that count. `jwk`, `jku`, `x5c`, `x5u` (the token brings or names its own key) do not.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

/// The one algorithm. Which one it is, is never the token's decision.
const ALGORITHM: &str = "RS256";

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str, variable: &'a str) -> Result<Self, VerifyRefused> {
        let refused = |rule| VerifyRefused::new(rule, format!("token {variable}"));
        if text.len() > TOKEN_MAX_BYTES {
            return Err(refused(VerifyRule::TokenTooLarge));
        }
        let malformed = || refused(VerifyRule::Malformed);
        let (signed, signature) = text.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
        if payload.contains('.') {
            return Err(malformed());
        }
        let header = decode(header).filter(|header| is_object(header)).ok_or_else(malformed)?;
        let Header { alg, kid, crit } = serde_json::from_slice(&header).map_err(|_| malformed())?;
        if alg != ALGORITHM {
            return Err(refused(VerifyRule::Algorithm));
        }
        if crit.is_some() {
            // RFC 7515, section 4.1.11: who does not understand all of it refuses the token.
            let cause = "needs an extension that GitLab does not use (`crit`)".to_owned();
            return Err(VerifyRefused { cause, ..malformed() });
        }
        let Some(kid) = kid else {
            let cause = "names no key (`kid`)".to_owned();
            return Err(VerifyRefused { cause, ..refused(VerifyRule::UnknownKey) });
        };
        Ok(Self { signed, payload, signature, kid, variable })
    }

    /// Name of the key that is said to have signed.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn refused(&self, rule: VerifyRule) -> VerifyRefused {
        VerifyRefused::new(rule, format!("token {}", self.variable))
    }

    /// The payload, if this key signed it.
    pub(super) fn payload(self, key: &DecodingKey) -> Result<Zeroizing<Vec<u8>>, VerifyRefused> {
        let signature = decode(self.signature).ok_or_else(|| self.refused(VerifyRule::Malformed))?;
        // The provider by name: the process-wide one depends on the features of all crates together, and panics
        // with neither or both of its back ends.
        let verifier = (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&Algorithm::RS256, key);
        let verifier = verifier.map_err(|_| self.refused(VerifyRule::Signature))?;
        verifier
            .verify(self.signed.as_bytes(), &signature)
            .map_err(|_| self.refused(VerifyRule::Signature))?;
        decode(self.payload).ok_or_else(|| self.refused(VerifyRule::Malformed))
    }
}

/// base64url without padding; every other writing of the same bytes is refused.
fn decode(part: &str) -> Option<Zeroizing<Vec<u8>>> {
    URL_SAFE_NO_PAD.decode(part).ok().map(Zeroizing::new)
}
