//! Groups of system calls, `profiles/system-calls.toml`: data with a reason for each call.

use std::str::FromStr;

use jacamar_plan::{Answer, CallRule, Condition};
use syscalls::Sysno;
use toml::Spanned;
use toml::de::DeValue;

use super::value::{Bad, bad, list};

/// Groups in groups: deeper is a circle.
const DEPTH_MAX: usize = 8;

/// One group; its name is without the `@`.
struct Group {
    name: &'static str,
    include: &'static [&'static str],
    calls: &'static [(&'static str, Option<Condition>, Answer)],
}

/// Every group of the file, by `build.rs`.
static GROUPS: &[Group] = &include!(concat!(env!("OUT_DIR"), "/call_groups.rs"));

/// `["~@group", "name", "name:EPERM"]`: the leading `~` holds for the whole list, as in systemd.exec(5).
pub(super) fn deny_list(value: &Spanned<DeValue<'_>>) -> Result<Option<Vec<CallRule>>, Bad> {
    let entries = list(value)?;
    let Some((first, text)) = entries.first() else { return Ok(None) };
    if !text.starts_with('~') {
        return bad(first, "lists of allowed calls are not built yet; write \"~@group\" to deny a group");
    }
    let mut rules = Vec::new();
    for (entry, text) in &entries {
        let text = text.strip_prefix('~').unwrap_or(text);
        match text.strip_prefix('@') {
            Some(group) => match collect(group, DEPTH_MAX, &mut rules) {
                Ok(()) => {}
                Err(missing) => return bad(entry, format!("there is no group \"@{missing}\"")),
            },
            None => rules.push(single(text).or_else(|message| bad(entry, message))?),
        }
    }
    Ok(Some(rules))
}

/// Adds a group and those that it includes; the error is a name that is not there.
fn collect<'a>(name: &'a str, depth: usize, rules: &mut Vec<CallRule>) -> Result<(), &'a str> {
    let group = GROUPS.iter().find(|group| group.name == name).filter(|_| depth > 0).ok_or(name)?;
    for included in group.include {
        collect(included, depth - 1, rules)?;
    }
    let rule = |(call, when, answer): &(&str, _, _)| CallRule {
        call: (*call).to_owned(),
        when: *when,
        answer: *answer,
    };
    rules.extend(group.calls.iter().map(rule));
    Ok(())
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
        for group in GROUPS {
            collect(group.name, DEPTH_MAX, &mut Vec::new()).expect(group.name);
        }
    }

    #[test]
    fn every_name_is_a_call_somewhere() {
        // What x86-64 lacks of these is a call of another architecture or gone before the table began.
        let elsewhere: [&str; 0] = [];
        for (call, ..) in GROUPS.iter().flat_map(|group| group.calls) {
            let known = Sysno::from_str(call).is_ok() || elsewhere.contains(call);
            assert!(known || !cfg!(target_arch = "x86_64"), "{call}");
        }
    }
}
