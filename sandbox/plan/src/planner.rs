//! The planner: what was granted, what the profile says and what the host can do, in; a plan, out.

mod limits;
mod obstacle;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Arch, Bounding, Confine, Contain, Execute, Filter, Grant, Host, IdMaps, Identity, Init, Isolate, Key,
    KeyringMode, Level, Manager, Mount, Namespaces, Need, Origin, Plan, Profile, ProtectProc, Refusal,
    Resources, Setting, Stage, Submount, TemporaryFileSystem, View, Wear, Without,
};
use obstacle::absent;

/// Limits that the site decided, by its configuration: a profile sets those of a job only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Of all jobs of this host together.
    pub site: Resources,
    /// Of all jobs of this user together.
    pub user: Resources,
}

/// Directories of the job, made by `prepare` (or by `exec` for itself) and owned by the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directories {
    /// Bound on /tmp.
    pub tmp: String,
    /// Bound on /var/tmp.
    pub var_tmp: String,
    /// Copies of the files of /etc/ssh/ssh_config.d, bound on it in a user namespace.
    pub ssh_config: String,
}

/// The job, as far as a plan depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Name of its control group: letters, digits, `_`.
    pub id: String,
    /// Its directories.
    pub directories: Directories,
    /// Where its command starts.
    pub working_directory: String,
}

/// A profile requires what this host cannot give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile {profile}: {what} cannot be had: {reason}")]
pub struct Unplannable {
    /// Name of the profile.
    pub profile: String,
    /// The key, or what else is missing.
    pub what: String,
    /// Where the value is written.
    pub origin: Option<Origin>,
    /// Why it cannot be had.
    pub reason: String,
    /// What helps.
    pub hint: String,
}

impl From<Unplannable> for Refusal {
    fn from(unplannable: Unplannable) -> Self {
        let place = unplannable.origin.map(|o| format!(" ({o})")).unwrap_or_default();
        Self {
            rule: "unplannable".into(),
            object: format!("profile {}, {}{place}", unplannable.profile, unplannable.what),
            cause: unplannable.reason,
            hint: unplannable.hint,
        }
    }
}

/// Makes the plan of one stage. Pure: the same arguments give the same plan.
///
/// # Errors
/// [`Unplannable`] if the profile requires what the host lacks, or if there would be no way to end the job.
pub fn plan(
    grant: &Grant,
    profile: &Profile,
    site: &Site,
    host: &Host,
    job: &Job,
    stage: &Stage,
) -> Result<Plan, Unplannable> {
    Planner { profile, site, host, origin: BTreeMap::new(), without: Vec::new() }.plan(grant, job, stage)
}

/// Collects origins and what is missing while the phases are decided one after the other.
struct Planner<'a> {
    profile: &'a Profile,
    site: &'a Site,
    host: &'a Host,
    origin: BTreeMap<Key, Origin>,
    without: Vec<Without>,
}

impl Planner<'_> {
    fn plan(mut self, grant: &Grant, job: &Job, stage: &Stage) -> Result<Plan, Unplannable> {
        let settings = &self.profile.settings;
        let no_new_privileges =
            self.value(Key::NoNewPrivileges, settings.no_new_privileges.as_ref())?.is_some();

        let mut pid = self.value(Key::PrivatePIDs, settings.private_pids.as_ref())?.is_some();
        let ipc = self.value(Key::PrivateIPC, settings.private_ipc.as_ref())?.is_some();
        let mut mounts = self.view(job, ipc)?;

        // What we ask of systemd costs more than a short answer of our own programs, which end with their pid namespace.
        let own_answer = *stage == Stage::Config && pid && self.host.cgroup.manager == Manager::Systemd;
        let cgroup = self.cgroup(grant, job, stage)?.filter(|_| !own_answer);
        let environment = self.parallelism(cgroup.as_ref());
        let limits = self.rlimits()?;
        if !pid && cgroup.is_none() {
            self.floor()?;
            pid = true;
        }
        if !pid && self.host.level == Level::Capabilities && !self.host.cgroup.kill {
            return Err(self.no_right_to_end());
        }
        let hide = self.protect_proc(pid)?;
        if pid {
            // Last: until then descriptors are named by the host's /proc.
            mounts.push(Mount::Proc { options: if hide { "hidepid=2".into() } else { String::new() } });
        }

        let mut namespaces = Namespaces { user: false, mount: !mounts.is_empty(), pid, ipc };
        namespaces.user = self.host.level != Level::Root && namespaces != Namespaces::default();
        if namespaces.user && self.host.ssh_config_files {
            let target = self.host.directories.get("/etc/ssh/ssh_config.d").cloned();
            // Root's files look like nobody's in there, and ssh refuses such. Before /proc.
            if let Some(target) = target {
                let at = mounts.len().saturating_sub(usize::from(pid));
                let source = job.directories.ssh_config.clone();
                mounts.insert(at, Mount::Bind { source, target, recursive: false });
                namespaces.mount = true;
            }
        }
        // In a user namespace a setuid bit has no effect anyway.
        let no_new_privs = no_new_privileges || namespaces.user;
        self.consequences(namespaces, no_new_privileges);
        let filter = self.filter(no_new_privs, namespaces.user)?;
        // Changing the set takes CAP_SETPCAP: root has it, and so has the maker of a user namespace.
        let may_drop = self.host.level == Level::Root || namespaces.user;
        let bounding = match no_new_privs && may_drop {
            true => Bounding::DropTo(self.host.cap_last_cap),
            false => Bounding::Keep,
        };
        let account = &grant.account;
        let identity = match self.host.level {
            Level::User => Identity::Own { uid: account.uid, gid: account.gid },
            Level::Root | Level::Capabilities => {
                Identity::Become(Wear { uid: account.uid, gid: account.gid, groups: account.groups.clone() })
            }
        };
        let id_maps = if namespaces.user { Some(self.id_maps(grant)?) } else { None };
        let session_keyring = self.keyring()?;

        Ok(Plan {
            account: account.name.clone(),
            profile: self.profile.name.clone(),
            level: self.host.level,
            stage: stage.clone(),
            contain: Contain { cgroup, namespaces, id_maps },
            isolate: Isolate { urgency: self.host.urgency, session_keyring, slave_mounts: namespaces.mount },
            identity,
            view: View { mounts },
            confine: Confine {
                bounding,
                limits,
                directory: job.working_directory.clone(),
                no_new_privs,
                filter,
            },
            execute: Execute { init: if pid { Init::Namespace } else { Init::Subreaper }, environment },
            origin: self.origin,
            without: self.without,
        })
    }

    /// What a job notices of its user namespace and of ours: it would look for the reason elsewhere.
    fn consequences(&mut self, namespaces: Namespaces, no_new_privileges: bool) {
        if namespaces.user {
            self.note(
                "owners and setuid helpers",
                "in a user namespace root's files look like nobody's, and sudo, newuidmap, pbs_iff and fusermount have \
                 no effect",
            );
            if self.host.level == Level::User {
                self.note(
                    "names of other groups",
                    "`id` shows them as nobody and chgrp to them fails; access to files by group works",
                );
            }
        } else if self.host.no_new_privs && !no_new_privileges {
            self.note(
                "setuid helpers",
                "our own process has no_new_privs, as by NoNewPrivileges=yes in the runner's unit",
            );
        }
    }

    /// The value of a key, if it is set and the host can give it.
    fn value<T: Clone>(&mut self, key: Key, setting: Option<&Setting<T>>) -> Result<Option<T>, Unplannable> {
        let obstacle = self.obstacle(key);
        self.value_unless(obstacle, key, setting)
    }

    fn value_unless<T: Clone>(
        &mut self,
        obstacle: Option<String>,
        key: Key,
        setting: Option<&Setting<T>>,
    ) -> Result<Option<T>, Unplannable> {
        let Some(setting) = setting else { return Ok(None) };
        match obstacle {
            None => {
                self.origin.insert(key, setting.origin.clone());
                Ok(Some(setting.value.clone()))
            }
            Some(reason) => {
                self.lacking(key, setting, reason)?;
                Ok(None)
            }
        }
    }

    /// Whether /proc hides the processes of others.
    fn protect_proc(&mut self, pid: bool) -> Result<bool, Unplannable> {
        let setting = self.profile.settings.protect_proc.as_ref();
        let obstacle = match setting.map(|setting| setting.value) {
            // Nothing is asked.
            None | Some(ProtectProc::Default) => None,
            Some(ProtectProc::Invisible) => self.obstacle(Key::ProtectProc).or_else(|| {
                let alone =
                    "it needs the /proc of a pid namespace, and there is none without PrivatePIDs = true";
                (!pid).then(|| alone.to_owned())
            }),
        };
        Ok(self.value_unless(obstacle, Key::ProtectProc, setting)? == Some(ProtectProc::Invisible))
    }

    fn lacking<T>(&mut self, key: Key, setting: &Setting<T>, reason: String) -> Result<(), Unplannable> {
        self.lacking_of(key.to_string(), key, setting, reason)
    }

    /// `what` says of whom the key is, where that is not the profile.
    fn lacking_of<T>(
        &mut self,
        what: String,
        key: Key,
        setting: &Setting<T>,
        reason: String,
    ) -> Result<(), Unplannable> {
        match setting.need {
            Need::Prefer => {
                self.note(&what, &reason);
                Ok(())
            }
            Need::Require => Err(Unplannable {
                profile: self.profile.name.clone(),
                what,
                origin: Some(setting.origin.clone()),
                reason,
                hint: format!("where jobs may run without it, write prefer = [\"{key}\"] beside it"),
            }),
        }
    }

    fn note(&mut self, what: &str, reason: &str) {
        self.without.push(Without { what: what.to_owned(), reason: reason.to_owned() });
    }

    fn view(&mut self, job: &Job, ipc: bool) -> Result<Vec<Mount>, Unplannable> {
        let settings = &self.profile.settings;
        let mut mounts = Vec::new();
        if let Some(protect) = self.value(Key::ProtectSystem, settings.protect_system.as_ref())? {
            for tree in protect.trees() {
                if let Some(path) = self.host.directories.get(*tree) {
                    mounts.push(Mount::Bind { source: path.clone(), target: path.clone(), recursive: true });
                    mounts.push(Mount::ReadOnly { mounts: self.submounts(path) });
                }
            }
        }
        if self.value(Key::PrivateTmp, settings.private_tmp.as_ref())?.is_some() {
            let tmp = self.host.directories.get("/tmp");
            let var_tmp = self.host.directories.get("/var/tmp").filter(|path| Some(*path) != tmp);
            for (source, target) in [(&job.directories.tmp, tmp), (&job.directories.var_tmp, var_tmp)] {
                if let Some(target) = target {
                    mounts.push(Mount::Bind {
                        source: source.clone(),
                        target: target.clone(),
                        recursive: false,
                    });
                }
            }
        }
        if let Some(setting) = &settings.temporary_file_system {
            let entries = self.value(Key::TemporaryFileSystem, Some(setting))?.unwrap_or_default();
            for TemporaryFileSystem { path, flags, options } in entries {
                match self.host.directories.get(&path) {
                    Some(target) => mounts.push(Mount::Tmpfs { target: target.clone(), flags, options }),
                    None => {
                        let reason = format!("this host has no directory {path}");
                        self.lacking(Key::TemporaryFileSystem, setting, reason)?;
                    }
                }
            }
        }
        if ipc && let Some(target) = self.host.directories.get("/dev/mqueue") {
            mounts.push(Mount::Mqueue { target: target.clone() });
        }
        Ok(mounts)
    }

    /// `tree` itself, with the flags of the mount in which it lies, and every mount below it.
    fn submounts(&self, tree: &str) -> Vec<Submount> {
        let within = |path: &str, tree: &str| {
            path == tree || tree == "/" || path.strip_prefix(tree).is_some_and(|rest| rest.starts_with('/'))
        };
        // Later lines of mountinfo cover earlier ones.
        let own = self.host.mounts.iter().filter(|m| within(tree, &m.target)).max_by_key(|m| m.target.len());
        let mut list =
            vec![Submount { target: tree.to_owned(), flags: own.map(|m| m.flags).unwrap_or_default() }];
        let below = self.host.mounts.iter().filter(|m| m.target != tree && within(&m.target, tree));
        list.extend(below.map(|m| Submount { target: m.target.clone(), flags: m.flags }));
        list
    }

    fn filter(&mut self, no_new_privs: bool, in_user_namespace: bool) -> Result<Option<Filter>, Unplannable> {
        let settings = &self.profile.settings;
        let calls = settings.system_call_filter.as_ref();
        let native = settings.system_call_architectures.as_ref();
        let families = settings.restrict_address_families.as_ref();
        let obstacle = if self.host.arch == Arch::Other {
            Some("no filter is built for this architecture".to_owned())
        } else if let Some(reason) = absent("seccomp", self.host.calls.seccomp) {
            Some(reason)
        } else if !no_new_privs && !in_user_namespace && self.host.level != Level::Root {
            Some(format!(
                "at level {} a filter needs no_new_privs, which would stop setuid helpers",
                self.host.level
            ))
        } else {
            None
        };
        if let Some(reason) = obstacle {
            if let Some(setting) = calls {
                self.lacking(Key::SystemCallFilter, setting, reason.clone())?;
            }
            if let Some(setting) = native {
                self.lacking(Key::SystemCallArchitectures, setting, reason.clone())?;
            }
            if let Some(setting) = families {
                self.lacking(Key::RestrictAddressFamilies, setting, reason)?;
            }
            return Ok(None);
        }
        let filter = Filter {
            rules: self.value(Key::SystemCallFilter, calls)?.unwrap_or_default(),
            native_only: self.value(Key::SystemCallArchitectures, native)?.is_some(),
            families: self.value(Key::RestrictAddressFamilies, families)?,
        };
        let empty = filter.rules.is_empty() && !filter.native_only && filter.families.is_none();
        Ok(if empty { None } else { Some(filter) })
    }

    fn id_maps(&self, grant: &Grant) -> Result<IdMaps, Unplannable> {
        let account = &grant.account;
        let own = |id| IdMaps::ranges(&[id]);
        let maps = match self.host.level {
            Level::Capabilities => {
                let mut groups = account.groups.clone();
                groups.push(account.gid);
                groups.sort_unstable();
                groups.dedup();
                IdMaps { uids: own(account.uid), gids: IdMaps::ranges(&groups), deny_setgroups: false }
            }
            Level::User | Level::Root => {
                IdMaps { uids: own(account.uid), gids: own(account.gid), deny_setgroups: true }
            }
        };
        let bytes = IdMaps::text(&maps.gids).len();
        if bytes >= IdMaps::WRITE_MAX_BYTES {
            return Err(Unplannable {
                profile: self.profile.name.clone(),
                what: format!("the groups of {}", account.name),
                origin: None,
                reason: format!(
                    "{} groups need {bytes} bytes in one write to gid_map, the kernel takes less than {}",
                    account.groups.len(),
                    IdMaps::WRITE_MAX_BYTES
                ),
                hint: "give these groups neighbouring ids, take the account out of some, or run the runner as root"
                    .into(),
            });
        }
        Ok(maps)
    }

    fn keyring(&mut self) -> Result<bool, Unplannable> {
        let setting = self.profile.settings.keyring_mode.as_ref();
        let obstacle = match setting.map(|setting| setting.value) {
            // Nothing is asked.
            None | Some(KeyringMode::Inherit) => None,
            Some(KeyringMode::Private) => self.obstacle(Key::KeyringMode),
        };
        Ok(self.value_unless(obstacle, Key::KeyringMode, setting)? == Some(KeyringMode::Private))
    }
}
