//! One of the places in which a promise must hold: a level of privilege, and what is around it.

use std::process::Command;

use jacamar_plan::Level;

use super::{Account, BIN, CI1, Host, KEEPER, PREFIX, RUNNER, Ran, Started, Variation, become_user};

/// All levels.
pub const LEVELS: [Level; 3] = [Level::Root, Level::Capabilities, Level::User];

/// What is around the launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surroundings {
    /// This host.
    AsItIs,
    /// A parent filter answers ENOSYS to all that is newer than Linux 4.18.
    OldKernel,
    /// A parent filter answers EPERM to it, as containers do.
    Container,
    /// No cgroup v2 file system is mounted.
    NoCgroup2,
}

/// A level on a host, with what is around it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'h> {
    /// The host.
    pub host: &'h Host,
    /// Which program is started, by whom.
    pub level: Level,
    /// What is around it.
    pub surroundings: Surroundings,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "level {}, {:?}", self.level, self.surroundings)
    }
}

/// A launch that is about to be started.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Name of the profile.
    pub profile: &'a str,
    /// The CI user.
    pub user: &'a str,
    /// A line of sh(1) that the starting account runs before it becomes the launcher: umask, trap, exec, cd.
    pub before: &'a str,
    /// A command that root runs and that executes the rest: strace, setpriv, prlimit.
    pub under: &'a [&'a str],
    /// The command of the job.
    pub command: &'a [&'a str],
}

impl Default for Start<'_> {
    fn default() -> Self {
        Self { profile: "default", user: CI1, before: ":", under: &[], command: &["true"] }
    }
}

impl<'h> Place<'h> {
    /// The three levels with the same surroundings.
    #[must_use]
    pub fn levels(host: &'h Host, surroundings: Surroundings) -> [Self; 3] {
        LEVELS.map(|level| Self { host, level, surroundings })
    }

    /// The CI user of [`Place::run`].
    #[must_use]
    pub fn user(&self) -> &'h Account {
        self.host.accounts.get(CI1)
    }

    /// Runs a script of sh(1) in the sandbox, as `ci1`, and waits for its end.
    ///
    /// # Panics
    /// If it cannot be started or does not end.
    #[track_caller]
    #[must_use]
    pub fn run(&self, profile: &str, script: &str) -> Ran {
        self.start(&Start { profile, command: &["sh", "-c", script], ..Start::default() }).finish()
    }

    /// Starts a launch.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    #[must_use]
    pub fn start(&self, start: &Start<'_>) -> Started {
        Started::new(self.command(start))
    }

    /// The command line of a launch.
    #[must_use]
    pub fn command(&self, start: &Start<'_>) -> Command {
        let accounts = &self.host.accounts;
        let keeper = accounts.get(KEEPER).uid.to_string();
        let starter = match self.level {
            Level::Root => None,
            Level::Capabilities => Some(accounts.get(RUNNER)),
            Level::User => Some(accounts.get(start.user)),
        };
        let mut words = self.surrounding();
        words.extend(start.under.iter().map(|word| (*word).to_owned()));
        let home = starter.map_or("/root", |account| account.home.as_str());
        if let Some(account) = starter {
            words.extend(become_user(account));
        }
        words.extend(["sh".into(), "-c".into(), format!("{}\nexec \"$@\"", start.before), "sh".into()]);
        words.extend(self.launcher(&keeper, start));
        words.extend(start.command.iter().map(|word| (*word).to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = self.host.command(self.variation(), &words);
        command.env("HOME", home);
        command
    }

    /// A command of the CI user's with the same surroundings, but not in the sandbox.
    #[must_use]
    pub fn beside(&self, command: &[&str]) -> Command {
        let mut words = self.surrounding();
        words.extend(become_user(self.user()));
        words.extend(command.iter().map(|word| (*word).to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = self.host.command(self.variation(), &words);
        command.env("HOME", &self.user().home);
        command
    }

    /// What executes the rest of the line with the surroundings.
    fn surrounding(&self) -> Vec<String> {
        let filter =
            |errno: &str| vec![format!("{BIN}/old-kernel"), "--errno".into(), errno.into(), "--".into()];
        match self.surroundings {
            Surroundings::OldKernel => filter("ENOSYS"),
            Surroundings::Container => filter("EPERM"),
            Surroundings::AsItIs | Surroundings::NoCgroup2 => Vec::new(),
        }
    }

    /// Program and arguments up to the job's command.
    fn launcher(&self, keeper: &str, start: &Start<'_>) -> Vec<String> {
        let product = |name: &str| format!("{PREFIX}/bin/{name}");
        let (user, profile) = (start.user.to_owned(), start.profile.to_owned());
        let words = match self.level {
            Level::Root => {
                vec![
                    product("jacamar-auth"),
                    "exec".into(),
                    "--user".into(),
                    user,
                    "--profile".into(),
                    profile,
                ]
            }
            Level::Capabilities => vec![format!("{BIN}/capability-level"), keeper.to_owned(), user, profile],
            Level::User => vec![product("jacamar"), "exec".into(), "--profile".into(), profile],
        };
        words.into_iter().chain(["--".into()]).collect()
    }

    /// The state directory of this level, as the host sees it; at user level below the home directory.
    #[must_use]
    pub fn state(&self, user: &str) -> String {
        match self.level {
            Level::Root => format!("{}/root", super::STATE),
            Level::Capabilities => format!("{}/keeper", super::STATE),
            Level::User => format!("{}/.local/state/jacamar", self.host.accounts.get(user).home),
        }
    }

    fn variation(&self) -> Variation {
        Variation {
            keeper: self.level == Level::Capabilities,
            no_cgroup2: self.surroundings == Surroundings::NoCgroup2,
        }
    }
}
