//! `jacamar keys` against servers that are slow, down, elsewhere, too generous or somebody else.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use jacamar_contract::keys::{KEYS_MAX_BYTES, KeysRequest, KeysRule};
use testbed::gitlab::{GitLab, KeySet};

use crate::call::{Fetch, key_set};

#[test]
fn keys_come_over_https_with_the_sites_authority() {
    let gitlab = GitLab::start_tls().expect("server");
    let fetch = Fetch::new(gitlab.url(), gitlab.ca_pem());
    assert_eq!(fetch.answer(), Ok(key_set()));
    let with_comments = format!("# the site's\n{}\ngarbage\n", gitlab.ca_pem().expect("TLS"));
    assert_eq!(Fetch::new(gitlab.url(), Some(&with_comments)).answer(), Ok(key_set()));
}

#[test]
fn keys_come_over_http_where_the_request_says_so() {
    let gitlab = GitLab::start().expect("server");
    let fetch = Fetch::new(gitlab.url(), None);
    assert_eq!(fetch.answer(), Ok(key_set()));
    let request = KeysRequest { allow_http: false, ..fetch.request };
    assert!(jacamar_contract::frame::encode(&request).is_err(), "the contract takes no such request");
}

#[test]
fn what_was_fetched_is_not_parsed() {
    let gitlab = GitLab::start().expect("server");
    for bytes in [b"{\"keys\":".to_vec(), vec![0xff, 0, 0x1f, 0x8b], b" ".to_vec()] {
        gitlab.set_key_set(KeySet::Bytes(bytes.clone()));
        assert_eq!(Fetch::new(gitlab.url(), None).answer(), Ok(bytes));
    }
}

#[test]
fn a_foreign_authority_is_not_believed() {
    let (gitlab, other) = (GitLab::start_tls().expect("server"), GitLab::start_tls().expect("server"));
    Fetch::new(gitlab.url(), other.ca_pem()).fails(KeysRule::Certificate, "TLS");
    // The host's own authorities, which do not know the stand-in's.
    Fetch::new(gitlab.url(), None).fails(KeysRule::Certificate, "TLS");
    assert!(gitlab.seen().is_empty(), "no request was sent");
    for bad in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        Fetch::new(gitlab.url(), Some(bad)).fails(KeysRule::CaUnreadable, "no certificate can be read");
    }
    let large = "#".repeat(4 * 1024 * 1024 + 1);
    Fetch::new(gitlab.url(), Some(&large)).fails(KeysRule::CaUnreadable, "more than 4194304 bytes");
    let mut closed = Fetch::new(gitlab.url(), None);
    closed.request.own_ca = true;
    let output = closed.output();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("descriptor 3 (CA bundle) is"));
}

#[test]
fn http_and_https_are_not_mixed_up() {
    // As nginx does, which needs no request to see that it is none.
    let plain = TcpListener::bind("127.0.0.1:0").expect("port");
    let https = format!("https://{}", plain.local_addr().expect("address"));
    thread::spawn(move || {
        let (mut stream, _) = plain.accept().expect("a client");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("written");
    });
    Fetch::new(&https, None).fails(KeysRule::Unreachable, "TLS");
    let gitlab = GitLab::start_tls().expect("server");
    let http = gitlab.url().replace("https://", "http://");
    Fetch::new(&http, None).fails(KeysRule::Unreachable, "");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let mut gitlab = GitLab::start().expect("server");
    gitlab.set_key_set(KeySet::HangUp);
    Fetch::new(gitlab.url(), None).fails(KeysRule::Unreachable, "");
    gitlab.close();
    Fetch::new(gitlab.url(), None).fails(KeysRule::Unreachable, "refused");
    Fetch::new("https://gitlab.invalid", None).fails(KeysRule::Unreachable, "");
    let mut proxied = Fetch::new("https://gitlab.example.com", None);
    proxied.request.proxy = Some("not-a-scheme://x".to_owned());
    proxied.fails(KeysRule::Unreachable, "proxy");
}

#[test]
fn the_time_limit_holds_for_the_whole_fetch() {
    let limited = |server: &str, ca: Option<&str>| {
        let mut fetch = Fetch::new(server, ca);
        fetch.request.time_limit_ms = 700;
        let start = Instant::now();
        fetch.fails(KeysRule::TimedOut, "within 700 ms");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(650) && took < Duration::from_secs(3), "{took:?}");
    };
    let gitlab = GitLab::start_tls().expect("server");
    gitlab.set_key_set(KeySet::Slow(Duration::from_secs(5)));
    limited(gitlab.url(), gitlab.ca_pem());
    gitlab.set_key_set(KeySet::Drip(Duration::from_millis(20)));
    limited(gitlab.url(), gitlab.ca_pem());
    // Accepts the connection and never says a word of TLS.
    let silent = TcpListener::bind("127.0.0.1:0").expect("port");
    limited(&format!("https://{}", silent.local_addr().expect("address")), None);
    // A time limit that is long enough changes nothing.
    gitlab.set_key_set(KeySet::Slow(Duration::from_millis(300)));
    assert_eq!(Fetch::new(gitlab.url(), gitlab.ca_pem()).answer(), Ok(key_set()));
}

#[test]
fn only_200_counts_and_no_redirect_is_followed() {
    let (gitlab, other) = (GitLab::start().expect("server"), GitLab::start().expect("server"));
    let fetch = Fetch::new(gitlab.url(), None);
    let target = format!("{}/oauth/discovery/keys", other.url());
    gitlab.set_key_set(KeySet::Redirect(target.clone()));
    fetch.fails(KeysRule::Redirect, &format!("302 Found and sends us to {target}"));
    gitlab.set_key_set(KeySet::Redirect("/-/jwks".to_owned()));
    fetch.fails(KeysRule::Redirect, "302 Found");
    assert!(other.seen().is_empty());
    for status in [204, 401, 404, 500, 503] {
        gitlab.set_key_set(KeySet::Status(status));
        fetch.fails(KeysRule::Status, &status.to_string());
    }
    gitlab.set_key_set(KeySet::Redirect(format!("https://x/{}", "é".repeat(2000))));
    fetch.fails(KeysRule::Redirect, "");
    assert_eq!(gitlab.seen().len(), 8, "one request each");
}

#[test]
fn the_body_is_bounded() {
    let gitlab = GitLab::start_tls().expect("server");
    let fetch = Fetch::new(gitlab.url(), gitlab.ca_pem());
    gitlab.set_key_set(KeySet::Large(KEYS_MAX_BYTES));
    assert_eq!(fetch.answer().map(|keys| keys.len()), Ok(KEYS_MAX_BYTES));
    gitlab.set_key_set(KeySet::Large(KEYS_MAX_BYTES + 1));
    fetch.fails(KeysRule::TooLarge, "256 KiB");
    gitlab.set_key_set(KeySet::Large(64 * 1024 * 1024));
    fetch.fails(KeysRule::TooLarge, "256 KiB");
    gitlab.set_key_set(KeySet::Bytes(Vec::new()));
    fetch.fails(KeysRule::Empty, "empty");
}

/// Answers whatever comes with these bytes, then closes.
fn raw_server(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            read_head(&stream);
            // The fetcher may close early; that is for its own assertions to judge.
            stream.write_all(answer).ok();
        }
    });
    format!("http://{address}")
}

/// The first line of a request; reads to the end of its head.
fn read_head(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    lines.find(String::is_empty);
    first
}

#[test]
fn what_is_not_http_is_a_failure() {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\"",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        Fetch::new(&raw_server(answer), None).fails(KeysRule::Unreachable, "");
    }
    let head: &'static [u8] =
        [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; 200_000], b"\r\n\r\n{}"].concat().leak();
    Fetch::new(&raw_server(head), None).fails(KeysRule::TooLarge, "head");
}

#[test]
fn the_sites_proxy_is_used() {
    let gitlab = GitLab::start_tls().expect("server");
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let proxy = format!("http://{}", listener.local_addr().expect("address"));
    let target = gitlab.url().replace("https://", "");
    let (heads, seen) = mpsc::channel();
    thread::spawn(move || {
        let (client, _) = listener.accept().expect("a client");
        heads.send(read_head(&client)).expect("waited for");
        let server = TcpStream::connect(target).expect("the stand-in");
        (&client).write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").expect("answered");
        let (mut from, mut to) = (client.try_clone().expect("clone"), server.try_clone().expect("clone"));
        // Either end may close first; what arrived is judged by the fetcher.
        thread::spawn(move || std::io::copy(&mut from, &mut to).ok());
        std::io::copy(&mut &server, &mut &client).ok();
        client.shutdown(std::net::Shutdown::Both).ok();
    });
    let mut fetch = Fetch::new(gitlab.url(), gitlab.ca_pem());
    fetch.request.proxy = Some(proxy);
    assert_eq!(fetch.answer(), Ok(key_set()));
    let head = seen.recv_timeout(Duration::from_secs(5)).expect("the proxy was asked");
    assert_eq!(head, format!("CONNECT {} HTTP/1.1", gitlab.url().replace("https://", "")));
}
