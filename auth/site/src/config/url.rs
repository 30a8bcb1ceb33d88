//! The two kinds of URL that a configuration names: the GitLab server and the way out to it.
//!
//! The form is RFC 3986, section 3, without what has no business here: user info, query, fragment and
//! escaped characters.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::Invalid;

/// Longest accepted URL, in bytes.
const URL_MAX_BYTES: usize = 2000;
/// Longest name of a host, in bytes (RFC 1035, section 2.3.4).
const HOST_MAX_BYTES: usize = 253;

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without encryption: only because the site's own file says so.
    Http,
    /// With TLS.
    Https,
}

/// `[general] gitlab_server`: scheme, host, maybe port and path; no slash at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerUrl(String);

/// `[general] https_proxy`: scheme, host, maybe port; no slash at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProxyUrl(String);

impl ServerUrl {
    /// Accepts `https://host[:port][/path]`, and `http://` too.
    ///
    /// # Errors
    /// Everything else, with what is wrong. A text with `@` (which may be a password) is not repeated.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let parts = split(text, "https://gitlab.example.com")?;
        for part in parts.path.split('/').filter(|part| !part.is_empty()) {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if !part.bytes().all(plain) || matches!(part, "." | "..") {
                return Err(Invalid::new(format!("{text:?} has {part:?} in its path"), ""));
            }
        }
        if parts.path.contains("//") {
            return Err(Invalid::new(format!("{text:?} has an empty part in its path"), ""));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    /// The URL without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the server is spoken to with TLS.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        if self.0.starts_with("https://") { Scheme::Https } else { Scheme::Http }
    }

    /// Host and port as written: `gitlab.example.com:8443`.
    #[must_use]
    pub fn authority(&self) -> &str {
        let after = self.0.split_once("://").map_or("", |(_, after)| after);
        after.split('/').next().unwrap_or_default()
    }
}

impl ProxyUrl {
    /// Accepts `http://host[:port]` and `https://host[:port]`.
    ///
    /// # Errors
    /// Everything else. A text with `@` (which may be a password) is not repeated.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let parts = split(text, "http://proxy.example.com:3128")?;
        if !matches!(parts.path, "" | "/") {
            return Err(Invalid::new(format!("{text:?} has a path; a proxy has none"), ""));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    /// The URL without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

struct Parts<'a> {
    path: &'a str,
}

fn split<'a>(text: &'a str, example: &str) -> Result<Parts<'a>, Invalid> {
    let invalid =
        |cause: &str| Invalid::new(format!("{text:?} {cause}"), format!("write for example {example:?}"));
    if text.len() > URL_MAX_BYTES {
        return Err(Invalid::new(
            format!("a URL of {} bytes is longer than {URL_MAX_BYTES}", text.len()),
            "",
        ));
    }
    if text.contains('@') {
        let hint = "errors in this file are shown to others: put neither user nor password into it";
        return Err(Invalid::secret("the URL has a user name or a password in it", hint));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid("has characters that do not belong into a URL"));
    }
    let after = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let after = after.ok_or_else(|| invalid("does not begin with https:// or http://"))?;
    if after.contains(['?', '#']) {
        return Err(invalid("has a query or a fragment"));
    }
    let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
    let (host, port) = match authority.rsplit_once(':') {
        // The colon inside of [::1] is not the one before a port.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    };
    if !is_host(host) {
        return Err(invalid("has no valid host"));
    }
    let valid_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    match port {
        Some(port) if !valid_port(port) => Err(invalid("has no valid port")),
        Some(_) | None => Ok(Parts { path }),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let all_digits = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    host.len() <= HOST_MAX_BYTES
        && host.split('.').all(is_label)
        && (!all_digits || host.parse::<Ipv4Addr>().is_ok())
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(&text)
    }
}

impl From<ServerUrl> for String {
    fn from(url: ServerUrl) -> Self {
        url.0
    }
}

impl TryFrom<String> for ProxyUrl {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(&text)
    }
}

impl From<ProxyUrl> for String {
    fn from(url: ProxyUrl) -> Self {
        url.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn servers_lose_the_slash_at_the_end() {
        for (text, plain, authority) in [
            ("https://gitlab.example.com", "https://gitlab.example.com", "gitlab.example.com"),
            ("https://gitlab.example.com/", "https://gitlab.example.com", "gitlab.example.com"),
            ("https://h:8443/git-lab/", "https://h:8443/git-lab", "h:8443"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("https://[::1]/", "https://[::1]", "[::1]"),
            ("https://[::1]:8443", "https://[::1]:8443", "[::1]:8443"),
        ] {
            let url = ServerUrl::new(text).expect(text);
            assert_eq!((url.as_str(), url.authority()), (plain, authority));
        }
        assert_eq!(ServerUrl::new("https://h").expect("https").scheme(), Scheme::Https);
        assert_eq!(ServerUrl::new("http://h").expect("http").scheme(), Scheme::Http);
    }

    #[test]
    fn other_servers_are_refused_with_words() {
        for (text, cause) in [
            ("", "\"\" does not begin with https:// or http://"),
            ("gitlab.example.com", "\"gitlab.example.com\" does not begin with https:// or http://"),
            ("HTTPS://h", "\"HTTPS://h\" does not begin with https:// or http://"),
            ("ftp://h", "\"ftp://h\" does not begin with https:// or http://"),
            ("https://", "\"https://\" has no valid host"),
            ("https:///x", "\"https:///x\" has no valid host"),
            ("https://-h", "\"https://-h\" has no valid host"),
            ("https://a..b", "\"https://a..b\" has no valid host"),
            ("https://1.2.3", "\"https://1.2.3\" has no valid host"),
            ("https://[::1", "\"https://[::1\" has no valid host"),
            ("https://h:", "\"https://h:\" has no valid port"),
            ("https://h:0", "\"https://h:0\" has no valid port"),
            ("https://h:+80", "\"https://h:+80\" has no valid port"),
            ("https://h:65536", "\"https://h:65536\" has no valid port"),
            ("https://h?x=1", "\"https://h?x=1\" has a query or a fragment"),
            ("https://h/#x", "\"https://h/#x\" has a query or a fragment"),
            ("https://h/a b", "\"https://h/a b\" has characters that do not belong into a URL"),
            ("https://h/%2e", "\"https://h/%2e\" has \"%2e\" in its path"),
            ("https://h/../x", "\"https://h/../x\" has \"..\" in its path"),
            ("https://h\\x", "\"https://h\\\\x\" has no valid host"),
            ("https://h//x", "\"https://h//x\" has an empty part in its path"),
        ] {
            assert_eq!(ServerUrl::new(text).expect_err(text).message, cause);
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for refusal in [
            ServerUrl::new("https://root:hunter2@h").expect_err("user info"),
            ProxyUrl::new("http://root:hunter2@h:3128").expect_err("user info"),
        ] {
            assert_eq!(refusal.message, "the URL has a user name or a password in it");
            assert!(!format!("{refusal:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_proxy_has_no_path() {
        assert_eq!(ProxyUrl::new("http://proxy:3128/").expect("proxy").as_str(), "http://proxy:3128");
        assert_eq!(
            ProxyUrl::new("http://proxy:3128/x").expect_err("path").message,
            "\"http://proxy:3128/x\" has a path; a proxy has none"
        );
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_accepted_again(text in "https?://[a-z0-9.:/@?#\\[\\]-]{0,24}|\\PC*") {
            if let Ok(url) = ServerUrl::new(&text) {
                prop_assert!(!url.as_str().ends_with('/'));
                prop_assert!(!url.as_str().contains(['@', '?', '#', ' ', '\\', '"']));
                prop_assert_eq!(ServerUrl::new(url.as_str()), Ok(url));
            }
        }
    }
}
