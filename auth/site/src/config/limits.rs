//! `[sandbox.site]` and `[sandbox.user]`: limits of the nodes above a job, in the keys of a profile's `[job]`.

use jacamar_plan::Resources;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::profile;
use crate::source::{ConfigError, Document};

/// Tables below `[sandbox]` that are read here; what else a file may say is in [`super::keys`].
pub(super) const TABLES: [&str; 2] = ["sandbox.site", "sandbox.user"];

/// `[sandbox.site]`, `[sandbox.user]`, `[sandbox.user.group.NAME]`, `[sandbox.user.account.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxLimits {
    /// Of all jobs of the host together.
    pub site: Resources,
    /// Of all jobs of one user together.
    pub user: Resources,
    /// For members of a group, in the order of the file.
    pub groups: Vec<(String, Resources)>,
    /// For one account.
    pub accounts: Vec<(String, Resources)>,
}

impl SandboxLimits {
    /// The limits of one user: what is said of everybody, then of his groups (of two that set a key, the later one in the
    /// file), then of the account.
    #[must_use]
    pub fn of_user(&self, account: &str, groups: &[String]) -> Resources {
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
            limits.user = reader.resources(user, "sandbox.user", &["group", "account"]);
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

    /// `[sandbox.user.group.NAME]` for each name, in the order of the file.
    fn named(&mut self, user: &DeTable<'_>, what: &str) -> Vec<(String, Resources)> {
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
                    all.push((name.get_ref().to_string(), self.resources(tree, &table, &[])));
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
