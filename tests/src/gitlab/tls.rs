//! A certificate authority made on the spot, and a server certificate from it.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A server's TLS settings and the certificate that a client must trust.
pub(crate) struct Authority {
    pub(crate) pem: String,
    pub(crate) server: Arc<rustls::ServerConfig>,
}

/// Makes an authority and, from it, a certificate for these names.
pub(crate) fn authority(names: &[&str]) -> Result<Authority> {
    let key = KeyPair::generate().context("make the key of a certificate authority")?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "testbed CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).context("sign the certificate of an authority")?;
    let pem = certificate.pem();
    let issuer = Issuer::new(params, key);

    let server_key = KeyPair::generate().context("make the key of a server")?;
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).context("name a server")?;
    params.distinguished_name.push(DnType::CommonName, "testbed GitLab");
    let server = params.signed_by(&server_key, &issuer).context("sign the certificate of a server")?;

    let chain = vec![server.der().clone(), certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("use the certificate of a server")?;
    Ok(Authority { pem, server: Arc::new(config) })
}
