//! Numbers that no job runs with, whatever any list says.

use jacamar_plan::{Account, Refusal};

use crate::{Policy, Rule};

/// Accepts the account's uid and gids, or says which is not for jobs.
pub(crate) fn judge(account: &Account, policy: &Policy) -> Result<(), Refusal> {
    let object = || format!("account {}", account.name);
    let as_a_person = || "start the pipeline as a person with an ordinary account on this host".to_owned();
    if account.uid == 0 {
        let cause = "has uid 0, and no job ever runs as root".to_owned();
        return Err(Rule::RootAccount.refusal(object(), cause, as_a_person()));
    }
    if let Some(cause) = reserved_uid(account.uid) {
        let cause = format!("has uid {}, {cause}", account.uid);
        return Err(Rule::ReservedId.refusal(object(), cause, as_a_person()));
    }
    let mut gids = std::iter::once(account.gid).chain(account.groups.iter().copied());
    if gids.any(|gid| gid == UNCHANGED) {
        let cause = format!("has gid {UNCHANGED}, which the kernel reads as \"leave it as it is\"");
        return Err(Rule::ReservedId.refusal(object(), cause, as_a_person()));
    }
    if account.gid == 0 || account.groups.contains(&0) {
        // The kernel makes no difference between a primary and a supplementary group, so neither does this rule:
        // gid 0 opens every file and device of root:root that its group may read or write, and where pam_wheel
        // has no group `wheel` its members may become root.
        let cause = "has root's group (gid 0), and no job ever has it".to_owned();
        let hint = format!("take {} out of that group, or use another account for CI", account.name);
        return Err(Rule::RootGroup.refusal(object(), cause, hint));
    }
    if account.uid < policy.minimum_uid {
        let cause = format!("has uid {}, and jobs run with {} or above", account.uid, policy.minimum_uid);
        let hint = "accounts of the system run no jobs; start the pipeline as a person (for the site: [auth] \
                    minimum_uid, whose default is UID_MIN of /etc/login.defs)";
        return Err(Rule::MinimumUid.refusal(object(), cause, hint.to_owned()));
    }
    Ok(())
}

/// -1: setresuid(2) and setresgid(2) leave an id unchanged, so a process that "becomes" it stays root
/// (CVE-2019-14287).
const UNCHANGED: u32 = u32::MAX;

/// -1 of the 16-bit calls, which 32-bit programs still make (credentials(7), setuid16 in the kernel).
const UNCHANGED_16_BIT: u32 = 65_535;

/// `nobody`, and what a user namespace shows for every id that it does not map (user_namespaces(7)): files and
/// processes that belong to it belong to many.
const OVERFLOW: u32 = 65_534;

fn reserved_uid(uid: u32) -> Option<&'static str> {
    match uid {
        UNCHANGED | UNCHANGED_16_BIT => Some("which the kernel reads as \"leave it as it is\""),
        OVERFLOW => Some("which stands for nobody in particular"),
        _ => None,
    }
}
