//! Nothing in the environment changes whom `jacamar keys` believes or asks.

use std::path::Path;

use jacamar_contract::keys::KeysRule;
use testbed::gitlab::GitLab;

use crate::call::{Fetch, file, key_set};

const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

#[test]
fn certificates_of_the_environment_are_not_believed() {
    let gitlab = GitLab::start_tls().expect("server");
    let ca = file(gitlab.ca_pem().expect("TLS").as_bytes());
    let mut fetch = Fetch::new(gitlab.url(), None);
    fetch.environment = vec![("SSL_CERT_FILE", ca.path().display().to_string())];
    fetch.fails(KeysRule::Certificate, "TLS");
    let directory = tempfile::tempdir().expect("directory");
    std::fs::copy(ca.path(), directory.path().join("ca.pem")).expect("copied");
    fetch.environment = vec![("SSL_CERT_DIR", directory.path().display().to_string())];
    fetch.fails(KeysRule::Certificate, "TLS");
    // The counter-check: the same certificate, as the site gives it.
    let mut fetch = Fetch::new(gitlab.url(), gitlab.ca_pem());
    fetch.environment = vec![("SSL_CERT_FILE", "/nonexistent".to_owned())];
    assert_eq!(fetch.answer(), Ok(key_set()));
}

#[test]
fn the_hosts_own_authorities_are_believed() {
    let gitlab = GitLab::start_tls().expect("server");
    let bundle = BUNDLES.into_iter().find(|path| Path::new(path).exists()).expect("the host has a bundle");
    let ca = file(gitlab.ca_pem().expect("TLS").as_bytes());
    // In a mount namespace of its own the stand-in's authority is the host's.
    let mut fetch = Fetch::new(gitlab.url(), None);
    let script = "mount --bind \"$0\" \"$1\"; shift; exec \"$@\"";
    let user = if nix::unistd::geteuid().is_root() { "-m" } else { "-rm" };
    let ca_path = ca.path().display().to_string();
    fetch.wrapper = ["unshare", user, "bash", "-ec", script, &ca_path, bundle].map(str::to_owned).to_vec();
    assert_eq!(fetch.answer(), Ok(key_set()));
}

#[test]
fn proxies_and_resolver_options_of_the_environment_are_not_used() {
    let gitlab = GitLab::start_tls().expect("server");
    let mut fetch = Fetch::new(gitlab.url(), gitlab.ca_pem());
    let dead = "http://127.0.0.1:9".to_owned();
    fetch.environment = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        .map(|name| (name, dead.clone()))
        .to_vec();
    assert_eq!(fetch.answer(), Ok(key_set()));
    let plain = GitLab::start().expect("server");
    let environment = fetch.environment;
    let fetch = Fetch { environment, ..Fetch::new(plain.url(), None) };
    assert_eq!(fetch.answer(), Ok(key_set()));
}

#[test]
fn keys_runs_without_any_environment() {
    let gitlab = GitLab::start().expect("server");
    let trace = file(b"");
    let trace_path = trace.path().display().to_string();
    let wrapper =
        ["strace", "-f", "-v", "-s", "200", "-e", "trace=execve", "-o", &trace_path].map(str::to_owned);
    let mut fetch = Fetch::new(gitlab.url(), None);
    fetch.environment = vec![("RES_OPTIONS", "ndots:15".to_owned()), ("HOSTALIASES", "/x".to_owned())];
    fetch.wrapper = wrapper.to_vec();
    assert_eq!(fetch.answer(), Ok(key_set()));
    let calls = std::fs::read_to_string(trace.path()).expect("trace");
    let last = calls.lines().rfind(|line| line.contains("execve(")).expect("a call");
    assert!(last.contains(r#"execve("/proc/self/exe", ["jacamar", "keys"], [])"#), "{calls}");
}
