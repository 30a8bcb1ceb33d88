//! A text with a name, and errors that point into it.
//!
//! Every file that a person writes is read as a [`Document`], so that every complaint has the same shape:
//! file, line, the words, and a hint. Nothing here knows what the text means.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

/// Longest piece of a source line that an error carries, in bytes.
const SOURCE_LINE_MAX_BYTES: usize = 4096;
/// How many errors of one file are collected; who sees so many has named another file.
pub(crate) const ERRORS_MAX: usize = 50;
/// Longest word for which a similar one is looked up, in bytes (the comparison costs length times length).
const NEAREST_MAX_BYTES: usize = 64;

/// A text and the path under which it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    path: String,
    text: String,
}

/// Where a value was written: `/etc/jacamar/site.toml:12`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The file, as it was named.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.line)
    }
}

/// Something in a file is wrong. `Display` is one line without the hint; [`ConfigError::render`] is for
/// people and shows the line of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}:{line}: {message}")]
pub struct ConfigError {
    /// The file, as it was named.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to write instead; empty where nothing helps.
    pub hint: String,
    source_line: Box<str>,
    marked: Range<usize>,
}

impl ConfigError {
    /// The message, the line of the file with a mark below the place, and the hint, as several lines.
    #[must_use]
    pub fn render(&self) -> String {
        let place = AnnotationKind::Primary.span(self.marked.clone());
        let snippet =
            Snippet::source(&*self.source_line).line_start(self.line).path(&self.path).annotation(place);
        let mut report = Level::ERROR.primary_title(&self.message).element(snippet);
        if !self.hint.is_empty() {
            report = report.element(Level::HELP.with_name("hint").message(&self.hint));
        }
        Renderer::plain().render(&[report])
    }

    /// The same error without the text of the line, for lines that may hold a secret.
    #[must_use]
    pub fn without_source(mut self) -> Self {
        self.source_line = Box::from("...");
        self.marked = 0..0;
        self
    }
}

/// All that is wrong in a file, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines())]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// `Ok` if there is no error, else all of them, sorted by line and column.
    ///
    /// # Errors
    /// The given ones.
    pub fn none_of(mut errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by_key(|error| (error.line, error.column));
        Err(Self { errors })
    }

    /// Each error, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }

    /// Every error as [`ConfigError::render`] shows it, separated by empty lines.
    #[must_use]
    pub fn render(&self) -> String {
        self.errors.iter().map(ConfigError::render).collect::<Vec<_>>().join("\n\n")
    }

    fn lines(&self) -> String {
        self.errors.iter().map(ConfigError::to_string).collect::<Vec<_>>().join("\n")
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self { errors: vec![error] }
    }
}

impl Document {
    /// A text that was read from `path`.
    #[must_use]
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The path, as it was named.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text as a tree of TOML values with the place of each.
    ///
    /// # Errors
    /// The first violation of TOML's grammar, duplicate keys included.
    pub fn parse(&self) -> Result<Spanned<DeTable<'_>>, ConfigError> {
        DeTable::parse(&self.text).map_err(|error| self.toml_error(&error))
    }

    /// Fills a type from a tree of [`Document::parse`].
    ///
    /// # Errors
    /// The first value that does not fit, at its place.
    pub fn fill<T: DeserializeOwned>(&self, tree: Spanned<DeTable<'_>>) -> Result<T, ConfigError> {
        T::deserialize(Deserializer::from(tree)).map_err(|error| self.toml_error(&error))
    }

    /// An error of the toml crate at its place in this text (the first line where it names none).
    #[must_use]
    pub fn toml_error(&self, error: &toml::de::Error) -> ConfigError {
        // Some messages of the parser have several lines; ours are one sentence.
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        self.error(error.span().unwrap_or(0..0), message, "")
    }

    /// An error at a place of this text. A place outside the text is its end.
    #[must_use]
    pub fn error(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> ConfigError {
        let offset = self.boundary(span.start);
        let (before, _) = self.text.split_at(offset);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let (_, from_start) = self.text.split_at(start);
        let line_text = from_start.split(['\n', '\r']).next().unwrap_or_default();
        let line_text = shortened(line_text, SOURCE_LINE_MAX_BYTES);
        let mark_start = (offset - start).min(line_text.len());
        let mark_end = self.boundary(span.end).saturating_sub(start).clamp(mark_start, line_text.len());
        ConfigError {
            path: self.path.clone(),
            line: self.line_of(&span),
            column: before.chars().rev().take_while(|&c| c != '\n').count() + 1,
            message: message.into(),
            hint: hint.into(),
            source_line: Box::from(line_text),
            marked: mark_start..mark_end,
        }
    }

    /// `unknown key "maxx" in [general], did you mean "max"?`
    #[must_use]
    pub fn unknown_key(
        &self,
        span: Range<usize>,
        key: &str,
        table: &str,
        candidates: &[&str],
        hint: &str,
    ) -> ConfigError {
        let place =
            if table.is_empty() { "at the top of the file".to_owned() } else { format!("in [{table}]") };
        let question =
            nearest(key, candidates).map(|name| format!(", did you mean {name:?}?")).unwrap_or_default();
        self.error(span, format!("unknown key {key:?} {place}{question}"), hint)
    }

    /// One [`Document::unknown_key`] for every key of `tree` that is not in `known`.
    #[must_use]
    pub fn unknown_keys(&self, tree: &DeTable<'_>, table: &str, known: &[&str]) -> Vec<ConfigError> {
        tree.keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()))
            .take(ERRORS_MAX)
            .map(|key| self.unknown_key(key.span(), key.get_ref(), table, known, ""))
            .collect()
    }

    /// The line in which a place begins, from 1.
    #[must_use]
    pub fn line_of(&self, span: &Range<usize>) -> usize {
        let (before, _) = self.text.split_at(self.boundary(span.start));
        before.bytes().filter(|&byte| byte == b'\n').count() + 1
    }

    /// File and line in which a place begins.
    #[must_use]
    pub fn origin(&self, span: &Range<usize>) -> Origin {
        Origin { path: self.path.clone(), line: self.line_of(span) }
    }

    /// The nearest offset at or before `offset` at which the text can be split.
    fn boundary(&self, offset: usize) -> usize {
        let end = offset.min(self.text.len());
        (0..=end).rev().find(|&at| self.text.is_char_boundary(at)).unwrap_or(0)
    }
}

fn shortened(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.split_at(end).0
}

/// The candidate that was probably meant by `word`: at most a third of its letters differ. Case, `-` and `_`
/// make no difference.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    if word.len() > NEAREST_MAX_BYTES {
        return None;
    }
    let same = |text: &str| text.to_lowercase().replace('-', "_");
    let word = same(word);
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .iter()
        .map(|&name| (strsim::damerau_levenshtein(&word, &same(name)), name))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Jacamar\n[general]\nname = \"é\"\n  maxx = 4 # tab:\there\n";

    fn document() -> Document {
        Document::new("/etc/jacamar/x.toml", TEXT)
    }

    fn span_of(word: &str) -> Range<usize> {
        let start = TEXT.find(word).expect(word);
        start..start + word.len()
    }

    #[test]
    fn an_error_has_line_column_and_one_line_of_text() {
        let error = document().unknown_key(span_of("maxx"), "maxx", "general", &["name", "max"], "");
        assert_eq!(
            error.to_string(),
            "/etc/jacamar/x.toml:4: unknown key \"maxx\" in [general], did you mean \"max\"?"
        );
        assert_eq!((error.line, error.column), (4, 3));
    }

    #[test]
    fn render_shows_the_line_and_the_hint() {
        let error = document().error(span_of("maxx"), "unknown key \"maxx\" in [general]", "remove it");
        assert_eq!(
            error.render(),
            "error: unknown key \"maxx\" in [general]\n --> /etc/jacamar/x.toml:4:3\n  |\n\
             4 |   maxx = 4 # tab:    here\n  |   ^^^^\n  |\n  = hint: remove it"
        );
    }

    #[test]
    fn render_without_source_keeps_the_place_and_drops_the_text() {
        let shown = document().error(span_of("maxx"), "secret", "").without_source().render();
        assert!(!shown.contains("maxx"), "{shown}");
        assert!(shown.contains("/etc/jacamar/x.toml:4"), "{shown}");
    }

    #[test]
    fn columns_count_characters_and_places_never_split_one() {
        let quote = TEXT.find('é').expect("é");
        assert_eq!(document().error(quote + 2..quote + 3, "x", "").column, 10);
        let inside = document().error(quote + 1..quote + 1, "x", "");
        assert_eq!((inside.line, inside.column), (3, 9));
        let beyond = document().error(TEXT.len() + 7..TEXT.len() + 9, "x", "");
        assert_eq!((beyond.line, beyond.column), (5, 1));
        assert!(beyond.render().contains(":5:1"), "{}", beyond.render());
    }

    #[test]
    fn escape_sequences_of_the_file_are_shown_not_sent() {
        let document = Document::new("x", "a = \"\u{1b}[31m\"\n");
        let error = document.error(0..1, "the \u{1b}[31m word", "");
        assert!(!error.render().contains('\u{1b}'), "{}", error.render());
    }

    #[test]
    fn the_parser_s_errors_stand_on_the_right_line() {
        for (text, line, word) in [
            ("a = 1\nb = 2\na = 3\n", 3, "duplicate key"),
            ("[t]\na = 1\n[t]\nb = 1\n", 3, "duplicate key"),
            ("a = 1\n\nb = \n", 3, "string"),
            ("a = 1\nb = \"open\n", 2, "string"),
            ("a = 1\n= 2\n", 2, "key"),
        ] {
            let error = Document::new("x", text).parse().expect_err(text);
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.message.contains(word), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_an_error_on_its_line() {
        #[derive(Debug, Deserialize)]
        struct Wanted {
            #[expect(dead_code, reason = "only its type matters")]
            number: u8,
        }
        let document = Document::new("x", "\nnumber = \"four\"\n");
        let tree = document.parse().expect("TOML");
        let error = document.fill::<Wanted>(tree).expect_err("a text is no number");
        assert_eq!(error.to_string(), "x:2: invalid type: string \"four\", expected u8");
    }

    #[test]
    fn nearest_finds_slips_and_nothing_else() {
        let names = ["tls-ca-file", "kill_timeout", "name", "max"];
        for (word, expected) in [
            ("tls_ca_file", Some("tls-ca-file")),
            ("Name", Some("name")),
            ("kil_timeuot", Some("kill_timeout")),
            ("maxx", Some("max")),
            ("zzz", None),
            ("", None),
            ("data_dir", None),
        ] {
            assert_eq!(nearest(word, &names), expected, "{word}");
        }
        assert_eq!(nearest(&"m".repeat(1 << 20), &names), None);
    }

    #[test]
    fn all_errors_are_sorted_by_place() {
        let at = |word| document().error(span_of(word), word, "");
        let errors = ConfigErrors::none_of(vec![at("maxx"), at("name")]).expect_err("two");
        assert_eq!(errors.to_string(), "/etc/jacamar/x.toml:3: name\n/etc/jacamar/x.toml:4: maxx");
        assert_eq!(ConfigErrors::none_of(Vec::new()), Ok(()));
    }
}
