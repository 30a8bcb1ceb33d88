//! `job --observe DIRECTORY...`: looks, as whoever it runs as, for words that nobody else may see, until SIGTERM.
//!
//! Standard input has a line `name=word` for each. `ready` comes when it begins; at its end one line of JSON: how often
//! and how fast it looked, which programs it saw, and what it found where. It reads the arguments and environment of
//! every process that began after it did, and every file that it can open below the directories.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

/// Larger files are none of ours.
const FILE_MAX_BYTES: u64 = 4 << 20;
const DEPTH_MAX: usize = 8;

#[derive(Debug, Default, Serialize)]
struct Report {
    rounds: u64,
    took_ms: u128,
    longest_ms: u128,
    programs: BTreeSet<String>,
    files: u64,
    /// Name of the word, where (`cmdline`, `environ`, `file`), and which program or path.
    found: BTreeSet<(String, String, String)>,
}

struct Observer {
    words: Vec<(String, Vec<u8>)>,
    directories: Vec<PathBuf>,
    /// Processes that were there before.
    old: HashSet<String>,
    /// What was read already, by path: length and time of change.
    read: HashMap<PathBuf, (u64, Option<std::time::SystemTime>)>,
    report: Report,
}

/// Looks until SIGTERM.
pub(crate) fn observe(directories: impl Iterator<Item = String>) -> Result<()> {
    let mut words = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("could not read the words")?;
        let (name, word) = line.split_once('=').context("a line name=word")?;
        words.push((name.to_owned(), word.as_bytes().to_vec()));
    }
    let over = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&over)).context("catch SIGTERM")?;
    let directories = directories.map(PathBuf::from).collect();
    let old = processes().collect();
    let mut observer = Observer { words, directories, old, read: HashMap::new(), report: Report::default() };
    say("ready")?;
    let begin = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let round = Instant::now();
        observer.look();
        observer.report.rounds += 1;
        observer.report.longest_ms = observer.report.longest_ms.max(round.elapsed().as_millis());
        // Something must be left of the processor for those who are looked at.
        std::thread::sleep(Duration::from_micros(300));
    }
    observer.report.took_ms = begin.elapsed().as_millis();
    say(&serde_json::to_string(&observer.report)?)
}

fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).context("could not say it")
}

fn processes() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Observer {
    fn look(&mut self) {
        for pid in processes() {
            if self.old.contains(&pid) {
                continue;
            }
            let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            let program = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
            let program = String::from_utf8_lossy(program).rsplit('/').next().unwrap_or_default().to_owned();
            self.report.programs.insert(program.clone());
            self.search(&arguments, "cmdline", &program);
            if let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) {
                self.search(&environment, "environ", &program);
            }
        }
        for directory in self.directories.clone() {
            self.files(&directory, 0);
        }
    }

    fn files(&mut self, directory: &Path, depth: usize) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            let Ok(stat) = entry.metadata() else { continue };
            if stat.is_dir() && depth < DEPTH_MAX {
                self.files(&path, depth + 1);
            }
            let state = (stat.len(), stat.modified().ok());
            if !stat.is_file() || stat.len() > FILE_MAX_BYTES || self.read.get(&path) == Some(&state) {
                continue;
            }
            if let Ok(content) = fs::read(&path) {
                self.report.files += 1;
                self.search(&content, "file", &path.to_string_lossy());
                self.read.insert(path, state);
            }
        }
    }

    fn search(&mut self, bytes: &[u8], place: &str, whose: &str) {
        for (name, word) in &self.words {
            if bytes.windows(word.len()).any(|window| window == word.as_slice()) {
                self.report.found.insert((name.clone(), place.to_owned(), whose.to_owned()));
            }
        }
    }
}
