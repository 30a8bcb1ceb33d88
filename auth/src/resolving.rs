//! Directories of a job, resolved by a child that has become the user: a home may be closed to root.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use jacamar_contract::frame;
use jacamar_contract::resolve::{self, ResolveAnswer, ResolveRequest};
use jacamar_plan::{Directories, Grant, Host, Job, Mount, Plan, Profile, Refusal, Site, Stage};
use jacamar_sandbox::{Own, Terms};
use jacamar_site::config::Settings;

use crate::helper::{Task, job_without_directories, sealed};
use crate::stage::StageError;

/// A path on a file server that does not answer.
const RESOLVE_LIMIT: Duration = Duration::from_secs(30);

/// What is asked.
pub(crate) struct Question<'a> {
    pub(crate) own: &'a Own,
    pub(crate) host: &'a Host,
    pub(crate) grant: &'a Grant,
    pub(crate) profile: &'a Profile,
    pub(crate) site: &'a Site,
    pub(crate) program: &'a Path,
    pub(crate) record_name: &'a str,
    pub(crate) settings: &'a Settings,
    pub(crate) runner_id: u64,
    pub(crate) hostname: &'a str,
}

/// Canonical paths.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// `<data_dir>[/<account>]`
    pub(crate) base: String,
    /// `<base>/builds/<runner id>/<host>`, without the slot.
    pub(crate) builds: String,
    /// `<base>/cache`
    pub(crate) cache: String,
}

/// Resolves the job's directories; nothing is made.
pub(crate) fn directories(question: &Question<'_>) -> Result<Resolved, StageError> {
    let account = &question.grant.account;
    let base = question.settings.general.data_dir.of(&account.name, &account.home);
    let request = ResolveRequest { paths: vec![base] };
    let answer = ask(question, &request)?;
    let resolved = match ResolveAnswer::decode(&answer, &request).context("the answer of jacamar resolve")? {
        ResolveAnswer::Resolved(resolved) => resolved,
        ResolveAnswer::Refused(refused) => return Err(StageError::Refused(refused.into())),
    };
    let base = resolved.paths.into_iter().next().context("jacamar resolve answered no path")?;
    // A host name is part of a path here, whatever it looks like.
    let host: String = question
        .hostname
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '_' })
        .collect();
    let host = host.trim_start_matches('.');
    let builds = format!("{base}/builds/{}/{host}", question.runner_id);
    let cache = format!("{base}/cache");
    Ok(Resolved { base, builds, cache })
}

fn ask(question: &Question<'_>, request: &ResolveRequest) -> Result<Vec<u8>, StageError> {
    let frame = frame::encode(request).map_err(anyhow::Error::from)?;
    let task = Task {
        word: "resolve",
        request: sealed(&[&frame])?,
        more: Vec::new(),
        time_limit: RESOLVE_LIMIT,
        answer_max_bytes: resolve::ANSWER_MAX_BYTES,
    };
    // The job's own view, but not its private directories, which do not exist yet: a data_dir below /tmp is refused
    // when the stages are planned.
    let mut profile = question.profile.clone();
    profile.settings.private_tmp = None;
    let host = Host { ssh_config_files: false, ..question.host.clone() };
    let job = job_without_directories(question.record_name.to_owned());
    let terms = Terms {
        grant: question.grant,
        profile: &profile,
        site: question.site,
        host: &host,
        job: &job,
        stage: &Stage::Config,
    };
    let answered = task.run(question.own, question.program, Vec::new(), &terms)?;
    if answered.ended.terminated {
        return Err(StageError::Broken(anyhow!(
            "the directories of {} could not be resolved within {} s: a file server may not answer",
            question.grant.account.name,
            RESOLVE_LIMIT.as_secs()
        )));
    }
    Ok(answered.into_answer().context("could not run jacamar resolve")?)
}

/// What is mounted over a directory, so that the job would have another one of that name.
fn covered<'a>(mount: &'a Mount, directory: &str) -> Option<&'a str> {
    let target = match mount {
        // A tree over itself, read-only.
        Mount::Bind { source, target, .. } if source == target => return None,
        Mount::Bind { target, .. } | Mount::Tmpfs { target, .. } | Mount::Mqueue { target } => target,
        Mount::Proc { .. } => "/proc",
        Mount::ReadOnly { .. } => return None,
    };
    Path::new(directory).starts_with(target).then_some(target)
}

/// Whether the plans of later stages can be made: what this host cannot give is refused before anything happened. What
/// is only preferred is told.
pub(crate) fn try_plan(
    host: &Host,
    grant: &Grant,
    profile: &Profile,
    site: &Site,
    record_name: &str,
    tmp_base: &str,
    base: &str,
) -> Result<Plan, StageError> {
    let below = |name: &str| format!("{tmp_base}/{record_name}/{name}");
    let directories =
        Directories { tmp: below("tmp"), var_tmp: below("var-tmp"), ssh_config: below("ssh_config.d") };
    let job = Job { id: record_name.to_owned(), directories, working_directory: "/".into() };
    let terms = Terms { grant, profile, site, host, job: &job, stage: &Stage::Prepare };
    let checked = terms.plan()?;
    let plan = checked.plan();
    match plan.view.mounts.iter().find_map(|mount| covered(mount, base)) {
        Some(target) => Err(StageError::Refused(Refusal {
            rule: "data_dir_covered".into(),
            object: format!("data_dir {base}"),
            cause: format!(
                "lies below {target}, in place of which the profile {} shows another",
                profile.name
            ),
            hint: "the runner's administrators have to look at [general] data_dir".into(),
        })),
        None => Ok(plan.clone()),
    }
}
