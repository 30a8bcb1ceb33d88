//! One GET: of one server, without redirect, in bounded time, of bounded size.

use std::sync::Arc;
use std::time::Duration;

use jacamar_contract::keys::{KEYS_MAX_BYTES, KeysFailed, KeysRequest, KeysRule};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body, Error, Proxy};

use crate::answer::reason;

/// The answer's body. `ca`: the only authorities that are believed; without it, the host's own.
pub(super) fn fetch(request: &KeysRequest, ca: Option<&[u8]>) -> Result<Vec<u8>, KeysFailed> {
    let roots = match ca {
        None => RootCerts::PlatformVerifier,
        Some(pem) => authorities(pem)
            .ok_or_else(|| failed(request, KeysRule::CaUnreadable, KeysRule::CaUnreadable.cause()))?,
    };
    let proxy = match &request.proxy {
        // `None` to ureq is "no proxy at all": its default would be the environment's.
        None => None,
        Some(url) => Some(Proxy::new(url).map_err(|error| of_ureq(request, &error))?),
    };
    let agent = agent(request, roots, proxy);
    let mut response = agent.get(&request.url).call().map_err(|error| of_ureq(request, &error))?;
    if response.status() != 200 {
        let (rule, cause) = status(&response);
        return Err(failed(request, rule, &cause));
    }
    let body = response.body_mut().with_config().limit(KEYS_MAX_BYTES as u64).read_to_vec();
    let keys = body.map_err(|error| of_ureq(request, &error))?;
    if keys.is_empty() {
        return Err(failed(request, KeysRule::Empty, KeysRule::Empty.cause()));
    }
    Ok(keys)
}

/// A failure whose texts a frame takes.
pub(super) fn failed(request: &KeysRequest, rule: KeysRule, cause: &str) -> KeysFailed {
    KeysFailed { rule, object: reason(&request.url), cause: reason(cause) }
}

fn agent(request: &KeysRequest, roots: RootCerts, proxy: Option<Proxy>) -> Agent {
    // Named here: which one rustls would choose by itself depends on the features of all crates together.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(roots)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .https_only(!request.allow_http)
        .proxy(proxy)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_millis(request.time_limit_ms.into())))
        .user_agent(concat!("jacamar/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
        .build()
        .into()
}

/// The certificates of a bundle; `None` if it has none that can be used.
fn authorities(pem: &[u8]) -> Option<RootCerts> {
    let found: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
    // ureq skips what it cannot read without a word, and would then trust nobody.
    let (usable, _) = RootCertStore::empty().add_parsable_certificates(found.iter().cloned());
    if usable == 0 {
        return None;
    }
    let found: Vec<_> = found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    Some(RootCerts::new_with_certs(&found))
}

fn status(response: &Response<Body>) -> (KeysRule, String) {
    let status = response.status();
    let to = response.headers().get("location").map(|to| String::from_utf8_lossy(to.as_bytes()));
    match to.filter(|_| status.is_redirection()) {
        Some(to) => (
            KeysRule::Redirect,
            format!("the server answered {status} and sends us to {to}; only the configured server counts"),
        ),
        None => (KeysRule::Status, format!("the server answered {status} in place of 200 OK")),
    }
}

fn of_ureq(request: &KeysRequest, error: &Error) -> KeysFailed {
    let (rule, cause) = match error {
        Error::Timeout(_) => (KeysRule::TimedOut, format!("no answer within {} ms", request.time_limit_ms)),
        Error::HostNotFound => (KeysRule::Unreachable, "no address is known for this name".to_owned()),
        Error::BodyExceedsLimit(_) => (KeysRule::TooLarge, KeysRule::TooLarge.cause().to_owned()),
        Error::LargeResponseHeader(..) => {
            (KeysRule::TooLarge, "the head of the answer is too large".to_owned())
        }
        Error::Rustls(error) => of_rustls(error),
        Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => of_rustls(error),
            None => (KeysRule::Unreachable, error.to_string()),
        },
        other => (KeysRule::Unreachable, other.to_string()),
    };
    failed(request, rule, &cause)
}

fn of_rustls(error: &rustls::Error) -> (KeysRule, String) {
    let rule = match error {
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::InvalidCertRevocationList(_)
        | rustls::Error::NoCertificatesPresented
        // The host has no certificate of any authority.
        | rustls::Error::General(_) => KeysRule::Certificate,
        _ => KeysRule::Unreachable,
    };
    let text = format!("TLS: {error}");
    if text.contains("CaUsedAsEndEntity") {
        // What `openssl req -x509` makes, which OpenSSL and Go take as its own authority.
        let cure = "the server shows a certificate of an authority as its own; it needs one with `CA:FALSE`";
        return (rule, format!("{cure} ({text})"));
    }
    (rule, text)
}

#[cfg(test)]
mod tests {
    use rustls::crypto::{CryptoProvider, aws_lc_rs};
    use testbed::gitlab::{GitLab, Keys};

    use super::*;

    #[test]
    fn a_self_signed_authority_has_its_own_words() {
        let inner = rustls::OtherError(Arc::new(std::io::Error::other("CaUsedAsEndEntity")));
        let error = rustls::Error::InvalidCertificate(rustls::CertificateError::Other(inner));
        let (rule, cause) = of_rustls(&error);
        assert_eq!(rule, KeysRule::Certificate);
        assert!(cause.contains("CA:FALSE"), "{cause}");
    }

    #[test]
    fn another_libraries_default_provider_is_never_asked() {
        // What rustls has where two crates switch on two back ends: nothing that works.
        let useless = CryptoProvider { cipher_suites: Vec::new(), ..aws_lc_rs::default_provider() };
        useless.install_default().expect("nobody else installs one");
        let gitlab = GitLab::start_tls().expect("server");
        let request = KeysRequest {
            url: format!("{}/oauth/discovery/keys", gitlab.url()),
            allow_http: false,
            time_limit_ms: 10_000,
            own_ca: true,
            proxy: None,
        };
        let keys = fetch(&request, gitlab.ca_pem().map(str::as_bytes)).expect("fetched");
        assert_eq!(keys, Keys::of_this_process().expect("keys").jwks().to_string().into_bytes());
    }
}
