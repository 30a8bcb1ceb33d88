//! Sub-commands of `jacamar` that answer one request, in the sandbox. The helpers, which handle what strangers wrote,
//! run as the account `jacamar-verify`.

use std::ffi::CString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jacamar_contract::text::is_shown;
use jacamar_plan::{Account, Directories, Grant, Host, Job, Level, Outcome, Profile, Refusal, Site, Stage};
use jacamar_sandbox::{Collect, Command, Ended, Own, Stdio, Stream, Terms, Watch};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::unistd::pipe2;
use tracing::debug;

/// Nobody else's account: as the runner's it could write files of the runner, as `nobody` others could trace it.
const ACCOUNT: &str = "jacamar-verify";

/// After the time limit it gets so long to end.
const KILL_TIMEOUT: Duration = Duration::from_millis(100);

/// What every helper of one `config` has in common.
#[derive(Debug)]
pub(crate) struct Helpers<'a> {
    pub(crate) own: &'a Own,
    pub(crate) host: &'a Host,
    pub(crate) program: &'a Path,
    pub(crate) record_name: &'a str,
    account: Account,
}

impl<'a> Helpers<'a> {
    pub(crate) fn new(
        own: &'a Own,
        host: &'a Host,
        program: &'a Path,
        record_name: &'a str,
    ) -> anyhow::Result<Self> {
        let account = match host.level {
            // At user level all run as the caller.
            Level::User => jacamar_site::accounts::current()?,
            Level::Root | Level::Capabilities => {
                let found = jacamar_site::accounts::lookup(ACCOUNT)?;
                let missing = || Refusal {
                    rule: "verify_account".into(),
                    object: format!("account {ACCOUNT}"),
                    cause: "is missing on this host, and it checks the tokens".into(),
                    hint: format!(
                        "as root: useradd --system --no-create-home --home-dir /nonexistent --shell \
                         /usr/sbin/nologin {ACCOUNT}"
                    ),
                };
                found.ok_or_else(missing)?.account
            }
        };
        Ok(Self { own, host, program, record_name, account })
    }

    /// uid of the helpers, never a job's.
    pub(crate) fn uid(&self) -> u32 {
        self.account.uid
    }

    /// Runs a helper; what it wrote on descriptor 1. Its exit code says nothing: the answer does.
    pub(crate) fn run(&self, profile: &Profile, task: Task) -> anyhow::Result<Vec<u8>> {
        let word = task.word;
        self.run_inner(profile, task).with_context(|| format!("could not run jacamar {word}"))
    }

    fn run_inner(&self, profile: &Profile, task: Task) -> anyhow::Result<Vec<u8>> {
        let grant =
            Grant { account: self.account.clone(), claims_digest: String::new(), rule: "own process".into() };
        // It has no directories of its own, and ssh is not its business.
        let host = Host { ssh_config_files: false, ..self.host.clone() };
        let job = job_without_directories(format!("{}_{}", self.record_name, task.word));
        let terms = Terms {
            grant: &grant,
            profile,
            site: &Site::default(),
            host: &host,
            job: &job,
            stage: &Stage::Config,
        };
        let time_limit = task.time_limit;
        // The name service and TLS read nothing from it.
        let environment = vec![CString::new("PATH=/usr/bin:/bin")?];
        let answered = task.run(self.own, self.program, environment, &terms)?;
        if answered.ended.terminated {
            let (limit, messages) = (time_limit.as_secs(), &answered.messages);
            bail!("it did not answer within {limit} s, or said too much{messages}");
        }
        answered.into_answer()
    }
}

/// One request to a sub-command of `jacamar`, which answers on descriptor 1.
pub(crate) struct Task {
    /// Sub-command of `jacamar`.
    pub(crate) word: &'static str,
    /// Descriptor 0.
    pub(crate) request: OwnedFd,
    /// Descriptors from 3 on.
    pub(crate) more: Vec<OwnedFd>,
    pub(crate) time_limit: Duration,
    pub(crate) answer_max_bytes: usize,
}

/// How it ended, and what it wrote on descriptor 1.
pub(crate) struct Answered {
    pub(crate) ended: Ended,
    pub(crate) answer: Vec<u8>,
    pub(crate) messages: Messages,
}

impl Answered {
    /// Its answer. The exit code says nothing beside one.
    pub(crate) fn into_answer(self) -> anyhow::Result<Vec<u8>> {
        let Self { ended, answer, messages } = self;
        match ended.outcome {
            Outcome::Broken(error) => Err(error.into()),
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Exited(_) | Outcome::Signalled(_) if !answer.is_empty() => Ok(answer),
            Outcome::Exited(code) => bail!("it ended with exit code {code} and no answer{messages}"),
            Outcome::Signalled(signal) => bail!("signal {signal} ended it{messages}"),
        }
    }
}

/// What a process wrote on descriptor 2, for the end of our own message about it. It has handled what strangers wrote, so
/// it does not get the job log itself.
pub(crate) struct Messages(Vec<u8>);

impl Messages {
    const MAX_BYTES: usize = 8 * 1024;
    const SHOWN_CHARACTERS: usize = 400;
}

impl std::fmt::Display for Messages {
    /// One line, beginning with a colon; nothing, if nothing was written.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.0);
        let shown: String = text
            .trim()
            .chars()
            .take(Self::SHOWN_CHARACTERS)
            .map(|character| if is_shown(character) { character } else { ' ' })
            .collect();
        if shown.is_empty() { Ok(()) } else { write!(f, ": {}", shown.trim_end()) }
    }
}

impl Task {
    /// Runs it to its end on these terms.
    pub(crate) fn run(
        self,
        own: &Own,
        program: &Path,
        environment: Vec<CString>,
        terms: &Terms<'_>,
    ) -> anyhow::Result<Answered> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).context("could not make a pipe");
        let ((answer, answer_end), (messages, messages_end)) = (pipe()?, pipe()?);
        let mut descriptors = vec![self.request, answer_end, messages_end];
        descriptors.extend(self.more);
        let path = CString::new(program.as_os_str().as_encoded_bytes())?;
        let command = Command {
            paths: vec![path.clone()],
            arguments: vec![path, CString::new(self.word)?],
            environment,
            stdio: Stdio::Descriptors(descriptors),
        };
        let begin = Instant::now();
        let supervisor = jacamar_sandbox::start(terms.plan()?, command, own)?;
        let collect = Collect::new([(answer, self.answer_max_bytes), (messages, Messages::MAX_BYTES)])
            .context("could not read its answer")?;
        let watch = Watch {
            kill_timeout: KILL_TIMEOUT,
            parent: None,
            stream: Some(&collect as &dyn Stream),
            time_limit: Some(self.time_limit),
            last_stage: true,
        };
        let ended = supervisor.wait(own, &watch)?;
        debug!(helper = self.word, milliseconds = milliseconds(begin), "a helper ended");
        let mut texts = collect.into_bytes().into_iter();
        let answer = texts.next().unwrap_or_default();
        Ok(Answered { ended, answer, messages: Messages(texts.next().unwrap_or_default()) })
    }
}

/// Since then.
pub(crate) fn milliseconds(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A job whose private directories are not used.
pub(crate) fn job_without_directories(id: String) -> Job {
    let unused = || "/".to_owned();
    let directories = Directories { tmp: unused(), var_tmp: unused(), ssh_config: unused() };
    Job { id, directories, working_directory: unused() }
}

/// A sealed memfd with these bytes, at its beginning: nobody can change what was handed over.
pub(crate) fn sealed(parts: &[&[u8]]) -> anyhow::Result<OwnedFd> {
    memfd(parts, SealFlag::F_SEAL_WRITE).map(OwnedFd::from)
}

/// A memfd of so many zero bytes, for an answer of fixed length: it can be written and neither grow nor shrink.
pub(crate) fn blank(length: usize) -> anyhow::Result<File> {
    memfd(&[&vec![0; length]], SealFlag::empty())
}

fn memfd(parts: &[&[u8]], more_seals: SealFlag) -> anyhow::Result<File> {
    let mut file = jacamar_kernel::memfd(c"jacamar").context("could not make a memfd")?;
    for part in parts {
        file.write_all(part).context("could not fill a memfd")?;
    }
    file.rewind().context("could not rewind a memfd")?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | more_seals;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).context("could not seal a memfd")?;
    Ok(file)
}
