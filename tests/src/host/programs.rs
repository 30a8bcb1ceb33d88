//! Where the built programs are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Programs of the product, which the built host has in `PREFIX/bin`.
pub(super) const PRODUCT: [&str; 2] = ["jacamar-auth", "jacamar"];
/// Programs of the testbed, which stand apart from the product's.
pub(super) const TESTBED: [&str; 5] =
    ["capability-level", "gitlab-runner", "job", "old-kernel", "testbed-host"];

/// The path of a program that was built beside the running one; `JACAMAR_BIN_DIR` names another directory for those
/// of the product.
///
/// # Errors
/// If it is not there: it says what makes it.
pub fn program(name: &str) -> Result<PathBuf> {
    let directory = match std::env::var_os("JACAMAR_BIN_DIR") {
        Some(directory) if PRODUCT.contains(&name) => PathBuf::from(directory),
        _ => own_directory()?,
    };
    let path = directory.join(name);
    if !path.is_file() {
        bail!("{} was not built: run `make build` (or `cargo build --workspace`)", path.display());
    }
    Ok(path)
}

/// `target/debug` of `target/debug/deps/levels-0123`, or of `target/debug/testbed-host`.
fn own_directory() -> Result<PathBuf> {
    let own = std::env::current_exe().context("the running program has no path")?;
    let is_target = |path: &&Path| !path.ends_with("deps") && !path.ends_with("examples");
    let found = own.ancestors().skip(1).find(is_target);
    Ok(found.context("the running program lies in no directory")?.to_owned())
}
