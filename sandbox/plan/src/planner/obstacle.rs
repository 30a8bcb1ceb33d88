//! What stands between a profile and a host: why a protection cannot be had, and the floor below which nothing runs.

use super::{Planner, Unplannable};
use crate::{CgroupVersion, Control, Key, Level, Manager, Presence};

impl Planner<'_> {
    /// Why the host cannot give a protection; `None` if it can.
    pub(super) fn obstacle(&self, key: Key) -> Option<String> {
        match key {
            Key::ProtectSystem
            | Key::PrivateTmp
            | Key::TemporaryFileSystem
            | Key::PrivateIPC
            | Key::PrivatePIDs
            | Key::ProtectProc => self.no_namespaces().or_else(|| match key {
                Key::PrivatePIDs | Key::ProtectProc => self.no_own_proc(),
                Key::PrivateTmp => self.no_tmp(),
                _ => None,
            }),
            Key::KeyringMode => absent("keyctl", self.host.calls.keyctl),
            Key::Control(control) => self.no_controller(control),
            // Decided where they are made: the filter depends on the namespaces, the others on what was inherited.
            Key::Limit(_)
            | Key::ParallelismVariables
            | Key::NoNewPrivileges
            | Key::SystemCallFilter
            | Key::SystemCallArchitectures
            | Key::RestrictAddressFamilies => None,
        }
    }

    fn no_namespaces(&self) -> Option<String> {
        match self.host.level {
            Level::Root => absent("namespaces", self.host.namespaces),
            Level::Capabilities | Level::User => {
                if self.profile.settings.no_new_privileges.is_none() {
                    return Some(
                        "setuid helpers have no effect in a user namespace, and the profile allows them"
                            .into(),
                    );
                }
                absent("user namespaces", self.host.user_namespaces)
                    .or_else(|| absent("namespaces", self.host.namespaces))
            }
        }
    }

    fn no_own_proc(&self) -> Option<String> {
        let why = match (self.host.own_proc, self.host.level) {
            (Presence::Present, _) => return None,
            (Presence::Absent(_), Level::Root) => "as in many containers",
            // The kernel shows a user namespace no more of /proc than its maker sees: user_namespaces(7).
            (Presence::Absent(_), Level::Capabilities | Level::User) => {
                "the host's is partly covered, as by ProtectKernelTunables=yes in the runner's unit or in a container"
            }
        };
        Some(format!("a new /proc cannot be mounted ({}); {why}", self.host.own_proc))
    }

    fn no_tmp(&self) -> Option<String> {
        let none = ["/tmp", "/var/tmp"].iter().all(|path| !self.host.directories.contains_key(*path));
        none.then(|| "this host has neither /tmp nor /var/tmp".to_owned())
    }

    fn no_controller(&self, control: Control) -> Option<String> {
        let controller = control.controller();
        match &self.host.cgroup.node {
            Err(reason) => Some(reason.clone()),
            Ok(_)
                if self.host.cgroup.manager == Manager::Systemd
                    && let Some(reason) = self.no_property(control) =>
            {
                Some(reason)
            }
            Ok(_) if self.host.cgroup.controllers.iter().any(|c| c == controller) => None,
            Ok(node) => Some(format!("{node} has no {controller} controller")),
        }
    }

    /// What systemd has no property for, systemd.resource-control(5): its slices' other files are not ours to write.
    fn no_property(&self, control: Control) -> Option<String> {
        if control == Control::HugeTLBMax {
            return Some("systemd makes the groups, and has no property for it".into());
        }
        let since = control.systemd_since()?;
        match self.host.cgroup.systemd {
            Some(version) if version >= since => None,
            Some(version) => Some(format!("systemd {version} makes the groups, and has it from {since} on")),
            None => Some(format!(
                "systemd makes the groups, has it from {since} on, and does not tell its version"
            )),
        }
    }

    /// A stage needs a pid namespace or a control group: with neither there is no way to end it.
    pub(super) fn floor(&mut self) -> Result<(), Unplannable> {
        let no_cgroup = self.host.cgroup.node.clone().err().unwrap_or_default();
        let no_pid = match self.host.level {
            Level::Root => absent("namespaces", self.host.namespaces),
            Level::User => absent("user namespaces", self.host.user_namespaces)
                .or_else(|| absent("namespaces", self.host.namespaces)),
            Level::Capabilities => self.no_namespaces(),
        }
        .or_else(|| self.no_own_proc());
        match no_pid {
            None => {
                self.note(
                    "control group",
                    &format!("{no_cgroup}; a pid namespace with its own /proc ends the job instead"),
                );
                Ok(())
            }
            Some(no_pid) => Err(Unplannable {
                profile: self.profile.name.clone(),
                what: "a way to end the job".into(),
                origin: None,
                reason: format!("no control group ({no_cgroup}) and no pid namespace ({no_pid})"),
                hint: self.floor_hint().into(),
            }),
        }
    }

    /// Without a user namespace of ours the job's processes are its user's alone, and we have no right to signal them.
    pub(super) fn no_right_to_end(&self) -> Unplannable {
        Unplannable {
            profile: self.profile.name.clone(),
            what: "a way to end the job".into(),
            origin: None,
            reason: "this kernel ends no control group by itself (cgroup.kill, Linux 5.14), and at level capabilities the \
                     job's processes are not ours to signal without a user namespace"
                .into(),
            hint: "write a profile with NoNewPrivileges = true and PrivatePIDs = true, as default has them, or run the \
                   runner as root"
                .into(),
        }
    }

    /// What gives a host the floor.
    fn floor_hint(&self) -> &'static str {
        match (self.host.level, self.host.cgroup.version) {
            (Level::Root, CgroupVersion::V2 | CgroupVersion::Hybrid) => {
                "let the runner write to the cgroup v2 file system (in a unit: no ProtectControlGroups=yes; in a \
                 container: mount it writable)"
            }
            (Level::Capabilities | Level::User, CgroupVersion::V2 | CgroupVersion::Hybrid) => {
                "let systemd delegate a control group to the runner: put `[Service]` and `Delegate=yes` into \
                 /etc/systemd/system/gitlab-runner.service.d/delegate.conf, then run `systemctl daemon-reload` and \
                 restart the runner"
            }
            (Level::Root, CgroupVersion::None | CgroupVersion::V1) => {
                "boot with cgroup v2: systemd.unified_cgroup_hierarchy=1 on the kernel's command line"
            }
            (Level::Capabilities | Level::User, CgroupVersion::None | CgroupVersion::V1) => {
                "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1 on the kernel's command line) and let systemd \
                 delegate a control group to the runner: put `[Service]` and `Delegate=yes` into \
                 /etc/systemd/system/gitlab-runner.service.d/delegate.conf, then run `systemctl daemon-reload` and \
                 restart the runner"
            }
        }
    }
}

pub(super) fn absent(what: &str, presence: Presence) -> Option<String> {
    match presence {
        Presence::Present => None,
        Presence::Absent(_) => Some(format!("this host has no {what} for us ({presence})")),
    }
}
