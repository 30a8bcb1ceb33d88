//! `jacamar resolve`: canonical forms of directories, as the CI user sees them. Makes nothing.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jacamar_contract::environment::PATH_MAX_BYTES;
use jacamar_contract::frame::{self, HEADER_BYTES, PAYLOAD_MAX_BYTES};
use jacamar_contract::resolve::{ResolveAnswer, ResolveRefused, ResolveRequest, Resolved};
use jacamar_contract::stage_report::exit_code;
use jacamar_contract::text::{Charset, check, is_shown};
use nix::unistd::{AccessFlags, access};

/// Answers the question on descriptor 0 on descriptor 1.
pub(super) fn resolve() -> anyhow::Result<u8> {
    let bytes = super::input(HEADER_BYTES + PAYLOAD_MAX_BYTES)?;
    let request: ResolveRequest = frame::decode(&bytes)
        .context("descriptor 0 is not the request that `jacamar-auth` passes to this command")?;
    let paths: Result<Vec<String>, ResolveRefused> =
        request.paths.iter().map(|path| canonical(Path::new(path)).and_then(text)).collect();
    let (answer, code) = match paths {
        Ok(paths) => (ResolveAnswer::Resolved(Resolved { paths }), exit_code::DONE),
        Err(refused) => (ResolveAnswer::Refused(refused), exit_code::REFUSED),
    };
    let bytes = answer.encode().context("the answer cannot be encoded")?;
    let mut out = std::io::stdout().lock();
    out.write_all(&bytes).and_then(|()| out.flush()).context("descriptor 1 (answer) could not be written")?;
    Ok(code)
}

/// The longest part that exists without any link, and the rest as it is.
fn canonical(path: &Path) -> Result<PathBuf, ResolveRefused> {
    let mut at = PathBuf::from("/");
    let mut components = path.components().skip(1);
    while let Some(component) = components.next() {
        let next = at.join(component);
        let meta = match next.symlink_metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(std::iter::once(component)
                    .chain(components)
                    .fold(at, |path, name| path.join(name)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(denied(&at));
            }
            Err(error) => return Err(refused(&next, &reason(&error), "")),
        };
        at = if meta.is_symlink() {
            let target = next.canonicalize();
            target.map_err(|error| {
                let hint = format!("make what it leads to, or remove it: rm {}", shown(&next));
                refused(&next, &format!("is a link that leads nowhere: {}", reason(&error)), &hint)
            })?
        } else {
            next
        };
        if !at.is_dir() {
            return Err(refused(&at, "is not a directory", ""));
        }
    }
    // The last one is entered too, by the job.
    access(&at, AccessFlags::X_OK).map_err(|_| denied(&at))?;
    Ok(at)
}

/// errno(3) in words, without the number.
fn reason(error: &std::io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), |number| jacamar_kernel::Errno::from_raw(number).desc().into())
}

fn denied(directory: &Path) -> ResolveRefused {
    let hint = format!("look at it on this host: ls -ld {}", shown(directory));
    refused(directory, "cannot be entered by the job's account: Permission denied", &hint)
}

fn refused(path: &Path, cause: &str, hint: &str) -> ResolveRefused {
    ResolveRefused { object: shown(path), cause: cause.to_owned(), hint: hint.to_owned() }
}

/// A path as a frame takes it: a link's target may be any bytes of any length.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars().map(|c| if is_shown(c) { c } else { '?' }).take(PATH_MAX_BYTES / 4).collect()
}

fn text(path: PathBuf) -> Result<String, ResolveRefused> {
    let usable = |text: &&str| check("path", text, PATH_MAX_BYTES, Charset::AbsolutePath).is_ok();
    match path.to_str().filter(usable) {
        Some(text) => Ok(text.to_owned()),
        None => Err(refused(&path, "has control characters, is not UTF-8 or is too long", "")),
    }
}
