//! `exec` and `explain`: a command of a person, from host facts to the command's end. The stages of a job do the same
//! with a record in between.

use std::ffi::{CString, NulError, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use jacamar_plan::{
    CheckedPlan, Directories, Grant, Host, Job, Level, Outcome, Profile, Refusal, Site, Stage, Step,
    StepError, Unplannable, Violation,
};

use crate::probe::presume;
use crate::{
    CgroupChoice, Command, DirectoryError, Ended, JobDirectories, Launch, LaunchError, Named, Own, OwnError,
    ProbeError, Stdio, Stream, Supervisor, Terminal, Watch, probe,
};

/// A command of a person.
#[derive(Debug)]
pub struct Session {
    /// Whose command it is.
    pub grant: Grant,
    /// The profile.
    pub profile: Profile,
    /// The site's limits.
    pub site: Site,
    /// What our process may do.
    pub level: Level,
    /// Which control groups.
    pub cgroup: CgroupChoice,
    /// Where private directories are made.
    pub base: PathBuf,
    /// Where the command starts.
    pub working_directory: String,
    /// Between SIGTERM and the end.
    pub kill_timeout: Duration,
}

/// Why a command was not run, or its end is not known.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The host could not be probed.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The profile requires what the host lacks.
    #[error("{0}")]
    Refused(Refusal),
    /// The checker refused the plan.
    #[error("the plan of profile {profile} is refused: {violation}")]
    Violation {
        /// Name of the profile.
        profile: String,
        /// The rule.
        violation: Violation,
    },
    /// The private directories.
    #[error(transparent)]
    Directories(#[from] DirectoryError),
    /// Nothing was started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The end could not be learned or enforced.
    #[error(transparent)]
    Wait(#[from] StepError),
    /// Our own process.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// The command itself could not be executed.
    #[error("could not execute {program}: {reason}")]
    Execute {
        /// As it was typed.
        program: String,
        /// Why.
        reason: std::io::Error,
    },
    /// No random name.
    #[error("could not choose a name: {}", .0.desc())]
    Name(jacamar_kernel::Errno),
    /// The job's terminal.
    #[error("could not make a terminal: {}", .0.desc())]
    Terminal(jacamar_kernel::Errno),
}

impl From<Unplannable> for SessionError {
    fn from(unplannable: Unplannable) -> Self {
        Self::Refused(unplannable.into())
    }
}

impl SessionError {
    /// What helps, if anything is known to.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(refusal.hint.as_str()).filter(|hint| !hint.is_empty()),
            Self::Probe(_)
            | Self::Violation { .. }
            | Self::Directories(_)
            | Self::Launch(_)
            | Self::Wait(_)
            | Self::Own(_)
            | Self::Execute { .. }
            | Self::Name(_)
            | Self::Terminal(_) => None,
        }
    }

    /// 127 and 126 if the command was not found or not executable, as of a shell; else 125, as of env(1).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Execute { reason, .. } if reason.kind() == std::io::ErrorKind::NotFound => 127,
            Self::Execute { .. } => 126,
            Self::Probe(_)
            | Self::Refused(_)
            | Self::Violation { .. }
            | Self::Directories(_)
            | Self::Launch(_)
            | Self::Wait(_)
            | Self::Own(_)
            | Self::Name(_)
            | Self::Terminal(_) => Self::FAILED,
        }
    }

    /// Exit code of our own failures in `exec`.
    pub const FAILED: u8 = 125;
}

/// The command itself, as text.
#[derive(Clone, Debug)]
pub struct Words {
    paths: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Words {
    /// A command with its environment; its name is looked up in that environment's PATH, by the user's process.
    ///
    /// # Errors
    /// [`NulError`] for a text with a NUL character in it.
    pub fn new(
        command: &[OsString],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, NulError> {
        let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
        let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        let program = command.first().cloned().unwrap_or_default();
        let c_string = |text: OsString| CString::new(text.into_vec());
        let pair = |(name, value): (OsString, OsString)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
        };
        Ok(Self {
            paths: candidates(&program, &path.unwrap_or_default())
                .into_iter()
                .map(|path| c_string(path.into_os_string()))
                .collect::<Result<_, _>>()?,
            arguments: command.iter().cloned().map(c_string).collect::<Result<_, _>>()?,
            environment: environment.into_iter().map(pair).collect::<Result<_, _>>()?,
        })
    }

    fn program(&self) -> String {
        self.arguments.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// What a launch depends on besides the command: everything of it was decided before.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Whose process it will be.
    pub grant: &'a Grant,
    /// The profile.
    pub profile: &'a Profile,
    /// The site's limits.
    pub site: &'a Site,
    /// Host facts.
    pub host: &'a Host,
    /// The job's directories and name.
    pub job: &'a Job,
    /// Which stage.
    pub stage: &'a Stage,
}

impl Terms<'_> {
    /// The checked plan.
    ///
    /// # Errors
    /// [`SessionError::Refused`], [`SessionError::Violation`].
    pub fn plan(&self) -> Result<CheckedPlan, SessionError> {
        let plan = jacamar_plan::plan(self.grant, self.profile, self.site, self.host, self.job, self.stage)?;
        jacamar_plan::check(plan)
            .map_err(|violation| SessionError::Violation { profile: self.profile.name.clone(), violation })
    }
}

/// Contains and starts what was planned.
///
/// # Errors
/// [`SessionError`]: nothing runs.
pub fn start(plan: CheckedPlan, command: Command, own: &Own) -> Result<Supervisor, SessionError> {
    Ok(Launch::prepare(plan, command, own)?.contain()?.spawn()?)
}

/// Names of directories in a plan that is only explained.
const NOT_MADE: &str = "/JOB";

impl Session {
    /// Between SIGTERM and the end of a person's command.
    pub const KILL_TIMEOUT: Duration = Duration::from_secs(10);

    /// The plan, without anything having been made.
    ///
    /// # Errors
    /// [`SessionError`]
    pub fn explain(&self) -> Result<CheckedPlan, SessionError> {
        self.explain_on(&self.host()?)
    }

    fn explain_on(&self, host: &Host) -> Result<CheckedPlan, SessionError> {
        let directories = Directories {
            tmp: format!("{NOT_MADE}/tmp"),
            var_tmp: format!("{NOT_MADE}/var-tmp"),
            ssh_config: format!("{NOT_MADE}/ssh_config.d"),
        };
        self.terms(host, &self.job(directories, "JOB".into())).plan()
    }

    fn named(&self) -> Named {
        Named::by(&self.profile, [&self.site.site, &self.site.user])
    }

    fn host(&self) -> Result<Host, SessionError> {
        Ok(probe(self.level, &self.cgroup, &self.named())?)
    }

    /// What the launch may start from. At the capability level no more is presumed than was asked: there the first that
    /// is made, the directories, takes a user namespace already.
    fn presumed(&self) -> Result<Host, SessionError> {
        if self.level != Level::Capabilities {
            return Ok(presume(self.level, &self.cgroup, &self.named())?);
        }
        let host = self.host()?;
        self.explain_on(&host)?;
        Ok(host)
    }

    fn terms<'a>(&'a self, host: &'a Host, job: &'a Job) -> Terms<'a> {
        Terms { grant: &self.grant, profile: &self.profile, site: &self.site, host, job, stage: &Stage::Exec }
    }

    fn job(&self, directories: Directories, id: String) -> Job {
        Job { id, directories, working_directory: self.working_directory.clone() }
    }

    /// Runs a command and waits for its end. Its exit code, or 128 and the signal, as of a shell.
    ///
    /// # Errors
    /// [`SessionError`]: it was not started, or its end is not known.
    pub fn run(&self, own: &Own, words: &Words, with_terminal: bool) -> Result<u8, SessionError> {
        let account = &self.grant.account;
        let host = self.presumed()?;
        let id = jacamar_kernel::random_name().map_err(SessionError::Name)?;
        let directories = JobDirectories::make(&self.base, &id, account.uid, account.gid, self.level)?;
        let run = Run { session: self, own, words, with_terminal, directories: &directories, id: &id };
        let result = run.on_presumed(&host);
        let removed = directories.remove();
        let ended = result?;
        removed?;
        match ended.outcome {
            Outcome::Exited(code) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            Outcome::Signalled(signal) => Ok(u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX)),
            Outcome::Refused(refusal) => Err(SessionError::Refused(refusal)),
            Outcome::Broken(StepError { step: Step::Execute, errno }) => Err(SessionError::Execute {
                program: words.program(),
                reason: std::io::Error::from_raw_os_error(errno),
            }),
            Outcome::Broken(error) => Err(error.into()),
        }
    }
}

/// One command of a session, in directories of its own.
struct Run<'a> {
    session: &'a Session,
    own: &'a Own,
    words: &'a Words,
    with_terminal: bool,
    directories: &'a JobDirectories,
    id: &'a str,
}

impl Run<'_> {
    /// The launch tells by itself whether the namespaces can be made. Where it fails before the command, the host is
    /// asked, and what it lacks is planned: nothing is decided while a plan is applied.
    fn on_presumed(&self, presumed: &Host) -> Result<Ended, SessionError> {
        let session = self.session;
        if presumed.ssh_config_files
            && session.level != Level::Root
            && let Some(path) = presumed.directories.get("/etc/ssh/ssh_config.d")
        {
            self.directories.copy_ssh_config(std::path::Path::new(path))?;
        }
        let first = self.on(presumed);
        if !failed_before_the_command(&first) {
            return first;
        }
        let host = session.host()?;
        if host == *presumed { first } else { self.on(&host) }
    }

    fn on(&self, host: &Host) -> Result<Ended, SessionError> {
        let session = self.session;
        let job = session.job(self.directories.paths()?, self.id.to_owned());
        let (terminal, stdio) = if self.with_terminal {
            let uid = session.grant.account.uid;
            let (terminal, slave) = Terminal::open(uid).map_err(SessionError::Terminal)?;
            (Some(terminal), Stdio::Terminal(slave))
        } else {
            (None, Stdio::Inherit)
        };
        let Words { paths, arguments, mut environment } = self.words.clone();
        let plan = session.terms(host, &job).plan()?;
        environment.extend(missing_in(&environment, &plan.plan().execute.environment)?);
        let command = Command { paths, arguments, environment, stdio };
        let supervisor = start(plan, command, self.own)?;
        let watch = Watch {
            kill_timeout: session.kill_timeout,
            parent: None,
            stream: terminal.as_ref().map(|terminal| terminal as &dyn Stream),
            time_limit: None,
            last_stage: true,
        };
        Ok(supervisor.wait(self.own, &watch)?)
    }
}

/// The variables that the command has not got.
fn missing_in(environment: &[CString], pairs: &[(String, String)]) -> Result<Vec<CString>, LaunchError> {
    let has = |name: &str| {
        environment.iter().any(|pair| pair.as_bytes().starts_with(format!("{name}=").as_bytes()))
    };
    let missing = pairs.iter().filter(|(name, _)| !has(name));
    Ok(missing.map(|(name, value)| CString::new(format!("{name}={value}"))).collect::<Result<_, _>>()?)
}

/// Whether a step before the command's execve(2) failed, and nobody asked for the end.
fn failed_before_the_command(result: &Result<Ended, SessionError>) -> bool {
    match result {
        Ok(Ended { outcome: Outcome::Broken(StepError { step, .. }), terminated: false, .. }) => {
            !matches!(step, Step::Execute | Step::AwaitEnd)
        }
        Err(SessionError::Launch(LaunchError::Step(_))) => true,
        Ok(_) | Err(_) => false,
    }
}

/// Paths at which execvp(3) would look for a program; relative directories of PATH are left out.
fn candidates(program: &OsStr, path: &OsStr) -> Vec<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return vec![PathBuf::from(program)];
    }
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .collect()
}
