//! The rules by name.

use jacamar_plan::Refusal;

/// A rule that grants or refuses. Its word stands in the grant, in the job log and in the audit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Grants: the user is on `user_allowlist`.
    UserAllowlist,
    /// Grants: a group of the account is on `groups_allowlist`.
    GroupsAllowlist,
    /// Grants: the site has no allowlist, and no blocklist names the account or its groups.
    NoAllowlist,
    /// Refuses: GitLab gave the job to another runner than the configured one.
    RunnerMismatch,
    /// Refuses: `enforce_nologin` and a nologin file.
    Nologin,
    /// Refuses: a deleted user's place-holder.
    DeletedUser,
    /// Refuses: an account of GitLab that is no person.
    BotAccount,
    /// Refuses: a service account that acts for a person.
    CompositeIdentity,
    /// Refuses: `pipeline_source_allowlist`.
    PipelineSource,
    /// Refuses: the login cannot be, or is not exactly, the name of a local account.
    AccountName,
    /// Refuses: there is no such account.
    NoAccount,
    /// Refuses: `user_blocklist`.
    UserBlocklist,
    /// Refuses: `groups_blocklist`.
    GroupsBlocklist,
    /// Refuses: there is an allowlist, and the account is on none.
    NotAllowlisted,
    /// Refuses: `shell_allowlist`.
    Shell,
    /// Refuses: uid 0.
    RootAccount,
    /// Refuses: gid 0 among the account's groups.
    RootGroup,
    /// Refuses: an id that the kernel takes for "unchanged" or for "nobody we know".
    ReservedId,
    /// Refuses: a uid below the site's first.
    MinimumUid,
    /// Refuses: the runner's own account, or one of ours.
    RunnerAccount,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 20] = [
        Self::UserAllowlist,
        Self::GroupsAllowlist,
        Self::NoAllowlist,
        Self::RunnerMismatch,
        Self::Nologin,
        Self::DeletedUser,
        Self::BotAccount,
        Self::CompositeIdentity,
        Self::PipelineSource,
        Self::AccountName,
        Self::NoAccount,
        Self::UserBlocklist,
        Self::GroupsBlocklist,
        Self::NotAllowlisted,
        Self::Shell,
        Self::RootAccount,
        Self::RootGroup,
        Self::ReservedId,
        Self::MinimumUid,
        Self::RunnerAccount,
    ];

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::UserAllowlist => "user_allowlist",
            Self::GroupsAllowlist => "groups_allowlist",
            Self::NoAllowlist => "no_allowlist",
            Self::RunnerMismatch => "runner_mismatch",
            Self::Nologin => "nologin",
            Self::DeletedUser => "deleted_user",
            Self::BotAccount => "bot_account",
            Self::CompositeIdentity => "composite_identity",
            Self::PipelineSource => "pipeline_source_allowlist",
            Self::AccountName => "account_name",
            Self::NoAccount => "no_account",
            Self::UserBlocklist => "user_blocklist",
            Self::GroupsBlocklist => "groups_blocklist",
            Self::NotAllowlisted => "not_allowlisted",
            Self::Shell => "shell_allowlist",
            Self::RootAccount => "root_account",
            Self::RootGroup => "root_group",
            Self::ReservedId => "reserved_id",
            Self::MinimumUid => "minimum_uid",
            Self::RunnerAccount => "runner_account",
        }
    }

    /// Whether this rule grants. Every other one refuses.
    #[must_use]
    pub const fn grants(self) -> bool {
        match self {
            Self::UserAllowlist | Self::GroupsAllowlist | Self::NoAllowlist => true,
            Self::RunnerMismatch
            | Self::Nologin
            | Self::DeletedUser
            | Self::BotAccount
            | Self::CompositeIdentity
            | Self::PipelineSource
            | Self::AccountName
            | Self::NoAccount
            | Self::UserBlocklist
            | Self::GroupsBlocklist
            | Self::NotAllowlisted
            | Self::Shell
            | Self::RootAccount
            | Self::RootGroup
            | Self::ReservedId
            | Self::MinimumUid
            | Self::RunnerAccount => false,
        }
    }

    pub(crate) fn refusal(self, object: String, cause: String, hint: String) -> Refusal {
        Refusal { rule: self.word().to_owned(), object, cause, hint }
    }
}
