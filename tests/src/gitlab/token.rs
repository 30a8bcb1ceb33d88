//! ID tokens with the claims GitLab gives them, whole or with one property spoiled.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::facts::Facts;
use super::keys::Keys;

/// One thing that is wrong with a token. All else stays as GitLab writes it, and the signature is good unless the
/// variant is about the signature.
#[derive(Clone, Debug)]
pub enum Spoil {
    /// `exp` is an hour ago.
    Expired,
    /// `nbf` is an hour ahead.
    NotYetValid,
    /// `exp` is missing.
    WithoutExpiry,
    /// `aud` is another service.
    WrongAudience,
    /// `aud` is a list with the right audience in it; GitLab writes one if the job asks for several.
    AudienceList,
    /// `aud` is a list without the right audience.
    WrongAudienceList,
    /// `aud` is missing.
    WithoutAudience,
    /// `iss` is another GitLab.
    WrongIssuer,
    /// `iss` is missing.
    WithoutIssuer,
    /// `kid` is in no key set.
    UnknownKid,
    /// `kid` is missing.
    WithoutKid,
    /// `alg` is `none` and the signature empty.
    AlgNone,
    /// `alg` is HS256, keyed with the text of the public key.
    Hs256WithPublicKey,
    /// Signed by a key that is not published, under a published `kid`.
    ForeignKey,
    /// The signature belongs to other claims.
    AlteredClaims,
    /// The last part is cut off.
    WithoutSignature,
    /// A good token of another job of the same pipeline.
    OtherJob,
    /// A good token of another pipeline.
    OtherPipeline,
    /// A good token of another project.
    OtherProject,
    /// A good token of another user.
    OtherUser,
    /// A good token of a job on another runner.
    OtherRunner,
    /// This claim is missing.
    Without(&'static str),
    /// This claim has this value.
    With(&'static str, Value),
}

/// An ID token that is about to be signed.
#[derive(Clone, Debug)]
pub struct IdToken {
    claims: Map<String, Value>,
    spoil: Option<Spoil>,
}

/// Seconds since 1970.
pub(crate) fn now_s() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

impl IdToken {
    /// The token that GitLab gives this job for this audience.
    pub fn new(facts: &Facts, audience: &str) -> IdToken {
        let issued = now_s();
        let text = |number: i64| Value::String(number.to_string());
        let project = &facts.project;
        let reference = facts.ref_path();
        let claims = json!({
            "namespace_id": text(project.namespace_id),
            "namespace_path": project.namespace(),
            "project_id": text(project.id),
            "project_path": project.path,
            "user_id": text(facts.user.id),
            "user_login": facts.user.login,
            "user_email": facts.user.email,
            "user_access_level": facts.user.access_level,
            "job_project_id": text(project.id),
            "job_project_path": project.path,
            "job_namespace_id": text(project.namespace_id),
            "job_namespace_path": project.namespace(),
            "pipeline_id": text(facts.pipeline_id),
            "pipeline_source": facts.pipeline_source,
            "job_id": text(facts.job_id),
            "ref": facts.reference,
            "ref_type": facts.ref_type,
            "ref_path": reference,
            "ref_protected": facts.protected.to_string(),
            "runner_id": facts.runner_id,
            "runner_environment": "self-hosted",
            "sha": facts.sha,
            "project_visibility": project.visibility,
            "ci_config_ref_uri": format!("{}/{}//.gitlab-ci.yml@{reference}", facts.authority(), project.path),
            "ci_config_sha": facts.sha,
            "jti": format!("00000000-0000-4000-8000-{issued:012x}"),
            "iat": issued,
            "nbf": issued - 5,
            "exp": issued + if facts.timeout_s > 0 { facts.timeout_s } else { 300 },
            "iss": facts.issuer,
            "sub": format!("project_path:{}:ref_type:{}:ref:{}", project.path, facts.ref_type, facts.reference),
            "aud": audience,
        });
        let Value::Object(claims) = claims else { unreachable!("written as an object above") };
        IdToken { claims, spoil: None }
    }

    /// Spoils one property.
    #[must_use]
    pub fn spoil(mut self, spoil: Spoil) -> IdToken {
        self.spoil = Some(spoil);
        self
    }

    /// Sets one claim before anything is spoiled, such as `user_identities`.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> IdToken {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// The claims as they will be signed.
    pub fn claims(&self) -> Value {
        let mut claims = self.claims.clone();
        if let Some(spoil) = &self.spoil {
            spoil_claims(&mut claims, spoil);
        }
        Value::Object(claims)
    }

    /// The token.
    ///
    /// # Errors
    /// If the keys cannot be made or do not sign.
    pub fn sign(&self) -> Result<String> {
        let keys = Keys::of_this_process()?;
        let key = match &self.spoil {
            Some(Spoil::ForeignKey) => Keys::of_a_stranger()?,
            _ => keys.signing(),
        };
        let kid = keys.signing().kid();
        let header = match &self.spoil {
            Some(Spoil::UnknownKid) => {
                json!({"kid": "a-key-that-nobody-published", "typ": "JWT", "alg": "RS256"})
            }
            Some(Spoil::WithoutKid) => json!({"typ": "JWT", "alg": "RS256"}),
            Some(Spoil::AlgNone) => json!({"kid": kid, "typ": "JWT", "alg": "none"}),
            Some(Spoil::Hs256WithPublicKey) => json!({"kid": kid, "typ": "JWT", "alg": "HS256"}),
            _ => json!({"kid": kid, "typ": "JWT", "alg": "RS256"}),
        };
        let claims = self.claims();
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = match &self.spoil {
            Some(Spoil::AlgNone) => Vec::new(),
            Some(Spoil::Hs256WithPublicKey) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(key.public_pem()?.as_bytes())
                    .context("HMAC takes a key of any length")?;
                mac.update(signed.as_bytes());
                mac.finalize().into_bytes().to_vec()
            }
            _ => key.sign(signed.as_bytes())?,
        };
        let signature = URL_SAFE_NO_PAD.encode(signature);
        Ok(match &self.spoil {
            Some(Spoil::WithoutSignature) => signed,
            Some(Spoil::AlteredClaims) => {
                let altered = self.clone().claim("user_login", "root").claims();
                format!("{}.{}.{signature}", encode(&header), encode(&altered))
            }
            _ => format!("{signed}.{signature}"),
        })
    }
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn spoil_claims(claims: &mut Map<String, Value>, spoil: &Spoil) {
    let now = now_s();
    let mut set = |name: &str, value: Value| {
        claims.insert(name.to_owned(), value);
    };
    match spoil {
        Spoil::Expired => {
            set("iat", json!(now - 7200));
            set("nbf", json!(now - 7205));
            set("exp", json!(now - 3600));
        }
        Spoil::NotYetValid => {
            set("nbf", json!(now + 3600));
            set("exp", json!(now + 7200));
        }
        Spoil::WrongAudience => set("aud", json!("https://elsewhere.example.com")),
        Spoil::AudienceList => {
            let one = claims.get("aud").cloned().unwrap_or_default();
            claims.insert("aud".into(), json!(["https://elsewhere.example.com", one]));
        }
        Spoil::WrongAudienceList => {
            set("aud", json!(["https://elsewhere.example.com", "https://third.example.com"]));
        }
        Spoil::WrongIssuer => set("iss", json!("https://gitlab.elsewhere.example.com")),
        Spoil::OtherJob => set("job_id", json!("999")),
        Spoil::OtherPipeline => set("pipeline_id", json!("999")),
        Spoil::OtherProject => {
            set("project_id", json!("999"));
            set("job_project_id", json!("999"));
        }
        Spoil::OtherUser => {
            set("user_id", json!("8"));
            set("user_login", json!("mallory"));
        }
        Spoil::OtherRunner => set("runner_id", json!(999)),
        Spoil::With(name, value) => set(name, value.clone()),
        Spoil::WithoutExpiry => remove(claims, "exp"),
        Spoil::WithoutAudience => remove(claims, "aud"),
        Spoil::WithoutIssuer => remove(claims, "iss"),
        Spoil::Without(name) => remove(claims, name),
        Spoil::UnknownKid
        | Spoil::WithoutKid
        | Spoil::AlgNone
        | Spoil::Hs256WithPublicKey
        | Spoil::ForeignKey
        | Spoil::AlteredClaims
        | Spoil::WithoutSignature => {}
    }
}

fn remove(claims: &mut Map<String, Value>, name: &str) {
    claims.remove(name);
}
