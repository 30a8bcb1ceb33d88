//! May this job run here, and as whom?
//!
//! `authorize` is one pure function from verified claims, the site's policy and what the host says about an
//! account to a grant or a refusal. It performs no I/O: it looks up no account, opens no file and reads no
//! clock, so every answer is a table test. It does not know tokens: claims come out of `jacamar verify`, which is
//! trusted for *who* and never for *may*.
//!
//! The login alone is a weak link to a local account: GitLab lets group owners make accounts with names of their
//! choice (CVE-2026-107589). What claims tell about such accounts is in [`LoginClass`]; what they cannot tell is
//! said there too.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod account_name;
mod facts;
mod ids;
mod lists;
mod login_class;
mod policy;
mod rule;

pub use account_name::{ACCOUNT_NAME_MAX_BYTES, AccountName};
pub use facts::{AccountFacts, FoundAccount, HostAccounts, Lookup, NOLOGIN_TEXT_MAX_BYTES, Nologin};
pub use login_class::LoginClass;
pub use policy::{Downscope, Policy};
pub use rule::Rule;

use jacamar_contract::claims::{ClaimFields, Claims};
use jacamar_plan::{Account, Grant, Refusal};

/// Whether the job of these claims may run, and as which account.
///
/// The first rule that says no ends it. The order is Jacamar CI's, so that a site sees the same reason for the
/// same job: what concerns the host, then the user of GitLab, then the local account. The granted account is the
/// one named by the login; under [`Downscope::None`] nobody changes the user, so it is the account that the
/// runner has, after the user passed every rule and the account passed those on ids.
///
/// # Errors
/// A [`Refusal`] whose rule is a [`Rule`]'s word.
pub fn authorize(claims: &Claims, policy: &Policy, facts: &AccountFacts) -> Result<Grant, Refusal> {
    let who = claims.fields();
    runner(who, policy)?;
    nologin(policy, facts)?;
    login_class::judge(who, policy)?;
    pipeline_source(who, policy)?;
    let name = AccountName::of(who)?;
    let found = account(&name, facts)?;
    let granted_by = lists::judge(found, policy)?;
    shell(&found.account, policy)?;
    ids::judge(&found.account, policy)?;
    let account = run_as(&found.account, policy, facts)?;
    Ok(Grant { account: account.clone(), claims_digest: claims.digest(), rule: granted_by.word().to_owned() })
}

/// `verify` compared it too; here it is the process that acts that compares.
fn runner(who: &ClaimFields, policy: &Policy) -> Result<(), Refusal> {
    match policy.runner_id {
        Some(id) if id != who.runner_id => Err(Rule::RunnerMismatch.refusal(
            format!("job {}", who.job_id),
            format!("was given to runner {} by GitLab, and this is runner {id}", who.runner_id),
            "the people below can mend that: [auth] runner_id".to_owned(),
        )),
        Some(_) | None => Ok(()),
    }
}

fn nologin(policy: &Policy, facts: &AccountFacts) -> Result<(), Refusal> {
    match &facts.nologin {
        Some(nologin) if policy.enforce_nologin => {
            let text = nologin.shown();
            let cause = if text.is_empty() { String::new() } else { format!(": {text}") };
            Err(Rule::Nologin.refusal(
                nologin.path.clone(),
                format!("this host takes no jobs now{cause}"),
                "retry the job when the host is back".to_owned(),
            ))
        }
        Some(_) | None => Ok(()),
    }
}

fn pipeline_source(who: &ClaimFields, policy: &Policy) -> Result<(), Refusal> {
    let allowed = &policy.pipeline_source_allowlist;
    if allowed.is_empty() || allowed.contains(&who.pipeline_source) {
        return Ok(());
    }
    Err(Rule::PipelineSource.refusal(
        format!("pipeline source {}", who.pipeline_source),
        "this site does not take pipelines that were started this way".to_owned(),
        format!("start the pipeline by one of: {}", allowed.join(", ")),
    ))
}

fn account<'a>(name: &AccountName, facts: &'a AccountFacts) -> Result<&'a FoundAccount, Refusal> {
    match &facts.lookup {
        Lookup::NoSuchAccount => Err(Rule::NoAccount.refusal(
            format!("GitLab user {name}"),
            "has no account of the same name on this host".to_owned(),
            "ask for an account on this system, or run the job on another runner (`tags:`)".to_owned(),
        )),
        Lookup::Found(found) if found.account.name != name.as_str() => Err(Rule::AccountName.refusal(
            format!("GitLab user {name}"),
            format!("this host calls the account {}, which is not exactly the same name", found.account.name),
            "GitLab user name and account name have to be equal, upper and lower case included".to_owned(),
        )),
        Lookup::Found(found) => Ok(found),
    }
}

fn shell(account: &Account, policy: &Policy) -> Result<(), Refusal> {
    if policy.shell_allowlist.is_empty() || policy.shell_allowlist.contains(&account.shell) {
        return Ok(());
    }
    Err(Rule::Shell.refusal(
        format!("account {}", account.name),
        format!("has the login shell {}, which [auth] shell_allowlist does not have", account.shell),
        format!("change the login shell to one of: {}", policy.shell_allowlist.join(", ")),
    ))
}

/// The account that the job runs as: the user's own, or the runner's where nobody changes the user.
fn run_as<'a>(user: &'a Account, policy: &Policy, facts: &'a AccountFacts) -> Result<&'a Account, Refusal> {
    let host = &facts.host;
    match policy.downscope {
        Downscope::None => {
            ids::judge(&host.runner, policy).map_err(of_the_runner)?;
            Ok(if user.uid == host.runner.uid { user } else { &host.runner })
        }
        Downscope::Setuid | Downscope::Sudo | Downscope::Su => {
            let cause = if user.uid == host.runner.uid {
                "is the account that the runner itself has, and a job could then act on every other job"
            } else if host.own_uids.contains(&user.uid) {
                "is an account of Jacamar itself"
            } else {
                return Ok(user);
            };
            Err(Rule::RunnerAccount.refusal(
                format!("account {}", user.name),
                cause.to_owned(),
                "start the pipeline as a person with an account on this host".to_owned(),
            ))
        }
    }
}

/// A refusal that concerns the account of the runner, not the user's.
fn of_the_runner(refusal: Refusal) -> Refusal {
    Refusal {
        object: format!("the runner's own {}", refusal.object),
        hint: "with [auth] downscope = \"none\" every job runs as the runner's account; the people below can give the \
               runner another one"
            .to_owned(),
        ..refusal
    }
}
