//! Why a file is not believed, and what mends it.

use std::fmt;
use std::io;

use super::{FILE_MAX_BYTES, Trust};

/// A file is not believed or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// The path does not begin at the root: it would depend on the working directory.
    #[error("{path:?} is not an absolute path")]
    Relative {
        /// The path as given.
        path: String,
    },
    /// A system call failed.
    #[error("{call}({path:?})")]
    Call {
        /// Name of the call.
        call: &'static str,
        /// What it was called with.
        path: String,
        /// Its error.
        source: io::Error,
    },
    /// Others could have changed this part of the path.
    #[error("{0}")]
    Exposed(Exposed),
    /// The path leads to something else than a regular file.
    #[error("{path} is {kind}, not a regular file")]
    NotRegular {
        /// Without links.
        path: String,
        /// What it is.
        kind: FileKind,
    },
    /// The file is larger than [`FILE_MAX_BYTES`].
    #[error("{path} has more than {FILE_MAX_BYTES} bytes")]
    TooLarge {
        /// The path as given.
        path: String,
    },
    /// The path has more links than the kernel would follow (path_resolution(7)).
    #[error("{path} leads through more than 40 symbolic links")]
    TooManyLinks {
        /// The path as given.
        path: String,
    },
    /// The file is no text.
    #[error("{path}:{line}: not UTF-8")]
    NotUtf8 {
        /// The path as given.
        path: String,
        /// The line of the first wrong byte, from 1.
        line: usize,
    },
    /// The program has no execute bit.
    #[error("{path} is not executable")]
    NotExecutable {
        /// Without links.
        path: String,
    },
}

impl Untrusted {
    /// What to type, each command on a line of its own; empty where nothing can be said.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Exposed(exposed) => exposed.mend(),
            Self::NotExecutable { path } => format!("chmod 0755 {}", quoted(path)),
            Self::Relative { .. }
            | Self::Call { .. }
            | Self::NotRegular { .. }
            | Self::TooLarge { .. }
            | Self::TooManyLinks { .. }
            | Self::NotUtf8 { .. } => String::new(),
        }
    }

    /// Whether the caller owns it and can mend it: at the user level.
    #[must_use]
    pub fn is_the_callers(&self) -> bool {
        matches!(self, Self::Exposed(Exposed { trust: Trust::Caller(caller), uid, .. }) if caller == uid)
    }
}

/// A part of a path that others than the trusted ones own or can write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The part, without links in the directories above it.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Its owner.
    pub uid: u32,
    /// Its mode, the twelve lower bits.
    pub mode: u32,
    /// Who was believed.
    pub trust: Trust,
}

/// What the two write bits of a mode for others than the owner are.
const WRITE_BY_OTHERS: u32 = 0o022;

impl Exposed {
    /// Whether the owner is trusted.
    #[must_use]
    pub fn owner_is_trusted(&self) -> bool {
        self.trust.includes(self.uid)
    }

    /// Whether somebody who is not the owner can write. A link's own mode says nothing (symlink(7)).
    #[must_use]
    pub fn is_writable_by_others(&self) -> bool {
        self.kind != FileKind::Link && self.mode & WRITE_BY_OTHERS != 0
    }

    /// A directory like /tmp: who took its mode away would break the host.
    fn is_everybodys(&self) -> bool {
        self.kind == FileKind::Directory && self.mode & 0o1002 == 0o1002
    }

    /// The commands that mend it.
    #[must_use]
    pub fn mend(&self) -> String {
        let path = quoted(&self.path);
        let mut commands = Vec::new();
        if !self.owner_is_trusted() {
            let option = if self.kind == FileKind::Link { "-h " } else { "" };
            commands.push(format!("chown {option}root:root {path}"));
        }
        if self.is_writable_by_others() {
            commands.push(match self.is_everybodys() {
                true => {
                    format!("# {path} is for everybody's files: move what lies below it, as to /etc/jacamar")
                }
                false => format!("chmod go-w {path}"),
            });
        }
        commands.join("\n")
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path, self.kind)?;
        if !self.owner_is_trusted() {
            match self.trust {
                Trust::RootOnly => write!(f, " belongs to uid {}, not to root", self.uid)?,
                Trust::Caller(caller) => {
                    write!(f, " belongs to uid {}, neither to root nor to uid {caller}", self.uid)?;
                }
            }
        }
        if self.is_writable_by_others() {
            let and = if self.owner_is_trusted() { "" } else { " and" };
            write!(f, "{and} can be written by others (mode {:04o})", self.mode)?;
        }
        Ok(())
    }
}

/// What a name in a directory stands for (inode(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file with contents.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A device.
    Device,
    /// Something this program does not know.
    Unknown,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regular => "a file",
            Self::Directory => "a directory",
            Self::Link => "a symbolic link",
            Self::Pipe => "a named pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
            Self::Unknown => "of an unknown kind",
        })
    }
}

/// A path as the shell reads it back.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        return path.to_owned();
    }
    format!("'{}'", path.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(kind: FileKind, uid: u32, mode: u32, trust: Trust) -> Untrusted {
        Untrusted::Exposed(Exposed { path: "/etc/it's".to_owned(), kind, uid, mode, trust })
    }

    #[test]
    fn says_what_is_exposed_and_what_mends_it() {
        for (error, words, mend) in [
            (
                exposed(FileKind::Regular, 1000, 0o644, Trust::RootOnly),
                "/etc/it's (a file) belongs to uid 1000, not to root",
                r"chown root:root '/etc/it'\''s'",
            ),
            (
                exposed(FileKind::Directory, 0, 0o1777, Trust::RootOnly),
                "/etc/it's (a directory) can be written by others (mode 1777)",
                r"# '/etc/it'\''s' is for everybody's files: move what lies below it, as to /etc/jacamar",
            ),
            (
                exposed(FileKind::Directory, 0, 0o777, Trust::RootOnly),
                "/etc/it's (a directory) can be written by others (mode 0777)",
                r"chmod go-w '/etc/it'\''s'",
            ),
            (
                exposed(FileKind::Regular, 7, 0o664, Trust::Caller(1000)),
                "/etc/it's (a file) belongs to uid 7, neither to root nor to uid 1000 and can be written by others \
                 (mode 0664)",
                "chown root:root '/etc/it'\\''s'\nchmod go-w '/etc/it'\\''s'",
            ),
            (
                exposed(FileKind::Link, 7, 0o777, Trust::RootOnly),
                "/etc/it's (a symbolic link) belongs to uid 7, not to root",
                r"chown -h root:root '/etc/it'\''s'",
            ),
        ] {
            assert_eq!((error.to_string().as_str(), error.hint().as_str()), (words, mend));
        }
    }

    #[test]
    fn quotes_only_what_a_shell_would_change() {
        assert_eq!(quoted("/etc/jacamar/site.toml"), "/etc/jacamar/site.toml");
        assert_eq!(quoted("/a b"), "'/a b'");
        assert_eq!(quoted("/$(x)"), "'/$(x)'");
    }
}
