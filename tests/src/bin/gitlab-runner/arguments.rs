//! Flags of the helper's commands.

use anyhow::{Context as _, Result};

/// Flags that stand alone.
const SWITCHES: [&str; 5] =
    ["untracked", "verbose", "generate-artifacts-metadata", "direct-download", "ci-debug-trace"];

/// Flags with their values, in order.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    flags: Vec<(String, String)>,
    plain: Vec<String>,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
        let mut arguments = Arguments::default();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--") else {
                arguments.plain.push(word);
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None if SWITCHES.contains(&flag) => (flag, "true".to_owned()),
                None => (flag, words.next().with_context(|| format!("--{flag} needs a value"))?),
            };
            arguments.flags.push((name.to_owned(), value));
        }
        Ok(arguments)
    }

    /// The last value of a flag.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(flag, _)| flag == name).map(|(_, value)| value.as_str())
    }

    /// All values of a flag, with references to variables replaced.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        self.flags.iter().filter(|(flag, _)| flag == name).map(|(_, value)| expand(value)).collect()
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value == "true")
    }

    /// What is no flag.
    pub(crate) fn plain(&self) -> &[String] {
        &self.plain
    }
}

/// Replaces `$NAME` and `${NAME}` by variables of the environment.
pub(crate) fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(rest.get(..at).unwrap_or_default());
        let after = rest.get(at + 1..).unwrap_or_default();
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (name, tail) = braced.unwrap_or_else(|| {
            let end = after.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(after.len());
            after.split_at(end)
        });
        if name.is_empty() {
            out.push('$');
        } else {
            out.push_str(&std::env::var(name).unwrap_or_default());
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}
