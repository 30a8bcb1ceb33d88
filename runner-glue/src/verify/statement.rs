//! What a signed payload says: each claim in the one form that GitLab gives it.

use std::fmt;

use jacamar_contract::claims::ClaimFields;
use jacamar_contract::verify::{VerifyRefused, VerifyRequest, VerifyRule};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;

use super::is_object;
use super::response::Response;
use crate::answer::reason;

/// How far the clocks of GitLab and of this host may differ, in seconds.
pub(super) const LEEWAY_S: u64 = 5;

/// The claims that are looked at. `None`: missing, or `null`.
#[derive(Deserialize)]
pub(super) struct Statement {
    iss: Option<String>,
    sub: Option<String>,
    aud: Option<Audience>,
    exp: Option<u64>,
    nbf: Option<u64>,
    iat: Option<u64>,
    user_id: Option<Id>,
    user_login: Option<String>,
    user_email: Option<String>,
    user_access_level: Option<String>,
    project_id: Option<Id>,
    project_path: Option<String>,
    job_project_id: Option<Id>,
    job_project_path: Option<String>,
    namespace_id: Option<Id>,
    namespace_path: Option<String>,
    job_id: Option<Id>,
    pipeline_id: Option<Id>,
    pipeline_source: Option<String>,
    r#ref: Option<String>,
    ref_type: Option<String>,
    ref_protected: Option<YesOrNo>,
    sha: Option<String>,
    runner_id: Option<Id>,
    runner_environment: Option<String>,
}

impl Statement {
    pub(super) fn parse(payload: &[u8], variable: &str) -> Result<Self, VerifyRefused> {
        let refused = |rule| VerifyRefused::new(rule, format!("token {variable}"));
        if !is_object(payload) {
            return Err(refused(VerifyRule::Malformed));
        }
        let mut json = serde_json::Deserializer::from_slice(payload);
        let statement = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            // The library's own message repeats values; the path is one of our own names.
            match error.inner().classify() {
                Category::Data if error.path().iter().next().is_some() => {
                    VerifyRefused::new(VerifyRule::ClaimInvalid, format!("claim {}", error.path()))
                }
                Category::Data => refused(VerifyRule::ClaimInvalid),
                Category::Syntax | Category::Eof | Category::Io => refused(VerifyRule::Malformed),
            }
        })?;
        json.end().map_err(|_| refused(VerifyRule::Malformed))?;
        Ok(statement)
    }

    /// Whether the token comes from the configured server, for this site, and now.
    pub(super) fn check_origin(&self, request: &VerifyRequest, now_s: u64) -> Result<(), VerifyRefused> {
        let issuer = needed("iss", self.iss.as_deref())?;
        if issuer != request.issuer {
            let cause = format!("says {issuer}, this site trusts {}", request.issuer);
            return Err(refused(VerifyRule::Issuer, "iss", &cause));
        }
        let sub = needed("sub", self.sub.as_deref())?;
        if sub.is_empty() {
            return Err(refused(VerifyRule::ClaimInvalid, "sub", "is empty"));
        }
        let audience = needed("aud", self.aud.as_ref())?;
        if let Some(required) = &request.audience
            && !audience.holds(required)
        {
            let cause = format!("{}, {required}", VerifyRule::Audience.cause());
            return Err(refused(VerifyRule::Audience, "aud", &cause));
        }
        let expires_s = needed("exp", self.exp)?;
        let not_before_s = needed("nbf", self.nbf)?;
        let issued_s = needed("iat", self.iat)?;
        // RFC 7519, section 4.1.4: "on or after".
        if now_s >= expires_s.saturating_add(LEEWAY_S) {
            let cause = format!("expired {} seconds ago", now_s - expires_s);
            return Err(refused(VerifyRule::Expired, "exp", &cause));
        }
        for (name, from_s) in [("nbf", not_before_s), ("iat", issued_s)] {
            if from_s > now_s.saturating_add(LEEWAY_S) {
                let cause = format!("lies {} seconds ahead of this host's clock", from_s - now_s);
                return Err(refused(VerifyRule::NotYetValid, name, &cause));
            }
        }
        Ok(())
    }

    /// The claims in our names. Their forms are checked by `Claims::new`.
    pub(super) fn into_fields(
        self,
        request: &VerifyRequest,
        response: &Response<'_>,
    ) -> Result<ClaimFields, VerifyRefused> {
        let number = |name, id: Option<Id>| needed(name, id).map(|Id(id)| id);
        let optional = |id: Option<Id>| id.map(|Id(id)| id);
        Ok(ClaimFields {
            issuer: needed("iss", self.iss)?,
            audience: request.audience.clone(),
            user_id: number("user_id", self.user_id)?,
            user_login: needed("user_login", self.user_login)?,
            user_email: self.user_email,
            user_access_level: self.user_access_level,
            project_id: number("project_id", self.project_id)?,
            project_path: needed("project_path", self.project_path)?,
            job_project_id: optional(self.job_project_id),
            job_project_path: self.job_project_path,
            namespace_id: optional(self.namespace_id),
            namespace_path: needed("namespace_path", self.namespace_path)?,
            job_id: number("job_id", self.job_id)?,
            pipeline_id: number("pipeline_id", self.pipeline_id)?,
            pipeline_source: needed("pipeline_source", self.pipeline_source)?,
            reference: needed("ref", self.r#ref)?,
            reference_type: needed("ref_type", self.ref_type)?,
            reference_protected: needed("ref_protected", self.ref_protected)? == YesOrNo::Yes,
            sha: needed("sha", self.sha)?,
            runner_id: number("runner_id", self.runner_id)?,
            runner_environment: self.runner_environment,
            composite_identity: response.has_composite_identity(),
        })
    }
}

fn needed<T>(name: &str, value: Option<T>) -> Result<T, VerifyRefused> {
    value.ok_or_else(|| VerifyRefused::new(VerifyRule::ClaimMissing, format!("claim {name}")))
}

pub(super) fn refused(rule: VerifyRule, claim: &str, cause: &str) -> VerifyRefused {
    VerifyRefused { rule, object: format!("claim {claim}"), cause: reason(cause) }
}

/// One audience, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn holds(&self, required: &str) -> bool {
        match self {
            Self::One(one) => one == required,
            Self::Several(several) => several.iter().any(|one| one == required),
        }
    }
}

/// An id: a number, or its decimal digits as text. GitLab writes most as text and `runner_id` as a number.
struct Id(u64);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id")
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Id, E> {
                Ok(Id(id))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
                // Rust also reads `+7` and `007`; GitLab writes neither.
                let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
                match text.parse() {
                    Ok(id) if plain => Ok(Id(id)),
                    Ok(_) | Err(_) => Err(E::custom("not an id")),
                }
            }
        }

        deserializer.deserialize_any(Digits)
    }
}

/// `"true"` or `"false"`, as text.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
enum YesOrNo {
    Yes,
    No,
}

impl TryFrom<String> for YesOrNo {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "true" => Ok(Self::Yes),
            "false" => Ok(Self::No),
            _ => Err("neither true nor false"),
        }
    }
}
