//! Values of a profile, spelled as systemd spells them. `Ok(None)` is "off".

use std::ops::Range;

use jacamar_plan::{
    AddressFamilies, Amount, Control, HugePages, KeyringMode, MountFlags, ProtectProc, ProtectSystem, Rate,
    Resource, Rlimit, TemporaryFileSystem, address_family,
};
use toml::Spanned;
use toml::de::DeValue;

use crate::config::is_variable;

/// A value that is wrong, and where.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

type Value<'a> = Spanned<DeValue<'a>>;
type Read<T> = Result<Option<T>, Bad>;

pub(super) fn bad<T>(value: &Value<'_>, message: impl Into<String>) -> Result<T, Bad> {
    Err(Bad { span: value.span(), message: message.into() })
}

/// Text, or a number as text.
fn text(value: &Value<'_>, expected: &str) -> Result<String, Bad> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) => Ok(number.to_string()),
        _ => bad(value, format!("write {expected}")),
    }
}

/// A list of texts, each with its place.
pub(super) fn list<'a>(value: &'a Value<'_>) -> Result<Vec<(&'a Value<'a>, &'a str)>, Bad> {
    let DeValue::Array(entries) = value.get_ref() else {
        return bad(value, "write a list: [\"...\"]");
    };
    let read = |entry: &'a Value<'_>| match entry.get_ref() {
        DeValue::String(text) => Ok((entry, text.as_ref())),
        _ => bad(entry, "write a list of texts: [\"...\"]"),
    };
    entries.iter().map(read).collect()
}

/// A boolean of systemd.syntax(7).
pub(super) fn switch(value: &Value<'_>) -> Read<()> {
    let on = match value.get_ref() {
        DeValue::Boolean(on) => Some(*on),
        DeValue::String(text) => match text.as_ref() {
            "yes" | "true" | "on" | "1" => Some(true),
            "no" | "false" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    };
    match on {
        Some(true) => Ok(Some(())),
        Some(false) => Ok(None),
        None => bad(value, "write true or false"),
    }
}

/// A resource limit: a text or a number, of some keys a list of texts.
pub(super) fn amount(control: Control, value: &Value<'_>) -> Read<Amount> {
    let parse = |value: &Value<'_>, text: &str| match control.parse(text) {
        Ok(amount) => Ok(amount),
        Err(error) => bad(value, error.to_string()),
    };
    if !control.is_list() {
        return parse(value, &text(value, control.example())?).map(Some);
    }
    let entries = match value.get_ref() {
        DeValue::String(text) => vec![(value, text.as_ref())],
        _ => list(value)?,
    };
    let mut rates: Vec<Rate> = Vec::new();
    let mut pages: Vec<HugePages> = Vec::new();
    for (entry, text) in entries {
        match parse(entry, text)? {
            Amount::Rates(new) => {
                if new.iter().any(|rate| rates.iter().any(|known| known.path == rate.path)) {
                    return bad(entry, format!("{text:?} is the second value for its path"));
                }
                rates.extend(new);
            }
            Amount::HugePages(new) => {
                if new.iter().any(|page| pages.iter().any(|known| known.size == page.size)) {
                    return bad(entry, format!("{text:?} is the second value for its page size"));
                }
                pages.extend(new);
            }
            _ => return bad(entry, format!("{text:?} is no entry of a list")),
        }
    }
    Ok(match (rates.is_empty(), pages.is_empty()) {
        (true, true) => None,
        (false, _) => Some(Amount::Rates(rates)),
        (true, false) => Some(Amount::HugePages(pages)),
    })
}

/// `1024`, `"1024:524288"`, `"infinity"`
pub(super) fn rlimit(resource: Resource, value: &Value<'_>) -> Read<Rlimit> {
    match Rlimit::parse(resource, &text(value, resource.example())?) {
        Ok(limit) => Ok(Some(limit)),
        Err(error) => bad(value, error.to_string()),
    }
}

/// `["OMP_NUM_THREADS", "MAKEFLAGS=-j%n"]`: a name alone has the number of processors as its value.
pub(super) fn parallelism(value: &Value<'_>) -> Read<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (entry, text) in list(value)? {
        let (name, template) = text.split_once('=').unwrap_or((text, "%n"));
        if !is_variable(name) {
            return bad(entry, format!("{name:?} is not the name of a variable"));
        }
        if name.starts_with("JACAMAR_CI_") || name == "PATH" || name.starts_with("LD_") {
            return bad(entry, format!("{name} is not for processors"));
        }
        if !template.contains("%n") || template.contains(['\0', '\n']) {
            return bad(entry, format!("{template:?} has no %n, which stands for the number of processors"));
        }
        if all.iter().any(|(known, _)| known == name) {
            return bad(entry, format!("{name} is there twice"));
        }
        all.push((name.to_owned(), template.to_owned()));
    }
    Ok(if all.is_empty() { None } else { Some(all) })
}

/// One word of several; `off` are those that mean "not set", `later` those that systemd has and we do not yet.
fn word<T: Copy>(value: &Value<'_>, words: &[(&str, T)], off: &[&str], later: &[&str]) -> Read<T> {
    let text = match value.get_ref() {
        DeValue::String(text) => text.as_ref(),
        DeValue::Boolean(true) => "yes",
        DeValue::Boolean(false) => "no",
        _ => "",
    };
    if off.contains(&text) {
        return Ok(None);
    }
    if let Some((_, meant)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(Some(*meant));
    }
    let known: Vec<String> = words
        .iter()
        .map(|(word, _)| *word)
        .chain(off.iter().copied())
        .map(|word| format!("{word:?}"))
        .collect();
    let known = known.join(", ");
    if later.contains(&text) {
        return bad(value, format!("{text:?} is not built yet; write one of {known}"));
    }
    bad(value, format!("write one of {known}"))
}

pub(super) fn protect_system(value: &Value<'_>) -> Read<ProtectSystem> {
    let words = [("yes", ProtectSystem::Yes), ("full", ProtectSystem::Full)];
    word(value, &words, &["no"], &["strict"])
}

pub(super) fn protect_proc(value: &Value<'_>) -> Read<ProtectProc> {
    let words = [("invisible", ProtectProc::Invisible), ("default", ProtectProc::Default)];
    word(value, &words, &[], &["noaccess", "ptraceable"])
}

pub(super) fn keyring_mode(value: &Value<'_>) -> Read<KeyringMode> {
    let words = [("private", KeyringMode::Private), ("inherit", KeyringMode::Inherit)];
    word(value, &words, &[], &["shared"])
}

/// `["native"]`
pub(super) fn native(value: &Value<'_>) -> Read<()> {
    match list(value)?.as_slice() {
        [] => Ok(None),
        [(_, "native")] => Ok(Some(())),
        [(entry, other), ..] => bad(entry, format!("{other:?} is not built yet; write [\"native\"]")),
    }
}

/// `["AF_UNIX", ...]` allows these, `["~AF_ALG", ...]` all but these.
pub(super) fn address_families(value: &Value<'_>) -> Read<AddressFamilies> {
    let entries = list(value)?;
    let Some((_, first)) = entries.first() else { return Ok(None) };
    // systemd.exec(5): no sockets at all.
    if *first == "none" && entries.len() == 1 {
        return Ok(Some(AddressFamilies::Only(Vec::new())));
    }
    let except = first.starts_with('~');
    let mut numbers = Vec::new();
    for (index, (entry, text)) in entries.iter().enumerate() {
        let name = if index == 0 || except { text.strip_prefix('~').unwrap_or(text) } else { text };
        match address_family(name) {
            Some(number) => numbers.push(number),
            None => return bad(entry, format!("{name:?} is not an address family of socket(2)")),
        }
    }
    Ok(Some(if except { AddressFamilies::Except(numbers) } else { AddressFamilies::Only(numbers) }))
}

/// `["/path:mode=1777,size=50%,nodev"]`, always nosuid and nodev.
pub(super) fn temporary_file_systems(value: &Value<'_>) -> Read<Vec<TemporaryFileSystem>> {
    let mut all = Vec::new();
    for (entry, text) in list(value)? {
        let (path, options) = text.split_once(':').unwrap_or((text, "mode=0755"));
        let plain = path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
        if !plain {
            return bad(entry, format!("{path:?} is not an absolute path"));
        }
        let mut flags = MountFlags::NOSUID.and(MountFlags::NODEV);
        let mut kept: Vec<&str> = Vec::new();
        for option in options.split(',') {
            match option {
                "nosuid" | "nodev" => {}
                "noexec" => flags = flags.and(MountFlags::NOEXEC),
                "ro" => flags = flags.and(MountFlags::RDONLY),
                "noatime" => flags = flags.and(MountFlags::NOATIME),
                option if tmpfs_option(option) => kept.push(option),
                option => {
                    return bad(
                        entry,
                        format!(
                            "{option:?} is not an option (mode=, size=, nr_inodes=, noexec, nosuid, nodev, ro, noatime)"
                        ),
                    );
                }
            }
        }
        if !kept.iter().any(|option| option.starts_with("mode=")) {
            kept.push("mode=0755");
        }
        all.push(TemporaryFileSystem { path: path.to_owned(), flags, options: kept.join(",") });
    }
    Ok(if all.is_empty() { None } else { Some(all) })
}

/// An option of tmpfs(5) that is passed on.
fn tmpfs_option(option: &str) -> bool {
    let Some((name, value)) = option.split_once('=') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match name {
        "mode" => value.len() <= 5 && !value.is_empty() && value.bytes().all(|b| (b'0'..=b'7').contains(&b)),
        "size" => digits(value.strip_suffix(['%', 'k', 'K', 'm', 'M', 'g', 'G']).unwrap_or(value)),
        "nr_inodes" => digits(value.strip_suffix(['k', 'm', 'g']).unwrap_or(value)),
        _ => false,
    }
}
