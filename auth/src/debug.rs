//! Lines of the level `debug`: what led to a decision, and how long it took. tracing's events become audit lines.
//!
//! tracing's own layer for journald drops its errors. This subscriber keeps the first one, and the stage's end tells it.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::audit::{Audit, Priority};

/// The first line that could not be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unwritten(Arc<Mutex<Option<anyhow::Error>>>);

impl Unwritten {
    /// That line, once.
    pub(crate) fn take(&self) -> anyhow::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// Sends our own events to the audit log from now on, if the site wants lines of this level.
///
/// # Errors
/// If it was called before.
pub(crate) fn follow(audit: &Arc<Audit>) -> anyhow::Result<Unwritten> {
    let unwritten = Unwritten::default();
    if audit.wants(Priority::Debug) {
        let lines = Lines { audit: Arc::clone(audit), unwritten: unwritten.clone() };
        tracing::subscriber::set_global_default(lines).context("the debug lines have a place already")?;
    }
    Ok(unwritten)
}

struct Lines {
    audit: Arc<Audit>,
    unwritten: Unwritten,
}

impl Subscriber for Lines {
    /// Events of ours: a library's might hold what was handed to it.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("jacamar")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn event(&self, event: &Event<'_>) {
        let mut first = self.unwritten.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_some() {
            // The stage has failed; each more might wait again for a daemon that hangs.
            return;
        }
        let mut fields = Fields(Vec::new());
        event.record(&mut fields);
        *first = self.audit.line(Priority::Debug, "debug", &fields.0).err();
    }

    // There are no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Fields as JSON; the event's own words are `message`.
struct Fields(Vec<(&'static str, Value)>);

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.push((field.name(), value.into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.into()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name(), format!("{value:?}").into()));
    }
}

#[cfg(test)]
mod tests {
    use jacamar_record::{AuditLocation, AuditSettings};

    use super::*;

    fn audit(path: &str, priority_max: Priority) -> Arc<Audit> {
        let settings = AuditSettings {
            location: Some(AuditLocation::File(path.into())),
            priority_max: priority_max as u8,
            name: String::new(),
        };
        Arc::new(Audit::open(&settings, std::path::Path::new("/")).expect("opened when it is written"))
    }

    #[test]
    fn the_first_error_is_kept_and_told_once() {
        let unwritten = Unwritten::default();
        let lines = Lines { audit: audit("/nonexistent/1", Priority::Debug), unwritten: unwritten.clone() };
        tracing::subscriber::with_default(lines, || {
            tracing::debug!(target: "of_a_library", "not ours");
            assert!(unwritten.take().is_ok());
            tracing::debug!("one");
            tracing::debug!("two");
        });
        let error = format!("{:#}", unwritten.take().expect_err("a line without a place"));
        assert!(error.contains("/nonexistent/1"), "{error}");
        assert!(unwritten.take().is_ok());
    }

    #[test]
    fn fields_keep_their_types() {
        let directory = std::env::temp_dir().join(format!("jacamar-debug-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("a directory");
        let path = directory.join("audit.jsonl");
        let lines = Lines {
            audit: audit(path.to_str().expect("UTF-8"), Priority::Debug),
            unwritten: Unwritten::default(),
        };
        tracing::subscriber::with_default(lines, || tracing::debug!(count = 7_u64, name = "x\ny", "words"));
        let line: Value = serde_json::from_slice(&std::fs::read(&path).expect("a line")).expect("JSON");
        assert_eq!(
            (&line["event"], &line["count"], &line["name"], &line["message"]),
            (&"debug".into(), &7.into(), &"x\ny".into(), &"words".into())
        );
        std::fs::remove_dir_all(directory).expect("removed");
    }

    #[test]
    fn a_site_without_debug_lines_has_no_subscriber() {
        assert!(!audit("/x", Priority::Info).wants(Priority::Debug));
    }
}
