//! A profile: what a site wrote about the sandbox, each value with its file and line.
//!
//! Reading the files is `jacamar-site`'s work; here are the values, with systemd's names.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AddressFamilies, CallRule, Control, InvalidValue, MountFlags, Resource, Resources, Rlimit};

/// File and line of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Name of the file; a shipped profile's without a directory.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Compiled into the program.
    pub shipped: bool,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        if self.shipped { f.write_str(" (shipped)") } else { Ok(()) }
    }
}

/// What happens on a host that lacks a protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// The job is refused before anything happened.
    Require,
    /// The job runs, and a line says what is missing and why.
    Prefer,
}

/// A value of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub origin: Origin,
    /// Whether the job can do without.
    pub need: Need,
}

/// The keys of a profile. A key that is not here is refused by the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Key {
    /// A limit of the job's control group, systemd.resource-control(5).
    Control(Control),
    /// A limit of each process, systemd.exec(5).
    Limit(Resource),
    /// Variables that tell builds how many processors there are for them.
    ParallelismVariables,
    /// Read-only system directories, systemd.exec(5).
    ProtectSystem,
    /// Own /tmp and /var/tmp, as long as the job, systemd.exec(5).
    PrivateTmp,
    /// New, empty directories in memory, as long as the stage, systemd.exec(5).
    TemporaryFileSystem,
    /// Own processes only: pid namespace and /proc, systemd.exec(5) since 257.
    PrivatePIDs,
    /// Whether /proc shows processes of other users, systemd.exec(5).
    ProtectProc,
    /// Own System V IPC and message queues, systemd.exec(5).
    PrivateIPC,
    /// Session keyring, systemd.exec(5).
    KeyringMode,
    /// `no_new_privs`: setuid helpers have no effect, systemd.exec(5).
    NoNewPrivileges,
    /// Denied system calls, systemd.exec(5).
    SystemCallFilter,
    /// `native`: no calls of another ABI, systemd.exec(5).
    SystemCallArchitectures,
    /// Socket families, systemd.exec(5).
    RestrictAddressFamilies,
}

impl Key {
    /// Every key, in the order of a profile file.
    pub fn all() -> impl Iterator<Item = Self> {
        let others = [
            Self::ParallelismVariables,
            Self::ProtectSystem,
            Self::PrivateTmp,
            Self::TemporaryFileSystem,
            Self::PrivatePIDs,
            Self::ProtectProc,
            Self::PrivateIPC,
            Self::KeyringMode,
            Self::NoNewPrivileges,
            Self::SystemCallFilter,
            Self::SystemCallArchitectures,
            Self::RestrictAddressFamilies,
        ];
        let controls = Control::ALL.into_iter().map(Self::Control);
        controls.chain(Resource::ALL.into_iter().map(Self::Limit)).chain(others)
    }

    /// The key of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|key| key.to_string() == name)
    }

    /// The table of the profile file in which it stands.
    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::Control(_) | Self::Limit(_) | Self::ParallelismVariables => "job",
            Self::ProtectSystem | Self::PrivateTmp | Self::TemporaryFileSystem => "view",
            Self::PrivatePIDs
            | Self::ProtectProc
            | Self::PrivateIPC
            | Self::KeyringMode
            | Self::NoNewPrivileges => "processes",
            Self::SystemCallFilter | Self::SystemCallArchitectures => "system-calls",
            Self::RestrictAddressFamilies => "network",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control(control) => control.fmt(f),
            Self::Limit(resource) => resource.fmt(f),
            // The variants are spelled as systemd spells the keys.
            key => write!(f, "{key:?}"),
        }
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for Key {
    type Error = InvalidValue;
    fn try_from(text: String) -> Result<Self, InvalidValue> {
        Self::named(&text).ok_or(InvalidValue { text, expected: "a key of a profile" })
    }
}

/// `ProtectSystem=`, systemd.exec(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProtectSystem {
    /// /usr, /boot and /efi are read-only.
    Yes,
    /// /etc as well.
    Full,
}

impl ProtectSystem {
    /// The read-only trees.
    #[must_use]
    pub const fn trees(self) -> &'static [&'static str] {
        match self {
            Self::Yes => &["/usr", "/boot", "/efi"],
            Self::Full => &["/usr", "/boot", "/efi", "/etc"],
        }
    }
}

/// `ProtectProc=`, systemd.exec(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProtectProc {
    /// Processes of other users cannot be seen.
    Invisible,
    /// They can be seen, as far as they are in the namespace.
    Default,
}

/// `KeyringMode=`, systemd.exec(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyringMode {
    /// The runner's session keyring stays.
    Inherit,
    /// A new, empty session keyring.
    Private,
}

/// One entry of `TemporaryFileSystem=`, systemd.exec(5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemporaryFileSystem {
    /// Directory that it covers.
    pub path: String,
    /// Flags of mount(2).
    pub flags: MountFlags,
    /// Options of tmpfs(5), `mode=0755` included.
    pub options: String,
}

/// Everything that a profile can say. What is absent is off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// [`Key::Control`]
    pub resources: Resources,
    /// [`Key::Limit`]
    pub limits: BTreeMap<Resource, Setting<Rlimit>>,
    /// [`Key::ParallelismVariables`]: names, and values in which `%n` stands for the number of processors
    pub parallelism_variables: Option<Setting<Vec<(String, String)>>>,
    /// [`Key::ProtectSystem`]
    pub protect_system: Option<Setting<ProtectSystem>>,
    /// [`Key::PrivateTmp`]
    pub private_tmp: Option<Setting<()>>,
    /// [`Key::TemporaryFileSystem`]
    pub temporary_file_system: Option<Setting<Vec<TemporaryFileSystem>>>,
    /// [`Key::PrivatePIDs`]
    pub private_pids: Option<Setting<()>>,
    /// [`Key::ProtectProc`]
    pub protect_proc: Option<Setting<ProtectProc>>,
    /// [`Key::PrivateIPC`]
    pub private_ipc: Option<Setting<()>>,
    /// [`Key::KeyringMode`]
    pub keyring_mode: Option<Setting<KeyringMode>>,
    /// [`Key::NoNewPrivileges`]
    pub no_new_privileges: Option<Setting<()>>,
    /// [`Key::SystemCallFilter`], with its groups resolved
    pub system_call_filter: Option<Setting<Vec<CallRule>>>,
    /// [`Key::SystemCallArchitectures`]
    pub system_call_architectures: Option<Setting<()>>,
    /// [`Key::RestrictAddressFamilies`]
    pub restrict_address_families: Option<Setting<AddressFamilies>>,
}

/// A site's sandbox file, or a shipped one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name: the file's, without `.toml`.
    pub name: String,
    /// One sentence for people.
    pub description: String,
    /// Its values.
    pub settings: Settings,
}
