//! `config`: decides once, and has no effect but the record.

use std::path::Path;

use anyhow::{Context, anyhow};
use jacamar_authorize::{
    AccountFacts, AccountName, FoundAccount, HostAccounts, Lookup, Nologin, Policy, authorize,
};
use jacamar_contract::claims::Claims;
use jacamar_contract::config_json::{ConfigAnswer, Hostname, RunnerDirectory};
use jacamar_contract::environment::{RecordName, RunnerEnvironment};
use jacamar_contract::job_variables::{JobVariables, Names};
use jacamar_plan::{Grant, Key, Level, Plan, Refusal, Without};
use jacamar_record::{
    AuditLocation, AuditSettings, FORMAT, Jobs, JobsAtOnce, Project, Record, RecordError, ShellSettings,
    SlotKey, boot_id,
};
use jacamar_sandbox::{Own, probe};
use jacamar_site::accounts::{self, GroupName};
use jacamar_site::config::{self, Downscope, LogLevel, LogLocation, Settings};
use jacamar_site::trusted_file::Trust;
use nix::unistd::getuid;
use serde_json::Value;
use tracing::debug;

use super::known::Known;
use super::site::{choice, jacamar, jobs_at_once, level, limits, named, profile, settings};
use super::user_side::{parent, state};
use super::{Ended, StageEnd, StageError};
use crate::audit::Priority;
use crate::helper::Helpers;
use crate::{identity, keeper, resolving};

pub(super) fn config(
    own: &Own,
    process_level: Level,
    environment: &RunnerEnvironment,
    configuration: Option<&Path>,
    known: &mut Known,
) -> Result<StageEnd, StageError> {
    let trust = match process_level {
        Level::Root | Level::Capabilities => Trust::RootOnly,
        Level::User => Trust::Caller(getuid().as_raw()),
    };
    let settings = settings(configuration, trust)?;
    known.contact.clone_from(&settings.general.support_contact);
    let level = level(process_level, &settings)?;
    let state = state(level)?;
    let jobs = Jobs::open(&state).map_err(|error| keepers(error, level, &state))?;
    known.open_audit(&audit_settings(&settings), &state)?;
    let name = jacamar_kernel::random_name().context("could not choose a name")?;
    // Helpers get a control group of this name: from here on `gc` sees that it is in use.
    let begun = jobs.begin(&name)?;
    let program = jacamar(&settings, trust)?;
    let profile = profile(&settings)?;
    let host = probe(level, &choice(&settings), &named(&profile, &settings)).map_err(anyhow::Error::from)?;

    // Who it is, and whether that person may.
    let helpers = Helpers::new(own, &host, &program, &name)?;
    let names = Names {
        token: &settings.general.jwt_env_variable,
        value_max_bytes: usize::try_from(settings.auth.max_env_chars).unwrap_or(usize::MAX),
    };
    let variables = JobVariables::read(std::env::vars_os(), names).map_err(StageError::Refused)?;
    let response = environment
        .response_file
        .as_deref()
        .context("JOB_RESPONSE_FILE is not set: GitLab Runner 14.1 or newer is needed")?;
    let claims = identity::claims(&helpers, &settings, &state, response, trust)?;
    known.claims(&claims);
    let (grant, group_names) = grant(&claims, &settings, level, helpers.uid())?;
    known.grant(&grant);

    // Where, and whether this host can give what the profile requires: now, before anything happened.
    let site = limits(&settings, &grant.account.name, &group_names);
    let jobs_at_once = jobs_at_once(&settings, &grant.account.name, &group_names);
    let tmp_base = match &settings.sandbox.tmp_dir {
        Some(path) => path.as_str().to_owned(),
        None => text(&state.join("tmp"))?,
    };
    let runner_id = claims.fields().runner_id;
    let hostname = hostname()?;
    let directories = resolving::directories(&resolving::Question {
        own,
        host: &host,
        grant: &grant,
        profile: &profile,
        site: &site,
        program: &program,
        record_name: &name,
        settings: &settings,
        runner_id,
        hostname: &hostname,
    })?;
    let plan = resolving::try_plan(&host, &grant, &profile, &site, &name, &tmp_base, &directories.base)?;

    let project = project(&claims);
    let slot_key = SlotKey {
        uid: grant.account.uid,
        data_dir: directories.base.clone(),
        runner_id,
        project_id: project.project_id,
    };
    let slots = jobs.slots()?;
    let slot = slots.lowest(&slot_key)?;
    let builds_dir = format!("{}/{slot:03}", directories.builds);
    debug!(record = name, slot, builds_dir, "a build directory was chosen");
    let report = variables.wishes.report.as_deref();
    let usage_file =
        report.map_or_else(String::new, |wish| usage_file(&builds_dir, &project.project_path, wish));
    let answer = ConfigAnswer {
        version: env!("CARGO_PKG_VERSION").into(),
        hostname: Hostname::new(&hostname),
        builds_dir: runner_directory("builds_dir", &builds_dir)?,
        cache_dir: runner_directory("cache_dir", &directories.cache)?,
        record: RecordName::new(&name).context("the record's name is no name")?,
    };
    let record = Record {
        format: FORMAT,
        boot_id: boot_id().context("could not read the boot id")?,
        host: hostname,
        server: settings.general.gitlab_server.as_str().to_owned(),
        runner_id,
        project,
        grant,
        profile,
        site,
        jobs_at_once,
        host_facts: host,
        level,
        jacamar_path: text(&program)?,
        tmp_base,
        slot_key,
        slot,
        builds_dir,
        cache_dir: directories.cache,
        shell: shell(&settings, variables.wishes.profile)?,
        kill_timeout_ms: settings.general.kill_timeout.0,
        timeout_s: variables.timeout_s,
        usage_report: settings.sandbox.usage_report,
        usage_file,
        run_stage_allowlist: settings.auth.run_stage_allowlist.clone(),
        job_message: settings.general.job_message.clone(),
        support_contact: settings.general.support_contact.clone(),
        audit: audit_settings(&settings),
        runner: parent()?,
        starter: getuid().as_raw(),
    };
    known.line(Priority::Info, "granted", granted(&record, &claims, &settings, &plan))?;
    slots.create(begun, &record)?;
    tell_surprises(&plan.without);
    let printed = super::print(&answer.to_json());
    let terminated = own.asked_to_end().map_err(anyhow::Error::from)?;
    if printed.is_err() || terminated {
        // The runner takes no answer from a call that failed, so no cleanup would find the record.
        jobs.find(&name)?.remove(&jobs)?;
    }
    printed?;
    let ended = if terminated { Ended::ByTermination } else { Ended::ByItself };
    Ok(StageEnd { ended, ..StageEnd::done() })
}

/// The keeper cannot make its state directory: `/var/lib` is root's.
fn keepers(error: RecordError, level: Level, state: &Path) -> anyhow::Error {
    if level != Level::Capabilities {
        return error.into();
    }
    let (state, name) = (state.display(), keeper::NAME);
    let hint = format!("as root: install -d -o {name} -g {name} -m 0711 {state}");
    let object = format!("state directory {state}");
    Refusal { rule: "state_directory".into(), object, cause: error.to_string(), hint }.into()
}

/// `JACAMAR_REPORT`, which a relative path names from the project's directory on, as artifacts do. It is written with the
/// user's rights.
fn usage_file(builds_dir: &str, project_path: &str, wish: &str) -> String {
    if wish.starts_with('/') { wish.to_owned() } else { format!("{builds_dir}/{project_path}/{wish}") }
}

fn runner_directory(field: &'static str, path: &str) -> Result<RunnerDirectory, StageError> {
    RunnerDirectory::new(field, path).map_err(StageError::Refused)
}

/// The project in which the job runs; an older GitLab names that of the branch alone.
pub(super) fn project(claims: &Claims) -> Project {
    let fields = claims.fields();
    Project {
        project_id: fields.job_project_id.unwrap_or(fields.project_id),
        project_path: fields.job_project_path.clone().unwrap_or_else(|| fields.project_path.clone()),
        pipeline_id: fields.pipeline_id,
        job_id: fields.job_id,
    }
}

pub(crate) fn audit_settings(settings: &Settings) -> AuditSettings {
    let logging = &settings.auth.logging;
    let location = match &logging.location {
        LogLocation::Auto => AuditLocation::Auto,
        LogLocation::Syslog => AuditLocation::Syslog,
        LogLocation::File(path) => AuditLocation::File(path.as_str().to_owned()),
    };
    let priority_max = match logging.level {
        LogLevel::Error => Priority::Error,
        LogLevel::Warn => Priority::Warning,
        LogLevel::Info => Priority::Info,
        LogLevel::Debug => Priority::Debug,
    } as u8;
    AuditSettings {
        location: logging.enabled.then_some(location),
        priority_max,
        name: settings.general.name.clone(),
    }
}

/// Asks NSS and the pure function. With the grant come the names of the account's groups.
fn grant(
    claims: &Claims,
    settings: &Settings,
    level: Level,
    helper_uid: u32,
) -> Result<(Grant, Vec<String>), StageError> {
    let name = AccountName::of(claims.fields()).map_err(StageError::Refused)?;
    let mut groups_of_account = Vec::new();
    let lookup = match accounts::lookup(name.as_str()).map_err(anyhow::Error::from)? {
        None => Lookup::NoSuchAccount,
        Some(found) => {
            let mut group_names = Vec::new();
            for group in &found.groups {
                match &group.name {
                    GroupName::Named(name) => group_names.push(name.clone()),
                    GroupName::Unnamed => {}
                    // A group that is silently missing would slip past a block list or a limit.
                    GroupName::Failed(cause) if lists_groups(settings) => {
                        return Err(StageError::Broken(anyhow!(
                            "could not name group {}: {cause}",
                            group.gid
                        )));
                    }
                    GroupName::Failed(_) => {}
                }
            }
            groups_of_account.clone_from(&group_names);
            Lookup::Found(FoundAccount { account: found.account, group_names })
        }
    };
    let nologin = accounts::nologin().map_err(anyhow::Error::from)?;
    let facts = AccountFacts {
        lookup,
        nologin: nologin.map(|nologin| Nologin { path: nologin.path, text: nologin.text }),
        host: HostAccounts {
            runner: accounts::current().map_err(anyhow::Error::from)?,
            own_uids: own_uids(level, helper_uid)?,
        },
    };
    let grant = authorize(claims, &policy(settings), &facts).map_err(StageError::Refused)?;
    Ok((grant, groups_of_account))
}

fn lists_groups(settings: &Settings) -> bool {
    !settings.auth.groups_blocklist.is_empty()
        || !settings.auth.groups_allowlist.is_empty()
        || !settings.sandbox.limits.groups.is_empty()
}

/// Accounts of ours, never a job's: that of `keys` and `verify`, and the keeper where there is one.
fn own_uids(level: Level, helper_uid: u32) -> anyhow::Result<Vec<u32>> {
    match level {
        Level::Root | Level::Capabilities => Ok([helper_uid].into_iter().chain(keeper::uid()?).collect()),
        Level::User => Ok(Vec::new()),
    }
}

fn policy(settings: &Settings) -> Policy {
    let auth = &settings.auth;
    Policy {
        user_allowlist: auth.user_allowlist.clone(),
        user_blocklist: auth.user_blocklist.clone(),
        groups_blocklist: auth.groups_blocklist.clone(),
        groups_allowlist: auth.groups_allowlist.clone(),
        shell_allowlist: auth.shell_allowlist.iter().map(|path| path.as_str().to_owned()).collect(),
        pipeline_source_allowlist: auth.pipeline_source_allowlist.clone(),
        allow_bot_accounts: auth.allow_bot_accounts,
        enforce_nologin: auth.enforce_nologin,
        minimum_uid: auth.minimum_uid,
        downscope: match auth.downscope {
            Downscope::Setuid => jacamar_authorize::Downscope::Setuid,
            Downscope::None => jacamar_authorize::Downscope::None,
        },
        runner_id: auth.runner_id,
    }
}

fn shell(
    settings: &Settings,
    profile: jacamar_contract::stage_request::ProfileMode,
) -> anyhow::Result<ShellSettings> {
    let mut environment = Vec::new();
    for pair in &settings.general.user_bash_env {
        let (name, value) =
            pair.split_once('=').with_context(|| format!("user_bash_env: {pair:?} is no NAME=value"))?;
        environment.push((name.to_owned(), value.to_owned()));
    }
    let path =
        settings.general.shell_path.as_ref().map_or("/bin/bash", config::AbsolutePath::as_str).to_owned();
    // Profile scripts of a site can see that it is us.
    environment.push(("JACAMAR_CI_SHELL".into(), path.clone()));
    Ok(ShellSettings { path, environment, profile })
}

pub(crate) fn hostname() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("could not read the host name")?;
    Ok(name.to_string_lossy().into_owned())
}

fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", path.display()))
}

/// What an honest job trips over: not that a limit is missing, but that `id` shows nobody or sudo does nothing.
fn tell_surprises(without: &[Without]) {
    let is_protection = |what: &str| Key::named(what.split(' ').next().unwrap_or_default()).is_some();
    for Without { what, reason } in without.iter().filter(|without| !is_protection(&without.what)) {
        super::tell(&format!("sandbox: without {what}: {reason}\n"));
    }
}

/// `job MemoryMax = 8 GiB`, `LimitNOFILE = 1024:4096`, `user MaxJobsPerUser = 4`
fn limits_in_words(plan: &Plan, jobs: Option<&JobsAtOnce>) -> Vec<String> {
    let nodes = plan.contain.cgroup.as_ref();
    let nodes = nodes.map(|cgroup| [("site", &cgroup.site), ("user", &cgroup.user), ("job", &cgroup.job)]);
    let of_groups = nodes
        .into_iter()
        .flatten()
        .flat_map(|(name, node)| node.limits.iter().map(move |planned| format!("{name} {}", planned.limit)));
    let of_processes =
        plan.confine.limits.iter().map(|limit| format!("{} = {}:{}", limit.resource, limit.soft, limit.hard));
    let of_jobs = jobs.map(|jobs| format!("user MaxJobsPerUser = {}", jobs.max));
    of_groups.chain(of_processes).chain(of_jobs).collect()
}

/// The decision for the job, beside what every line says.
fn granted(record: &Record, claims: &Claims, settings: &Settings, plan: &Plan) -> Vec<(&'static str, Value)> {
    let enforced: Vec<String> = plan.origin.keys().map(ToString::to_string).collect();
    let without: Vec<String> = plan.without.iter().map(|w| format!("{}: {}", w.what, w.reason)).collect();
    let or = |value: Option<Value>, words: &str| value.unwrap_or_else(|| words.into());
    vec![
        ("server", record.server.clone().into()),
        ("runner_id", record.runner_id.into()),
        ("runner_id_required", or(settings.auth.runner_id.map(Value::from), "not compared")),
        ("audience_required", or(settings.auth.jwt_required_aud.clone().map(Value::from), "any")),
        ("pipeline_source", claims.fields().pipeline_source.clone().into()),
        ("rule", record.grant.rule.clone().into()),
        ("claims", record.grant.claims_digest.clone().into()),
        ("level", record.level.to_string().into()),
        ("profile", record.profile.name.clone().into()),
        ("enforced", enforced.into()),
        ("limits", limits_in_words(plan, record.jobs_at_once.as_ref()).into()),
        ("without", without.into()),
    ]
}
