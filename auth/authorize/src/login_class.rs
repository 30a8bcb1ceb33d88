//! What claims tell about an account of GitLab: a person's, or not.
//!
//! GitLab knows (`user_type`), and its tokens do not say. What they do say is used in full:
//!
//! - logins that GitLab itself makes for accounts that are no person (`app/models/concerns/has_user_type.rb`,
//!   `lib/users/internal.rb`, `app/services/resource_access_tokens/create_service.rb`,
//!   `app/services/users/service_accounts/create_service.rb`);
//! - addresses below `noreply.<server>`, which GitLab gives to such accounts, whatever their login, unless their
//!   maker chose an address, and which no person can confirm;
//! - a composite identity (`scoped_user_id` of the response file).
//!
//! A person may have a login of that form: then a person is refused, never a bot taken for one. What remains open
//! is a service account whose maker chose both a login and an address (CVE-2026-107589). It looks like a person to
//! every claim; only the site's lists, or a mapping by GitLab's user id, tell it apart.

use jacamar_contract::claims::ClaimFields;
use jacamar_plan::Refusal;

use crate::{Policy, Rule};

/// What the claims say about an account of GitLab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginClass {
    /// `project_<id>_bot...`: a project access token.
    ProjectBot,
    /// `group_<id>_bot...`: a group access token.
    GroupBot,
    /// `service_account_...`, or an address that GitLab made.
    ServiceAccount,
    /// `gitlab_security_policy_project_<id>_bot...`
    SecurityPolicyBot,
    /// An account that GitLab makes for itself (`alert-bot`, `support-bot`, ...).
    Internal,
    /// `ghost`: stands for users that were deleted.
    Ghost,
    /// None of these. It is a person, or a service account that does not show.
    Unmarked,
}

impl LoginClass {
    /// The class of these claims.
    #[must_use]
    pub fn of(claims: &ClaimFields) -> Self {
        // GitLab's logins are unique without regard to case.
        let login = claims.user_login.to_ascii_lowercase();
        let base = login.trim_end_matches(|c: char| c.is_ascii_digit());
        if numbered_bot(&login, "project_") {
            Self::ProjectBot
        } else if numbered_bot(&login, "group_") {
            Self::GroupBot
        } else if login.starts_with("service_account") {
            Self::ServiceAccount
        } else if login.starts_with("gitlab_security_policy_project_") {
            Self::SecurityPolicyBot
        } else if base == "ghost" {
            Self::Ghost
        } else if INTERNAL.contains(&base) {
            Self::Internal
        } else if claims.user_email.as_deref().is_some_and(made_by_gitlab) {
            Self::ServiceAccount
        } else {
            Self::Unmarked
        }
    }
}

/// Refuses what is no person: a deleted user always, the others unless the site allows them.
pub(crate) fn judge(claims: &ClaimFields, policy: &Policy) -> Result<(), Refusal> {
    let object = format!("GitLab user {}", claims.user_login);
    let hint = "start the pipeline as a person; a schedule runs as its owner (for the site: [auth] allow_bot_accounts)";
    let description = match LoginClass::of(claims) {
        LoginClass::Ghost => {
            let cause = "stands for users who were deleted".to_owned();
            let hint = "start the pipeline as a person; a schedule needs a new owner".to_owned();
            return Err(Rule::DeletedUser.refusal(object, cause, hint));
        }
        LoginClass::ProjectBot => Some("the bot of a project access token"),
        LoginClass::GroupBot => Some("the bot of a group access token"),
        LoginClass::ServiceAccount => Some("a service account"),
        LoginClass::SecurityPolicyBot => Some("the bot of a security policy"),
        LoginClass::Internal => Some("an account of GitLab itself"),
        LoginClass::Unmarked => None,
    };
    if policy.allow_bot_accounts {
        return Ok(());
    }
    if let Some(description) = description {
        let cause = format!("is {description}, not a person");
        return Err(Rule::BotAccount.refusal(object, cause, hint.to_owned()));
    }
    if claims.composite_identity {
        let cause = "is a service account that acts for somebody else (composite identity)".to_owned();
        return Err(Rule::CompositeIdentity.refusal(object, cause, hint.to_owned()));
    }
    Ok(())
}

/// Logins of GitLab's own accounts, in lower case. GitLab appends a number where the login is taken.
const INTERNAL: [&str; 14] = [
    "admin-bot",
    "alert-bot",
    "automation-bot",
    "duo-code-review-bot",
    "gitlab-admin-bot",
    "gitlab-duo",
    "gitlab-llm-bot",
    "gitlab-security-bot",
    "gitlabduo",
    "llm-bot",
    "migration-bot",
    "security-bot",
    "support-bot",
    "visual-review-bot",
];

/// `<prefix><digits>_bot` and whatever GitLab appended.
fn numbered_bot(login: &str, prefix: &str) -> bool {
    let Some(rest) = login.strip_prefix(prefix) else { return false };
    let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    after.len() < rest.len() && after.starts_with("_bot")
}

/// An address below `noreply.<server>`: `User::NOREPLY_EMAIL_DOMAIN` of GitLab.
fn made_by_gitlab(address: &str) -> bool {
    let domain = address.rsplit('@').next().unwrap_or(address);
    domain.to_ascii_lowercase().starts_with("noreply.")
}
