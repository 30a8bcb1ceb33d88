//! What the host says, before anyone judged it.

use jacamar_contract::text::is_shown;
use jacamar_plan::Account;

/// What NSS and the host said.
///
/// "No such account" is an answer; an error of NSS (a directory server that is down) is none. The caller then has
/// no facts and the stage is broken, so that an outage never looks like a user without an account, nor like an
/// account without its blocked group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountFacts {
    /// The account of the candidate's name.
    pub lookup: Lookup,
    /// The host's nologin file, if there is one.
    pub nologin: Option<Nologin>,
    /// Accounts that are nobody's to run jobs as.
    pub host: HostAccounts,
}

/// What getpwnam(3) answered for the candidate's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A clear no.
    NoSuchAccount,
    /// The account.
    Found(FoundAccount),
}

/// An account and the names of its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundAccount {
    /// The account, with every group of getgrouplist(3).
    pub account: Account,
    /// The name of each of these groups that has one, the primary group's included. A gid for which NSS clearly
    /// knows no name is left out; an error for any gid is an error for all.
    pub group_names: Vec<String>,
}

/// Accounts that are nobody's to run jobs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAccounts {
    /// Who started us: the real uid's account.
    pub runner: Account,
    /// Uids of the keeper and of `jacamar-verify`, where the host has them.
    pub own_uids: Vec<u32>,
}

/// A nologin file: nologin(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nologin {
    /// `/etc/nologin` or `/run/nologin`.
    pub path: String,
    /// Its text. At most [`NOLOGIN_TEXT_MAX_BYTES`] are shown.
    pub text: String,
}

/// How much of a nologin file's text is shown, in bytes.
pub const NOLOGIN_TEXT_MAX_BYTES: usize = 1024;

impl Nologin {
    /// Its text in one line.
    pub(crate) fn shown(&self) -> String {
        let mut line = String::new();
        for word in self.text.split_whitespace() {
            if line.len() + word.len() >= NOLOGIN_TEXT_MAX_BYTES {
                line.push_str(" ...");
                break;
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(word.chars().filter(|character| is_shown(*character)));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nologin_text_is_one_bounded_line() {
        let shown = |text: &str| Nologin { path: String::new(), text: text.to_owned() }.shown();
        assert_eq!(shown("  Maintenance\nuntil\t12:00\n"), "Maintenance until 12:00");
        assert_eq!(shown(""), "");
        assert_eq!(shown("a\x1b[2Jb"), "a[2Jb");
        assert!(shown(&"down ".repeat(10_000)).len() <= NOLOGIN_TEXT_MAX_BYTES + 4);
    }
}
