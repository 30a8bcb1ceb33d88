//! The RSA keys of the GitLab stand-in: made once per process, published as a JSON Web Key Set.
//!
//! They come from the `rsa` crate; the product verifies with another library, so that a mistake of one of the
//! two does not cancel out.

use std::sync::OnceLock;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::pkcs8::{EncodePublicKey as _, LineEnding};
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The size GitLab's own keys have.
const KEY_BITS: usize = 2048;

/// A key pair with its JSON Web Key names.
#[derive(Debug)]
pub struct Key {
    private: rsa::PrivateKey,
    kid: String,
    modulus: String,
    exponent: String,
}

impl Key {
    fn generate() -> Result<Key> {
        let private = rsa::PrivateKey::new(&mut getrandom::SysRng, KEY_BITS).context("make an RSA key")?;
        let modulus = URL_SAFE_NO_PAD.encode(private.n_bytes());
        let exponent = URL_SAFE_NO_PAD.encode(private.e_bytes());
        // RFC 7638: the members in this order and without blanks.
        let thumbprint = format!(r#"{{"e":"{exponent}","kty":"RSA","n":"{modulus}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(thumbprint.as_bytes()));
        Ok(Key { private, kid, modulus, exponent })
    }

    /// The key's id: its thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as GitLab publishes it.
    pub fn jwk(&self) -> Value {
        json!({"kty": "RSA", "kid": self.kid, "e": self.exponent, "n": self.modulus, "use": "sig", "alg": "RS256"})
    }

    /// The public half as PEM: what an attacker has who signs with HS256.
    pub(crate) fn public_pem(&self) -> Result<String> {
        self.private.to_public_key().to_public_key_pem(LineEnding::LF).context("write a public key")
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        self.private.pkcs1v15_sign::<Sha256>(message).context("sign with RS256")
    }
}

/// The keys of the stand-in.
#[derive(Debug)]
pub struct Keys {
    published: [Key; 2],
}

impl Keys {
    /// The keys of this process. The first call makes them.
    ///
    /// # Errors
    /// If the random numbers or the key generation fail.
    pub fn of_this_process() -> Result<&'static Keys> {
        static KEYS: OnceLock<Result<Keys, String>> = OnceLock::new();
        KEYS.get_or_init(|| {
            let second = thread::spawn(Key::generate);
            let first = Key::generate().map_err(|error| format!("{error:#}"))?;
            let second = second.join().map_err(|_| "the key generation panicked".to_owned())?;
            Ok(Keys { published: [first, second.map_err(|error| format!("{error:#}"))?] })
        })
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
    }

    /// A key that no key set holds.
    ///
    /// # Errors
    /// If the random numbers or the key generation fail.
    pub fn of_a_stranger() -> Result<&'static Key> {
        static KEY: OnceLock<Result<Key, String>> = OnceLock::new();
        KEY.get_or_init(|| Key::generate().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow!("{error}"))
    }

    /// The key that signs ID tokens.
    pub fn signing(&self) -> &Key {
        let [_, ci] = &self.published;
        ci
    }

    /// Both published keys: the OpenID key and the one for ID tokens, in GitLab's order.
    pub fn published(&self) -> &[Key; 2] {
        &self.published
    }

    /// The key set of `/oauth/discovery/keys`.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.published.iter().map(Key::jwk).collect::<Vec<_>>()})
    }
}
