//! A plan: one struct per phase, all arguments as data. Only the view's mounts are a list.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    DelegatedGroup, Filter, JobCgroup, Key, Level, Manager, Mount, Origin, Phase, PlannedRlimit, Resource,
    Stage, Step, Urgency,
};

/// What will be done for one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Name of the account.
    pub account: String,
    /// Name of the profile.
    pub profile: String,
    /// What our process may do.
    pub level: Level,
    /// For which call.
    pub stage: Stage,
    /// The parent: cgroup, limits, clone, maps.
    pub contain: Contain,
    /// The child: away from the runner's session.
    pub isolate: Isolate,
    /// Whose files are opened and who executes.
    pub identity: Identity,
    /// What the job sees of the file system.
    pub view: View,
    /// What cannot be undone.
    pub confine: Confine,
    /// The command and who waits for it.
    pub execute: Execute,
    /// File and line of each value; what is not here is ours by default.
    pub origin: BTreeMap<Key, Origin>,
    /// Preferred protections that this host cannot give.
    pub without: Vec<Without>,
}

/// A protection that is missing, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Without {
    /// What is missing: a key of the profile or words.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// Cgroup, limits and the clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contain {
    /// The job's control group.
    pub cgroup: Option<JobCgroup>,
    /// New namespaces of the clone.
    pub namespaces: Namespaces,
    /// Maps of the new user namespace.
    pub id_maps: Option<IdMaps>,
}

/// New namespaces, namespaces(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespaces {
    /// user_namespaces(7)
    pub user: bool,
    /// mount_namespaces(7)
    pub mount: bool,
    /// pid_namespaces(7)
    pub pid: bool,
    /// ipc_namespaces(7)
    pub ipc: bool,
}

impl Namespaces {
    /// Flags of clone(2), in the words of strace(1).
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.mount, "CLONE_NEWNS"),
            (self.ipc, "CLONE_NEWIPC"),
            (self.user, "CLONE_NEWUSER"),
            (self.pid, "CLONE_NEWPID"),
        ];
        all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name).collect()
    }

    /// Flags of clone(2), values of `include/uapi/linux/sched.h`.
    #[must_use]
    pub fn clone_flags(self) -> u64 {
        let all = [
            (self.mount, 0x0002_0000),
            (self.ipc, 0x0800_0000),
            (self.user, 0x1000_0000),
            (self.pid, 0x2000_0000),
        ];
        all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag).sum()
    }
}

/// One line of /proc/PID/uid_map or gid_map: the same ids inside and outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMap {
    /// First id.
    pub first: u32,
    /// How many neighbours.
    pub count: u32,
}

/// Maps of a user namespace: exactly the ids of one account, never a range of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMaps {
    /// `/proc/PID/uid_map`
    pub uids: Vec<IdMap>,
    /// `/proc/PID/gid_map`
    pub gids: Vec<IdMap>,
    /// `/proc/PID/setgroups` gets `deny` (the user level cannot map without).
    pub deny_setgroups: bool,
}

impl IdMaps {
    /// The kernel takes one write of less than a page.
    pub const WRITE_MAX_BYTES: usize = 4096;

    /// Merges sorted neighbours.
    #[must_use]
    pub fn ranges(ids: &[u32]) -> Vec<IdMap> {
        let mut ranges: Vec<IdMap> = Vec::new();
        for id in ids {
            match ranges.last_mut() {
                Some(last) if last.first.checked_add(last.count) == Some(*id) => last.count += 1,
                _ => ranges.push(IdMap { first: *id, count: 1 }),
            }
        }
        ranges
    }

    /// What is written into a map file.
    #[must_use]
    pub fn text(ranges: &[IdMap]) -> String {
        ranges.iter().map(|r| format!("{} {} {}\n", r.first, r.first, r.count)).collect()
    }
}

/// Away from the runner: session, keyring, mount propagation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolate {
    /// What the runner has of urgency and the job does not get.
    pub urgency: Urgency,
    /// A new, empty session keyring.
    pub session_keyring: bool,
    /// Mounts of the host still arrive, ours do not leave (`MS_SLAVE`).
    pub slave_mounts: bool,
}

/// Whose files are opened, and who executes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The caller stays who it is (user level).
    Own {
        /// Its uid.
        uid: u32,
        /// Its gid.
        gid: u32,
    },
    /// The user is worn while files are opened and mounts made, then becomes the only identity.
    Become(Wear),
}

/// An identity to wear and then to become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wear {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, the primary one included.
    pub groups: Vec<u32>,
}

/// What the job sees of the file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// In order; /proc is last.
    pub mounts: Vec<Mount>,
}

/// The capability bounding set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bounding {
    /// Emptied, from capability 0 to this one.
    DropTo(u8),
    /// Kept: setuid helpers need it, or we have no right to change it.
    Keep,
}

/// What cannot be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confine {
    /// Capability bounding set.
    pub bounding: Bounding,
    /// Limits of each process, one for a resource.
    pub limits: Vec<PlannedRlimit>,
    /// Working directory, entered as the user.
    pub directory: String,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// System call filter.
    pub filter: Option<Filter>,
}

/// Who waits for the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Process 1 of the pid namespace: when it ends, all end.
    Namespace,
    /// A child subreaper, prctl(2): it collects what daemonizes; the cgroup ends it.
    Subreaper,
}

/// The command and who waits for it. The command itself is not in the plan: it may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Execute {
    /// Who waits.
    pub init: Init,
    /// Variables for the command that has none of that name: how many processors there are for it.
    pub environment: Vec<(String, String)>,
}

impl Plan {
    /// Every step, in the order in which it is done. `explain` prints these, the checker judges them, the
    /// audit log records them, and an error names one of them.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = self.parent_steps();
        steps.extend(self.child_steps());
        steps
    }

    /// Steps of the supervisor.
    #[must_use]
    pub fn parent_steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(cgroup) = &self.contain.cgroup {
            if let Some(DelegatedGroup { path, runner }) = &cgroup.delegated
                && !cgroup.controllers.is_empty()
            {
                let from = || path.clone();
                steps.extend(runner.clone().map(|to| Step::MoveRunner { from: from(), to }));
                let controllers = cgroup.controllers.clone();
                steps.push(Step::EnableControllers { path: from(), controllers });
            }
            let by_systemd = cgroup.manager == Manager::Systemd;
            for (node, has_children) in [(&cgroup.site, true), (&cgroup.user, true), (&cgroup.job, false)] {
                let path = || node.path.clone();
                steps.push(match by_systemd {
                    true => Step::StartSlice { path: path() },
                    false => Step::CreateCgroup { path: path() },
                });
                let limits = node.limits.iter().cloned();
                steps.extend(limits.map(|limit| Step::Limit { path: path(), limit }));
                if has_children && !by_systemd && !cgroup.controllers.is_empty() {
                    let controllers = cgroup.controllers.clone();
                    steps.push(Step::EnableControllers { path: path(), controllers });
                }
            }
            if !by_systemd {
                steps.push(Step::CreateCgroup { path: cgroup.leaf.clone() });
            }
        }
        steps.push(Step::Clone {
            namespaces: self.contain.namespaces,
            cgroup: self.contain.cgroup.as_ref().filter(|c| c.clone_into).map(|c| c.leaf.clone()),
        });
        if let Some(cgroup) = self.contain.cgroup.as_ref().filter(|c| !c.clone_into) {
            let path = cgroup.leaf.clone();
            steps.push(match cgroup.manager {
                Manager::Systemd => Step::StartScope { path },
                Manager::Ourselves => Step::JoinCgroup { path },
            });
        }
        if let Some(maps) = &self.contain.id_maps {
            if maps.deny_setgroups {
                steps.push(Step::DenySetgroups);
            }
            steps.push(Step::MapUids { map: maps.uids.clone() });
            steps.push(Step::MapGids { map: maps.gids.clone() });
        }
        if self.isolate.urgency.oom_score {
            steps.push(Step::OrdinaryOomScore);
        }
        let raised = self.confine.limits.iter().filter(|limit| limit.raise);
        steps.extend(raised.map(|limit| Step::RaiseLimit { limit: limit.clone() }));
        steps.push(Step::Release);
        steps
    }

    /// Steps of the child. A failure in the child is reported as an index into this list.
    #[must_use]
    pub fn child_steps(&self) -> Vec<Step> {
        let Urgency { nice, scheduling, io, oom_score: _ } = self.isolate.urgency;
        let mut steps = vec![Step::AwaitRelease, Step::DieWithSupervisor, Step::NewSession];
        let ordinary =
            [(nice, Step::OrdinaryNice), (scheduling, Step::OrdinaryScheduling), (io, Step::OrdinaryIo)];
        steps.extend(ordinary.into_iter().filter(|(urgent, _)| *urgent).map(|(_, step)| step));
        // The two file capabilities are all that the capability level has outside of a user namespace.
        let sys_admin = self.level != Level::Capabilities || self.contain.namespaces.user;
        if self.isolate.session_keyring {
            steps.push(Step::SessionKeyring);
        }
        if self.isolate.slave_mounts {
            steps.push(Step::SlaveMounts);
        }
        if let Identity::Become(wear) = &self.identity {
            steps.push(Step::SetGroups { groups: wear.groups.clone() });
            steps.push(Step::WearGid { gid: wear.gid });
            steps.push(Step::WearUid { uid: wear.uid });
            steps.push(Step::WearCapabilities { sys_admin });
            steps.push(Step::Undumpable);
        }
        if !self.view.mounts.is_empty() {
            steps.push(Step::VerifyProc);
        }
        for mount in &self.view.mounts {
            if let Mount::Bind { source, .. } = mount {
                steps.push(Step::OpenSource { path: source.clone() });
            }
        }
        steps.extend(self.view.mounts.iter().cloned().map(Step::Mount));
        let becomes = matches!(self.identity, Identity::Become(_));
        if becomes {
            steps.push(Step::RaiseCapabilities { sys_admin });
        }
        // Ours is none; the job has what was inherited, or what its profile says.
        if !self.confine.limits.iter().any(|limit| limit.resource == Resource::CORE) {
            steps.push(Step::CoreLimit);
        }
        steps.extend(self.confine.limits.iter().map(|limit| Step::SetLimit { limit: limit.clone() }));
        if let Bounding::DropTo(last) = self.confine.bounding {
            steps.push(Step::DropBounding { last });
        }
        if let Identity::Become(wear) = &self.identity {
            if self.keeps_sys_admin() {
                steps.push(Step::KeepCapabilities);
            }
            steps.push(Step::BecomeGid { gid: wear.gid });
            steps.push(Step::BecomeUid { uid: wear.uid });
            if self.keeps_sys_admin() {
                steps.push(Step::KeepSysAdmin);
            }
            steps.push(Step::Undumpable);
        }
        steps.push(Step::ChangeDirectory { path: self.confine.directory.clone() });
        steps.push(Step::DieWithSupervisor);
        steps.push(Step::CloseDescriptors);
        if self.confine.no_new_privs {
            steps.push(Step::NoNewPrivileges);
        }
        if let Some(filter) = &self.confine.filter {
            steps.push(Step::Filter {
                rules: filter.rules.len(),
                families: filter.families.clone(),
                native_only: filter.native_only,
            });
        }
        steps.push(Step::DropCapabilities);
        steps.push(Step::ClearAmbient);
        steps.push(Step::Prove);
        if self.execute.init == Init::Subreaper {
            steps.push(Step::Subreaper);
        }
        steps.push(Step::Fork);
        steps.push(Step::Execute);
        steps
    }

    /// Whether CAP_SYS_ADMIN outlives the change of uid, until the filter stands. Without no_new_privs the filter loads only
    /// with it; and who holds a capability that the user lacks cannot be traced by him, though in that moment
    /// `fs.suid_dumpable` may allow it (ptrace(2), "Ptrace access mode checking").
    #[must_use]
    pub fn keeps_sys_admin(&self) -> bool {
        self.level == Level::Root
    }

    /// Every step with the phase in which it stands: what is repeated (`DieWithSupervisor`, which each change of ids
    /// undoes) belongs to the phase that repeats it.
    #[must_use]
    pub fn phased_steps(&self) -> Vec<(Phase, Step)> {
        let mut reached = Phase::Contain;
        let steps = self.steps().into_iter();
        steps
            .map(|step| {
                reached = reached.max(step.phase());
                (reached, step)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_merged() {
        let ranges = IdMaps::ranges(&[5, 6, 7, 9, 11, 12]);
        assert_eq!(IdMaps::text(&ranges), "5 5 3\n9 9 1\n11 11 2\n");
    }

    #[test]
    fn the_greatest_id_does_not_overflow() {
        assert_eq!(IdMaps::text(&IdMaps::ranges(&[u32::MAX - 1, u32::MAX])), "4294967294 4294967294 2\n");
    }

    #[test]
    fn clone_flags_are_the_kernels() {
        let all = Namespaces { user: true, mount: true, pid: true, ipc: true };
        assert_eq!(all.clone_flags(), 0x3802_0000);
        assert_eq!(Namespaces::default().clone_flags(), 0);
    }
}
