//! The four lists and which of them wins.

use jacamar_plan::Refusal;

use crate::{FoundAccount, Policy, Rule};

/// The rule that accepts the account, or the list that does not.
///
/// `user_allowlist` wins over `user_blocklist`, that over `groups_blocklist`, that over `groups_allowlist`: the
/// first list that names the account or one of its groups decides. Where none does, an account is refused if the
/// site has any allowlist, and accepted if it has none.
pub(crate) fn judge(found: &FoundAccount, policy: &Policy) -> Result<Rule, Refusal> {
    let name = &found.account.name;
    let object = || format!("account {name}");
    let listed_group = |list: &[String]| list.iter().find(|group| found.group_names.contains(group)).cloned();
    if policy.user_allowlist.contains(name) {
        return Ok(Rule::UserAllowlist);
    }
    if policy.user_blocklist.contains(name) {
        let cause = "is on [auth] user_blocklist".to_owned();
        let hint = "ask the people below why".to_owned();
        return Err(Rule::UserBlocklist.refusal(object(), cause, hint));
    }
    if let Some(group) = listed_group(&policy.groups_blocklist) {
        let cause = format!("is in group {group}, which is on [auth] groups_blocklist");
        let hint = "ask the people below why".to_owned();
        return Err(Rule::GroupsBlocklist.refusal(object(), cause, hint));
    }
    if listed_group(&policy.groups_allowlist).is_some() {
        return Ok(Rule::GroupsAllowlist);
    }
    let cause = match (policy.user_allowlist.is_empty(), policy.groups_allowlist.is_empty()) {
        (true, true) => return Ok(Rule::NoAllowlist),
        (false, true) => "is not on [auth] user_allowlist",
        (true, false) => "is in no group of [auth] groups_allowlist",
        (false, false) => "is not on [auth] user_allowlist and in no group of groups_allowlist",
    };
    let hint = "ask the people below for access to this runner, or run the job on another one (`tags:`)";
    Err(Rule::NotAllowlisted.refusal(object(), cause.to_owned(), hint.to_owned()))
}
