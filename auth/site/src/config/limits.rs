//! `[sandbox.site]` and `[sandbox.user]`: limits of the nodes above a job, in the keys of a profile's `[job]`, and how many
//! jobs of one user run at the same time.

use jacamar_plan::{InvalidValue, Max, Need, Origin, Resources, Setting};
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::found;
use crate::profile;
use crate::source::{ConfigError, Document};

/// Tables below `[sandbox]` that are read here; what else a file may say is in [`super::keys`].
pub(super) const TABLES: [&str; 2] = ["sandbox.site", "sandbox.user"];

/// Keys of `[sandbox.user]` and of the tables below it that limit no control group.
pub(crate) const JOBS_KEYS: [&str; 2] = [MAX_JOBS, WAIT];
const MAX_JOBS: &str = "MaxJobsPerUser";
const WAIT: &str = "MaxJobsWaitSec";

/// How many jobs of one user run at the same time on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobsAtOnce {
    /// So many; none: nobody said so.
    pub max: Option<Setting<Max>>,
    /// How long one above that waits, in milliseconds; none: nobody said so.
    pub wait: Option<Setting<Max>>,
}

/// Limits of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserLimits {
    /// Of all his jobs together.
    pub resources: Resources,
    /// Of their number.
    pub jobs: JobsAtOnce,
}

impl UserLimits {
    /// Each key that `more` sets is as it says.
    fn extend(&mut self, more: Self) {
        self.resources.extend(more.resources);
        self.jobs.max = more.jobs.max.or(self.jobs.max.take());
        self.jobs.wait = more.jobs.wait.or(self.jobs.wait.take());
    }
}

/// `[sandbox.site]`, `[sandbox.user]`, `[sandbox.user.group.NAME]`, `[sandbox.user.account.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxLimits {
    /// Of all jobs of the host together.
    pub site: Resources,
    /// Of the jobs of one user.
    pub user: UserLimits,
    /// For members of a group, in the order of the file.
    pub groups: Vec<(String, UserLimits)>,
    /// For one account.
    pub accounts: Vec<(String, UserLimits)>,
}

impl SandboxLimits {
    /// The limits of one user: what is said of everybody, then of his groups (of two that set a key, the later one in the
    /// file), then of the account.
    #[must_use]
    pub fn of_user(&self, account: &str, groups: &[String]) -> UserLimits {
        let member = |name: &str| groups.iter().any(|group| group == name);
        let his_groups = self.groups.iter().filter(|(name, _)| member(name));
        let own = self.accounts.iter().filter(|(name, _)| name == account);
        let mut limits = self.user.clone();
        for (_, more) in his_groups.chain(own) {
            limits.extend(more.clone());
        }
        limits
    }
}

/// Reads the tables; what is wrong comes beside what could be read.
pub(super) fn read(document: &Document, root: &DeTable<'_>) -> (SandboxLimits, Vec<ConfigError>) {
    let mut reader = Reader { document, errors: Vec::new() };
    let mut limits = SandboxLimits::default();
    if let Some(sandbox) = table_of(root, "sandbox") {
        if let Some(site) = table_of(sandbox, "site") {
            limits.site = reader.resources(site, "sandbox.site", &[]);
        }
        if let Some(user) = table_of(sandbox, "user") {
            limits.user = reader.user(user, "sandbox.user", &["group", "account"]);
            limits.groups = reader.named(user, "group");
            limits.accounts = reader.named(user, "account");
        }
    }
    (limits, reader.errors)
}

fn table_of<'t, 'd>(parent: &'t DeTable<'d>, name: &str) -> Option<&'t DeTable<'d>> {
    match parent.get(name).map(Spanned::get_ref) {
        Some(DeValue::Table(table)) => Some(table),
        Some(_) | None => None,
    }
}

struct Reader<'d> {
    document: &'d Document,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn resources(&mut self, tree: &DeTable<'_>, table: &str, tables: &[&str]) -> Resources {
        let (resources, errors) = profile::resources(self.document, tree, table, tables);
        self.errors.extend(errors);
        resources
    }

    /// One table of a user's limits; `tables` are those that it may have besides.
    fn user(&mut self, tree: &DeTable<'_>, table: &str, tables: &[&str]) -> UserLimits {
        let besides = [tables, &JOBS_KEYS].concat();
        let jobs = JobsAtOnce {
            max: self.number(tree, MAX_JOBS, Max::parse_jobs),
            wait: self.number(tree, WAIT, Max::parse_wait),
        };
        UserLimits { resources: self.resources(tree, table, &besides), jobs }
    }

    /// A number, or a text with one.
    fn number(
        &mut self,
        tree: &DeTable<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<Max, InvalidValue>,
    ) -> Option<Setting<Max>> {
        let value = tree.get(key)?;
        let (shown, read) = match value.get_ref() {
            DeValue::String(text) => (format!("{text:?}"), parse(text)),
            DeValue::Integer(number) => (number.to_string(), parse(&number.to_string())),
            // No value of another type is one of these, and the error says what would be.
            other => (found(other).to_owned(), parse("")),
        };
        match read {
            Ok(max) => {
                let line = u32::try_from(self.document.line_of(&value.span())).unwrap_or(u32::MAX);
                let origin = Origin { file: self.document.path().to_owned(), line, shipped: false };
                Some(Setting { value: max, origin, need: Need::Require })
            }
            Err(InvalidValue { text: _, expected }) => {
                let message = format!("{key}: {shown} is not {expected}");
                self.errors.push(self.document.error(value.span(), message, ""));
                None
            }
        }
    }

    /// `[sandbox.user.group.NAME]` for each name, in the order of the file.
    fn named(&mut self, user: &DeTable<'_>, what: &str) -> Vec<(String, UserLimits)> {
        let names = match user.get(what).map(|value| (value.span(), value.get_ref())) {
            None => return Vec::new(),
            Some((_, DeValue::Table(names))) => names,
            Some((span, _)) => {
                let message = format!("[sandbox.user.{what}] is a table of tables");
                let hint = format!("write [sandbox.user.{what}.NAME] on a line of its own");
                self.errors.push(self.document.error(span, message, hint));
                return Vec::new();
            }
        };
        let mut entries: Vec<_> = names.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut all = Vec::new();
        for (name, value) in entries {
            let table = format!("sandbox.user.{what}.{}", name.get_ref());
            match value.get_ref() {
                DeValue::Table(tree) => {
                    all.push((name.get_ref().to_string(), self.user(tree, &table, &[])));
                }
                _ => {
                    let message = format!("[{table}] is a table of keys");
                    let hint = format!("write [{table}] on a line of its own");
                    self.errors.push(self.document.error(value.span(), message, hint));
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use jacamar_plan::{Control, Need};

    use super::*;

    fn parse(text: &str) -> Result<SandboxLimits, String> {
        let document = Document::new("site.toml", text);
        let tree = document.parse().expect("TOML");
        let (limits, errors) = read(&document, tree.get_ref());
        match errors.as_slice() {
            [] => Ok(limits),
            errors => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        }
    }

    fn line(resources: &Resources, control: Control) -> Option<u32> {
        resources.get(&control).map(|setting| setting.origin.line)
    }

    #[test]
    fn an_account_comes_after_its_groups_and_these_after_everybody() {
        let text = "[sandbox.site]\nTasksMax = 9\n[sandbox.user]\nprefer = [\"MemoryMax\"]\nMemoryMax = \"1G\"\nTasksMax = 5\n\
                    [sandbox.user.group.zoo]\nTasksMax = 6\n[sandbox.user.group.art]\nTasksMax = 7\n\
                    [sandbox.user.account.alice]\nMemoryMax = \"2G\"\n";
        let limits = parse(text).expect("good");
        assert_eq!(line(&limits.site, Control::TasksMax), Some(2));
        let of = |account, groups: &[&str]| {
            let groups: Vec<String> = groups.iter().map(|name| (*name).to_owned()).collect();
            let limits = limits.of_user(account, &groups).resources;
            (line(&limits, Control::MemoryMax), line(&limits, Control::TasksMax))
        };
        assert_eq!(of("bob", &[]), (Some(5), Some(6)));
        assert_eq!(of("bob", &["art"]), (Some(5), Some(10)));
        // The order of the file, not of the names or of the groups.
        assert_eq!(of("bob", &["art", "zoo"]), (Some(5), Some(10)));
        assert_eq!(of("alice", &["zoo"]), (Some(12), Some(8)));
        assert_eq!(
            limits.user.resources.get(&Control::MemoryMax).map(|setting| setting.need),
            Some(Need::Prefer)
        );
    }

    #[test]
    fn the_number_of_jobs_has_the_same_precedence_key_by_key() {
        let text = "[sandbox.user]\nMaxJobsPerUser = 2\nMaxJobsWaitSec = \"10min\"\n\
                    [sandbox.user.group.art]\nMaxJobsPerUser = \"infinity\"\n\
                    [sandbox.user.account.alice]\nMaxJobsWaitSec = 5\nTasksMax = 7\n";
        let limits = parse(text).expect("good");
        let of = |account, groups: &[&str]| {
            let groups: Vec<String> = groups.iter().map(|name| (*name).to_owned()).collect();
            let JobsAtOnce { max, wait } = limits.of_user(account, &groups).jobs;
            [max, wait].map(|found| found.map(|setting| (setting.value, setting.origin.line)))
        };
        let (two, ten_minutes) = (Some((Max::Value(2), 2)), Some((Max::Value(600_000), 3)));
        assert_eq!(of("bob", &[]), [two, ten_minutes]);
        assert_eq!(of("bob", &["art"]), [Some((Max::Infinity, 5)), ten_minutes]);
        assert_eq!(of("alice", &[]), [two, Some((Max::Value(5000), 7))]);
        assert_eq!(parse("").expect("good").of_user("bob", &[]).jobs, JobsAtOnce::default());
    }

    #[test]
    fn every_mistake_has_its_line() {
        let cases = [
            (
                "[sandbox.user]\nMemoryMax = \"8GB\"\n",
                "site.toml:2: MemoryMax: \"8GB\" is not an amount of memory",
            ),
            (
                "[sandbox.user]\nMaxJobsPerUser = 0\n",
                "site.toml:2: MaxJobsPerUser: 0 is not a number of jobs (`4`, at least `1`",
            ),
            (
                "[sandbox.user.group.art]\nMaxJobsPerUser = -1\n",
                "site.toml:2: MaxJobsPerUser: -1 is not a number of jobs",
            ),
            (
                "[sandbox.user.account.alice]\nMaxJobsPerUser = \"4 jobs\"\n",
                "site.toml:2: MaxJobsPerUser: \"4 jobs\" is not a number of jobs",
            ),
            (
                "[sandbox.user]\nMaxJobsPerUser = \"many\"\n",
                "site.toml:2: MaxJobsPerUser: \"many\" is not a number of jobs",
            ),
            (
                "[sandbox.user]\nMaxJobsPerUser = [2]\n",
                "site.toml:2: MaxJobsPerUser: a list is not a number of jobs",
            ),
            (
                "[sandbox.user]\nMaxJobsWaitSec = 1.5\n",
                "site.toml:2: MaxJobsWaitSec: a number with a fraction is not a time",
            ),
            (
                "[sandbox.user]\nMaxJobsWaitSec = \"1 hour\"\n",
                "site.toml:2: MaxJobsWaitSec: \"1 hour\" is not a time (`90s`",
            ),
            ("[sandbox.user]\nMaxJobsWaitSec = -5\n", "site.toml:2: MaxJobsWaitSec: -5 is not a time"),
            (
                "[sandbox.site]\nMaxJobsPerUser = 2\n",
                "site.toml:2: unknown key \"MaxJobsPerUser\" in [sandbox.site]",
            ),
            (
                "[sandbox.user]\nMaxJobPerUser = 2\n",
                "site.toml:2: unknown key \"MaxJobPerUser\" in [sandbox.user], did you mean \"MaxJobsPerUser\"?",
            ),
            (
                "[sandbox.user]\nMaxJobsPerUser = 2\nprefer = [\"MaxJobsPerUser\"]\n",
                "site.toml:3: unknown key \"MaxJobsPerUser\" in [prefer]",
            ),
            ("[sandbox.user]\nTasksMax = -1\n", "site.toml:2: TasksMax: \"-1\" is not a number of tasks"),
            ("[sandbox.site]\nCPUQuota = 4\n", "site.toml:2: CPUQuota: \"4\" is not a share of processors"),
            (
                "[sandbox.site]\nMemorySwapMax = \"10%\"\n",
                "site.toml:2: MemorySwapMax: \"10%\" is not an amount of swap",
            ),
            (
                "[sandbox.site]\nOOMPolicy = \"stop\"\n",
                "site.toml:2: OOMPolicy: \"stop\" is not an OOM policy",
            ),
            ("[sandbox.site]\nIOWeight = 0\n", "site.toml:2: IOWeight: \"0\" is not a weight"),
            (
                "[sandbox.site]\nAllowedCPUs = \"3-1\"\n",
                "site.toml:2: AllowedCPUs: \"3-1\" is not a list of numbers",
            ),
            (
                "[sandbox.site]\nIOReadIOPSMax = [\"/scratch 5\", \"/scratch 6\"]\n",
                "site.toml:2: IOReadIOPSMax: \"/scratch 6\" is the second value for its path",
            ),
            ("[sandbox.site]\nTaskMax = 1\n", "site.toml:2: unknown key \"TaskMax\" in [sandbox.site]"),
            (
                "[sandbox.user]\nLimitNOFILE = 1\n",
                "site.toml:2: LimitNOFILE does not belong into [sandbox.user]",
            ),
            ("[sandbox.user]\ngroup = 1\n", "site.toml:2: [sandbox.user.group] is a table of tables"),
            (
                "[sandbox.user.account]\nalice = 1\n",
                "site.toml:2: [sandbox.user.account.alice] is a table of keys",
            ),
            (
                "[sandbox.user]\nprefer = [\"TasksMax\"]\n",
                "site.toml:2: prefer names TasksMax, which is not set beside it",
            ),
        ];
        for (text, expected) in cases {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(expected), "{text}\n{error}");
        }
    }
}
