//! A small HTTP/1.1 server: one thread per connection, one request per connection, loopback only.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The longest head of a request that is read.
const HEAD_MAX_BYTES: usize = 64 * 1024;
/// The longest body that is read.
const BODY_MAX_BYTES: usize = 256 * 1024 * 1024;
/// How long a client may keep a connection without sending.
const IDLE_S: u64 = 60;

/// A request with its whole body.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The value of a query parameter, percent-decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(key, value)| (percent_decode(key) == name).then(|| percent_decode(value)))
    }
}

/// Decodes `%xx` and `+`.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (byte, hex.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What goes out after the head.
#[derive(Debug)]
pub(crate) enum Body {
    Bytes(Vec<u8>),
    /// The bytes one by one, with a pause before each.
    Drip(Vec<u8>, Duration),
    /// The connection is closed before the head.
    HangUp,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
}

impl Response {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
        Response {
            status,
            headers: vec![("Content-Type".into(), content_type.into())],
            body: Body::Bytes(body.into()),
        }
    }

    pub(crate) fn json(status: u16, value: &serde_json::Value) -> Response {
        Response::new(status, "application/json", value.to_string())
    }

    /// An error as GitLab words it.
    pub(crate) fn refusal(status: u16, message: &str) -> Response {
        Response::json(status, &serde_json::json!({"message": message}))
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Response {
        self.headers.push((name.into(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// A listening server. Dropping it closes the port.
pub(crate) struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    listener: Option<thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn start(
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Result<Server> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listen on 127.0.0.1")?;
        let address = listener.local_addr().context("ask for the port")?;
        let stop = Arc::new(AtomicBool::new(false));
        let handler: Arc<Handler> = Arc::new(handler);
        let stopped = Arc::clone(&stop);
        let listener = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (tls, handler) = (tls.clone(), Arc::clone(&handler));
                // A client that hangs up is the client's affair; the test sees it on its own side.
                thread::spawn(move || serve(stream, tls, &*handler).ok());
            }
        });
        Ok(Server { address, stop, listener: Some(listener) })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Closes the port: from now on connections are refused.
    pub(crate) fn close(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(listener) = self.listener.take() {
            // Wakes the accept call; if nobody listens any more, that is what was wanted.
            drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
            drop(listener.join());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

fn serve(stream: TcpStream, tls: Option<Arc<rustls::ServerConfig>>, handler: &Handler) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(IDLE_S)))?;
    stream.set_nodelay(true)?;
    let Some(config) = tls else {
        return exchange(&mut &stream, handler);
    };
    let connection = rustls::ServerConnection::new(config).context("open a TLS session")?;
    let mut session = rustls::StreamOwned::new(connection, stream);
    exchange(&mut session, handler)?;
    session.conn.send_close_notify();
    session.conn.complete_io(&mut session.sock)?;
    Ok(())
}

fn exchange<S: Read + Write>(stream: &mut S, handler: &Handler) -> Result<()> {
    let request = read_request(stream)?;
    write_response(stream, &request, handler(&request))
}

fn read_request<S: Read + Write>(stream: &mut S) -> Result<Request> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if head.len() > HEAD_MAX_BYTES {
            bail!("the head of a request is longer than {HEAD_MAX_BYTES} bytes");
        }
        read_some(stream, &mut head)?;
    };
    let rest = head.split_off(end);
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(&head).context("read the head of a request")?;
    let target = parsed.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: parsed.method.unwrap_or("GET").to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: parsed
            .headers
            .iter()
            .map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned()))
            .collect(),
        body: Vec::new(),
    };
    if request.header("Expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        stream.flush()?;
    }
    let chunked = request.header("Transfer-Encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    request.body = if chunked {
        read_chunks(stream, rest)?
    } else {
        let length = match request.header("Content-Length") {
            Some(text) => text.trim().parse().context("read Content-Length")?,
            None => 0,
        };
        read_exactly(stream, rest, length)?
    };
    Ok(request)
}

fn read_some<S: Read>(stream: &mut S, into: &mut Vec<u8>) -> Result<()> {
    let mut buffer = [0; 16 * 1024];
    let count = stream.read(&mut buffer).context("read from a client")?;
    if count == 0 {
        bail!("the client hung up");
    }
    into.extend_from_slice(buffer.get(..count).unwrap_or_default());
    Ok(())
}

fn read_exactly<S: Read>(stream: &mut S, mut body: Vec<u8>, length: usize) -> Result<Vec<u8>> {
    if length > BODY_MAX_BYTES {
        bail!("the body of a request is longer than {BODY_MAX_BYTES} bytes");
    }
    while body.len() < length {
        read_some(stream, &mut body)?;
    }
    body.truncate(length);
    Ok(body)
}

fn read_chunks<S: Read>(stream: &mut S, mut raw: Vec<u8>) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let (start, length) = loop {
            match httparse::parse_chunk_size(raw.get(at..).unwrap_or_default()) {
                Ok(httparse::Status::Complete((used, length))) => {
                    break (at + used, usize::try_from(length)?);
                }
                Ok(httparse::Status::Partial) => read_some(stream, &mut raw)?,
                Err(_) => bail!("a chunk has no size"),
            }
        };
        if body.len() + length > BODY_MAX_BYTES {
            bail!("the body of a request is longer than {BODY_MAX_BYTES} bytes");
        }
        while raw.len() < start + length + 2 {
            read_some(stream, &mut raw)?;
        }
        if length == 0 {
            return Ok(body);
        }
        body.extend_from_slice(raw.get(start..start + length).unwrap_or_default());
        raw.drain(..start + length + 2);
        at = 0;
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        302 => "Found",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

fn write_response<S: Write>(stream: &mut S, request: &Request, response: Response) -> Result<()> {
    let (bytes, pause) = match response.body {
        Body::Bytes(bytes) => (bytes, None),
        Body::Drip(bytes, pause) => (bytes, Some(pause)),
        Body::HangUp => return Ok(()),
    };
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", bytes.len()));
    stream.write_all(head.as_bytes())?;
    if request.method != "HEAD" {
        match pause {
            None => stream.write_all(&bytes)?,
            Some(pause) => {
                for byte in bytes {
                    thread::sleep(pause);
                    stream.write_all(&[byte])?;
                    stream.flush()?;
                }
            }
        }
    }
    stream
        .flush()
        .or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })?;
    Ok(())
}
