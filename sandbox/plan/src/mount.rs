//! One mount, as mount(2) takes it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Flags of mount(2) that a plan uses. Values are those of the kernel's `include/uapi/linux/mount.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags(pub u64);

impl MountFlags {
    /// `MS_RDONLY`
    pub const RDONLY: Self = Self(1);
    /// `MS_NOSUID`
    pub const NOSUID: Self = Self(1 << 1);
    /// `MS_NODEV`
    pub const NODEV: Self = Self(1 << 2);
    /// `MS_NOEXEC`
    pub const NOEXEC: Self = Self(1 << 3);
    /// `MS_REMOUNT`
    pub const REMOUNT: Self = Self(1 << 5);
    /// `MS_NOATIME`
    pub const NOATIME: Self = Self(1 << 10);
    /// `MS_NODIRATIME`
    pub const NODIRATIME: Self = Self(1 << 11);
    /// `MS_BIND`
    pub const BIND: Self = Self(1 << 12);
    /// `MS_REC`
    pub const REC: Self = Self(1 << 14);
    /// `MS_SLAVE`
    pub const SLAVE: Self = Self(1 << 19);
    /// `MS_RELATIME`
    pub const RELATIME: Self = Self(1 << 21);
    /// `MS_STRICTATIME`
    pub const STRICTATIME: Self = Self(1 << 24);

    /// In the order in which strace(1) prints them.
    const NAMES: [(Self, &'static str); 12] = [
        (Self::RDONLY, "MS_RDONLY"),
        (Self::NOSUID, "MS_NOSUID"),
        (Self::NODEV, "MS_NODEV"),
        (Self::NOEXEC, "MS_NOEXEC"),
        (Self::REMOUNT, "MS_REMOUNT"),
        (Self::NOATIME, "MS_NOATIME"),
        (Self::NODIRATIME, "MS_NODIRATIME"),
        (Self::BIND, "MS_BIND"),
        (Self::REC, "MS_REC"),
        (Self::SLAVE, "MS_SLAVE"),
        (Self::RELATIME, "MS_RELATIME"),
        (Self::STRICTATIME, "MS_STRICTATIME"),
    ];

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are in this set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for MountFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut any = false;
        for (flag, name) in Self::NAMES {
            if self.has(flag) {
                write!(f, "{}{name}", if any { "|" } else { "" })?;
                any = true;
            }
        }
        if any { Ok(()) } else { f.write_str("0") }
    }
}

/// One mount of the view, in place over the host's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mount {
    /// A directory of the host appears elsewhere. The source is opened as the user.
    Bind {
        /// Directory, opened before the first mount hides anything.
        source: String,
        /// Canonical path of the directory that it covers.
        target: String,
        /// What mounts below it do.
        recursive: bool,
    },
    /// A mount made before this one becomes read-only, and what is mounted below it as well.
    ReadOnly {
        /// The mounts, outermost first, each with the flags that the kernel insists on.
        mounts: Vec<Submount>,
    },
    /// A new tmpfs, tmpfs(5).
    Tmpfs {
        /// Canonical path of the directory that it covers.
        target: String,
        /// `MS_NOSUID` and the like.
        flags: MountFlags,
        /// `mode=1777,size=50%`.
        options: String,
    },
    /// The POSIX message queues of the new ipc namespace, mq_overview(7).
    Mqueue {
        /// Canonical path of the directory that it covers.
        target: String,
    },
    /// The procfs of the new pid namespace, proc(5). Always last: descriptors are named by the host's.
    Proc {
        /// `hidepid=2` or empty.
        options: String,
    },
}

/// A mount that is made read-only by a remount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submount {
    /// Where.
    pub target: String,
    /// Its flags on the host, which the remount repeats (in a user namespace they are locked).
    pub flags: MountFlags,
}

impl Mount {
    /// Flags of every `Mount::Proc` and `Mount::Mqueue`.
    pub const PSEUDO: MountFlags = MountFlags::NOSUID.and(MountFlags::NODEV).and(MountFlags::NOEXEC);

    /// Where it is mounted, for messages.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } | Self::Mqueue { target } => target,
            Self::ReadOnly { mounts } => mounts.first().map_or("", |m| &m.target),
            Self::Proc { .. } => "/proc",
        }
    }

    /// The mount(2) calls, in the words of strace(1) with paths in place of descriptors.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        match self {
            Self::Bind { source, target, recursive } => {
                let flags = if *recursive { MountFlags::BIND.and(MountFlags::REC) } else { MountFlags::BIND };
                vec![format!("mount({source:?}, {target:?}, NULL, {flags}, NULL)")]
            }
            Self::ReadOnly { mounts } => mounts
                .iter()
                .map(|m| format!("mount(NULL, {:?}, NULL, {}, NULL)", m.target, m.remount_flags()))
                .collect(),
            Self::Tmpfs { target, flags, options } => {
                vec![format!("mount(\"tmpfs\", {target:?}, \"tmpfs\", {flags}, {options:?})")]
            }
            Self::Mqueue { target } => {
                vec![format!("mount(\"mqueue\", {target:?}, \"mqueue\", {}, NULL)", Self::PSEUDO)]
            }
            Self::Proc { options } => {
                vec![format!("mount(\"proc\", \"/proc\", \"proc\", {}, {options:?})", Self::PSEUDO)]
            }
        }
    }
}

impl Submount {
    /// What mount(2) gets: its own flags, read-only.
    #[must_use]
    pub fn remount_flags(&self) -> MountFlags {
        self.flags.and(MountFlags::RDONLY).and(MountFlags::REMOUNT).and(MountFlags::BIND)
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { source, target, .. } if source == target => write!(f, "bind {target} on itself"),
            Self::Bind { source, target, .. } => write!(f, "bind {source} on {target}"),
            Self::ReadOnly { mounts } => {
                write!(f, "make {} read-only", self.target())?;
                match mounts.len() {
                    0 | 1 => Ok(()),
                    2 => f.write_str(" with 1 mount below it"),
                    n => write!(f, " with {} mounts below it", n - 1),
                }
            }
            Self::Tmpfs { target, options, .. } => write!(f, "mount tmpfs on {target} ({options})"),
            Self::Mqueue { target } => write!(f, "mount mqueue on {target}"),
            Self::Proc { options } if options.is_empty() => f.write_str("mount proc on /proc"),
            Self::Proc { options } => write!(f, "mount proc on /proc ({options})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_printed_as_strace_prints_them() {
        assert_eq!(MountFlags::default().to_string(), "0");
        assert_eq!(MountFlags::BIND.and(MountFlags::REC).to_string(), "MS_BIND|MS_REC");
    }

    #[test]
    fn a_remount_keeps_the_flags_of_the_host() {
        let mount = Submount { target: "/usr".into(), flags: MountFlags::NODEV.and(MountFlags::RELATIME) };
        assert_eq!(mount.remount_flags().to_string(), "MS_RDONLY|MS_NODEV|MS_REMOUNT|MS_BIND|MS_RELATIME");
    }
}
