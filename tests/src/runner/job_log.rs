//! The job log: masked, with a time before each line, cut at the limit; and the runner's own log beside it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::clock;
use super::mask::Masker;

const CLEAR: &str = "\x1b[0K";
const RESET: &str = "\x1b[0;m";
/// How much of a line without an end is kept back.
const LINE_BUFFER_BYTES: usize = 8 * 1024;
/// The limit of a job log where none is configured.
const LIMIT_DEFAULT_BYTES: usize = 4 * 1024 * 1024;

/// How serious a line of the runner's log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the usual names")]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

/// A line of the runner's own log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RunnerLine {
    /// How serious it is; a runner with `log_level = "info"` does not write `Debug`.
    pub level: Level,
    /// The text. It is not masked.
    pub message: String,
    /// `out` or `err` for a line of `cleanup_exec`.
    pub cleanup_std: Option<String>,
}

/// The collected bytes of a job log.
#[derive(Debug)]
struct Trace {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Trace {
    fn write(&mut self, data: &[u8]) {
        if self.full {
            return;
        }
        let room = self.limit.saturating_sub(self.bytes.len());
        if data.len() < room {
            self.bytes.extend_from_slice(data);
            return;
        }
        let mut cut = room;
        while cut > 0 && data.get(cut).is_some_and(|byte| byte & 0xc0 == 0x80) {
            cut -= 1;
        }
        self.bytes.extend_from_slice(data.get(..cut).unwrap_or(data));
        let notice = format!(
            "\n\x1b[33;1mJob's log exceeded limit of {} bytes.\nJob execution will continue but no more output will be collected.{RESET}\n",
            self.limit
        );
        self.bytes.extend_from_slice(notice.as_bytes());
        self.full = true;
    }
}

/// Splits a stream into lines with a time before each.
#[derive(Debug)]
struct Stamper {
    /// `00O`, `01E`, ...
    mark: String,
    buffer: Vec<u8>,
    continues: bool,
}

impl Stamper {
    fn header(&mut self) -> Vec<u8> {
        let flag = if std::mem::take(&mut self.continues) { '+' } else { ' ' };
        format!("{} {}{flag}", clock::log_stamp(SystemTime::now()), self.mark).into_bytes()
    }

    fn write(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = data;
        while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, tail) = rest.split_at(at + 1);
            if self.buffer.is_empty() {
                out.extend(self.header());
            }
            out.append(&mut self.buffer);
            out.extend_from_slice(line);
            rest = tail;
        }
        if rest.is_empty() {
            return out;
        }
        // A carriage return shows progress: the line goes out, and the next piece continues it.
        let flush = rest.contains(&b'\r') || self.buffer.len() + rest.len() > LINE_BUFFER_BYTES;
        if self.buffer.is_empty() {
            let header = self.header();
            self.buffer.extend(header);
        }
        self.buffer.extend_from_slice(rest);
        if flush {
            out.append(&mut self.buffer);
            out.push(b'\n');
            self.continues = true;
        }
        out
    }

    fn finish(&mut self) -> Vec<u8> {
        if !self.buffer.is_empty() {
            self.buffer.push(b'\n');
        }
        std::mem::take(&mut self.buffer)
    }
}

/// Where a stream of the job log comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// 00O: the runner, and `prepare_exec`.
    Runner,
    /// 00E: what `config_exec` and `prepare_exec` say on stderr.
    RunnerErrors,
    /// 01O
    Script,
    /// 01E
    ScriptErrors,
}

/// One stream into the job log.
#[derive(Debug)]
pub(crate) struct Stream {
    trace: Arc<Mutex<Trace>>,
    masker: Masker,
    stamper: Option<Stamper>,
}

impl Stream {
    pub(crate) fn write(&mut self, data: &[u8]) {
        let data = self.masker.write(data);
        self.put(&data);
    }

    fn put(&mut self, data: &[u8]) {
        let mut trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut self.stamper {
            Some(stamper) => trace.write(&stamper.write(data)),
            None => trace.write(data),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let rest = self.masker.finish();
        self.put(&rest);
        if let Some(stamper) = &mut self.stamper {
            let rest = stamper.finish();
            self.trace.lock().unwrap_or_else(PoisonError::into_inner).write(&rest);
        }
    }
}

/// How the lines of a job log are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogOptions {
    pub(crate) masker: Masker,
    pub(crate) timestamps: bool,
    pub(crate) sections: bool,
    pub(crate) limit_kib: i64,
}

/// Both logs of one job.
#[derive(Clone, Debug)]
pub(crate) struct JobLog {
    trace: Arc<Mutex<Trace>>,
    runner: Arc<Mutex<Vec<RunnerLine>>>,
    options: LogOptions,
    own: Arc<Mutex<Option<Stream>>>,
}

impl JobLog {
    pub(crate) fn new(options: LogOptions) -> JobLog {
        let kib = usize::try_from(options.limit_kib).unwrap_or(0);
        let limit = if kib == 0 { LIMIT_DEFAULT_BYTES } else { kib * 1024 };
        JobLog {
            trace: Arc::new(Mutex::new(Trace { bytes: Vec::new(), limit, full: false })),
            runner: Arc::default(),
            options,
            own: Arc::default(),
        }
    }

    pub(crate) fn stream(&self, source: Source) -> Stream {
        let mark = match source {
            Source::Runner => "00O",
            Source::RunnerErrors => "00E",
            Source::Script => "01O",
            Source::ScriptErrors => "01E",
        };
        let stamper = Stamper { mark: mark.into(), buffer: Vec::new(), continues: false };
        Stream {
            trace: Arc::clone(&self.trace),
            masker: self.options.masker.clone(),
            stamper: self.options.timestamps.then_some(stamper),
        }
    }

    fn raw(&self, text: &str) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.get_or_insert_with(|| self.stream(Source::Runner)).write(text.as_bytes());
    }

    /// Ends the runner's own stream; the next line begins a new one.
    pub(crate) fn close_own(&self) {
        drop(self.own.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(crate) fn print(&self, text: &str) {
        self.raw(&format!("{CLEAR}{text}{RESET}\n"));
        self.note(Level::Debug, text);
    }

    pub(crate) fn info(&self, text: &str) {
        self.raw(&format!("\x1b[32;1m{text}{RESET}\n"));
        self.note(Level::Info, text);
    }

    pub(crate) fn warn(&self, text: &str) {
        self.raw(&format!("\x1b[0;33mWARNING: {text}{RESET}\n"));
        self.note(Level::Warning, text);
    }

    /// An error of the job; for the runner itself it is a warning.
    pub(crate) fn soft_error(&self, text: &str) {
        self.raw(&format!("\x1b[31;1mERROR: {text}{RESET}\n"));
        self.note(Level::Warning, text);
    }

    pub(crate) fn error(&self, text: &str) {
        self.raw(&format!("\x1b[31;1mERROR: {text}{RESET}\n"));
        self.note(Level::Error, text);
    }

    /// A line in the runner's own log alone.
    pub(crate) fn note(&self, level: Level, message: &str) {
        self.note_line(RunnerLine { level, message: message.into(), cleanup_std: None });
    }

    pub(crate) fn note_line(&self, line: RunnerLine) {
        self.runner.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// A section around some work, with its title.
    pub(crate) fn section<T>(&self, name: &str, title: &str, work: impl FnOnce() -> T) -> T {
        let mark = |what: &str| {
            if self.options.sections {
                self.raw(&format!("section_{what}:{}:{name}\r{CLEAR}", clock::unix_s()));
            }
        };
        mark("start");
        self.print(&format!("\x1b[36;1m{title}{RESET}"));
        let result = work();
        mark("end");
        result
    }

    pub(crate) fn text(&self) -> String {
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&trace.bytes).into_owned()
    }

    pub(crate) fn runner_lines(&self) -> Vec<RunnerLine> {
        self.runner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
