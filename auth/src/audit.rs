//! One structured line per decision and per stage. A line that cannot be written is an error of the stage: an audit log
//! with holes is none.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use jacamar_record::{AuditLocation, AuditSettings};
use serde_json::{Map, Value};

/// journald's native socket, `Native Journal Protocol` of systemd.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// syslog(3)'s socket.
const SYSLOG: &str = "/dev/log";

/// A daemon that does not read makes senders wait once its queue is full (unix(7)).
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// How important a line is: the numbers of syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A breakage.
    Error = 3,
    /// A refusal.
    Warning = 4,
    /// A grant, a stage.
    Info = 6,
    /// What led to them.
    Debug = 7,
}

/// Where lines go, and which.
#[derive(Debug)]
pub(crate) struct Audit {
    sink: Sink,
    priority_max: u8,
}

#[derive(Debug)]
enum Sink {
    Journal(UnixDatagram),
    Syslog(UnixDatagram),
    File(PathBuf),
    Off,
}

impl Audit {
    /// Opens what the site asked for; `auto` takes the first that is there.
    pub(crate) fn open(settings: &AuditSettings, state: &Path) -> anyhow::Result<Self> {
        let sink = match &settings.location {
            None => Sink::Off,
            Some(AuditLocation::File(path)) => Sink::File(path.into()),
            Some(AuditLocation::Syslog) => Sink::Syslog(connect(SYSLOG)?),
            Some(AuditLocation::Auto) => match (connect(JOURNAL), connect(SYSLOG)) {
                (Ok(socket), _) => Sink::Journal(socket),
                (Err(_), Ok(socket)) => Sink::Syslog(socket),
                (Err(_), Err(_)) => Sink::File(state.join("audit.jsonl")),
            },
        };
        Ok(Self { sink, priority_max: settings.priority_max })
    }

    /// Whether lines of this importance are written.
    pub(crate) fn wants(&self, priority: Priority) -> bool {
        priority as u8 <= self.priority_max && !matches!(self.sink, Sink::Off)
    }

    /// Writes one line.
    pub(crate) fn line(
        &self,
        priority: Priority,
        event: &str,
        fields: &[(&str, Value)],
    ) -> anyhow::Result<()> {
        if !self.wants(priority) {
            return Ok(());
        }
        let mut object = Map::new();
        object.insert("event".into(), event.into());
        object.insert("pid".into(), std::process::id().into());
        object.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let result = match &self.sink {
            Sink::Off => return Ok(()),
            Sink::Journal(socket) => send(socket, &journal_entry(priority, &object)).context(JOURNAL),
            Sink::Syslog(socket) => {
                // LOG_AUTHPRIV of syslog(3).
                let text = format!("<{}>jacamar-auth: {}", (10 << 3) | priority as u8, Value::Object(object));
                send(socket, text.as_bytes()).context(SYSLOG)
            }
            Sink::File(path) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                object.insert("time".into(), now.as_secs_f64().into());
                append(path, &format!("{}\n", Value::Object(object)))
                    .with_context(|| path.display().to_string())
            }
        };
        result.with_context(|| format!("could not write the audit line {event}"))
    }
}

fn connect(path: &str) -> anyhow::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_WITHIN))?;
    socket.connect(path).with_context(|| format!("could not connect to {path}"))?;
    Ok(socket)
}

fn send(socket: &UnixDatagram, bytes: &[u8]) -> std::io::Result<()> {
    // A datagram is sent as a whole or not at all.
    socket.send(bytes).map(drop)
}

/// One write with O_APPEND: lines of several processes do not mix.
fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits());
    options.open(path)?.write_all(line.as_bytes())
}

/// Fields as `JACAMAR_NAME`, each with its length: a value with a new line cannot forge a field.
fn journal_entry(priority: Priority, object: &Map<String, Value>) -> Vec<u8> {
    let mut entry = format!("PRIORITY={}\nSYSLOG_IDENTIFIER=jacamar-auth\n", priority as u8).into_bytes();
    let mut field = |name: &str, value: &str| {
        entry.extend_from_slice(name.as_bytes());
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    };
    field("MESSAGE", &Value::Object(object.clone()).to_string());
    for (name, value) in object {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        field(&format!("JACAMAR_{}", name.to_ascii_uppercase()), &text);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_line_in_a_value_forges_no_field() {
        let mut object = Map::new();
        object.insert("account".into(), "alice\nPRIORITY=0".into());
        let entry = journal_entry(Priority::Info, &object);
        let text = String::from_utf8_lossy(&entry);
        assert!(text.contains("JACAMAR_ACCOUNT\n\u{10}\0\0\0\0\0\0\0alice\nPRIORITY=0\n"), "{text:?}");
    }

    #[test]
    fn a_line_that_cannot_be_written_is_an_error() {
        let audit = Audit { sink: Sink::File("/nonexistent/audit".into()), priority_max: 4 };
        assert!(audit.line(Priority::Warning, "test", &[]).is_err());
        assert!(audit.line(Priority::Info, "not asked for", &[]).is_ok());
    }
}
