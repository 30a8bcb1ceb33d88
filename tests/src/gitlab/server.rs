//! The server's routes and what it remembers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::facts::Facts;
use super::git::{Repository, http_backend};
use super::http::{Body, Request, Response, Server};
use super::job::JobBuilder;
use super::keys::Keys;
use super::spec::{Job, entries};
use super::tls;

/// How the server answers when it is asked for its keys.
#[derive(Clone, Debug, Default)]
pub enum KeySet {
    /// Both keys, at once.
    #[default]
    Good,
    /// Both keys after this time.
    Slow(Duration),
    /// Both keys, one byte at a time with this pause.
    Drip(Duration),
    /// The connection is closed without an answer.
    HangUp,
    /// This status and a short text.
    Status(u16),
    /// Both keys, padded with blanks to this many bytes.
    Large(usize),
    /// A redirect to this address.
    Redirect(String),
    /// These bytes in place of a key set.
    Bytes(Vec<u8>),
}

/// An uploaded artifact.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The job that sent it.
    pub job_id: i64,
    /// File name of the multipart field.
    pub file_name: String,
    /// `artifact_format` of the request.
    pub format: Option<String>,
    /// `artifact_type` of the request.
    pub kind: Option<String>,
    /// `expire_in` of the request.
    pub expire_in: Option<String>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A request that came, in short.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it was answered.
    pub at: Instant,
    /// Method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// The status that was answered; 0: none.
    pub status: u16,
}

#[derive(Debug, Default)]
struct State {
    keys: KeySet,
    /// Job token -> job id.
    tokens: HashMap<String, i64>,
    uploads: Vec<Upload>,
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    repositories: tempfile::TempDir,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running GitLab. Dropping it closes the port and removes the repositories.
#[derive(Debug)]
pub struct GitLab {
    shared: Arc<Shared>,
    server: Server,
    url: String,
    ca_pem: Option<String>,
}

impl GitLab {
    /// Starts a GitLab over HTTP.
    ///
    /// # Errors
    /// If keys, port or a temporary directory cannot be had.
    pub fn start() -> Result<GitLab> {
        GitLab::start_with(None)
    }

    /// Starts a GitLab over HTTPS, with a certificate authority of its own.
    ///
    /// # Errors
    /// As [`GitLab::start`].
    pub fn start_tls() -> Result<GitLab> {
        GitLab::start_with(Some(tls::authority(&["127.0.0.1", "localhost"])?))
    }

    fn start_with(authority: Option<tls::Authority>) -> Result<GitLab> {
        Keys::of_this_process()?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            repositories: tempfile::Builder::new()
                .prefix("gitlab-standin")
                .tempdir()
                .context("make a directory for repositories")?,
        });
        let for_handler = Arc::clone(&shared);
        let (ca_pem, tls) = authority.map(|a| (a.pem, a.server)).unzip();
        let server = Server::start(tls, move |request| answer(&for_handler, request))?;
        let scheme = if ca_pem.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}", server.port());
        Ok(GitLab { shared, server, url, ca_pem })
    }

    /// The URL, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate authority, if the server speaks TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The facts of a job on this server.
    pub fn facts(&self) -> Facts {
        Facts::new(&self.url)
    }

    /// An empty repository.
    ///
    /// # Errors
    /// If git is missing or refuses.
    pub fn repository(&self, path: &str) -> Result<Repository> {
        Repository::create(self.shared.repositories.path(), path)
    }

    /// A copy of a repository of this machine.
    ///
    /// # Errors
    /// If git is missing or refuses.
    pub fn import(&self, path: &str, from: &Path) -> Result<Repository> {
        Repository::import(self.shared.repositories.path(), path, from)
    }

    /// A job on the newest commit of this repository.
    ///
    /// # Errors
    /// If the repository has no commit.
    pub fn job(&self, repository: &Repository) -> Result<JobBuilder> {
        let mut facts = self.facts();
        facts.project.path = repository.path().to_owned();
        facts.sha = repository.head()?;
        Ok(JobBuilder::new(facts))
    }

    /// Makes the job and lets its token in, and the tokens of the jobs it depends on.
    pub fn admit(&self, builder: JobBuilder) -> Job {
        let job = builder.build();
        let mut state = self.shared.state();
        state.tokens.insert(job.token.clone(), job.id);
        for dependency in entries(&job.dependencies) {
            state.tokens.insert(dependency.token.clone(), dependency.id);
        }
        job
    }

    /// Takes a job's token back, as GitLab does when the job has ended.
    pub fn revoke(&self, job: &Job) {
        self.shared.state().tokens.remove(&job.token);
    }

    /// Changes how the next requests for the key set are answered.
    pub fn set_key_set(&self, keys: KeySet) {
        self.shared.state().keys = keys;
    }

    /// What was uploaded so far.
    pub fn uploads(&self) -> Vec<Upload> {
        self.shared.state().uploads.clone()
    }

    /// Puts an artifact there as if a job had uploaded it.
    pub fn put_artifact(&self, upload: Upload) {
        self.shared.state().uploads.push(upload);
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// Closes the port: from now on connections are refused.
    pub fn close(&mut self) {
        self.server.close();
    }
}

fn answer(shared: &Shared, request: &Request) -> Response {
    let response = route(shared, request)
        .unwrap_or_else(|error| Response::refusal(500, &format!("500 Internal Server Error: {error:#}")));
    let status = if matches!(response.body, Body::HangUp) { 0 } else { response.status };
    let (method, path) = (request.method.clone(), request.path.clone());
    shared.state().seen.push(Seen { at: Instant::now(), method, path, status });
    response
}

fn route(shared: &Shared, request: &Request) -> Result<Response> {
    let path = request.path.as_str();
    if path == "/oauth/discovery/keys" || path == "/-/jwks" {
        let keys = shared.state().keys.clone();
        return key_set(&keys);
    }
    if let Some(rest) = path.strip_prefix("/api/v4/jobs/")
        && let Some(id) = rest.strip_suffix("/artifacts")
        && let Ok(id) = id.parse::<i64>()
    {
        return artifacts(shared, request, id);
    }
    if path.contains(".git/") {
        return match basic_password(request) {
            Some(password) if shared.state().tokens.contains_key(&password) => {
                http_backend(shared.repositories.path(), request)
            }
            Some(_) => Ok(Response::refusal(403, "403 Forbidden")),
            None => Ok(Response::refusal(401, "HTTP Basic: Access denied")
                .header("WWW-Authenticate", "Basic realm=\"GitLab\"")),
        };
    }
    Ok(Response::refusal(404, "404 Not Found"))
}

fn key_set(keys: &KeySet) -> Result<Response> {
    let set = Keys::of_this_process()?.jwks().to_string();
    let good = |text: String| {
        Response::new(200, "application/json; charset=utf-8", text)
            .header("Cache-Control", "max-age=86400, public, must-revalidate, no-transform")
    };
    Ok(match keys {
        KeySet::Good => good(set),
        KeySet::Slow(time) => {
            thread::sleep(*time);
            good(set)
        }
        KeySet::Drip(pause) => {
            let mut response = good(String::new());
            response.body = Body::Drip(set.into_bytes(), *pause);
            response
        }
        KeySet::HangUp => {
            let mut response = good(String::new());
            response.body = Body::HangUp;
            response
        }
        KeySet::Status(status) => Response::refusal(*status, "as the test wants it"),
        KeySet::Large(size) => {
            let padding = " ".repeat(size.saturating_sub(set.len()));
            good(set + &padding)
        }
        KeySet::Redirect(to) => Response::new(302, "text/html", "").header("Location", to),
        KeySet::Bytes(bytes) => Response::new(200, "application/json; charset=utf-8", bytes.clone()),
    })
}

/// The password of an `Authorization: Basic` header with the user that job tokens have.
fn basic_password(request: &Request) -> Option<String> {
    let encoded = request.header("Authorization")?.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    (user == "gitlab-ci-token").then(|| password.to_owned())
}

fn artifacts(shared: &Shared, request: &Request, job_id: i64) -> Result<Response> {
    let Some(token) = request.header("JOB-TOKEN") else {
        return Ok(Response::refusal(401, "401 Unauthorized"));
    };
    let mut state = shared.state();
    if state.tokens.get(token) != Some(&job_id) {
        return Ok(Response::refusal(403, "403 Forbidden"));
    }
    match request.method.as_str() {
        "POST" => {
            let Some((file_name, bytes)) = multipart_file(request) else {
                return Ok(Response::refusal(400, "file is missing"));
            };
            state.uploads.push(Upload {
                job_id,
                file_name,
                format: request.parameter("artifact_format"),
                kind: request.parameter("artifact_type"),
                expire_in: request.parameter("expire_in"),
                bytes,
            });
            Ok(Response::json(201, &json!({"message": "201 Created"})))
        }
        "GET" => Ok(match state.uploads.iter().rev().find(|upload| upload.job_id == job_id) {
            Some(upload) => Response::new(200, "application/octet-stream", upload.bytes.clone()),
            None => Response::refusal(404, "404 Not Found"),
        }),
        _ => Ok(Response::refusal(400, "405 Method Not Allowed")),
    }
}

/// File name and content of the field `file`.
fn multipart_file(request: &Request) -> Option<(String, Vec<u8>)> {
    let boundary = request.header("Content-Type")?.split_once("boundary=")?.1.trim_matches('"');
    let delimiter = format!("--{boundary}");
    let find = |from: usize, needle: &[u8]| {
        let body = request.body.get(from..)?;
        body.windows(needle.len()).position(|window| window == needle).map(|at| from + at)
    };
    let mut at = find(0, delimiter.as_bytes())?;
    loop {
        let head_start = at + delimiter.len();
        let head_end = find(head_start, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(request.body.get(head_start..head_end)?).into_owned();
        let end = find(head_end + 4, format!("\r\n{delimiter}").as_bytes())?;
        if head.contains("name=\"file\"") {
            let name = head.split_once("filename=\"").and_then(|(_, rest)| rest.split('"').next());
            let content = request.body.get(head_end + 4..end)?.to_vec();
            return Some((name.unwrap_or_default().to_owned(), content));
        }
        at = end + 2;
    }
}
