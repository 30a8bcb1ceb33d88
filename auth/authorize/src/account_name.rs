//! The name that connects a user of GitLab with a local account.

use std::fmt;

use jacamar_contract::claims::ClaimFields;
use jacamar_plan::Refusal;

use crate::Rule;

/// Longest name of an account, in bytes. useradd(8) ends at 32, directory servers do not; 64 keeps it a short
/// component of paths and cgroups.
pub const ACCOUNT_NAME_MAX_BYTES: usize = 64;

/// A GitLab login that may be the name of a local account. It is what the caller looks up, once.
///
/// A GitLab login has letters, digits, `_`, `.` and `-`. Of these are refused:
/// - a first `-` (an option of sudo(8) or su(1)) or `.` (a hidden directory below `data_dir`);
/// - digits only, which many programs take for a user id. (a first digit alone is fine: ids come from NSS and
///   never from a name, which is what CVE-2017-1000082 was about);
/// - more than [`ACCOUNT_NAME_MAX_BYTES`].
///
/// Upper case stays: sites whose accounts come from a Windows domain have it. Nothing is folded or replaced, so two
/// logins never become one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountName(String);

impl AccountName {
    /// The candidate of these claims: `user_login` as it is.
    ///
    /// # Errors
    /// A [`Refusal`] (rule `account_name`) for a login that cannot be the name of a local account.
    pub fn of(claims: &ClaimFields) -> Result<Self, Refusal> {
        let login = &claims.user_login;
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let cause = if login.is_empty() || !login.bytes().all(good) {
            "has characters that no account name has here".to_owned()
        } else if login.starts_with(['-', '.']) {
            "begins with `-` or `.`, which no account name does here".to_owned()
        } else if login.bytes().all(|b| b.is_ascii_digit()) {
            "is a number, which could be taken for a user id".to_owned()
        } else if login.len() > ACCOUNT_NAME_MAX_BYTES {
            format!("has {} characters, and account names end at {ACCOUNT_NAME_MAX_BYTES}", login.len())
        } else {
            return Ok(Self(login.clone()));
        };
        let hint = "GitLab user name and account name have to be equal; ask for another user name in GitLab";
        Err(Rule::AccountName.refusal(format!("GitLab user {login}"), cause, hint.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
