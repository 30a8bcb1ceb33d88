//! What went wrong elsewhere, once each.

use jacamar_authorize::{LoginClass, Rule};

use crate::samples::{Case, claims};

/// CVE-2026-107589: accounts that a group owner made in GitLab ran as the local user of their name.
#[test]
fn an_account_of_gitlab_that_is_no_person() {
    use LoginClass::{Ghost, GroupBot, Internal, ProjectBot, SecurityPolicyBot, ServiceAccount, Unmarked};
    let table = [
        ("project_1_bot", ProjectBot),
        ("project_12_bot3", ProjectBot),
        ("project_12_bot_0123456789abcdef", ProjectBot),
        ("Project_12_Bot", ProjectBot),
        ("group_7_bot_0123456789abcdef", GroupBot),
        ("service_account_0123456789abcdef", ServiceAccount),
        ("service_account_group_7_0123456789abcdef", ServiceAccount),
        ("gitlab_security_policy_project_7_bot_0123", SecurityPolicyBot),
        ("ghost", Ghost),
        ("Ghost1", Ghost),
        ("alert-bot", Internal),
        ("support-bot2", Internal),
        ("GitLab-Security-Bot", Internal),
        ("security-bot", Internal),
        ("GitLab-Admin-Bot", Internal),
        ("GitLabDuo", Internal),
        ("visual-review-bot", Internal),
        ("alice", Unmarked),
        ("project_bot", Unmarked),
        ("project__bot", Unmarked),
        ("project_1_botany", ProjectBot),
        ("group_leader", Unmarked),
        ("ghostwriter", Unmarked),
        ("abbot", Unmarked),
    ];
    for (login, class) in table {
        assert_eq!(LoginClass::of(&claims(login)), class, "{login}");
        let case = Case::user(login);
        let bots_allowed = Case::user(login).with(|c| c.policy.allow_bot_accounts = true);
        match class {
            Unmarked => case.is_granted_by(Rule::NoAllowlist),
            Ghost => {
                case.is_refused_by(Rule::DeletedUser);
                bots_allowed.is_refused_by(Rule::DeletedUser);
            }
            ProjectBot | GroupBot | ServiceAccount | SecurityPolicyBot | Internal => {
                case.is_refused_by(Rule::BotAccount);
                bots_allowed.is_granted_by(Rule::NoAllowlist);
            }
        }
    }
}

/// The same: a service account with the name of a local user. Its address and its second user give it away.
#[test]
fn a_service_account_with_a_persons_name() {
    for address in ["service_account_0123@noreply.gitlab.example.com", "alice@NoReply.gitlab.example.com"] {
        let case = Case::alice().with(|c| c.claims.user_email = Some(address.into()));
        case.is_refused_by(Rule::BotAccount);
    }
    for address in ["noreply@example.com", "alice@example.com", "noreply.alice@example.com"] {
        let case = Case::alice().with(|c| c.claims.user_email = Some(address.into()));
        case.is_granted_by(Rule::NoAllowlist);
    }
    let composite = Case::alice().with(|c| c.claims.composite_identity = true);
    composite.is_refused_by(Rule::CompositeIdentity);
    composite.with(|c| c.policy.allow_bot_accounts = true).is_granted_by(Rule::NoAllowlist);
}

/// The same: being allowed by name does not make a bot a person.
#[test]
fn no_list_turns_a_bot_into_a_person() {
    let case = Case::user("project_1_bot").with(|c| c.policy.user_allowlist = vec!["project_1_bot".into()]);
    case.is_refused_by(Rule::BotAccount);
}

/// CVE-2019-14287: `sudo -u#-1` and `-u#4294967295` ran as root, since -1 means "unchanged".
#[test]
fn an_id_that_means_unchanged() {
    for uid in [u32::MAX, 65_535] {
        let case = Case::alice().with(|c| c.found().account.uid = uid);
        case.is_refused_by(Rule::ReservedId);
        case.with(|c| c.policy.user_allowlist = vec!["alice".into()]).is_refused_by(Rule::ReservedId);
    }
    Case::alice().with(|c| c.found().account.gid = u32::MAX).is_refused_by(Rule::ReservedId);
    Case::alice().with(|c| c.found().account.groups.push(u32::MAX)).is_refused_by(Rule::ReservedId);
}

/// The overflow id is what a user namespace shows for everybody it does not map.
#[test]
fn nobody_in_particular() {
    Case::user("nobody").with(|c| c.found().account.uid = 65_534).is_refused_by(Rule::ReservedId);
}

/// CVE-2017-1000082: systemd ran a unit with `User=0day` as root, since the name did not parse.
#[test]
fn a_name_is_never_read_as_a_number() {
    Case::user("0day").is_granted_by(Rule::NoAllowlist);
    for login in ["0", "1000", "4294967295"] {
        Case::user(login).is_refused_by(Rule::AccountName);
    }
}

/// Names as options and paths: sudo, su and mkdir get them later.
#[test]
fn a_name_is_never_an_option_or_a_path() {
    for login in ["-u", "--help", "../x", "a/b", "a b", "a\nb", "$(id)", "a;b", "%hpc", "#0", "+x", "a@b"] {
        let claims = jacamar_contract::claims::Claims::new(claims(login));
        assert!(claims.is_err(), "{login:?} is no login of GitLab");
    }
    Case::user(".ssh").is_refused_by(Rule::AccountName);
}
