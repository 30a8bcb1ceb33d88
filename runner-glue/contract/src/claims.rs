//! What a verified token says: who, which job, which project. Never what anyone may do.
//!
//! [`ClaimFields`] is what somebody says; [`Claims`] can only be made through the checks here, on both sides of
//! the pipe. `jacamar-auth` makes its own from the frame, so a `verify` that was taken over can lie about *who*,
//! but it cannot send a login with a line end or a project path with `..` in it.
//!
//! Names and meanings are those of GitLab's ID tokens (`lib/gitlab/ci/jwt_v2.rb`,
//! `lib/json_web_token/user_project_token_claims.rb`); ids, which GitLab sends as text, are numbers here.

use sha2::{Digest, Sha256};

use crate::frame::{FrameError, Kind, Payload, Reader, Writer};
use crate::text::{Charset, InvalidText, TextProblem, check, check_optional};

/// Longest issuer or audience, in bytes.
pub const ISSUER_MAX_BYTES: usize = 1024;
/// Longest login, in bytes (GitLab's own limit of a path).
pub const LOGIN_MAX_BYTES: usize = 255;
/// Longest address, in bytes (RFC 5321: 64 + 1 + 255).
pub const EMAIL_MAX_BYTES: usize = 320;
/// Longest path of a project or namespace, in bytes. GitLab's limit of 255 holds for new ones only.
pub const PROJECT_PATH_MAX_BYTES: usize = 4096;
/// Longest name of a branch or tag, in bytes.
pub const REFERENCE_MAX_BYTES: usize = 4096;
/// Longest fixed word (pipeline source, kind of reference, ...), in bytes.
pub const WORD_MAX_BYTES: usize = 64;

/// What a token is said to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimFields {
    /// `iss`: the GitLab server that signed.
    pub issuer: String,
    /// The audience that the site requires, found in `aud`; `None` if the site requires none.
    pub audience: Option<String>,
    /// `user_id`: who started the pipeline. Never reused, unlike the login.
    pub user_id: u64,
    /// `user_login`
    pub user_login: String,
    /// `user_email`
    pub user_email: Option<String>,
    /// `user_access_level`: the user's role in the source project.
    pub user_access_level: Option<String>,
    /// `project_id`: the project of the source branch; in a merge request from a fork that is the fork.
    pub project_id: u64,
    /// `project_path`, of the same project.
    pub project_path: String,
    /// `job_project_id`: the project in which the job runs. Older GitLab does not send it.
    pub job_project_id: Option<u64>,
    /// `job_project_path`, of the same project.
    pub job_project_path: Option<String>,
    /// `namespace_id`, of the source project.
    pub namespace_id: Option<u64>,
    /// `namespace_path`, of the source project.
    pub namespace_path: String,
    /// `job_id`
    pub job_id: u64,
    /// `pipeline_id`
    pub pipeline_id: u64,
    /// `pipeline_source`: `push`, `merge_request_event`, `schedule`, ...
    pub pipeline_source: String,
    /// `ref`: name of the branch or tag.
    pub reference: String,
    /// `ref_type`: `branch` or `tag`.
    pub reference_type: String,
    /// `ref_protected`
    pub reference_protected: bool,
    /// `sha`: the commit, 40 or 64 hexadecimal digits.
    pub sha: String,
    /// `runner_id`
    pub runner_id: u64,
    /// `runner_environment`: `self-hosted` or `gitlab-hosted`.
    pub runner_environment: Option<String>,
    /// Whether the response file names a `scoped_user_id`: a service account that acts for a person
    /// (GitLab's composite identity).
    pub composite_identity: bool,
}

/// Claims whose every field has the form that GitLab gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims(ClaimFields);

impl Claims {
    /// Accepts well-formed fields.
    ///
    /// # Errors
    /// The first field that is not what GitLab sends: an id of 0, an empty or too long text, other characters.
    pub fn new(fields: ClaimFields) -> Result<Self, InvalidText> {
        fields.check()?;
        Ok(Self(fields))
    }

    /// The fields.
    #[must_use]
    pub fn fields(&self) -> &ClaimFields {
        &self.0
    }

    /// SHA-256 of the fields as they travel, in hexadecimal: names exactly these claims in record and audit line
    /// without repeating them.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut fields = Writer::default();
        self.write(&mut fields);
        let digest = Sha256::digest(fields.into_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl ClaimFields {
    fn check(&self) -> Result<(), InvalidText> {
        check("iss", &self.issuer, ISSUER_MAX_BYTES, Charset::Ascii)?;
        check_optional("aud", self.audience.as_deref(), ISSUER_MAX_BYTES, Charset::Ascii)?;
        check_id("user_id", self.user_id)?;
        check("user_login", &self.user_login, LOGIN_MAX_BYTES, Charset::Login)?;
        check_optional("user_email", self.user_email.as_deref(), EMAIL_MAX_BYTES, Charset::Graphic)?;
        check_optional(
            "user_access_level",
            self.user_access_level.as_deref(),
            WORD_MAX_BYTES,
            Charset::Shown,
        )?;
        check_id("project_id", self.project_id)?;
        check("project_path", &self.project_path, PROJECT_PATH_MAX_BYTES, Charset::GitlabPath)?;
        check_optional_id("job_project_id", self.job_project_id)?;
        let job_project_path = self.job_project_path.as_deref();
        check_optional("job_project_path", job_project_path, PROJECT_PATH_MAX_BYTES, Charset::GitlabPath)?;
        check_optional_id("namespace_id", self.namespace_id)?;
        check("namespace_path", &self.namespace_path, PROJECT_PATH_MAX_BYTES, Charset::GitlabPath)?;
        check_id("job_id", self.job_id)?;
        check_id("pipeline_id", self.pipeline_id)?;
        check("pipeline_source", &self.pipeline_source, WORD_MAX_BYTES, Charset::Word)?;
        check("ref", &self.reference, REFERENCE_MAX_BYTES, Charset::Graphic)?;
        check("ref_type", &self.reference_type, WORD_MAX_BYTES, Charset::Word)?;
        check("sha", &self.sha, SHA_256_DIGITS, Charset::Hex)?;
        if !matches!(self.sha.len(), SHA_1_DIGITS | SHA_256_DIGITS) {
            let problem = TextProblem::Form("the hash of a commit (40 or 64 digits)");
            return Err(InvalidText { field: "sha", problem });
        }
        check_id("runner_id", self.runner_id)?;
        check_optional(
            "runner_environment",
            self.runner_environment.as_deref(),
            WORD_MAX_BYTES,
            Charset::Word,
        )
    }
}

/// Digits of a commit's hash: git's SHA-1 and SHA-256 object formats.
const SHA_1_DIGITS: usize = 40;
const SHA_256_DIGITS: usize = 64;

/// GitLab counts from one; 0 is what a missing number becomes on the way.
fn check_id(field: &'static str, id: u64) -> Result<(), InvalidText> {
    if id == 0 { Err(InvalidText { field, problem: TextProblem::Zero }) } else { Ok(()) }
}

fn check_optional_id(field: &'static str, id: Option<u64>) -> Result<(), InvalidText> {
    id.map_or(Ok(()), |id| check_id(field, id))
}

impl Payload for Claims {
    const KIND: Kind = Kind::Claims;

    fn check(&self) -> Result<(), FrameError> {
        Ok(self.0.check()?)
    }

    fn write(&self, fields: &mut Writer) {
        let claims = &self.0;
        fields.text(&claims.issuer);
        fields.optional(claims.audience.as_deref(), Writer::text);
        fields.number(claims.user_id);
        fields.text(&claims.user_login);
        fields.optional(claims.user_email.as_deref(), Writer::text);
        fields.optional(claims.user_access_level.as_deref(), Writer::text);
        fields.number(claims.project_id);
        fields.text(&claims.project_path);
        fields.optional(claims.job_project_id, Writer::number);
        fields.optional(claims.job_project_path.as_deref(), Writer::text);
        fields.optional(claims.namespace_id, Writer::number);
        fields.text(&claims.namespace_path);
        fields.number(claims.job_id);
        fields.number(claims.pipeline_id);
        fields.text(&claims.pipeline_source);
        fields.text(&claims.reference);
        fields.text(&claims.reference_type);
        fields.flag(claims.reference_protected);
        fields.text(&claims.sha);
        fields.number(claims.runner_id);
        fields.optional(claims.runner_environment.as_deref(), Writer::text);
        fields.flag(claims.composite_identity);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FrameError> {
        let path = |fields: &mut Reader<'_>, field| fields.text(field, PROJECT_PATH_MAX_BYTES);
        let word = |fields: &mut Reader<'_>, field| fields.text(field, WORD_MAX_BYTES);
        let claims = ClaimFields {
            issuer: fields.text("iss", ISSUER_MAX_BYTES)?,
            audience: fields.optional("aud", |fields| fields.text("aud", ISSUER_MAX_BYTES))?,
            user_id: fields.number("user_id")?,
            user_login: fields.text("user_login", LOGIN_MAX_BYTES)?,
            user_email: fields.optional("user_email", |fields| fields.text("user_email", EMAIL_MAX_BYTES))?,
            user_access_level: fields
                .optional("user_access_level", |fields| word(fields, "user_access_level"))?,
            project_id: fields.number("project_id")?,
            project_path: path(fields, "project_path")?,
            job_project_id: fields.optional("job_project_id", |fields| fields.number("job_project_id"))?,
            job_project_path: fields
                .optional("job_project_path", |fields| path(fields, "job_project_path"))?,
            namespace_id: fields.optional("namespace_id", |fields| fields.number("namespace_id"))?,
            namespace_path: path(fields, "namespace_path")?,
            job_id: fields.number("job_id")?,
            pipeline_id: fields.number("pipeline_id")?,
            pipeline_source: word(fields, "pipeline_source")?,
            reference: fields.text("ref", REFERENCE_MAX_BYTES)?,
            reference_type: word(fields, "ref_type")?,
            reference_protected: fields.flag("ref_protected")?,
            sha: fields.text("sha", SHA_256_DIGITS)?,
            runner_id: fields.number("runner_id")?,
            runner_environment: fields
                .optional("runner_environment", |fields| word(fields, "runner_environment"))?,
            composite_identity: fields.flag("scoped_user_id")?,
        };
        Ok(Self::new(claims)?)
    }
}
