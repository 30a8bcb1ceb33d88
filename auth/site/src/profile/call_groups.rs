//! Groups of system calls, `profiles/system-calls.toml`: data with a reason for each call.

use std::collections::BTreeMap;
use std::str::FromStr;

use jacamar_plan::{Answer, CallRule, Condition};
use serde::Deserialize;
use syscalls::Sysno;
use toml::Spanned;
use toml::de::DeValue;

use super::value::{Bad, bad, list};
use crate::source::{ConfigError, Document};

const SHIPPED: &str = include_str!("../../../../profiles/system-calls.toml");

/// Groups in groups: deeper is a circle.
const DEPTH_MAX: usize = 8;

/// Every group by name, without the `@`.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct CallGroups(BTreeMap<String, Group>);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[expect(dead_code, reason = "for those who read the file")]
    description: String,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    call: BTreeMap<String, Entries>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Entries {
    One(Entry),
    Several(Vec<Entry>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    answer: Answer,
    argument: Option<u8>,
    equals: Option<u32>,
    #[expect(dead_code, reason = "for those who read the file")]
    why: String,
}

impl CallGroups {
    /// The shipped groups.
    ///
    /// # Errors
    /// The first mistake in the file; a test reads it.
    pub fn shipped() -> Result<Self, ConfigError> {
        let document = Document::new("system-calls.toml", SHIPPED);
        document.fill(document.parse()?)
    }

    /// `["~@group", "name", "name:EPERM"]`: the leading `~` holds for the whole list, as in systemd.exec(5).
    pub(super) fn deny_list(&self, value: &Spanned<DeValue<'_>>) -> Result<Option<Vec<CallRule>>, Bad> {
        let entries = list(value)?;
        let Some((first, text)) = entries.first() else { return Ok(None) };
        if !text.starts_with('~') {
            return bad(first, "lists of allowed calls are not built yet; write \"~@group\" to deny a group");
        }
        let mut rules = Vec::new();
        for (entry, text) in &entries {
            let text = text.strip_prefix('~').unwrap_or(text);
            match text.strip_prefix('@') {
                Some(group) => match self.collect(group, DEPTH_MAX, &mut rules) {
                    Ok(()) => {}
                    Err(missing) => return bad(entry, format!("there is no group \"@{missing}\"")),
                },
                None => rules.push(single(text).or_else(|message| bad(entry, message))?),
            }
        }
        Ok(Some(rules))
    }

    /// Adds a group and those that it includes; the error is a name that is not there.
    fn collect(&self, name: &str, depth: usize, rules: &mut Vec<CallRule>) -> Result<(), String> {
        let group = self.0.get(name).filter(|_| depth > 0).ok_or_else(|| name.to_owned())?;
        for included in &group.include {
            self.collect(included, depth - 1, rules)?;
        }
        for (call, entries) in &group.call {
            let entries = match entries {
                Entries::One(entry) => std::slice::from_ref(entry),
                Entries::Several(entries) => entries.as_slice(),
            };
            for Entry { answer, argument, equals, .. } in entries {
                let when = match (argument, equals) {
                    (Some(argument), Some(equals)) => {
                        Some(Condition { argument: *argument, equals: *equals })
                    }
                    (None, None) => None,
                    (Some(_), None) | (None, Some(_)) => {
                        return Err(format!("{name}: {call} with half a condition"));
                    }
                };
                rules.push(CallRule { call: call.clone(), when, answer: *answer });
            }
        }
        Ok(())
    }
}

/// `name` or `name:ERRNO`; EPERM where none is written.
fn single(text: &str) -> Result<CallRule, String> {
    let (call, answer) = match text.split_once(':') {
        None => (text, Answer::Eperm),
        Some((call, "EPERM")) => (call, Answer::Eperm),
        Some((call, "ENOSYS")) => (call, Answer::Enosys),
        Some((_, other)) => return Err(format!("{other:?} is not an answer; write EPERM or ENOSYS")),
    };
    match Sysno::from_str(call) {
        Ok(_) => Ok(CallRule { call: call.to_owned(), when: None, answer }),
        Err(()) => Err(format!("{call:?} is not a system call of this architecture, see syscalls(2)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_included_group_is_there_and_no_circle() {
        let groups = CallGroups::shipped().expect("shipped");
        for name in groups.0.keys() {
            groups.collect(name, DEPTH_MAX, &mut Vec::new()).expect(name);
        }
    }

    #[test]
    fn every_name_is_a_call_somewhere() {
        // What x86-64 lacks of these is a call of another architecture or gone before the table began.
        let elsewhere: [&str; 0] = [];
        let groups = CallGroups::shipped().expect("shipped");
        for call in groups.0.values().flat_map(|group| group.call.keys()) {
            let known = Sysno::from_str(call).is_ok() || elsewhere.contains(&call.as_str());
            assert!(known || !cfg!(target_arch = "x86_64"), "{call}");
        }
    }
}
