//! Git repositories of the stand-in, served by `git http-backend`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};

use super::http::{Request, Response};

/// A Git command that reads nothing of the host's or the user's configuration.
fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("HOME", "/nonexistent");
    // Whoever runs the stand-in owns what it serves.
    command
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*");
    command
}

fn run(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context("start git")?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// One file of a commit: path, content and whether it is executable.
#[derive(Clone, Debug)]
pub struct File<'a> {
    /// Path inside the repository.
    pub path: &'a str,
    /// Content.
    pub content: &'a str,
    /// Mode 0755 in place of 0644.
    pub executable: bool,
}

impl<'a> From<(&'a str, &'a str)> for File<'a> {
    fn from((path, content): (&'a str, &'a str)) -> Self {
        File { path, content, executable: false }
    }
}

/// A bare repository that the stand-in serves.
#[derive(Clone, Debug)]
pub struct Repository {
    directory: PathBuf,
    path: String,
}

impl Repository {
    pub(crate) fn create(root: &Path, path: &str) -> Result<Repository> {
        let directory = root.join(format!("{path}.git"));
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let mut init = git(root);
        init.args(["init", "--quiet", "--bare", "--initial-branch=main"]).arg(&directory);
        run(init)?;
        Repository { directory, path: path.to_owned() }.serve_all()
    }

    pub(crate) fn import(root: &Path, path: &str, from: &Path) -> Result<Repository> {
        let directory = root.join(format!("{path}.git"));
        if let Some(parent) = directory.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        let mut clone = git(root);
        clone.args(["clone", "--quiet", "--bare", "--no-local"]).arg(from).arg(&directory);
        run(clone)?;
        Repository { directory, path: path.to_owned() }.serve_all()
    }

    fn serve_all(self) -> Result<Repository> {
        for (key, value) in [("uploadpack.allowAnySHA1InWant", "true"), ("uploadpack.allowFilter", "true")] {
            let mut config = git(&self.directory);
            config.args(["config", key, value]);
            run(config)?;
        }
        Ok(self)
    }

    /// The path in the URL, without `.git`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The bare repository on disk.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Commits these files on `main`, beside those that are there.
    ///
    /// # Errors
    /// If git is missing or refuses.
    pub fn commit<'a, F: Into<File<'a>>>(
        &self,
        files: impl IntoIterator<Item = F>,
        message: &str,
    ) -> Result<String> {
        let work = tempfile::tempdir().context("make a work tree")?;
        let in_tree = || {
            let mut command = git(work.path());
            command.arg("--git-dir").arg(&self.directory).arg("--work-tree").arg(work.path());
            for (kind, name) in [("AUTHOR", "Alice Example"), ("COMMITTER", "Alice Example")] {
                command
                    .env(format!("GIT_{kind}_NAME"), name)
                    .env(format!("GIT_{kind}_EMAIL"), "alice@example.com");
            }
            command
        };
        let mut reset = in_tree();
        reset.args(["checkout", "--quiet", "--force", "HEAD", "--", "."]);
        // The first commit has nothing to check out.
        reset.stdin(Stdio::null()).stderr(Stdio::null()).status().context("start git")?;
        for file in files {
            let file = file.into();
            let path = work.path().join(file.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            }
            fs::write(&path, file.content).with_context(|| format!("write {}", path.display()))?;
            if file.executable {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                fs::set_permissions(&path, mode).with_context(|| format!("chmod {}", path.display()))?;
            }
        }
        for arguments in [vec!["add", "--all"], vec!["commit", "--quiet", "--allow-empty", "-m", message]] {
            let mut command = in_tree();
            command.args(arguments);
            run(command)?;
        }
        self.head()
    }

    /// The commit that `HEAD` names.
    ///
    /// # Errors
    /// If there is none.
    pub fn head(&self) -> Result<String> {
        let mut command = git(&self.directory);
        command.args(["rev-parse", "HEAD"]);
        run(command)
    }
}

/// Answers one request of Git's smart protocol.
pub(crate) fn http_backend(root: &Path, request: &Request) -> Result<Response> {
    let mut command = git(root);
    command.arg("http-backend");
    command
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "gitlab-ci-token");
    command.env("REQUEST_METHOD", &request.method).env("PATH_INFO", &request.path);
    command.env("QUERY_STRING", &request.query).env("CONTENT_LENGTH", request.body.len().to_string());
    for (header, name) in [
        ("Content-Type", "CONTENT_TYPE"),
        ("Content-Encoding", "HTTP_CONTENT_ENCODING"),
        ("Git-Protocol", "HTTP_GIT_PROTOCOL"),
    ] {
        if let Some(value) = request.header(header) {
            command.env(name, value);
        }
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start git http-backend")?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let body = request.body.clone();
    // It may stop reading early; what it then says is the answer.
    let writer = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&body).ok()));
    let mut output = Vec::new();
    if let Some(mut stdout) = stdout {
        stdout.read_to_end(&mut output).context("read from git http-backend")?;
    }
    drop(writer.join());
    child.wait().context("wait for git http-backend")?;
    Ok(cgi_response(output))
}

fn cgi_response(mut output: Vec<u8>) -> Response {
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(output.len());
    let body = output.split_off((end + 4).min(output.len()));
    let head = String::from_utf8_lossy(&output).into_owned();
    let mut response = Response { status: 200, headers: Vec::new(), body: super::http::Body::Bytes(body) };
    for (name, value) in head.lines().filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("status") {
            response.status =
                value.split_whitespace().next().and_then(|code| code.parse().ok()).unwrap_or(500);
        } else {
            response.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    response
}
