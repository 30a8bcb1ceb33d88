//! `restore_cache`, `archive_cache` and `archive_cache_on_failure`, with archives on local disk.

use sha2::{Digest as _, Sha256};

use super::head;
use super::writer::Writer;
use crate::gitlab::{Cache, entries, when_fits};
use crate::runner::build::Build;
use crate::runner::failure::Failure;
use crate::runner::go;

/// The names of one cache.
struct Archive {
    human_key: String,
    file: String,
    alternate_file: String,
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Dots and slashes are resolved, blanks at the end removed; `Err` if nothing is left.
fn sanitize(key: &str) -> Result<String, String> {
    if key.is_empty() {
        return Ok(String::new());
    }
    let mut plain = key.replace('\\', "/");
    for (coded, decoded) in [("%2f", "/"), ("%2F", "/"), ("%2e", "."), ("%2E", ".")] {
        plain = plain.replace(coded, decoded);
    }
    let cleaned = go::clean(&format!("/{plain}"));
    let mut parts: Vec<&str> = cleaned.trim_start_matches('/').split('/').collect();
    while let Some(last) = parts.last_mut() {
        *last = last.trim_end();
        if !last.is_empty() {
            break;
        }
        parts.pop();
    }
    let clean = parts.join("/");
    if clean.is_empty() {
        return Err(format!("cache key {} could not be sanitized", go::quote(key)));
    }
    Ok(clean)
}

impl Archive {
    /// The archive of a key, or why there is none; a warning is written at once.
    fn of(w: &mut Writer<'_>, build: &Build, key: &str) -> Result<Archive, String> {
        if build.cache_dir.is_empty() {
            return Err("unset cache directory".into());
        }
        let raw = if key.is_empty() {
            let name = go::join(&["/", &build.job.job_info.name, &build.job.git_info.reference]);
            name.trim_start_matches('/').to_owned()
        } else {
            build.variables().expand_value(key)
        };
        let hashed = build.is_on("FF_HASH_CACHE_KEYS");
        let human_key = match if hashed { Ok(raw.clone()) } else { sanitize(&raw) } {
            Ok(clean) => {
                if clean != raw {
                    w.warning(&format!("cache key {} sanitized to {}", go::quote(&raw), go::quote(&clean)));
                }
                clean
            }
            Err(warning) => {
                w.warning(&warning);
                String::new()
            }
        };
        if human_key.is_empty() {
            return Err("empty cache key".into());
        }
        let file = |key: &str| {
            go::rel(&build.build_dir, &go::join(&[&build.cache_dir, key, "cache.zip"])).ok_or_else(|| {
                "inability to make the cache file path relative to the build directory (is the build directory absolute?)"
                    .to_owned()
            })
        };
        let digest = sha256(&human_key);
        let (own, other) = if hashed { (&digest, &human_key) } else { (&human_key, &digest) };
        Ok(Archive { file: file(own)?, alternate_file: file(other)?, human_key })
    }
}

fn path_arguments(cache: &Cache) -> Vec<String> {
    let mut arguments: Vec<String> =
        entries(&cache.paths).iter().flat_map(|path| ["--path".to_owned(), path.clone()]).collect();
    if cache.untracked {
        arguments.push("--untracked".into());
    }
    arguments
}

/// Whether the policy lets a cache be pulled or pushed.
fn policy_allows(build: &Build, cache: &Cache, wanted: &str, key: &str) -> Result<bool, Failure> {
    let policy = build.variables().expand_value(&cache.policy);
    match policy.as_str() {
        "" | "pull-push" => Ok(true),
        "pull" | "push" => Ok(policy == wanted),
        other => Err(Failure::system(format!("unknown cache policy {other} for {key}"))),
    }
}

/// Runs `body` if the helper is there, else says what is missing.
pub(super) fn guard_helper(w: &mut Writer<'_>, action: &str, body: impl FnOnce(&mut Writer<'_>)) {
    w.if_command(&["gitlab-runner", "--version"]);
    body(w);
    w.otherwise();
    w.warning(&format!("Missing gitlab-runner. {action} is disabled."));
    w.end_if();
}

/// Whether there was anything to do.
pub(super) fn restore(w: &mut Writer<'_>, build: &Build) -> Result<bool, Failure> {
    head::exports_and_cd(w, build);
    let mut any = false;
    for cache in entries(&build.job.cache) {
        if path_arguments(cache).is_empty() {
            continue;
        }
        any = true;
        let archive = match Archive::of(w, build, &cache.key) {
            Ok(archive) => archive,
            Err(reason) => {
                w.notice(&format!("Skipping cache extraction due to {reason}"));
                continue;
            }
        };
        if !policy_allows(build, cache, "pull", &archive.human_key)? {
            w.notice(&format!("Not downloading cache {} due to policy", archive.human_key));
            continue;
        }
        let mut archives = vec![archive];
        let fallback = build.variables().value("CACHE_FALLBACK_KEY");
        let protected = fallback.trim_end_matches(['.', ' ']).ends_with("-protected");
        if protected {
            w.warning(&format!(
                "CACHE_FALLBACK_KEY {} not allowed to end in \"-protected\"",
                go::quote(&fallback)
            ));
        }
        let keys = entries(&cache.fallback_keys).iter().map(|key| build.variables().expand_value(key));
        let keys: Vec<String> = keys.chain((!protected).then_some(fallback)).collect();
        for key in keys.iter().filter(|key| !key.is_empty()) {
            match Archive::of(w, build, key) {
                Ok(archive) => archives.push(archive),
                Err(reason) => w.notice(&format!("Skipping cache extraction due to {reason}")),
            }
        }
        guard_helper(w, "Extracting cache", |w| extract(w, build, &archives, cache));
    }
    if any {
        head::change_ownership(w, build, &[&build.cache_dir, &build.root_dir]);
    }
    Ok(any)
}

/// Tries the archives one after the other.
fn extract(w: &mut Writer<'_>, build: &Build, archives: &[Archive], cache: &Cache) {
    let Some((archive, rest)) = archives.split_first() else { return };
    let timeout = build.settings().cache_request_timeout.to_string();
    w.notice(&format!("Checking cache for {}...", archive.human_key));
    w.if_command_with_output(&[
        "gitlab-runner",
        "cache-extractor",
        "--file",
        &archive.file,
        "--timeout",
        &timeout,
    ]);
    w.notice("Successfully extracted cache");
    w.otherwise();
    w.warning("Failed to extract cache");
    if build.is_on("FF_CLEAN_UP_FAILED_CACHE_EXTRACT") {
        for path in entries(&cache.paths) {
            w.print(&format!("Removing {path}"));
            w.remove_dir(path);
        }
    }
    extract(w, build, rest, cache);
    w.end_if();
}

/// Whether there was anything to do.
pub(super) fn archive(w: &mut Writer<'_>, build: &Build, success: bool) -> Result<bool, Failure> {
    head::exports_and_cd(w, build);
    let mut any = false;
    for cache in entries(&build.job.cache) {
        let paths = path_arguments(cache);
        if !when_fits(&cache.when, success) || paths.is_empty() {
            continue;
        }
        any = true;
        let archive = match Archive::of(w, build, &cache.key) {
            Ok(archive) => archive,
            Err(reason) => {
                w.notice(&format!("Skipping cache archiving due to {reason}"));
                continue;
            }
        };
        if !policy_allows(build, cache, "push", &archive.human_key)? {
            w.notice(&format!("Not uploading cache {} due to policy", archive.human_key));
            continue;
        }
        guard_helper(w, "Creating cache", |w| create(w, build, &archive, &paths));
    }
    Ok(any)
}

fn create(w: &mut Writer<'_>, build: &Build, archive: &Archive, paths: &[String]) {
    w.notice(&format!("Creating cache {}...", archive.human_key));
    let env_file = build.tmp_file("gitlab_runner_cache_env");
    let metadata = serde_json::json!({"cachekey": archive.human_key}).to_string();
    let escaped =
        metadata.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', "\\r");
    w.line(&format!("cat << EOF > {env_file}\nCACHE_METADATA=\"{escaped}\"\nEOF\n"));
    let timeout = build.settings().cache_request_timeout.to_string();
    let mut words = vec![
        "gitlab-runner",
        "cache-archiver",
        "--file",
        &archive.file,
        "--alternate-file",
        &archive.alternate_file,
        "--timeout",
        &timeout,
    ];
    words.extend(paths.iter().map(String::as_str));
    words.extend(["--env-file", &env_file]);
    w.if_command_with_output(&words);
    w.notice("Created cache");
    w.otherwise();
    w.warning("Failed to create cache");
    w.end_if();
    w.remove_file(&env_file);
}
