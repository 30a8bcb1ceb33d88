//! The checker: judges a finished plan against the rules that no profile and no configuration may break.

use crate::{Bounding, Identity, Init, Level, Limit, Mount, Plan, PlannedLimit, Resource};

/// A plan that the checker accepted. Only this can be launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedPlan(Plan);

impl CheckedPlan {
    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.0
    }
}

/// A rule that a plan breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A limit that a group above makes impossible.
    #[error("{limit} is more than {parent} of the group above")]
    AboveParent {
        /// Planned.
        limit: String,
        /// Of the group above.
        parent: String,
    },
    /// Two values for one file.
    #[error("{0} is set twice in one group")]
    LimitTwice(String),
    /// A soft limit above the hard one, or two values for one resource.
    #[error("{0} is planned wrongly")]
    WrongLimit(Resource),
    /// root, or the id that setresuid(2) takes for "unchanged".
    #[error("user id {0} can never run a job")]
    ForbiddenUser(u32),
    /// group 4294967295, which setresgid(2) takes for "unchanged".
    #[error("group id {0} can never run a job")]
    ForbiddenGroup(u32),
    /// Neither pid namespace nor control group.
    #[error("nothing could end this job: it has neither a pid namespace nor a control group")]
    NoFloor,
    /// A pid namespace without its own /proc, or the other way round.
    #[error("pid namespace and own /proc belong together")]
    ProcWithoutPid,
    /// A mount after /proc, a second /proc, or a mount below it.
    #[error("{0} is mounted after or below /proc")]
    MountOverProc(String),
    /// A path that is not absolute or has `.` or `..` in it.
    #[error("{0:?} is not a plain absolute path")]
    NotPlain(String),
    /// Mounts without a mount namespace would change the host.
    #[error("{0} would be mounted on the host: there is no mount namespace")]
    MountOnHost(String),
    /// The filter would stop capset(2), after which it is loaded.
    #[error("the filter denies {0}, which comes after it is loaded")]
    FilterStopsUs(&'static str),
    /// A filter needs no_new_privs or CAP_SYS_ADMIN.
    #[error("at level {0} a filter needs no_new_privs")]
    FilterNeedsNoNewPrivs(Level),
    /// A user namespace without maps, or maps without one.
    #[error("a user namespace and its maps belong together")]
    MapsWithoutNamespace,
    /// A map of another id than the job's.
    #[error("the user namespace would map id {0}, which is not the job's")]
    ForeignId(u32),
    /// no_new_privs with the bounding set kept, though it could be emptied, or emptied while helpers need it.
    #[error("no_new_privs and the bounding set follow the same switch")]
    HalfSwitch,
    /// The level cannot change the user, or must.
    #[error("at level {0} the identity is planned wrongly")]
    WrongIdentity(Level),
}

/// Judges a plan.
///
/// # Errors
/// The first [`Violation`].
pub fn check(plan: Plan) -> Result<CheckedPlan, Violation> {
    identity(&plan)?;
    floor(&plan)?;
    view(&plan)?;
    maps(&plan)?;
    confine(&plan)?;
    limits(&plan)?;
    Ok(CheckedPlan(plan))
}

fn identity(plan: &Plan) -> Result<(), Violation> {
    match (&plan.identity, plan.level) {
        (Identity::Become(wear), Level::Root | Level::Capabilities) => {
            if wear.uid == 0 || wear.uid == u32::MAX {
                return Err(Violation::ForbiddenUser(wear.uid));
            }
            for gid in wear.groups.iter().chain([&wear.gid]) {
                if *gid == u32::MAX {
                    return Err(Violation::ForbiddenGroup(*gid));
                }
            }
            Ok(())
        }
        (Identity::Own { .. }, Level::User) => Ok(()),
        (Identity::Become(_), Level::User) | (Identity::Own { .. }, Level::Root | Level::Capabilities) => {
            Err(Violation::WrongIdentity(plan.level))
        }
    }
}

fn floor(plan: &Plan) -> Result<(), Violation> {
    let pid = plan.contain.namespaces.pid;
    let own_proc = plan.view.mounts.iter().any(|mount| matches!(mount, Mount::Proc { .. }));
    if pid != own_proc || pid != (plan.execute.init == Init::Namespace) {
        return Err(Violation::ProcWithoutPid);
    }
    if !pid && plan.contain.cgroup.is_none() {
        return Err(Violation::NoFloor);
    }
    Ok(())
}

fn view(plan: &Plan) -> Result<(), Violation> {
    let mut proc_seen = false;
    for mount in &plan.view.mounts {
        let target = mount.target();
        if !plan.contain.namespaces.mount {
            return Err(Violation::MountOnHost(target.to_owned()));
        }
        let below_proc =
            target.starts_with("/proc/") || (target == "/proc" && !matches!(mount, Mount::Proc { .. }));
        if proc_seen || below_proc {
            return Err(Violation::MountOverProc(target.to_owned()));
        }
        proc_seen = matches!(mount, Mount::Proc { .. });
        let mut paths = vec![target];
        match mount {
            Mount::Bind { source, .. } => paths.push(source),
            Mount::ReadOnly { mounts } => paths.extend(mounts.iter().map(|m| m.target.as_str())),
            Mount::Tmpfs { .. } | Mount::Mqueue { .. } | Mount::Proc { .. } => {}
        }
        for path in paths {
            plain(path)?;
        }
    }
    plain(&plan.confine.directory)
}

/// Absolute, no `.` or `..`, no empty component, no NUL.
fn plain(path: &str) -> Result<(), Violation> {
    let good = path == "/"
        || path.strip_prefix('/').is_some_and(|rest| {
            !rest.contains('\0')
                && rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        });
    if good { Ok(()) } else { Err(Violation::NotPlain(path.to_owned())) }
}

fn maps(plan: &Plan) -> Result<(), Violation> {
    if plan.contain.namespaces.user != plan.contain.id_maps.is_some() {
        return Err(Violation::MapsWithoutNamespace);
    }
    let Some(maps) = &plan.contain.id_maps else { return Ok(()) };
    let (uid, gids) = match &plan.identity {
        Identity::Own { uid, gid } => (*uid, vec![*gid]),
        Identity::Become(wear) => {
            let mut gids = wear.groups.clone();
            gids.push(wear.gid);
            (wear.uid, gids)
        }
    };
    for range in &maps.uids {
        if range.first != uid || range.count != 1 {
            return Err(Violation::ForeignId(range.first));
        }
    }
    for range in &maps.gids {
        for offset in 0..range.count {
            let id = range.first.saturating_add(offset);
            if !gids.contains(&id) {
                return Err(Violation::ForeignId(id));
            }
        }
    }
    Ok(())
}

fn confine(plan: &Plan) -> Result<(), Violation> {
    let may_drop = plan.level == Level::Root || plan.contain.namespaces.user;
    let dropped = matches!(plan.confine.bounding, Bounding::DropTo(_));
    if dropped != (plan.confine.no_new_privs && may_drop) {
        return Err(Violation::HalfSwitch);
    }
    let Some(filter) = &plan.confine.filter else { return Ok(()) };
    if !plan.confine.no_new_privs && plan.level != Level::Root {
        return Err(Violation::FilterNeedsNoNewPrivs(plan.level));
    }
    // What is done after the filter is loaded: capset, ambient, the proof, fork, exec, waiting.
    let ours = [
        "capset",
        "capget",
        "prctl",
        "getresuid",
        "getresgid",
        "getgroups",
        "setresuid",
        "setuid",
        "clone",
        "execve",
        "wait4",
        "waitid",
        "read",
        "write",
        "close",
        "close_range",
        "dup2",
        "dup3",
        "rt_sigprocmask",
        "rt_sigaction",
        "umask",
        "exit_group",
        "exit",
        "poll",
        "ppoll",
        "signalfd4",
        "fcntl",
    ];
    match ours.into_iter().find(|call| filter.denies(call)) {
        Some(call) => Err(Violation::FilterStopsUs(call)),
        None => Ok(()),
    }
}

/// No group is promised more than the one above it has, and no value depends on the order of two writes.
fn limits(plan: &Plan) -> Result<(), Violation> {
    if let Some(cgroup) = &plan.contain.cgroup {
        let nodes = [&cgroup.site, &cgroup.user, &cgroup.job];
        for (at, node) in nodes.iter().enumerate() {
            for (position, planned) in node.limits.iter().enumerate() {
                let limit = &planned.limit;
                let same = |other: &&PlannedLimit| same_value(&other.limit, limit);
                if node.limits.iter().take(position).any(|other| same(&other)) {
                    return Err(Violation::LimitTwice(limit.control().to_string()));
                }
                let mut above = nodes.iter().take(at).flat_map(|parent| &parent.limits);
                if let Some(parent) = above.find(|parent| limit.is_above(&parent.limit)) {
                    let (limit, parent) = (limit.to_string(), parent.limit.to_string());
                    return Err(Violation::AboveParent { limit, parent });
                }
            }
        }
    }
    for (position, limit) in plan.confine.limits.iter().enumerate() {
        let twice = plan.confine.limits.iter().take(position).any(|other| other.resource == limit.resource);
        if twice || limit.soft > limit.hard {
            return Err(Violation::WrongLimit(limit.resource));
        }
    }
    Ok(())
}

fn same_value(one: &Limit, other: &Limit) -> bool {
    match (one, other) {
        (Limit::Io { control: a, device: b, .. }, Limit::Io { control: c, device: d, .. }) => {
            (a, b) == (c, d)
        }
        (one, other) => one.file() == other.file(),
    }
}
