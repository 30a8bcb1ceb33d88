//! Who it is: keys are fetched by one process, the token is checked by another, and both answers are read as text of
//! strangers.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use jacamar_contract::claims::Claims;
use jacamar_contract::frame;
use jacamar_contract::joblog::{TokenSite, token_refusal};
use jacamar_contract::keys::{self, KeysAnswer, KeysRequest};
use jacamar_contract::verify::{self, VerifyAnswer, VerifyRequest, VerifyRule};
use jacamar_site::config::{Scheme, Settings};
use jacamar_site::profile::{OwnProcess, own_profile};
use jacamar_site::trusted_file::Trust;
use tracing::debug;

use crate::helper::{Helpers, Task, sealed};
use crate::stage::{StageError, mend};

/// Fetching the keys, DNS and TLS included.
const FETCH_LIMIT: Duration = Duration::from_secs(20);
/// Checking a token takes milliseconds; a response file of the largest size, a second.
const VERIFY_LIMIT: Duration = Duration::from_secs(20);
/// Keys are believed so long.
const KEYS_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// An unknown key asks the server again, but not more often than this.
const REFETCH_AFTER: Duration = Duration::from_secs(60);

/// The verified claims of the job in the response file.
pub(crate) fn claims(
    helpers: &Helpers<'_>,
    settings: &Settings,
    state: &Path,
    response: &Path,
    trust: Trust,
) -> Result<Claims, StageError> {
    let request = VerifyRequest {
        issuer: settings.auth.jwt_issuer.clone(),
        audience: settings.auth.jwt_required_aud.clone(),
        runner_id: settings.auth.runner_id,
        token_variable: settings.general.jwt_env_variable.clone(),
    };
    let cache = KeyCache::of(state, settings.general.gitlab_server.as_str())?;
    let cached = cache.read()?;
    if let Some(Cached { age, .. }) = &cached {
        debug!(age_seconds = age.as_secs(), "the server's keys are known");
    }
    let (keys, fresh) = match cached {
        Some(cached) => (cached.keys, cached.age < REFETCH_AFTER),
        None => (fetch(helpers, settings, trust, &cache)?, true),
    };
    let answer = match verify(helpers, &request, response, &keys)? {
        VerifyAnswer::Refused(refused) if refused.rule == VerifyRule::UnknownKey && !fresh => {
            // GitLab may have new keys.
            let keys = fetch(helpers, settings, trust, &cache)?;
            verify(helpers, &request, response, &keys)?
        }
        answer => answer,
    };
    match answer {
        VerifyAnswer::Claims(claims) => {
            // `verify` could lie: it is trusted for who, never for may.
            verify::compare(&request, &claims).map_err(|unasked| {
                anyhow::anyhow!("jacamar verify answered another {} than it was asked for", unasked.field)
            })?;
            Ok(*claims)
        }
        VerifyAnswer::Refused(refused) => {
            let site = TokenSite {
                variable: &settings.general.jwt_env_variable,
                audience: settings.auth.jwt_required_aud.as_deref(),
                issuer: &settings.auth.jwt_issuer,
            };
            let breakage = refused.rule.is_breakage();
            let refusal = token_refusal(&refused, site);
            Err(if breakage { StageError::Broken(refusal.into()) } else { StageError::Refused(refusal) })
        }
    }
}

fn verify(
    helpers: &Helpers<'_>,
    request: &VerifyRequest,
    response: &Path,
    keys: &[u8],
) -> anyhow::Result<VerifyAnswer> {
    let profile = own_profile(OwnProcess::Verify)?;
    let answer = helpers.run(
        &profile,
        Task {
            word: "verify",
            request: sealed(&[&frame::encode(request)?])?,
            more: vec![read_response(response)?, sealed(&[keys])?],
            time_limit: VERIFY_LIMIT,
            answer_max_bytes: frame::HEADER_BYTES + frame::PAYLOAD_MAX_BYTES,
        },
    )?;
    VerifyAnswer::decode(&answer).context("the answer of jacamar verify cannot be read")
}

/// Read here, because it lies in the runner's private directory; parsed there. One byte more than `verify` takes is
/// enough for it to say "too large".
fn read_response(path: &Path) -> anyhow::Result<OwnedFd> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let open = || OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = jacamar_sandbox::as_starter(open)?
        .with_context(|| format!("could not open the runner's response file {}", path.display()))?;
    let metadata = file.metadata().with_context(|| format!("could not look at {}", path.display()))?;
    if !metadata.is_file() {
        bail!("the runner's response file {} is no regular file", path.display());
    }
    let mut text = Vec::new();
    let limit = verify::RESPONSE_MAX_BYTES as u64 + 1;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, limit), &mut text)
        .with_context(|| format!("could not read {}", path.display()))?;
    sealed(&[&text])
}

fn fetch(
    helpers: &Helpers<'_>,
    settings: &Settings,
    trust: Trust,
    cache: &KeyCache,
) -> Result<Vec<u8>, StageError> {
    let server = &settings.general.gitlab_server;
    let request = KeysRequest {
        url: format!("{}/oauth/discovery/keys", server.as_str()),
        allow_http: server.scheme() == Scheme::Http,
        time_limit_ms: u32::try_from(FETCH_LIMIT.as_millis()).unwrap_or(u32::MAX),
        own_ca: settings.general.tls_ca_file.is_some(),
        proxy: settings.general.https_proxy.as_ref().map(|proxy| proxy.as_str().to_owned()),
    };
    let more = match &settings.general.tls_ca_file {
        None => Vec::new(),
        Some(path) => {
            // Who can write it can name his own GitLab.
            let read = || jacamar_site::trusted_file::read(Path::new(path.as_str()), trust);
            let document = jacamar_sandbox::as_starter(read)
                .map_err(anyhow::Error::from)?
                .map_err(|untrusted| StageError::Broken(mend("[general] tls-ca-file", untrusted)))?;
            vec![sealed(&[document.text().as_bytes()])?]
        }
    };
    let profile = own_profile(OwnProcess::Keys).map_err(anyhow::Error::from)?;
    let answer = helpers.run(
        &profile,
        Task {
            word: "keys",
            request: sealed(&[&frame::encode(&request).map_err(anyhow::Error::from)?])?,
            more,
            // Its own limit comes first, with better words; on a busy host by seconds.
            time_limit: FETCH_LIMIT + Duration::from_secs(5),
            answer_max_bytes: keys::ANSWER_MAX_BYTES,
        },
    )?;
    match KeysAnswer::decode(&answer).context("the answer of jacamar keys cannot be read")? {
        KeysAnswer::Fetched(bytes) => {
            cache.write(bytes)?;
            Ok(bytes.to_vec())
        }
        KeysAnswer::Failed(failed) => Err(StageError::Broken(failed.words().into())),
    }
}

/// `<state>/keys/`: one file, the server's URL and a line end, then opaque bytes. Another server's are a miss.
struct KeyCache {
    path: PathBuf,
    server: String,
}

struct Cached {
    keys: Vec<u8>,
    age: Duration,
}

impl KeyCache {
    fn of(state: &Path, server: &str) -> anyhow::Result<Self> {
        let directory = state.join("keys");
        match nix::unistd::mkdir(&directory, nix::sys::stat::Mode::S_IRWXU) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(errno) => bail!("could not make {}: {}", directory.display(), errno.desc()),
        }
        // A name without a slash; if two servers share one, the first line tells.
        let name: String = server.bytes().map(|byte| format!("{byte:02x}")).collect();
        let name = name.get(name.len().saturating_sub(200)..).unwrap_or(&name).to_owned();
        Ok(Self { path: directory.join(name), server: format!("{server}\n") })
    }

    /// Keys that are not too old; a file that is not ours is an error, not a miss.
    fn read(&self) -> anyhow::Result<Option<Cached>> {
        let path = &self.path;
        let flags = nix::fcntl::OFlag::O_NOFOLLOW;
        let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("could not open {}", path.display()))?,
        };
        let metadata = file.metadata()?;
        if metadata.uid() != nix::unistd::geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
            bail!("{} is not ours: remove it", path.display());
        }
        // A clock that went back makes it old, not young.
        let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or(KEYS_AGE_MAX);
        if age >= KEYS_AGE_MAX {
            return Ok(None);
        }
        let mut keys = Vec::new();
        let limit = (keys::KEYS_MAX_BYTES + self.server.len()) as u64;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, limit), &mut keys)
            .with_context(|| format!("could not read {}", path.display()))?;
        Ok(keys.strip_prefix(self.server.as_bytes()).map(|keys| Cached { keys: keys.to_vec(), age }))
    }

    /// New file and rename: another `config` reads the old keys or the new ones.
    fn write(&self, keys: &[u8]) -> anyhow::Result<()> {
        let new = self.path.with_extension(std::process::id().to_string());
        let written = || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file: File = options.custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(&new)?;
            std::io::Write::write_all(&mut file, self.server.as_bytes())?;
            std::io::Write::write_all(&mut file, keys)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)
        };
        written().with_context(|| format!("could not write {}", self.path.display()))
    }
}
