//! Unknown keys, wrong types, words and keys that are not built: everything that [`super::keys`] alone decides.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::key::{Fallback, Key, Kind, Status, Word};
use super::keys::{TABLES_WITHOUT_KEYS, keys};
use super::limits;
use super::{Millis, parse_duration};
use crate::source::{ConfigError, Document, ERRORS_MAX, Origin, nearest};

/// Longest text, in bytes.
const TEXT_MAX_BYTES: usize = 8192;
/// Longest list, in entries.
const LIST_MAX_ENTRIES: usize = 10_000;
const FOREVER: Millis = Millis(u64::MAX);

/// What the walk through a file found.
pub(super) struct Check<'d> {
    document: &'d Document,
    pub(super) errors: Vec<ConfigError>,
    /// Where each known key was written, by `table.key`.
    pub(super) origins: BTreeMap<String, Origin>,
    /// Where each table begins.
    pub(super) tables: BTreeMap<String, Range<usize>>,
}

impl<'d> Check<'d> {
    /// Looks at every key of a file.
    pub(super) fn of(document: &'d Document, root: &DeTable<'_>) -> Self {
        let mut check =
            Self { document, errors: Vec::new(), origins: BTreeMap::new(), tables: BTreeMap::new() };
        check.table("", root);
        check
    }

    fn table(&mut self, table: &str, tree: &DeTable<'_>) {
        for (name, value) in tree {
            if self.errors.len() >= ERRORS_MAX {
                return;
            }
            let full = if table.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{table}.{}", name.get_ref())
            };
            if limits::TABLES.contains(&full.as_str()) {
                // Read by [`limits`], whose keys are a profile's.
                if !matches!(value.get_ref(), DeValue::Table(_)) {
                    let message = format!("[{full}] is a table of keys, found {}", found(value.get_ref()));
                    self.refuse(value.span(), message, format!("write [{full}] on a line of its own"));
                }
                continue;
            }
            let known = keys().iter().find(|key| key.table == table && key.name == name.get_ref().as_ref());
            if is_table(&full) {
                self.tables.insert(full.clone(), name.span());
                match value.get_ref() {
                    DeValue::Table(inner) => self.table(&full, inner),
                    other => {
                        let message = format!("[{full}] is a table of keys, found {}", found(other));
                        self.refuse(value.span(), message, format!("write [{full}] on a line of its own"));
                    }
                }
            } else if TABLES_WITHOUT_KEYS.contains(&table) {
                self.key_without_list(table, name, value);
            } else if let Some(key) = known {
                self.origins.insert(full, self.document.origin(&name.span()));
                self.value(key, value);
            } else {
                self.unknown(table, name);
            }
        }
    }

    fn refuse(&mut self, span: Range<usize>, message: String, hint: String) {
        self.errors.push(self.document.error(span, message, hint));
    }

    /// Jacamar does not publish the keys of this table. What is switched off changes nothing.
    fn key_without_list(&mut self, table: &str, name: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) {
        if !matches!(value.get_ref(), DeValue::Boolean(false)) {
            let message = format!("{:?} in [{table}] is not built yet", name.get_ref());
            self.refuse(name.span(), message, "remove the line or write `false`".to_owned());
        }
    }

    fn unknown(&mut self, table: &str, name: &Spanned<DeString<'_>>) {
        let word = name.get_ref().as_ref();
        let hint = match keys().iter().find(|key| key.name == word) {
            Some(key) => format!("this key belongs into [{}]", key.table),
            None if table.is_empty() && word == "runners" => {
                "this looks like GitLab Runner's config.toml; --configuration names a file of its own"
                    .to_owned()
            }
            None => String::new(),
        };
        let candidates = names_in(table);
        self.errors.push(self.document.unknown_key(name.span(), word, table, &candidates, &hint));
    }

    fn value(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) {
        let checked = match (key.kind, value.get_ref()) {
            (Kind::Switch, DeValue::Boolean(_)) => Ok(()),
            (Kind::Text, DeValue::String(text)) => text_of_one_line(text),
            (Kind::Prose, DeValue::String(text)) => text_of_any_lines(text),
            (Kind::List, DeValue::Array(entries)) => return self.list(key, entries, value.span()),
            (Kind::Number, DeValue::Integer(number)) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(0..) => Ok(()),
                    Ok(_) | Err(_) => Err("is out of range".to_owned()),
                }
            }
            (Kind::Duration, DeValue::String(text)) => match parse_duration(text, FOREVER) {
                Ok(_) => Ok(()),
                Err(invalid) => {
                    return self.refuse(
                        value.span(),
                        format!("{}: {}", named(key), invalid.message),
                        invalid.hint,
                    );
                }
            },
            (Kind::Word(words), DeValue::String(text)) => return self.word(key, words, text, value),
            (kind, other) => {
                let message = format!("{} must be {kind}, found {}", named(key), found(other));
                return self.refuse(value.span(), message, example(key));
            }
        };
        match checked {
            Err(cause) => self.refuse(value.span(), format!("{} {cause}", named(key)), String::new()),
            Ok(()) => self.built(key, value),
        }
    }

    fn list(&mut self, key: &Key, entries: &[Spanned<DeValue<'_>>], span: Range<usize>) {
        if entries.len() > LIST_MAX_ENTRIES {
            let message = format!("{} has more than {LIST_MAX_ENTRIES} entries", named(key));
            return self.refuse(span, message, String::new());
        }
        for entry in entries {
            let checked = match entry.get_ref() {
                DeValue::String(text) if text.is_empty() => Err("has an empty entry".to_owned()),
                DeValue::String(text) => text_of_one_line(text),
                other => Err(format!("must be {}, found {} in it", key.kind, found(other))),
            };
            if let Err(cause) = checked {
                return self.refuse(entry.span(), format!("{} {cause}", named(key)), example(key));
            }
        }
        if let (Status::NotYet(what), false) = (key.status, entries.is_empty()) {
            self.not_yet(key, what, span);
        }
    }

    fn word(&mut self, key: &Key, words: &[Word], text: &str, value: &Spanned<DeValue<'_>>) {
        let span = value.span();
        let texts: Vec<&str> = words.iter().map(|word| word.text).collect();
        match words.iter().find(|word| word.text == text).map(|word| word.status) {
            Some(Status::Built) => self.built(key, value),
            Some(Status::NotYet(what)) => {
                let built: Vec<String> = words
                    .iter()
                    .filter(|word| word.status == Status::Built)
                    .map(|word| format!("{} = {:?}", key.name, word.text))
                    .collect();
                let message = format!("{} is {text:?}, which is not built yet: {what}", named(key));
                self.refuse(span, message, format!("what is built: {}", built.join(", ")));
            }
            None => {
                let question =
                    nearest(text, &texts).map(|word| format!(", did you mean {word:?}?")).unwrap_or_default();
                let message = format!("{} is {text:?}, which is not known{question}", named(key));
                self.refuse(span, message, format!("it is {}", key.kind));
            }
        }
    }

    fn built(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) {
        match key.status {
            Status::NotYet(what) if !is_default(key.default, value.get_ref()) => {
                self.not_yet(key, what, value.span());
            }
            Status::NotYet(_) | Status::Built => {}
        }
    }

    fn not_yet(&mut self, key: &Key, what: &str, span: Range<usize>) {
        let hint = match key.default {
            Fallback::Nothing(_) | Fallback::Required(_) => "remove the line".to_owned(),
            Fallback::Off
            | Fallback::On
            | Fallback::Text(_)
            | Fallback::Number(_)
            | Fallback::Duration(_) => {
                format!("remove the line or write its default, {}", key.default)
            }
        };
        self.refuse(span, format!("{} is not built yet: {what}", named(key)), hint);
    }
}

/// `"kill_timeout" in [general]`
fn named(key: &Key) -> String {
    place(key.table, key.name)
}

/// `"kill_timeout" in [general]`
pub(super) fn place(table: &str, name: &str) -> String {
    format!("{name:?} in [{table}]")
}

fn is_table(full: &str) -> bool {
    keys().iter().map(|key| key.table).chain(TABLES_WITHOUT_KEYS).any(|table| table == full)
}

/// The keys and the tables directly in `table`.
fn names_in(table: &str) -> Vec<&'static str> {
    let tables = keys().iter().map(|key| key.table).chain(TABLES_WITHOUT_KEYS).chain(limits::TABLES);
    let inner = tables.filter_map(|full| match full.rsplit_once('.') {
        Some((outer, inner)) => (outer == table).then_some(inner),
        None => table.is_empty().then_some(full),
    });
    let mut names: Vec<&str> = keys().iter().filter(|key| key.table == table).map(|key| key.name).collect();
    names.extend(inner);
    names
}

fn text_of_one_line(text: &str) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        return Err("has control characters; it is one line of text".to_owned());
    }
    text_of_any_lines(text)
}

fn text_of_any_lines(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("has a NUL character".to_owned());
    }
    if text.len() > TEXT_MAX_BYTES {
        return Err(format!("has {} bytes, at most {TEXT_MAX_BYTES} are possible", text.len()));
    }
    Ok(())
}

fn is_default(default: Fallback, value: &DeValue<'_>) -> bool {
    if value.as_str() == Some("") {
        return true; // the same as a key that is not set
    }
    match default {
        Fallback::Required(_) | Fallback::Nothing(_) => false,
        Fallback::Off => value.as_bool() == Some(false),
        Fallback::On => value.as_bool() == Some(true),
        Fallback::Text(text) => value.as_str() == Some(text),
        Fallback::Number(number) => value
            .as_integer()
            .and_then(|found| u32::from_str_radix(found.as_str(), found.radix()).ok())
            .is_some_and(|found| found == number),
        Fallback::Duration(text) => {
            // The default can be read; a value that cannot is another.
            let length = |text: &str| parse_duration(text, FOREVER).ok();
            value.as_str().is_some_and(|found| length(found) == length(text))
        }
    }
}

pub(super) fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "`true` or `false`",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A line that would be right.
fn example(key: &Key) -> String {
    let value = match (key.kind, key.default) {
        (_, Fallback::Required(example)) => example.to_owned(),
        (Kind::Switch, _) => "true".to_owned(),
        (Kind::Text | Kind::Prose, _) => "\"...\"".to_owned(),
        (Kind::List, _) => "[\"...\", \"...\"]".to_owned(),
        (Kind::Number, Fallback::Number(number)) => number.to_string(),
        (Kind::Number, _) => "1000".to_owned(),
        (Kind::Duration, _) => "\"90s\"".to_owned(),
        (Kind::Word(words), _) => words
            .iter()
            .find(|word| word.status == Status::Built)
            .map(|word| format!("{:?}", word.text))
            .unwrap_or_default(),
    };
    format!("for example: {} = {value}", key.name)
}
