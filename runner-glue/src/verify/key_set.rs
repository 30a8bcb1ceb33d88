//! The GitLab server's keys (JWKS), as `jacamar keys` fetched them.

use jacamar_contract::verify::{VerifyRefused, VerifyRule};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use super::is_object;
use super::token::Token;

/// A key set. A key of a kind that we do not know does not make the others unreadable.
#[derive(Deserialize)]
pub(super) struct KeySet {
    keys: Vec<Value>,
}

/// The members of a JSON Web Key that count besides its `kid`.
#[derive(Deserialize)]
struct Key {
    kty: String,
    r#use: String,
    #[serde(default)]
    alg: Option<String>,
    n: String,
    e: String,
}

impl KeySet {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, VerifyRefused> {
        let unreadable = || VerifyRefused::new(VerifyRule::KeysUnreadable, "key set");
        if !is_object(bytes) {
            return Err(unreadable());
        }
        serde_json::from_slice(bytes).map_err(|_| unreadable())
    }

    /// The key that is said to have signed this token. GitLab may publish one key twice.
    pub(super) fn key(self, token: &Token<'_>) -> Result<DecodingKey, VerifyRefused> {
        let mut named = false;
        for value in self.keys {
            if value.get("kid").and_then(Value::as_str) != Some(token.kid()) {
                continue;
            }
            named = true;
            if let Some(key) = usable(value) {
                return Ok(key);
            }
        }
        let refused = token.refused(VerifyRule::UnknownKey);
        if named {
            let cause =
                "is signed with a key of the GitLab server that is not for RS256 signatures".to_owned();
            return Err(VerifyRefused { cause, ..refused });
        }
        Err(refused)
    }
}

/// An RSA key for RS256 signatures.
fn usable(value: Value) -> Option<DecodingKey> {
    let Key { kty, r#use, alg, n, e } = serde_json::from_value(value).ok()?;
    let fits = kty == "RSA" && r#use == "sig" && alg.is_none_or(|alg| alg == "RS256");
    if fits { DecodingKey::from_rsa_components(&n, &e).ok() } else { None }
}
