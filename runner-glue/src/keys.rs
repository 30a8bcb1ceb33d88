//! `jacamar keys`: fetches the GitLab server's key set. It knows nothing of any job and parses nothing it fetched.
//!
//! Exit code 0: the answer was written, whatever it says. Any other: there is no answer.

mod fetch;

use std::ffi::CStr;

use anyhow::Context;
use jacamar_contract::keys::{KeysAnswer, KeysFailed, KeysRequest, KeysRule, descriptor};
use nix::errno::Errno;

use crate::answer;
use crate::inherited::{Inherited, InheritedError};

const REQUEST: Inherited = Inherited { number: descriptor::REQUEST, name: "request" };
const CA: Inherited = Inherited { number: descriptor::CA, name: "CA bundle" };

/// Largest CA bundle, in bytes. The bundle of a distribution has 250 KiB.
const CA_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Answers the request; exit code 0.
pub(crate) fn keys() -> anyhow::Result<u8> {
    without_environment()?;
    let request: KeysRequest = REQUEST.frame()?;
    let fetched = fetch(&request)?;
    let answer = match &fetched {
        Ok(keys) => KeysAnswer::Fetched(keys),
        Err(failed) => KeysAnswer::Failed(failed.clone()),
    };
    answer::write(&answer.encode().context("the answer does not fit into a frame")?)?;
    Ok(0)
}

fn fetch(request: &KeysRequest) -> Result<Result<Vec<u8>, KeysFailed>, InheritedError> {
    if !request.own_ca {
        return Ok(fetch::fetch(request, None));
    }
    match CA.read(CA_MAX_BYTES) {
        Ok(ca) => Ok(fetch::fetch(request, Some(ca.as_bytes()))),
        Err(InheritedError::TooLarge { max_bytes, .. }) => {
            let cause = format!("tls-ca-file has more than {max_bytes} bytes");
            Ok(Err(fetch::failed(request, KeysRule::CaUnreadable, &cause)))
        }
        Err(error) => Err(error),
    }
}

/// Starts this program again without environment if it has one.
///
/// `SSL_CERT_FILE` (rustls-native-certs), `HTTPS_PROXY` (ureq), `RES_OPTIONS`, `LOCALDOMAIN` and `HOSTALIASES`
/// (the C library's resolver) would change whom we believe. Nothing can be forgotten in an empty list, and
/// removing a variable from a running process is not safe. `PATH` may stay: no program is started here.
fn without_environment() -> anyhow::Result<()> {
    if std::env::vars_os().all(|(name, _)| name == "PATH") {
        return Ok(());
    }
    let none: [&CStr; 0] = [];
    let Err(errno): Result<_, Errno> = nix::unistd::execve(c"/proc/self/exe", &[c"jacamar", c"keys"], &none);
    Err(errno).context("could not start again without environment")
}
