//! What `prepare`, `run` and `cleanup` have in common: the record, and `jacamar STAGE` as the user.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use jacamar_contract::environment::{RecordVariable, RunnerEnvironment};
use jacamar_contract::frame;
use jacamar_contract::stage_report::{self, StageReport};
use jacamar_contract::stage_request::{DirectoryMode, StageRequest};
use jacamar_plan::{Host, Job, JobCgroup, Level, Plan, Refusal, Stage};
use jacamar_record::{Jobs, OpenJob, ProcessId, Record, Running, boot_id};
use jacamar_sandbox::{
    CgroupChoice, Command, Ended, JobDirectories, Named, Output, Own, Parent, Stdio, Stream, Terms, Watch,
    start,
};
use nix::fcntl::OFlag;
use nix::unistd::{getppid, getuid, pipe2};
use tracing::debug;

use crate::helper::{blank, milliseconds, sealed};
use crate::stage::StageError;

/// The user can stop his own processes, and his file server need not answer.
const CLEANUP_WITHIN: Duration = Duration::from_secs(60);
const PREPARE_WITHIN: Duration = Duration::from_secs(300);

/// State directory at this level.
pub(crate) fn state(level: Level) -> anyhow::Result<PathBuf> {
    let home = match level {
        Level::Root | Level::Capabilities => String::new(),
        Level::User => jacamar_site::accounts::current()?.home,
    };
    Ok(jacamar_record::state_directory(level, &home, std::env::var_os("XDG_STATE_HOME"))?)
}

/// The record that the runner's environment names.
pub(crate) fn open(environment: &RunnerEnvironment, jobs: &Jobs) -> Result<OpenJob, StageError> {
    let name = match &environment.record {
        RecordVariable::Named(name) => name,
        RecordVariable::Unset => {
            return Err(StageError::Broken(anyhow!(
                "JACAMAR_CI_RECORD is not set: config_exec of the runner's configuration did not run jacamar-auth config"
            )));
        }
        RecordVariable::Invalid => {
            return Err(StageError::Broken(anyhow!("JACAMAR_CI_RECORD is not the name of a record")));
        }
    };
    let job = jobs.find(name.as_str())?;
    let here = boot_id().context("could not read the boot id")?;
    if job.record().boot_id != here {
        return Err(StageError::Broken(anyhow!(
            "the record {} is of another boot: the host restarted, the job is lost",
            job.name()
        )));
    }
    Ok(job)
}

/// A stage of a job at this level, of this account, must be that of the record's.
pub(crate) fn same_level(record: &Record, level: Level) -> anyhow::Result<()> {
    if record.level != level {
        bail!("config ran at level {}, this stage at level {level}", record.level);
    }
    let own = getuid().as_raw();
    // Whoever may start us could name any record; at the other levels that one is root, or the user.
    if level == Level::Capabilities && record.starter != own {
        bail!("uid {} started config, this stage was started by uid {own}", record.starter);
    }
    Ok(())
}

/// Whether the account is still there. A clear no refuses, an error of the name service does not: ids and groups are
/// those of the record.
pub(crate) fn account_exists(record: &Record) -> Result<(), StageError> {
    let account = &record.grant.account;
    match jacamar_site::accounts::exists(account.uid) {
        Ok(true) | Err(_) => Ok(()),
        Ok(false) => Err(StageError::Refused(Refusal {
            rule: "account_gone".into(),
            object: format!("account {} (uid {})", account.name, account.uid),
            cause: "was removed from this host while the job ran".into(),
            hint: "run the job again once the account is back".into(),
        })),
    }
}

/// The job's private directories.
pub(crate) fn directories(job: &OpenJob) -> JobDirectories {
    let record = job.record();
    let account = &record.grant.account;
    JobDirectories::of(Path::new(&record.tmp_base), job.name(), account.uid, account.gid, record.level)
}

/// Settings of a stage for the user's side.
pub(crate) fn request(job: &OpenJob, stage: Stage, script: &[u8]) -> StageRequest {
    let record = job.record();
    let account = &record.grant.account;
    StageRequest {
        stage,
        shell: record.shell.path.clone(),
        home: account.home.clone(),
        builds_dir: record.builds_dir.clone(),
        cache_dir: record.cache_dir.clone(),
        profile: record.shell.profile,
        environment: record.shell.environment.clone(),
        directory_mode: DirectoryMode::default(),
        job_message: record.job_message.clone(),
        account: account.name.clone(),
        host: record.host.clone(),
        sandbox_profile: record.profile.name.clone(),
        support_contact: record.support_contact.clone(),
        remove: Vec::new(),
        usage_group: usage_group(job).unwrap_or_default(),
        usage_file: record.usage_file.clone(),
        report: true,
        script_bytes: script.len() as u64,
    }
}

/// The job's own control group.
fn usage_group(job: &OpenJob) -> Option<String> {
    let record = job.record();
    let node = record.host_facts.cgroup.node.as_ref().ok()?;
    Some(JobCgroup::nodes(node, record.grant.account.uid, job.name()).1)
}

/// How `jacamar STAGE` ended, and what it reported.
pub(crate) struct UserSide {
    /// What was planned for it.
    pub(crate) plan: Plan,
    pub(crate) ended: Ended,
    pub(crate) report: Option<StageReport>,
}

/// Runs `jacamar STAGE` as the user, in the sandbox, with its output on ours.
pub(crate) fn run_as_user(
    own: &Own,
    job: &OpenJob,
    host: &Host,
    request: &StageRequest,
    script: &[u8],
) -> Result<UserSide, StageError> {
    let record = job.record();
    let stage = &request.stage;
    let pipe = || pipe2(OFlag::O_CLOEXEC).context("could not make a pipe");
    let (output, errors) = (pipe()?, pipe()?);
    let reported = blank(stage_report::REPORT_BYTES)?;
    let report = reported.try_clone().context("could not copy a descriptor")?.into();
    let program = CString::new(record.jacamar_path.as_str()).map_err(anyhow::Error::from)?;
    let word = match stage {
        Stage::Config => c"resolve",
        Stage::Prepare => c"prepare",
        Stage::Run(_) | Stage::Exec => c"run",
        Stage::Cleanup => c"cleanup",
    };
    let plan_job = Job {
        id: job.name().to_owned(),
        directories: directories(job).paths().map_err(anyhow::Error::from)?,
        working_directory: "/".into(),
    };
    let terms = Terms {
        grant: &record.grant,
        profile: &record.profile,
        site: &record.site,
        host,
        job: &plan_job,
        stage,
    };
    let plan = terms.plan()?;
    let planned = plan.plan().clone();
    // What the site says of the shell's environment comes after, and wins.
    let mut request = request.clone();
    request.environment = [plan.plan().execute.environment.clone(), request.environment].concat();
    let container = sealed(&[&frame::encode(&request).map_err(anyhow::Error::from)?, script])?;
    let command = Command {
        paths: vec![program.clone()],
        arguments: vec![program, word.to_owned()],
        environment: Vec::new(),
        stdio: Stdio::Descriptors(vec![container, output.1, errors.1, report]),
    };
    let parent = if *stage == Stage::Cleanup { None } else { Some(runner(record)?) };
    let begin = Instant::now();
    let supervisor = start(plan, command, own)?;
    let init = identify(supervisor.pid())?;
    let running = Running {
        supervisor: match stage {
            // The end of this process is enough for another clean-up; we have more to do, `gc` above all.
            Stage::Cleanup => init,
            Stage::Config | Stage::Prepare | Stage::Run(_) | Stage::Exec => identify(nix::unistd::getpid())?,
        },
        init,
    };
    job.set_running(&running)?;
    debug!(%stage, record = job.name(), milliseconds = milliseconds(begin), "the user's side was started");

    let ours = |fd: std::io::Result<OwnedFd>| fd.context("could not copy our own descriptor");
    let output = Output::new(vec![
        (output.0, ours(std::io::stdout().as_fd().try_clone_to_owned())?),
        (errors.0, ours(std::io::stderr().as_fd().try_clone_to_owned())?),
    ])
    .context("could not copy the job's output")?;
    let watch = Watch {
        kill_timeout: Duration::from_millis(record.kill_timeout_ms),
        parent,
        stream: Some(&output as &dyn Stream),
        time_limit: match stage {
            Stage::Cleanup => Some(CLEANUP_WITHIN),
            Stage::Prepare => Some(PREPARE_WITHIN),
            Stage::Config | Stage::Run(_) | Stage::Exec => None,
        },
        last_stage: false,
    };
    let ended = supervisor.wait(own, &watch).map_err(anyhow::Error::from)?;
    job.clear_running()?;
    debug!(%stage, record = job.name(), milliseconds = milliseconds(begin), "the user's side ended");
    // The user's word, believed only where the exit code agrees; a report that cannot be read is none.
    // At a fixed place: the offset is shared with the user's side, which could move it for ever.
    let mut report = vec![0; stage_report::REPORT_BYTES];
    reported.read_exact_at(&mut report, 0).context("could not read the report")?;
    let report = frame::decode::<StageReport>(&report).ok();
    Ok(UserSide { plan: planned, ended, report })
}

pub(super) fn identify(pid: nix::unistd::Pid) -> anyhow::Result<ProcessId> {
    // One that is gone already cannot be mistaken for another either.
    Ok(ProcessId::of(pid)?.unwrap_or(ProcessId { pid: pid.as_raw(), start_time: 0 }))
}

/// The process that started us, for the record; process 0 if it has no number here.
pub(crate) fn parent() -> anyhow::Result<ProcessId> {
    identify(getppid())
}

/// The process that started us: when it dies, nobody waits for this stage any more. One that died before we looked has
/// left us to process 1.
pub(super) fn runner(record: &Record) -> anyhow::Result<Parent> {
    if getppid().as_raw() == 1 && record.runner.pid != 1 {
        bail!("the runner that started this stage is gone");
    }
    Parent::of_ours().context("could not watch the runner")
}

/// Host facts of now: mounts and control groups change between stages, what the kernel can do does not.
pub(crate) fn host(record: &Record) -> anyhow::Result<Host> {
    Ok(jacamar_sandbox::probe_again(&record.host_facts, &named(record))?)
}

fn named(record: &Record) -> Named {
    Named::by(&record.profile, [&record.site.site, &record.site.user])
}

/// Host facts of now for a record of another boot, whose kernel may have been another, or of another service.
pub(super) fn host_of_this_boot(record: &Record) -> anyhow::Result<Host> {
    let cgroup = &record.host_facts.cgroup;
    let choice = match (&cgroup.node, &cgroup.delegated) {
        (Ok(node), None) if Path::new(node).exists() => CgroupChoice::Path(node.clone()),
        (Ok(_) | Err(_), _) => CgroupChoice::Auto,
    };
    Ok(jacamar_sandbox::probe(record.level, &choice, &named(record))?)
}
