//! getpwnam(3), getpwuid(3), getgrouplist(3) and getgrgid(3).

use std::ffi::CString;
use std::io;
use std::path::Path;

use jacamar_plan::Account;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getgrouplist};

/// Longest name of an account, in bytes (LOGIN_NAME_MAX of limits.h).
const NAME_MAX_BYTES: usize = 256;
/// Longest home directory or shell, in bytes: PATH_MAX without its NUL (limits.h).
const PATH_MAX_BYTES: usize = 4095;
/// `(uid_t) -1`: to system calls it means "unchanged" (setreuid(2)), so no account has it.
const NO_ID: u32 = u32::MAX;

/// An account and the names of its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The account, named as the name service names it (which may differ in case from what was asked).
    pub account: Account,
    /// Its groups in the order of `account.groups`.
    pub groups: Vec<Group>,
}

/// One group of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Group id.
    pub gid: u32,
    /// Its name.
    pub name: GroupName,
}

/// What the name service says about a group's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupName {
    /// It has this one.
    Named(String),
    /// It has none.
    Unnamed,
    /// The service failed (a group with very many members among other reasons): a rule that needs the name
    /// can only refuse.
    Failed(String),
}

/// The name service gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum NssError {
    /// The text cannot be the name of an account: empty, longer than 256 bytes, `.`, `..`, or with a slash,
    /// a colon, a comma, spaces or control characters (passwd(5)).
    #[error("{name:?} cannot be the name of an account")]
    NotAName {
        /// The text, shortened.
        name: String,
    },
    /// The service failed. That an account is missing is no failure.
    #[error("{call}({object})")]
    Call {
        /// Name of the call.
        call: &'static str,
        /// What it was asked for.
        object: String,
        /// Its error.
        source: io::Error,
    },
    /// The entry has a field that no account can have.
    #[error("the passwd entry of {name:?} has {field} that cannot be used")]
    Unusable {
        /// The account.
        name: String,
        /// Which field.
        field: &'static str,
    },
}

/// Looks an account up by its name, with all its groups.
///
/// `None` is the libc's clear "no such account". getgrouplist(3) cannot tell a failing service from one that
/// knows no more groups: what it gives is the list.
///
/// # Errors
/// [`NssError`]
pub fn lookup(name: &str) -> Result<Option<Found>, NssError> {
    let c_name = account_name(name)?;
    let failed =
        |call, object: String, errno: Errno| NssError::Call { call, object, source: io::Error::from(errno) };
    let Some(user) = User::from_name(name).map_err(|errno| failed("getpwnam", format!("{name:?}"), errno))?
    else {
        return Ok(None);
    };
    let listed = getgrouplist(&c_name, user.gid)
        .map_err(|errno| failed("getgrouplist", format!("{name:?}"), errno))?;
    let account = usable(user, &listed)?;
    let groups = account.groups.iter().map(|&gid| Group { gid, name: group_name(gid) }).collect();
    Ok(Some(Found { account, groups }))
}

/// Whether an account still has this uid. A clear no refuses a later stage, an error does not.
///
/// # Errors
/// [`NssError::Call`]
pub fn exists(uid: u32) -> Result<bool, NssError> {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(user) => Ok(user.is_some()),
        Err(errno) => {
            Err(NssError::Call { call: "getpwuid", object: uid.to_string(), source: io::Error::from(errno) })
        }
    }
}

/// Refuses what would be another field, another path or another word where the name is used.
fn account_name(name: &str) -> Result<CString, NssError> {
    let not_a_name = || NssError::NotAName { name: name.chars().take(64).collect() };
    let bad = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | ':' | ',');
    if name.is_empty() || name.len() > NAME_MAX_BYTES || matches!(name, "." | "..") || name.contains(bad) {
        return Err(not_a_name());
    }
    CString::new(name).map_err(|_| not_a_name())
}

fn usable(user: User, listed: &[Gid]) -> Result<Account, NssError> {
    let unusable = |field| NssError::Unusable { name: user.name.clone(), field };
    // The binding replaces what is not UTF-8 by this character.
    if account_name(&user.name).is_err() || user.name.contains(char::REPLACEMENT_CHARACTER) {
        return Err(unusable("a name"));
    }
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    let mut groups: Vec<u32> = listed.iter().map(|gid| gid.as_raw()).collect();
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    if uid == NO_ID {
        return Err(unusable("a uid"));
    }
    if groups.contains(&NO_ID) {
        return Err(unusable("a gid"));
    }
    let home = path_text(&user.dir).ok_or_else(|| unusable("a home directory"))?;
    let shell = path_text(&user.shell).ok_or_else(|| unusable("a shell"))?;
    Ok(Account { name: user.name, uid, gid, groups, home, shell })
}

/// UTF-8 of one line. Empty is possible: an empty shell means /bin/sh (passwd(5)).
fn path_text(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    (text.len() <= PATH_MAX_BYTES && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

fn group_name(gid: u32) -> GroupName {
    match nix::unistd::Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) if group.name.contains(char::REPLACEMENT_CHARACTER) => {
            GroupName::Failed("its name is not UTF-8".to_owned())
        }
        Ok(Some(group)) => GroupName::Named(group.name),
        Ok(None) => GroupName::Unnamed,
        Err(errno) => GroupName::Failed(format!("getgrgid({gid}): {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::path::PathBuf;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn user() -> User {
        User {
            name: "alice".to_owned(),
            passwd: CString::default(),
            uid: Uid::from_raw(1000),
            gid: Gid::from_raw(1000),
            gecos: CString::default(),
            dir: PathBuf::from("/home/alice"),
            shell: PathBuf::from("/bin/bash"),
        }
    }

    fn gids(raw: &[u32]) -> Vec<Gid> {
        raw.iter().map(|&gid| Gid::from_raw(gid)).collect()
    }

    #[test]
    fn finds_root_as_id_shows_it() {
        let id = |option: &str| {
            let output = Command::new("id").args([option, "root"]).output().expect("id");
            let mut words: Vec<String> = String::from_utf8(output.stdout)
                .expect("UTF-8")
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            words.sort();
            words
        };
        let found = lookup("root").expect("NSS").expect("root is in passwd");
        assert_eq!((found.account.uid, found.account.gid, found.account.name.as_str()), (0, 0, "root"));
        let mut numbers: Vec<String> = found.account.groups.iter().map(u32::to_string).collect();
        numbers.sort();
        assert_eq!(numbers, id("-G"));
        let mut names: Vec<String> = found
            .groups
            .iter()
            .map(|group| match &group.name {
                GroupName::Named(name) => name.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        names.sort();
        assert_eq!(names, id("-Gn"));
    }

    #[test]
    fn a_missing_account_is_no_error() {
        assert_eq!(lookup("no-such-account-here").expect("NSS"), None);
        assert!(exists(0).expect("NSS"));
        assert!(!exists(NO_ID - 7).expect("NSS"));
    }

    #[test]
    fn a_group_without_a_name_is_unnamed() {
        assert_eq!(group_name(NO_ID - 7), GroupName::Unnamed);
    }

    #[test]
    fn what_cannot_be_a_name_is_never_asked_for() {
        for name in
            ["", ".", "..", "a/b", "../etc", "a b", "a\0b", "a\nb", "a:b", "a,b", "\u{a0}", &"a".repeat(257)]
        {
            assert!(matches!(lookup(name), Err(NssError::NotAName { .. })), "{name:?}");
        }
        assert_eq!(
            lookup("a\0b").expect_err("NUL").to_string(),
            "\"a\\0b\" cannot be the name of an account"
        );
    }

    #[test]
    fn groups_are_sorted_once_each_and_include_the_primary() {
        let account = usable(user(), &gids(&[30, 7, 30, 12])).expect("usable");
        assert_eq!(account.groups, [7, 12, 30, 1000]);
        assert_eq!(usable(user(), &gids(&[1000])).expect("usable").groups, [1000]);
    }

    #[test]
    fn entries_that_no_account_can_have_are_refused() {
        let long = PathBuf::from(format!("/{}", "x".repeat(PATH_MAX_BYTES)));
        for (user, listed, field) in [
            (User { uid: Uid::from_raw(NO_ID), ..user() }, vec![], "a uid"),
            (User { gid: Gid::from_raw(NO_ID), ..user() }, vec![], "a gid"),
            (user(), vec![NO_ID], "a gid"),
            (User { name: "a/b".to_owned(), ..user() }, vec![], "a name"),
            (User { name: "a\u{fffd}b".to_owned(), ..user() }, vec![], "a name"),
            (User { dir: PathBuf::from("/home/\nx"), ..user() }, vec![], "a home directory"),
            (User { dir: long, ..user() }, vec![], "a home directory"),
            (User { shell: PathBuf::from("/bin/\u{7f}"), ..user() }, vec![], "a shell"),
        ] {
            match usable(user, &gids(&listed)) {
                Err(NssError::Unusable { field: found, .. }) => assert_eq!(found, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_one_word_and_one_part_of_a_path(name in "\\PC*|[a-z./: ]{0,8}") {
            if account_name(&name).is_ok() {
                prop_assert_eq!(std::path::Path::new(&name).components().count(), 1);
                prop_assert_eq!(name.split_whitespace().count(), 1);
                prop_assert!(name.len() <= NAME_MAX_BYTES);
            }
        }
    }
}
