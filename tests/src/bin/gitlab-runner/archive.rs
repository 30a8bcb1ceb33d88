//! Which files go into an archive, and zip files.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Cursor, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use globset::GlobBuilder;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::arguments::Arguments;
use super::say;

/// Where the project is: the current directory.
fn project() -> Result<PathBuf> {
    std::env::current_dir().context("ask for the current directory")
}

/// A path relative to the project, without `.` and `..`; `None` if it lies outside.
fn inside(project: &Path, path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in project.join(path).components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean.strip_prefix(project).ok().map(Path::to_owned)
}

fn matcher(pattern: &str) -> Result<globset::GlobMatcher> {
    let trimmed = pattern.trim_start_matches("./").trim_end_matches('/');
    let glob = GlobBuilder::new(trimmed).literal_separator(true).build();
    Ok(glob.with_context(|| format!("read the pattern {pattern}"))?.compile_matcher())
}

/// The path, and all below it; symbolic links are not followed.
fn walk(project: &Path, path: &Path, found: &mut Vec<PathBuf>) {
    found.push(path.to_owned());
    let full = project.join(path);
    if full.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
        for entry in fs::read_dir(full).into_iter().flatten().flatten() {
            walk(project, &path.join(entry.file_name()), found);
        }
    }
}

/// The files of `--path` and `--untracked` without those of `--exclude`.
pub(crate) fn collect(arguments: &Arguments) -> Result<BTreeSet<PathBuf>> {
    let project = project()?;
    let excludes: Vec<_> =
        arguments.values("exclude").iter().map(|pattern| matcher(pattern)).collect::<Result<_>>()?;
    let excluded = |path: &Path| excludes.iter().any(|pattern| pattern.is_match(path));
    let mut files = BTreeSet::new();
    for path in arguments.values("path") {
        let before = files.len();
        let mut candidates = Vec::new();
        if path.contains(['*', '?', '[', '{']) {
            let pattern = matcher(&path)?;
            let mut all = Vec::new();
            walk(&project, Path::new(""), &mut all);
            for start in all.iter().filter(|candidate| pattern.is_match(candidate)) {
                walk(&project, start, &mut candidates);
            }
        } else {
            match inside(&project, Path::new(&path)) {
                Some(relative) if project.join(&relative).symlink_metadata().is_ok() => {
                    walk(&project, &relative, &mut candidates);
                }
                Some(_) => {}
                None => say(&format!(
                    "\x1b[0;33mWARNING: processPath: artifact path is not a subpath of project directory: {path}\x1b[0;m"
                )),
            }
        }
        files.extend(candidates.into_iter().filter(|file| !excluded(file)));
        match files.len() - before {
            0 => say(&format!(
                "\x1b[0;33mWARNING: {path}: no matching files. Ensure that the artifact path is relative to the working directory ({})\x1b[0;m",
                project.display()
            )),
            count => say(&format!("{path}: found {count} matching artifact files and directories")),
        }
    }
    if arguments.is_set("untracked") {
        let before = files.len();
        let output = Command::new("git").args(["ls-files", "-o", "-z"]).output().context("start git")?;
        for name in output.stdout.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(name));
            if !excluded(&path) {
                files.insert(path);
            }
        }
        say(&format!("untracked: found {} files", files.len() - before));
    }
    files.retain(|path| !path.as_os_str().is_empty());
    Ok(files)
}

/// Whether an archive is as new as each of its files.
pub(crate) fn is_newer_than_all(archive: &Path, files: &BTreeSet<PathBuf>) -> bool {
    let Ok(made) = fs::metadata(archive).and_then(|meta| meta.modified()) else { return false };
    let changed = |file: &PathBuf| fs::symlink_metadata(file).and_then(|meta| meta.modified());
    files.iter().all(|file| changed(file).is_ok_and(|changed| changed <= made))
}

/// A zip file of these paths.
pub(crate) fn zip(files: &BTreeSet<PathBuf>) -> Result<Vec<u8>> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for path in files {
        let about = || format!("archive {}", path.display());
        let meta = fs::symlink_metadata(path).with_context(about)?;
        let name = path.to_str().with_context(|| format!("{}: not UTF-8", path.display()))?;
        let options = SimpleFileOptions::default().unix_permissions(meta.permissions().mode() & 0o7777);
        if meta.is_symlink() {
            let target = fs::read_link(path).with_context(about)?;
            writer.add_symlink(name, target.to_string_lossy(), options).with_context(about)?;
        } else if meta.is_dir() {
            writer.add_directory(name, options).with_context(about)?;
        } else if meta.is_file() {
            writer.start_file(name, options).with_context(about)?;
            writer.write_all(&fs::read(path).with_context(about)?).with_context(about)?;
        } else {
            say(&format!("\x1b[0;33mWARNING: {}: not a file, skipped\x1b[0;m", path.display()));
        }
    }
    Ok(writer.finish().context("finish the archive")?.into_inner())
}

/// Unpacks a zip file into the current directory, and nowhere else.
pub(crate) fn unzip(bytes: Vec<u8>) -> Result<()> {
    let project = project()?;
    let mut archive = ZipArchive::new(Cursor::new(bytes)).context("read the archive")?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).context("read the archive")?;
        let Some(name) = entry.enclosed_name() else {
            bail!("entry {index} of the archive has a path outside of the project");
        };
        let path = project.join(&name);
        let about = || format!("extract {}", name.display());
        let mode = entry.unix_mode().unwrap_or(0o644);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(about)?;
        }
        if entry.is_dir() {
            fs::create_dir_all(&path).with_context(about)?;
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).with_context(about)?;
        if path.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
            fs::remove_file(&path).with_context(about)?;
        }
        if entry.is_symlink() {
            symlink(std::ffi::OsStr::from_bytes(&content), &path).with_context(about)?;
        } else {
            fs::write(&path, content).with_context(about)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o777)).with_context(about)?;
        }
    }
    Ok(())
}
