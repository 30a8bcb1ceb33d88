//! A small `gitlab-runner` helper: the commands that the generated scripts call by this name.
//!
//! `artifacts-uploader`, `artifacts-downloader`, `cache-archiver`, `cache-extractor`, `cache-init`, `--version`.
//! Archives are zip files, caches lie on local disk. A flag that the real helper has and this one need not is
//! accepted.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a program of the testbed talks to its starter"
)]

mod archive;
mod arguments;
mod transfer;

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use arguments::Arguments;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("\x1b[31;1mFATAL: {error:#}\x1b[0;m"));
            ExitCode::from(1)
        }
    }
}

/// A line for the job log; the helper writes all of its own on standard error.
fn say(text: &str) {
    // If nobody reads, nobody misses it.
    writeln!(io::stderr(), "{text}").ok();
}

fn run() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    if command == "--version" || command == "-v" {
        writeln!(io::stdout(), "Version:      19.4.0\nGit revision: testbed\nOS/Arch:      linux/amd64")
            .context("write the version")?;
        return Ok(());
    }
    let arguments = Arguments::parse(words)?;
    match command.as_str() {
        "artifacts-uploader" => upload(&arguments),
        "artifacts-downloader" => download(&arguments),
        "cache-archiver" => cache_archive(&arguments),
        "cache-extractor" => cache_extract(&arguments),
        "cache-init" => cache_init(&arguments),
        other => bail!("no such command: {other}"),
    }
}

fn upload(arguments: &Arguments) -> Result<()> {
    let job = transfer::Credentials::of(arguments)?;
    let files = archive::collect(arguments)?;
    if files.is_empty() {
        say("\x1b[31;1mERROR: No files to upload\x1b[0;m");
        return Ok(());
    }
    let format = arguments.value("artifact-format").unwrap_or("zip");
    ensure!(matches!(format, "zip" | ""), "artifact format {format} is not made by this helper");
    let name = arguments::expand(arguments.value("name").unwrap_or("artifacts"));
    let name = Path::new(&name).file_name().map_or_else(|| "default".into(), |name| name.to_string_lossy());
    transfer::upload(&job, arguments, &format!("{name}.zip"), &archive::zip(&files)?)
}

fn download(arguments: &Arguments) -> Result<()> {
    let job = transfer::Credentials::of(arguments)?;
    archive::unzip(transfer::download(&job)?)
}

/// Makes directories of a cache: nobody else's.
fn make_private(directory: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("make {}", directory.display()))
}

fn cache_archive(arguments: &Arguments) -> Result<()> {
    let file = Path::new(arguments.value("file").context("Missing --file")?);
    let files = archive::collect(arguments)?;
    if files.is_empty() {
        say("\x1b[0;33mWARNING: No files to cache.\x1b[0;m");
        return Ok(());
    }
    if archive::is_newer_than_all(file, &files) {
        say("Archive is up to date!");
        return Ok(());
    }
    let directory = file.parent().context("--file names no directory")?;
    make_private(directory)?;
    let fresh = tempfile::Builder::new()
        .prefix("archive_")
        .tempfile_in(directory)
        .with_context(|| format!("make a file in {}", directory.display()))?;
    fs::write(fresh.path(), archive::zip(&files)?).context("write the archive")?;
    fresh.persist(file).with_context(|| format!("rename to {}", file.display()))?;
    if let Some(metadata) = arguments.value("env-file").and_then(cache_metadata) {
        let path = directory.join("metadata.json");
        fs::write(&path, metadata).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).context("chmod metadata.json")?;
    }
    say(
        "No URL provided, cache will not be uploaded to shared cache server. Cache will be stored only locally.",
    );
    Ok(())
}

/// `CACHE_METADATA="{...}"` of an environment file.
fn cache_metadata(env_file: &str) -> Option<String> {
    let text = fs::read_to_string(env_file).ok()?;
    let quoted = text.lines().find_map(|line| line.strip_prefix("CACHE_METADATA="))?;
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.replace("\\\"", "\"").replace("\\\\", "\\"))
}

fn cache_extract(arguments: &Arguments) -> Result<()> {
    let file = Path::new(arguments.value("file").context("Missing --file")?);
    if let Some(directory) = file.parent() {
        make_private(directory)?;
    }
    say(
        "No URL provided, cache will not be downloaded from shared cache server. Instead a local version of cache will be extracted.",
    );
    if !file.exists() {
        say("\x1b[0;33mWARNING: Cache file does not exist\x1b[0;m");
        bail!("{} does not exist", file.display());
    }
    archive::unzip(fs::read(file).with_context(|| format!("read {}", file.display()))?)
}

fn cache_init(arguments: &Arguments) -> Result<()> {
    ensure!(!arguments.plain().is_empty(), "No arguments passed, at least 1 path is required.");
    for path in arguments.plain() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))
            .with_context(|| format!("chmod {path}"))?;
    }
    Ok(())
}
