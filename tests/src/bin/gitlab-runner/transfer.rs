//! Artifacts to and from GitLab.

use std::fs;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, SendBody};

use super::arguments::{Arguments, expand};
use super::say;

const TRIES: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(600);
const ARCHIVE_MAX_BYTES: u64 = 1024 * 1024 * 1024;
const BOUNDARY: &str = "----testbed-gitlab-runner-5f1c9a7e";

/// Which job this is, and where.
pub(crate) struct Credentials {
    url: String,
    token: String,
    id: String,
}

impl Credentials {
    /// From flags, or from the variables that the real helper reads too.
    pub(crate) fn of(arguments: &Arguments) -> Result<Credentials> {
        let find = |flag: &str, variable: &str| {
            let flag = arguments.value(flag).map(str::to_owned);
            flag.or_else(|| std::env::var(variable).ok()).unwrap_or_default()
        };
        let url = find("url", "CI_SERVER_URL").trim_end_matches('/').to_owned();
        let job = Credentials { url, token: find("token", "CI_JOB_TOKEN"), id: find("id", "CI_JOB_ID") };
        ensure!(!job.url.is_empty() && !job.token.is_empty(), "Missing runner credentials");
        ensure!(job.id.parse::<u64>().is_ok_and(|id| id > 0), "Missing build ID");
        Ok(job)
    }

    fn address(&self, query: &str) -> String {
        format!("{}/api/v4/jobs/{}/artifacts?{query}", self.url, self.id)
    }
}

/// A client that trusts the authority the job was given, if it was given one.
fn agent() -> Result<Agent> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    if let Some(path) = std::env::var_os("CI_SERVER_TLS_CA_FILE") {
        let pem = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let mut trusted: Vec<Certificate<'static>> = Vec::new();
        for item in ureq::tls::parse_pem(&pem) {
            if let PemItem::Certificate(certificate) = item.context("read CI_SERVER_TLS_CA_FILE")? {
                trusted.push(certificate);
            }
        }
        tls = tls.root_certs(RootCerts::new_with_certs(&trusted));
    }
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(TIMEOUT))
        .build();
    Ok(config.into())
}

fn query(arguments: &Arguments) -> String {
    let mut pairs = Vec::new();
    for (name, flag) in [
        ("artifact_format", "artifact-format"),
        ("artifact_type", "artifact-type"),
        ("expire_in", "expire-in"),
    ] {
        if let Some(value) = arguments.value(flag).map(expand).filter(|value| !value.is_empty()) {
            let encoded: String = value
                .bytes()
                .map(|byte| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                        char::from(byte).to_string()
                    }
                    b' ' => "+".to_owned(),
                    other => format!("%{other:02X}"),
                })
                .collect();
            pairs.push(format!("{name}={encoded}"));
        }
    }
    pairs.join("&")
}

/// Sends the archive as the multipart field `file`, in chunks.
pub(crate) fn upload(job: &Credentials, arguments: &Arguments, name: &str, archive: &[u8]) -> Result<()> {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    );
    let body = [head.as_bytes(), archive, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat();
    let kind = arguments.value("artifact-type").map(|kind| format!(" as \"{kind}\"")).unwrap_or_default();
    let prefix = format!("Uploading artifacts{kind} to coordinator...");
    let agent = agent()?;
    let mut last = String::new();
    for _ in 0..TRIES {
        let mut reader = body.as_slice();
        let sent = agent
            .post(job.address(&query(arguments)))
            .header("JOB-TOKEN", &job.token)
            .header("Content-Type", format!("multipart/form-data; boundary={BOUNDARY}"))
            .send(SendBody::from_reader(&mut reader));
        match sent.map(|response| response.status().as_u16()) {
            Ok(201) => {
                say(&format!("{prefix} 201 Created\x1b[0;m  id={} status=201", job.id));
                return Ok(());
            }
            Ok(status @ (401 | 403)) => bail!("{prefix} {status}: permission denied"),
            Ok(413) => bail!("{prefix} 413: too large"),
            Ok(status) => last = format!("{prefix} {status}"),
            Err(error) => last = format!("{prefix} error: {error}"),
        }
        say(&format!("\x1b[0;33mWARNING: Retrying... {last}\x1b[0;m"));
    }
    bail!("{last}")
}

/// Fetches the archive of a job.
pub(crate) fn download(job: &Credentials) -> Result<Vec<u8>> {
    let direct = std::env::var("FF_USE_DIRECT_DOWNLOAD").is_ok_and(|value| value == "true");
    let query = if direct { "direct_download=true" } else { "" };
    let response = agent()?.get(job.address(query)).header("JOB-TOKEN", &job.token).call();
    let mut response = response.context("Downloading artifacts from coordinator... error")?;
    match response.status().as_u16() {
        200 => {
            let mut archive = Vec::new();
            let body = response.body_mut().with_config().limit(ARCHIVE_MAX_BYTES).reader();
            body.take(ARCHIVE_MAX_BYTES).read_to_end(&mut archive).context("read the archive")?;
            say(&format!("Downloading artifacts from coordinator... ok\x1b[0;m  id={} status=200", job.id));
            Ok(archive)
        }
        401 | 403 => bail!("Downloading artifacts from coordinator... permission denied"),
        404 => bail!("Downloading artifacts from coordinator... not found"),
        other => bail!("Downloading artifacts from coordinator... {other}"),
    }
}
