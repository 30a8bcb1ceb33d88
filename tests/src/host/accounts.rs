//! The accounts of the built host: ids that no account of the real host has.

use anyhow::{Result, bail};
use nix::unistd::{Gid, Group, Uid, User};

/// An account of the built host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: &'static str,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one included, sorted.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: &'static str,
}

/// A group of the built host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedGroup {
    /// Its name.
    pub name: &'static str,
    /// Its id.
    pub gid: u32,
    /// Who is in it.
    pub members: Vec<&'static str>,
}

/// Everyone on the built host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// The first id of the block.
    pub base: u32,
    /// `jacamar-verify`, `jacamar` (the keeper), `gitlab-runner`, `ci1`, `ci2`.
    pub accounts: Vec<Account>,
    /// Groups of projects, none of them anyone's primary one.
    pub groups: Vec<SharedGroup>,
}

/// Name of the account that checks tokens.
pub const VERIFY: &str = "jacamar-verify";
/// Name of the keeper.
pub const KEEPER: &str = "jacamar";
/// Name of the runner's account.
pub const RUNNER: &str = "gitlab-runner";
/// The CI user of most tests.
pub const CI1: &str = "ci1";
/// Another CI user.
pub const CI2: &str = "ci2";

/// How many ids a block has.
const BLOCK: u32 = 64;
/// Blocks that are tried: above every range that login.defs of a distribution gives out by default, below the subordinate ids.
const BASES: [u32; 6] = [52_001, 54_001, 56_001, 58_001, 46_001, 44_001];

impl Accounts {
    /// Chooses a block of ids of which the name service of this host knows none.
    ///
    /// # Errors
    /// If every block has an id that is taken, or the name service fails.
    pub fn choose() -> Result<Self> {
        for base in BASES {
            if is_free(base)? {
                return Ok(Self::at(base));
            }
        }
        bail!("none of the id blocks {BASES:?} (of {BLOCK} ids) is free on this host")
    }

    /// The accounts of a block.
    #[must_use]
    pub fn at(base: u32) -> Self {
        let group = |name, offset, members: &[&'static str]| SharedGroup {
            name,
            gid: base + offset,
            members: members.to_vec(),
        };
        // Neighbours and not: the identity map merges the first two.
        let groups = vec![
            group("proj-a", 21, &[CI1, CI2]),
            group("proj-b", 22, &[CI1]),
            group("proj-c", 30, &[CI1]),
            group("proj-other", 40, &[CI2]),
        ];
        let account = |name: &'static str, offset, home: String, shell| {
            let gid = base + offset;
            let shared = groups.iter().filter(|group| group.members.contains(&name)).map(|group| group.gid);
            let mut all: Vec<u32> = std::iter::once(gid).chain(shared).collect();
            all.sort_unstable();
            Account { name, uid: gid, gid, groups: all, home, shell }
        };
        let nologin = "/usr/sbin/nologin";
        let accounts = vec![
            account(VERIFY, 0, "/".into(), nologin),
            account(KEEPER, 1, "/".into(), nologin),
            account(RUNNER, 2, format!("/home/{RUNNER}"), "/bin/bash"),
            account(CI1, 10, format!("/home/{CI1}"), "/bin/bash"),
            account(CI2, 11, format!("/home/{CI2}"), "/bin/bash"),
        ];
        Self { base, accounts, groups }
    }

    /// An account by its name.
    ///
    /// # Panics
    /// If there is none: a mistake in a test.
    #[must_use]
    pub fn get(&self, name: &str) -> &Account {
        self.accounts.iter().find(|account| account.name == name).expect("an account of the built host")
    }

    /// A group of projects by its name.
    ///
    /// # Panics
    /// If there is none: a mistake in a test.
    #[must_use]
    pub fn group(&self, name: &str) -> &SharedGroup {
        self.groups.iter().find(|group| group.name == name).expect("a group of the built host")
    }

    /// Lines of passwd(5), shadow(5) and group(5).
    pub(super) fn files(&self) -> [Vec<String>; 3] {
        let passwd = |a: &Account| format!("{}:x:{}:{}::{}:{}", a.name, a.uid, a.gid, a.home, a.shell);
        let own = |a: &Account| format!("{}:x:{}:", a.name, a.gid);
        let shared = |g: &SharedGroup| format!("{}:x:{}:{}", g.name, g.gid, g.members.join(","));
        [
            self.accounts.iter().map(passwd).collect(),
            // `*`: no password, but not locked, so that sshd accepts a key.
            self.accounts.iter().map(|a| format!("{}:*:19000:0:99999:7:::", a.name)).collect(),
            self.accounts.iter().map(own).chain(self.groups.iter().map(shared)).collect(),
        ]
    }
}

fn is_free(base: u32) -> Result<bool> {
    for id in base..base + BLOCK {
        if User::from_uid(Uid::from_raw(id))?.is_some() || Group::from_gid(Gid::from_raw(id))?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_every_id_once() {
        let all = Accounts::at(1000);
        let mut ids: Vec<u32> =
            all.accounts.iter().map(|a| a.gid).chain(all.groups.iter().map(|g| g.gid)).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert!(ids.iter().all(|id| (1000..1000 + BLOCK).contains(id)), "{ids:?}");
        assert_eq!(all.get(CI1).groups, [1010, 1021, 1022, 1030]);
    }
}
