//! A home of its own, a request, and the built `jacamar` started as the supervisor starts it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use jacamar_contract::frame;
use jacamar_contract::stage_report::{REPORT_BYTES, StageReport};
use jacamar_contract::stage_request::{DirectoryMode, ProfileMode, StageRequest};
use jacamar_plan::{Stage, SubStage};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tempfile::TempDir;

pub(crate) const JACAMAR: &str = env!("CARGO_BIN_EXE_jacamar");

/// A user's home and the settings of a job there.
pub(crate) struct Host {
    directory: TempDir,
    pub(crate) request: StageRequest,
    /// Shell commands before `jacamar` is executed, in the starter's process.
    pub(crate) before: String,
    /// Start it as `nobody`, if we are root.
    pub(crate) as_nobody: bool,
}

/// How a stage ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) report: Option<StageReport>,
}

/// A stage that runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    report: File,
}

impl Host {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| directory.path().join(name).to_str().expect("UTF-8").to_owned();
        std::fs::create_dir(path("home")).expect("home");
        for name in ["", "home"] {
            std::fs::set_permissions(path(name), PermissionsExt::from_mode(0o755)).expect("mode");
        }
        let request = StageRequest {
            stage: Stage::Run(SubStage::new("build_script").expect("a name")),
            shell: "/bin/bash".into(),
            home: path("home"),
            builds_dir: path("data/builds/3/login1/000"),
            cache_dir: path("data/cache"),
            profile: ProfileMode::Login,
            environment: Vec::new(),
            directory_mode: DirectoryMode::Private,
            job_message: String::new(),
            account: "alice".into(),
            host: "login1".into(),
            sandbox_profile: "default".into(),
            support_contact: "hpc@example.org".into(),
            remove: Vec::new(),
            usage_group: String::new(),
            usage_file: String::new(),
            report: true,
            script_bytes: 0,
        };
        Self { directory, request, before: String::new(), as_nobody: false }
    }

    /// With a `~/.bash_profile`.
    pub(crate) fn with_profile(text: &str) -> Self {
        let host = Self::new();
        std::fs::write(host.path("home/.bash_profile"), text).expect("profile");
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn run(&self, script: &[u8]) -> Ran {
        self.start(script).wait()
    }

    pub(crate) fn start(&self, script: &[u8]) -> Running {
        let request = StageRequest { script_bytes: script.len() as u64, ..self.request.clone() };
        self.start_with("run", &request.encode(script).expect("a good request"))
    }

    /// A stage without a script.
    pub(crate) fn stage(&self, word: &str, stage: Stage) -> Ran {
        let request = StageRequest { stage, ..self.request.clone() };
        self.start_with(word, &request.encode(b"").expect("a good request")).wait()
    }

    /// As the supervisor does: request as 0, pipes as 1 and 2, a memfd as 3; with a starter's environment and
    /// descriptors that must not arrive.
    pub(crate) fn start_with(&self, word: &str, container: &[u8]) -> Running {
        let mut input = memory();
        input.write_all(container).and_then(|()| input.seek(SeekFrom::Start(0))).expect("request");
        let report = sealed(REPORT_BYTES as u64);
        let number = report.as_raw_fd();
        // Opened by ourselves: another user could not open our descriptors.
        let redirect = if self.request.report {
            format!("exec 3<>/proc/{}/fd/{number}", std::process::id())
        } else {
            String::new()
        };
        let user = if self.as_nobody && nix::unistd::geteuid().is_root() {
            "setpriv --reuid=65534 --regid=65534 --clear-groups"
        } else {
            ""
        };
        let mut command = Command::new("/bin/bash");
        command
            .args([
                "--norc",
                "-c",
                &format!("{}\n{redirect}\nexec {user} \"$0\" \"$1\"", self.before),
                JACAMAR,
                word,
            ])
            .env("LEAK", "of-the-starter")
            .stdin(Stdio::from(input))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        Running { child: command.spawn().expect("bash"), report }
    }
}

fn memory() -> File {
    memfd_create(c"request", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).expect("memfd").into()
}

/// A memfd for a report.
pub(crate) fn sealed(bytes: u64) -> File {
    let file = memory();
    file.set_len(bytes).expect("length");
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK)).expect("seals");
    file
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Waits for its end and the end of its output.
    pub(crate) fn wait(mut self) -> Ran {
        let mut error = self.child.stderr.take().expect("piped");
        let errors = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            error.read_to_end(&mut bytes).map(|_| bytes).expect("stderr")
        });
        let mut out = Vec::new();
        self.child.stdout.take().expect("piped").read_to_end(&mut out).expect("stdout");
        let err = errors.join().expect("stderr");
        let status = self.child.wait().expect("wait");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran {
            code: status.code(),
            signal: status.signal(),
            out: text(out),
            err: text(err),
            report: read_report(&self.report),
        }
    }
}

/// As the supervisor reads it, when the process has ended.
pub(crate) fn read_report(mut file: &File) -> Option<StageReport> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes)).expect("report");
    frame::decode(&bytes).ok()
}

/// Whether a path exists, link or not.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
