//! Profiles: files in systemd's vocabulary, checked to the last key, every value with its line.
//!
//! The shipped ones are compiled in; their origin reads `default.toml:12 (shipped)`. Every key is one of
//! [`Key`]; an unknown one, or a value that is not built yet, is an error with file and line.

mod call_groups;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jacamar_plan::{Key, Need, Origin, Profile, Resources, Setting, Settings};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::JOBS_KEYS;
use crate::source::{ConfigError, ConfigErrors, Document, nearest};
use crate::trusted_file::{self, Trust, Untrusted};

/// Name and text of each shipped profile.
const SHIPPED: [(&str, &str); 2] = [
    ("default", include_str!("../../../profiles/default.toml")),
    ("compat", include_str!("../../../profiles/compat.toml")),
];

/// Profiles of our own processes; no configuration can name them.
const OWN: [(&str, &str); 2] = [
    ("keys", include_str!("../../../profiles/keys.toml")),
    ("verify", include_str!("../../../profiles/verify.toml")),
];

/// A process of ours that handles what strangers wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnProcess {
    /// `jacamar keys`
    Keys,
    /// `jacamar verify`
    Verify,
}

/// The profile of a process of ours.
///
/// # Errors
/// [`ProfileError`] if the compiled-in text is wrong; a test reads it.
pub fn own_profile(process: OwnProcess) -> Result<Profile, ProfileError> {
    let [keys, verify] = OWN;
    let (name, text) = match process {
        OwnProcess::Keys => keys,
        OwnProcess::Verify => verify,
    };
    Ok(parse(&Document::new(format!("{name}.toml"), text), name, true)?)
}

/// Why there is no profile of a name.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is none of this name.
    #[error("there is no profile {name:?}; there are {}{}", known.join(", "), hint(nearest.as_deref()))]
    Unknown {
        /// The name asked for.
        name: String,
        /// All names.
        known: Vec<String>,
        /// The one that was probably meant.
        nearest: Option<String>,
    },
    /// Its file is wrong.
    #[error(transparent)]
    File(#[from] ConfigErrors),
    /// Others than root could have written it, or it cannot be read.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(", did you mean {name:?}?")).unwrap_or_default()
}

/// Where the site's own profiles lie, one file each: `NAME.toml`.
pub const SITE_DIRECTORY: &str = "/etc/jacamar/profiles.d";

/// The profile of this name: a shipped one, or the site's of [`SITE_DIRECTORY`], which only root can have written, at
/// every level.
///
/// # Errors
/// [`ProfileError`]
pub fn profile(name: &str) -> Result<Profile, ProfileError> {
    if let Some((name, text)) = SHIPPED.iter().find(|(known, _)| *known == name) {
        return Ok(parse(&Document::new(format!("{name}.toml"), *text), name, true)?);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let path = Path::new(SITE_DIRECTORY).join(format!("{name}.toml"));
    if name.is_empty() || !name.bytes().all(plain) || !path.exists() {
        let mut known: Vec<String> = names().map(str::to_owned).collect();
        known.extend(site_names());
        let candidates: Vec<&str> = known.iter().map(String::as_str).collect();
        let nearest = nearest(name, &candidates).map(str::to_owned);
        return Err(ProfileError::Unknown { name: name.to_owned(), known, nearest });
    }
    Ok(parse(&trusted_file::read(&path, Trust::RootOnly)?, name, false)?)
}

/// Names of the site's profiles, for a message: a directory that cannot be read has none.
fn site_names() -> Vec<String> {
    let entries = std::fs::read_dir(SITE_DIRECTORY).into_iter().flatten().flatten();
    let names =
        entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

/// Names of the shipped profiles.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// Reads a profile.
///
/// # Errors
/// Everything that is wrong in it, in the order of its lines.
pub fn parse(document: &Document, name: &str, shipped: bool) -> Result<Profile, ConfigErrors> {
    let tree = document.parse().map_err(ConfigErrors::from)?;
    let mut reader = Reader { document, shipped, prefer: BTreeSet::new(), errors: Vec::new() };
    let profile = reader.profile(name, tree.get_ref());
    ConfigErrors::none_of(reader.errors)?;
    Ok(profile)
}

/// Reads resource limits alone, of a table of the configuration; `besides` are the keys and tables that it may have
/// besides. What is wrong comes beside what could be read.
pub(crate) fn resources(
    document: &Document,
    tree: &DeTable<'_>,
    table: &str,
    besides: &[&str],
) -> (Resources, Vec<ConfigError>) {
    let mut reader = Reader { document, shipped: false, prefer: BTreeSet::new(), errors: Vec::new() };
    let keys: Vec<Key> = Key::all().filter(|key| matches!(key, Key::Control(_))).collect();
    if let Some(prefer) = tree.get("prefer") {
        reader.prefer(prefer);
    }
    let mut settings = Settings::default();
    let others: Vec<&str> = besides.iter().copied().chain(["prefer"]).collect();
    reader.table(tree, table, &keys, &others, &mut settings);
    reader.prefer_is_set(tree, &settings);
    (settings.resources, reader.errors)
}

/// Collects errors, so that who writes a profile sees all of them at once.
struct Reader<'a> {
    document: &'a Document,
    shipped: bool,
    prefer: BTreeSet<Key>,
    errors: Vec<ConfigError>,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    fn profile(&mut self, name: &str, tree: &DeTable<'_>) -> Profile {
        let tables: BTreeSet<&str> = Key::all().map(Key::table).collect();
        let mut known: Vec<&str> = vec!["description", "prefer"];
        known.extend(&tables);
        self.errors.extend(self.document.unknown_keys(tree, "", &known));

        let description = match tree.get("description").map(Spanned::get_ref) {
            Some(DeValue::String(text)) => text.clone().into_owned(),
            Some(_) | None => {
                self.error(
                    0..0,
                    "a profile needs a description".into(),
                    "write description = \"one sentence\"".into(),
                );
                String::new()
            }
        };
        if let Some(prefer) = tree.get("prefer") {
            self.prefer(prefer);
        }
        let mut settings = Settings::default();
        for table in tables {
            let Some(value) = tree.get(table) else { continue };
            let DeValue::Table(content) = value.get_ref() else {
                self.error(value.span(), format!("{table} must be a table"), format!("write [{table}]"));
                continue;
            };
            let keys: Vec<Key> = Key::all().filter(|key| key.table() == table).collect();
            self.table(content, table, &keys, &[], &mut settings);
        }
        self.prefer_is_set(tree, &settings);
        Profile { name: name.to_owned(), description, settings }
    }

    /// The keys of one table; `others` are not ours to read.
    fn table(
        &mut self,
        content: &DeTable<'_>,
        table: &str,
        keys: &[Key],
        others: &[&str],
        settings: &mut Settings,
    ) {
        let names: Vec<String> = keys.iter().map(Key::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).chain(others.iter().copied()).collect();
        for (key, value) in content {
            let text = key.get_ref().as_ref();
            match keys.iter().find(|known| known.to_string() == text) {
                Some(known) => self.setting(*known, key.span(), value, settings),
                None if others.contains(&text) => {}
                None => self.misplaced_or_unknown(table, key, &names),
            }
        }
    }

    fn prefer_is_set(&mut self, tree: &DeTable<'_>, settings: &Settings) {
        let unset: Vec<Key> = self.prefer.iter().copied().filter(|key| !is_set(*key, settings)).collect();
        for key in unset {
            let span = tree.get("prefer").map_or(0..0, Spanned::span);
            self.error(span, format!("prefer names {key}, which is not set beside it"), String::new());
        }
    }

    fn error(&mut self, span: std::ops::Range<usize>, message: String, hint: String) {
        self.errors.push(self.document.error(span, message, hint));
    }

    fn prefer(&mut self, value: &Value<'_>) {
        let DeValue::Array(list) = value.get_ref() else {
            self.error(
                value.span(),
                "prefer must be a list of keys".into(),
                "write prefer = [\"TasksMax\"]".into(),
            );
            return;
        };
        let names: Vec<String> = Key::all().map(|key| key.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for entry in list {
            let text = match entry.get_ref() {
                DeValue::String(text) => text.as_ref(),
                _ => "",
            };
            match Key::named(text) {
                // Without it nothing of the profile could be kept, so it is no protection that may be missing.
                Some(Key::NoNewPrivileges) => self.error(
                    entry.span(),
                    "NoNewPrivileges cannot be preferred: every host has it".into(),
                    String::new(),
                ),
                Some(key) => {
                    self.prefer.insert(key);
                }
                None => {
                    let error = self.document.unknown_key(entry.span(), text, "prefer", &names, "");
                    self.errors.push(error);
                }
            }
        }
    }

    /// A key of another table is told so; an administrator knows its name, not our tables.
    fn misplaced_or_unknown(
        &mut self,
        table: &str,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        names: &[&str],
    ) {
        let text = key.get_ref().as_ref();
        match Key::named(text) {
            Some(known) => self.error(
                key.span(),
                format!("{text} does not belong into [{table}]"),
                format!("write it below [{}] of a profile", known.table()),
            ),
            None => {
                let hint = match JOBS_KEYS.contains(&text) {
                    true => "write it below [sandbox.user] of the configuration",
                    false => "",
                };
                let error = self.document.unknown_key(key.span(), text, table, names, hint);
                self.errors.push(error);
            }
        }
    }

    fn setting(
        &mut self,
        key: Key,
        span: std::ops::Range<usize>,
        value: &Value<'_>,
        settings: &mut Settings,
    ) {
        let origin = Origin {
            file: self.document.path().to_owned(),
            line: u32::try_from(self.document.line_of(&span)).unwrap_or(u32::MAX),
            shipped: self.shipped,
        };
        let need = if self.prefer.contains(&key) { Need::Prefer } else { Need::Require };
        let result = match key {
            Key::Control(control) => {
                let read = value::amount(control, value);
                put_in(&mut settings.resources, control, read, origin, need)
            }
            Key::Limit(resource) => {
                let read = value::rlimit(resource, value);
                put_in(&mut settings.limits, resource, read, origin, need)
            }
            Key::ParallelismVariables => {
                put(&mut settings.parallelism_variables, value::parallelism(value), origin, need)
            }
            Key::ProtectSystem => {
                put(&mut settings.protect_system, value::protect_system(value), origin, need)
            }
            Key::PrivateTmp => put(&mut settings.private_tmp, value::switch(value), origin, need),
            Key::TemporaryFileSystem => {
                put(&mut settings.temporary_file_system, value::temporary_file_systems(value), origin, need)
            }
            Key::PrivatePIDs => put(&mut settings.private_pids, value::switch(value), origin, need),
            Key::ProtectProc => put(&mut settings.protect_proc, value::protect_proc(value), origin, need),
            Key::PrivateIPC => put(&mut settings.private_ipc, value::switch(value), origin, need),
            Key::KeyringMode => put(&mut settings.keyring_mode, value::keyring_mode(value), origin, need),
            Key::NoNewPrivileges => put(&mut settings.no_new_privileges, value::switch(value), origin, need),
            Key::SystemCallFilter => {
                put(&mut settings.system_call_filter, call_groups::deny_list(value), origin, need)
            }
            Key::SystemCallArchitectures => {
                put(&mut settings.system_call_architectures, value::native(value), origin, need)
            }
            Key::RestrictAddressFamilies => {
                put(&mut settings.restrict_address_families, value::address_families(value), origin, need)
            }
        };
        if let Err(value::Bad { span, message }) = result {
            self.error(span, format!("{key}: {message}"), String::new());
        }
    }
}

/// A value that says "off" leaves the key unset.
fn put<T>(
    slot: &mut Option<Setting<T>>,
    value: Result<Option<T>, value::Bad>,
    origin: Origin,
    need: Need,
) -> Result<(), value::Bad> {
    *slot = value?.map(|value| Setting { value, origin, need });
    Ok(())
}

/// The same for a key of which there are many.
fn put_in<K: Ord, T>(
    map: &mut BTreeMap<K, Setting<T>>,
    key: K,
    value: Result<Option<T>, value::Bad>,
    origin: Origin,
    need: Need,
) -> Result<(), value::Bad> {
    let mut slot = None;
    put(&mut slot, value, origin, need)?;
    map.extend(slot.map(|setting| (key, setting)));
    Ok(())
}

fn is_set(key: Key, settings: &Settings) -> bool {
    match key {
        Key::Control(control) => settings.resources.contains_key(&control),
        Key::Limit(resource) => settings.limits.contains_key(&resource),
        Key::ParallelismVariables => settings.parallelism_variables.is_some(),
        Key::ProtectSystem => settings.protect_system.is_some(),
        Key::PrivateTmp => settings.private_tmp.is_some(),
        Key::TemporaryFileSystem => settings.temporary_file_system.is_some(),
        Key::PrivatePIDs => settings.private_pids.is_some(),
        Key::ProtectProc => settings.protect_proc.is_some(),
        Key::PrivateIPC => settings.private_ipc.is_some(),
        Key::KeyringMode => settings.keyring_mode.is_some(),
        Key::NoNewPrivileges => settings.no_new_privileges.is_some(),
        Key::SystemCallFilter => settings.system_call_filter.is_some(),
        Key::SystemCallArchitectures => settings.system_call_architectures.is_some(),
        Key::RestrictAddressFamilies => settings.restrict_address_families.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use jacamar_plan::Control;

    use super::*;

    fn read(text: &str) -> Result<Profile, String> {
        parse(&Document::new("site.toml", text), "site", false)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn shipped_profiles_are_good_and_know_their_lines() {
        for name in names() {
            let profile = profile(name).expect(name);
            assert!(!profile.description.is_empty());
        }
        let default = profile("default").expect("default");
        let memory = &default.settings.resources[&Control::MemoryMax];
        assert_eq!(memory.origin.to_string(), "default.toml:14 (shipped)");
        assert_eq!(memory.need, Need::Prefer);
        assert_eq!(default.settings.private_tmp.expect("PrivateTmp").need, Need::Require);
    }

    #[test]
    fn our_own_processes_have_profiles_and_verify_has_no_socket() {
        own_profile(OwnProcess::Keys).expect("keys");
        let verify = own_profile(OwnProcess::Verify).expect("verify").settings;
        let families = verify.restrict_address_families.expect("no sockets");
        assert_eq!(families.value, jacamar_plan::AddressFamilies::Only(Vec::new()));
        assert_eq!(families.need, Need::Require);
    }

    #[test]
    fn compat_has_the_rows_of_the_deny_list_that_only_root_could_call() {
        let calls = profile("compat").expect("compat").settings.system_call_filter.expect("a filter").value;
        assert!(calls.iter().any(|rule| rule.call == "kexec_load"));
        assert!(!calls.iter().any(|rule| rule.call.starts_with("io_uring") || rule.call == "ioctl"));
    }

    #[test]
    fn a_name_that_is_nearly_right_is_answered_with_the_right_one() {
        let error = profile("defualt").expect_err("no such profile").to_string();
        assert_eq!(
            error,
            "there is no profile \"defualt\"; there are default, compat, did you mean \"default\"?"
        );
    }

    #[test]
    fn every_mistake_has_its_line() {
        let cases = [
            ("description = \"x\"\n[job]\nMemoryMaxx = \"1G\"\n", "site.toml:3: unknown key \"MemoryMaxx\""),
            (
                "description = \"x\"\n[job]\nPrivateTmp = true\n",
                "site.toml:3: PrivateTmp does not belong into [job]",
            ),
            (
                "description = \"x\"\n[job]\nMemoryMax = \"8GB\"\n",
                "site.toml:3: MemoryMax: \"8GB\" is not an amount of memory",
            ),
            ("description = \"x\"\n[job]\nMemoryMax = true\n", "site.toml:3: MemoryMax: "),
            ("description = \"x\"\nprefer = [\"TaskMax\"]\n", "site.toml:2: unknown key \"TaskMax\""),
            (
                "description = \"x\"\nprefer = [\"TasksMax\"]\n",
                "site.toml:2: prefer names TasksMax, which is not set",
            ),
            ("[job]\nTasksMax = 5\n", "site.toml:1: a profile needs a description"),
            (
                "description = \"x\"\n[view]\nProtectSystem = \"strict\"\n",
                "site.toml:3: ProtectSystem: \"strict\" is not built yet",
            ),
            (
                "description = \"x\"\n[system-calls]\nSystemCallFilter = [\"~@hpc-denny\"]\n",
                "site.toml:3: SystemCallFilter: there is no group \"@hpc-denny\"",
            ),
            (
                "description = \"x\"\n[system-calls]\nSystemCallFilter = [\"~kexec_lod\"]\n",
                "site.toml:3: SystemCallFilter: \"kexec_lod\" is not a system call",
            ),
            (
                "description = \"x\"\n[system-calls]\nSystemCallFilter = [\"@hpc-deny\"]\n",
                "site.toml:3: SystemCallFilter: ",
            ),
            (
                "description = \"x\"\n[network]\nRestrictAddressFamilies = [\"AF_INTE\"]\n",
                "site.toml:3: RestrictAddressFamilies: \"AF_INTE\" is not an address family",
            ),
            (
                "description = \"x\"\n[view]\nTemporaryFileSystem = [\"tmp\"]\n",
                "site.toml:3: TemporaryFileSystem: \"tmp\" is not an absolute path",
            ),
            ("description = \"x\"\n[jobb]\nTasksMax = 5\n", "site.toml:2: unknown key \"jobb\""),
        ];
        for (text, expected) in cases {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(expected), "{text}\n{error}\nexpected {expected}");
        }
    }

    #[test]
    fn off_is_the_same_as_absent() {
        let text = "description = \"x\"\n[job]\nMemoryMax = \"infinity\"\n[view]\nPrivateTmp = false\nProtectSystem = \"no\"\n";
        assert_eq!(read(text).expect("good").settings.private_tmp, None);
        assert_eq!(read(text).expect("good").settings.protect_system, None);
    }
}
