//! A host of its own for tests and for `make demo`: accounts, groups, homes, /etc, state directory and installed
//! programs, in a mount namespace.
//!
//! Nothing of the real host changes, and there is nothing to clean up: the namespace lives in processes that end when
//! the maker does (their standard input ends). Building it takes root.
//!
//! ```no_run
//! use testbed::host::{Host, Level, Place, Surroundings};
//! let host = Host::build()?;
//! let place = Place { host: &host, level: Level::Root, surroundings: Surroundings::AsItIs };
//! assert_eq!(place.run("default", "id -un").ok(), "ci1\n");
//! # anyhow::Ok(())
//! ```

mod accounts;
mod control_group;
mod furnish;
pub mod newer_calls;
mod place;
mod processes;
mod programs;
mod started;
mod tools;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
pub use jacamar_plan::Level;

pub use accounts::{Account, Accounts, CI1, CI2, KEEPER, RUNNER, SharedGroup, VERIFY};
pub use control_group::ControlGroup;
pub use furnish::Variation;
pub use place::{LEVELS, Place, Start, Surroundings};
pub use processes::{Process, alive, marked, of_namespace, wait_gone, with_descendants};
pub use programs::program;
pub use started::{PATIENCE, Ran, Started};
pub use tools::compile;

/// Where the product is installed: every user can read it.
pub const PREFIX: &str = "/srv/jacamar";
/// The same programs as the package for an ordinary account's runner installs them: `jacamar-auth` has file capabilities,
/// and only that account may start it.
pub const CAPS_PREFIX: &str = "/srv/jacamar-caps";
/// Programs of the testbed.
pub const BIN: &str = "/srv/testbed/bin";
/// Files of tests: every user can pass through it.
pub const SHARED: &str = "/srv/testbed/shared";
/// Directories of the real host that were asked for, by their names.
pub const SHOWN: &str = "/srv/testbed/shown";
/// The state directories `root` and `keeper`, of which one is bound on /var/lib/jacamar.
pub const STATE: &str = "/srv/testbed/state";
const PRIVATE: &str = "/srv/testbed/private";

/// The built host. Dropped, it is gone.
#[derive(Debug)]
pub struct Host {
    accounts: Accounts,
    base: Holder,
    variations: Mutex<BTreeMap<Variation, Holder>>,
}

/// A process that keeps a mount namespace alive and does nothing else.
#[derive(Debug)]
struct Holder(Child);

impl Host {
    /// Builds a host.
    ///
    /// # Errors
    /// Without root, without the built programs, or if the kernel refuses.
    pub fn build() -> Result<Self> {
        Self::build_with(&[])
    }

    /// Builds a host in which some directories of the real one can be seen below [`SHOWN`].
    ///
    /// # Errors
    /// As [`Host::build`].
    pub fn build_with(shown: &[String]) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!(
                "the host builder needs root: it makes a mount namespace with accounts of its own; run it with sudo"
            );
        }
        let accounts = Accounts::choose()?;
        let mut command = Command::new(program("testbed-host")?);
        command.args(["hold", &accounts.base.to_string()]).args(shown);
        let base = Holder::start(command).context("could not build the host")?;
        Ok(Self { accounts, base, variations: Mutex::default() })
    }

    /// The host of a suite, built once.
    ///
    /// # Panics
    /// If it cannot be built.
    #[must_use]
    pub fn shared() -> &'static Self {
        static HOST: LazyLock<Host> = LazyLock::new(|| match Host::build() {
            Ok(host) => host,
            Err(error) => panic!("{error:#}"),
        });
        &HOST
    }

    /// Who is on it.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// A command of root's in this host.
    #[must_use]
    pub fn as_root(&self, command: &[&str]) -> Command {
        self.command(Variation { keeper: false, no_cgroup2: false }, command)
    }

    /// Writes a profile of the site's, `/etc/jacamar/profiles.d/NAME.toml`.
    ///
    /// # Panics
    /// If that cannot be done.
    pub fn site_profile(&self, name: &str, text: &str) {
        let script =
            "mkdir -p /etc/jacamar/profiles.d && printf %s \"$2\" > \"/etc/jacamar/profiles.d/$1.toml\"";
        let wrote = Started::new(self.as_root(&["sh", "-c", script, "sh", name, text])).finish();
        assert_eq!(wrote.code, 0, "{wrote}");
    }

    /// What makes a command of root's one of an account's: setpriv(1) executes the rest of the line.
    #[must_use]
    pub fn become_user(&self, name: &str) -> Vec<String> {
        become_user(self.accounts.get(name))
    }

    /// A command of an account's in this host, with its groups and nothing else of root's.
    #[must_use]
    pub fn as_user(&self, name: &str, command: &[&str]) -> Command {
        let account = self.accounts.get(name);
        let become_user = become_user(account);
        let words: Vec<&str> =
            become_user.iter().map(String::as_str).chain(command.iter().copied()).collect();
        self.as_root(&words)
    }

    /// A command in a variation of this host. Standard input is empty and the environment has PATH alone.
    fn command(&self, variation: Variation, command: &[&str]) -> Command {
        let pid = self.holder(variation);
        let mut whole = Command::new("nsenter");
        whole.arg(format!("--mount=/proc/{pid}/ns/mnt")).arg("--").args(command);
        whole.env_clear().env("PATH", PATH).stdin(Stdio::null());
        whole
    }

    fn holder(&self, variation: Variation) -> u32 {
        if !variation.keeper && !variation.no_cgroup2 {
            return self.base.0.id();
        }
        let mut variations = self.variations.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = variations.entry(variation).or_insert_with(|| {
            let (keeper, no_cgroup2) = (variation.keeper.to_string(), variation.no_cgroup2.to_string());
            let vary = self.as_root(&[&format!("{BIN}/testbed-host"), "vary", &keeper, &no_cgroup2]);
            Holder::start(vary).unwrap_or_else(|error| panic!("could not vary the host: {error:#}"))
        });
        holder.0.id()
    }
}

/// Root's PATH on the built host.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// From root to an account: setpriv(1) executes the rest of the line.
fn become_user(account: &Account) -> Vec<String> {
    [
        "setpriv".into(),
        format!("--reuid={}", account.uid),
        format!("--regid={}", account.gid),
        "--init-groups".into(),
        "--".into(),
    ]
    .into()
}

impl Holder {
    fn start(mut command: Command) -> Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let child = child.with_context(|| format!("could not start {command:?}"))?;
        let mut holder = Self(child);
        let mut line = String::new();
        let output = holder.0.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut line).context("could not read")?;
        if line != "ready\n" {
            bail!("its holder ended (its message stands above)");
        }
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let (Ok(()), Ok(_)) = (self.0.kill(), self.0.wait()) {}
    }
}

/// The side of the program `testbed-host` that keeps a namespace: `hold BASE [DIRECTORY...]` or `vary KEEPER
/// NO-CGROUP2`; `None` for any other command line.
///
/// # Errors
/// What could not be made.
#[must_use]
pub fn holder_main(arguments: &[String]) -> Option<Result<()>> {
    let result = match arguments {
        [word, base, shown @ ..] if word == "hold" => base
            .parse()
            .context("the first id of a block")
            .and_then(|base| furnish::base(&Accounts::at(base), shown)),
        [word, keeper, no_cgroup2] if word == "vary" => {
            furnish::vary(Variation { keeper: keeper == "true", no_cgroup2: no_cgroup2 == "true" })
        }
        _ => return None,
    };
    Some(result.and_then(|()| furnish::hold()))
}
