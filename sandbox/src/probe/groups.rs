//! Where control groups can be made, and what the groups above them allow.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jacamar_plan::{
    Above, CgroupHost, CgroupVersion, Control, Delegated, JobCgroup, Level, Limit, Manager, Max, NumberList,
};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access, getuid};
use procfs::process::{MountInfo, Process};

use super::{CgroupChoice, ProbeError};
use crate::group_files::{cpu_max, number, text};
use crate::systemd;

/// All that a plan asks of control groups.
pub(super) fn cgroup(
    level: Level,
    choice: &CgroupChoice,
    mounts: &[MountInfo],
    processors: Option<&NumberList>,
    newer: bool,
) -> Result<CgroupHost, ProbeError> {
    let Place { version, node, delegated, manager, version1 } = node(level, choice, mounts)?;
    let looked_at = delegated.as_ref().or(node.as_ref().ok());
    let kill = looked_at.is_some_and(|path| Path::new(path).join("cgroup.kill").exists());
    let mut host = CgroupHost {
        version,
        node,
        kill,
        manager,
        version1,
        systemd: if manager == Manager::Systemd && newer { systemd::version() } else { None },
        delegated: delegated.map(|path| Delegated { path, crowded: false }),
        controllers: Vec::new(),
        missing: Vec::new(),
        above: Above::default(),
    };
    look_again(&mut host);
    host.above = limits_above(&host, mounts, processors);
    Ok(host)
}

/// Where groups can be made.
pub(super) struct Place {
    /// The hierarchy in use.
    version: CgroupVersion,
    /// The directory below which groups are made, or why there is none.
    pub(super) node: Result<String, String>,
    /// The delegated group above it, below root.
    delegated: Option<String>,
    /// Who makes them.
    manager: Manager,
    /// Hierarchies of version 1 that systemd writes into.
    version1: BTreeMap<String, String>,
}

/// The site's node in the hierarchy's root, or in what was delegated.
fn site_in(group: &str) -> String {
    format!("{group}/{}", JobCgroup::SITE)
}

pub(super) fn node(level: Level, choice: &CgroupChoice, mounts: &[MountInfo]) -> Result<Place, ProbeError> {
    let v1 = mounts.iter().any(|mount| mount.fs_type == "cgroup");
    let root = root_of_v2(mounts);
    let version = match (v1, root.is_some()) {
        (false, false) => CgroupVersion::None,
        (true, false) => CgroupVersion::V1,
        (true, true) => CgroupVersion::Hybrid,
        (false, true) => CgroupVersion::V2,
    };
    let mut delegated = None;
    let version1 = match (level, choice) {
        (Level::Root, CgroupChoice::Auto) if systemd::is_manager() => hierarchies(mounts),
        (Level::Root | Level::Capabilities | Level::User, _) => BTreeMap::new(),
    };
    // Where there is no v2 tree beside it, systemd keeps its units in a hierarchy of version 1 without a controller.
    let named = mounts.iter().find(|mount| mount.super_options.contains_key("name") && !version1.is_empty());
    let root = root.or_else(|| named.and_then(|mount| mount.mount_point.to_str()));
    let node = match (choice, root) {
        (CgroupChoice::None, _) => Err("the configuration says cgroup = \"none\"".to_owned()),
        (CgroupChoice::Path(path), _) => usable(path).map(|()| path.clone()),
        (CgroupChoice::Auto, None) => Err("no cgroup v2 file system is mounted".to_owned()),
        (CgroupChoice::Auto, Some(root)) => match level {
            Level::Root if !version1.is_empty() => writable(root).map(|()| site_in(root)),
            Level::Root => usable(root).map(|()| site_in(root)),
            Level::Capabilities | Level::User => {
                let found = delegated_group(root, &own_group()?);
                delegated = found.clone().ok();
                found.map(|path| site_in(&path))
            }
        },
    };
    let manager = match &node {
        Ok(node) => systemd::manager_of(node, level),
        Err(_) => Manager::Ourselves,
    };
    Ok(Place { version, node, delegated, manager, version1 })
}

/// The group that was delegated to us: our own, or one above it. systemd starts the processes of a service in a leaf of
/// what it delegates where `DelegateSubgroup=` says so (systemd 254), and so do we. A user's manager has slices of its own,
/// and what lies in them is not ours to divide.
fn delegated_group(root: &str, own: &str) -> Result<String, String> {
    let own = format!("{root}{own}").trim_end_matches('/').to_owned();
    usable(&own)?;
    let is_managers = |name: &str| name.ends_with(".slice") || name.starts_with("user@");
    let groups = Path::new(&own).ancestors().take_while(|group| group.starts_with(root));
    let names = groups.filter_map(|group| Some((group.to_str()?, group.file_name()?.to_str()?)));
    // Our own is delegated, whatever its name.
    let ours = names.skip(1).take_while(|(path, name)| !is_managers(name) && usable(path).is_ok());
    Ok(ours.last().map_or(own.clone(), |(path, _)| path.to_owned()))
}

/// The whole v2 tree, where one is mounted.
fn root_of_v2(mounts: &[MountInfo]) -> Option<&str> {
    let root = mounts.iter().find(|mount| mount.fs_type == "cgroup2" && mount.root == "/");
    root.and_then(|mount| mount.mount_point.to_str())
}

/// Whether our process is in a group or below it.
pub(super) fn is_in(path: &str, mounts: &[MountInfo]) -> Result<bool, ProbeError> {
    let Some(root) = root_of_v2(mounts) else { return Ok(false) };
    Ok(Path::new(&format!("{root}{}", own_group()?)).starts_with(path))
}

/// Groups in groups that systemd makes above what it delegates.
const DEPTH_MAX: usize = 6;

/// Nodes of ours in what was delegated to the account that started us.
pub(super) fn delegated_nodes(mounts: &[MountInfo]) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(root) = root_of_v2(mounts) {
        find_nodes(Path::new(root), DEPTH_MAX, &mut found);
    }
    found
}

/// A group that cannot be listed, or is gone, has none.
fn find_nodes(group: &Path, depth: usize, found: &mut Vec<String>) {
    for path in std::fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let own =
            path.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == getuid().as_raw());
        match path.to_str() {
            Some(text) if own && path.file_name() == Some(OsStr::new(JobCgroup::SITE)) => {
                found.push(text.to_owned())
            }
            Some(_) if depth > 0 && path.is_dir() => find_nodes(&path, depth - 1, found),
            Some(_) | None => {}
        }
    }
}

/// What changes while jobs run: controllers. What is above a job was judged when it began: an administrator who lowers it
/// meanwhile lowers what the job has, and does not end it.
pub(super) fn look_again(host: &mut CgroupHost) {
    let Ok(node) = &host.node else { return };
    if let Some(delegated) = &mut host.delegated {
        delegated.crowded = is_crowded(&delegated.path);
    }
    host.controllers = match host.manager {
        Manager::Systemd if !host.version1.is_empty() => {
            let limited = host.version1.keys().filter(|name| OF_VERSION_1.contains(&name.as_str()));
            limited.cloned().collect()
        }
        Manager::Systemd => controllers_of_systemd(node),
        Manager::Ourselves => controllers_below(node, host.delegated.as_ref()),
    };
    host.missing = match host.version1.is_empty() {
        true => missing(node),
        false => NOT_IN_VERSION_1.map(str::to_owned).into(),
    };
}

fn limits_above(host: &CgroupHost, mounts: &[MountInfo], processors: Option<&NumberList>) -> Above {
    let Ok(node) = &host.node else { return Above::default() };
    let root = mounts
        .iter()
        .filter(|mount| mount.fs_type == "cgroup2" && Path::new(node).starts_with(&mount.mount_point));
    // Of two mounts the inner one is where the path leads.
    let root = root.max_by_key(|mount| mount.mount_point.as_os_str().len());
    root.map(|mount| above(Path::new(node), &mount.mount_point, processors)).unwrap_or_default()
}

/// The group of our own process in the v2 tree: `0::/path`, cgroups(7).
fn own_group() -> Result<String, ProbeError> {
    let groups = Process::myself()?.cgroups()?;
    let own = groups.into_iter().find(|group| group.hierarchy == 0);
    Ok(own.map(|group| group.pathname).unwrap_or_default())
}

/// A cgroup v2 directory in which we can make groups and move processes.
fn usable(path: &str) -> Result<(), String> {
    let directory = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| format!("{path}: {}", errno.desc()))?;
    match jacamar_kernel::is_cgroup2(directory.as_fd()) {
        Ok(true) => {}
        Ok(false) => return Err(format!("{path} is not on a cgroup v2 file system")),
        Err(errno) => return Err(format!("{path}: {}", errno.desc())),
    }
    writable(path)
}

fn writable(path: &str) -> Result<(), String> {
    for file in [path.to_owned(), format!("{path}/cgroup.procs")] {
        access(file.as_str(), AccessFlags::W_OK)
            .map_err(|errno| format!("{path} is not delegated to us ({file}: {})", errno.desc()))?;
    }
    Ok(())
}

/// Controllers of version 1 of which systemd writes the same limits as of version 2.
const OF_VERSION_1: [&str; 3] = ["cpu", "memory", "pids"];
/// What those have nothing for.
const NOT_IN_VERSION_1: [&str; 6] =
    ["memory.min", "memory.low", "memory.high", "memory.swap.max", "memory.oom.group", "cpu.idle"];

/// Where those controllers, and the one that counts processor time, are mounted as version 1.
fn hierarchies(mounts: &[MountInfo]) -> BTreeMap<String, String> {
    let of_version_1 = mounts.iter().filter(|mount| mount.fs_type == "cgroup" && mount.root == "/");
    let pairs = of_version_1.flat_map(|mount| {
        let names = OF_VERSION_1.iter().chain(&["cpuacct"]);
        let here = names.filter(|name| mount.super_options.contains_key(**name));
        here.filter_map(|name| Some(((*name).to_owned(), mount.mount_point.to_str()?.to_owned())))
    });
    pairs.collect()
}

/// Controllers that systemd gives a slice where it is asked to.
const OF_SYSTEMD: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

fn controllers_of_systemd(node: &str) -> Vec<String> {
    let root = Path::new(node).parent();
    let all = root.and_then(|root| text(root, "cgroup.controllers")).unwrap_or_default();
    all.split_whitespace().filter(|name| OF_SYSTEMD.contains(name)).map(str::to_owned).collect()
}

/// Whether processes are in the group itself. What cannot be read is taken for crowded: a leaf more does no harm.
fn is_crowded(group: &str) -> bool {
    text(Path::new(group), "cgroup.procs").is_none_or(|procs| !procs.is_empty())
}

/// Controllers that groups below `node` can have without a write above it, but in what was delegated to us.
///
/// In a group that holds processes none can be enabled any more ("no internal processes", `admin-guide/cgroup-v2.rst`):
/// there only those count that are enabled already.
fn controllers_below(node: &str, delegated: Option<&Delegated>) -> Vec<String> {
    // A file that cannot be read offers no controller, and a limit that needs one is then refused or told.
    let read = |group: &Path, file| text(group, file);
    let parent = Path::new(node).parent();
    let text = match delegated.map(|delegated| Path::new(&delegated.path)) {
        // systemd gives the file away where it delegates a controller at all.
        Some(group) if access(&group.join("cgroup.subtree_control"), AccessFlags::W_OK).is_ok() => {
            read(group, "cgroup.controllers")
        }
        Some(group) => read(group, "cgroup.subtree_control"),
        None if Path::new(node).exists() && is_crowded(node) => {
            read(Path::new(node), "cgroup.subtree_control")
        }
        None => {
            read(Path::new(node), "cgroup.controllers").or_else(|| read(parent?, "cgroup.subtree_control"))
        }
    };
    text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Files that not every kernel has in a group with their controller: `memory.swap.max` not with `swapaccount=0`,
/// `cpu.idle` from Linux 5.15 on, `io.weight` only with a scheduler that weighs.
const NOT_EVERYWHERE: [(&str, &str); 4] =
    [("memory", "memory.swap.max"), ("memory", "memory.oom.group"), ("cpu", "cpu.idle"), ("io", "io.weight")];

/// Enough to meet each controller where systemd runs.
const LOOKED_AT_MAX: usize = 16;

/// Those of them that a group beside or at `node` does not have, though it has the controller. Where no group has it,
/// nothing is known, and writing the file will tell.
fn missing(node: &str) -> Vec<String> {
    let Some(parent) = Path::new(node).parent() else { return Vec::new() };
    let beside = std::fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let controllers = |group: PathBuf| {
        let text = text(&group, "cgroup.controllers")?;
        Some((group, text))
    };
    let groups: Vec<(PathBuf, String)> =
        [node.into()].into_iter().chain(beside).filter_map(controllers).take(LOOKED_AT_MAX).collect();
    let lacks = |(controller, file): &(&str, &str)| {
        let has = |text: &str| text.split_whitespace().any(|word| word == *controller);
        let (group, _) = groups.iter().find(|(_, text)| has(text))?;
        (!group.join(file).exists()).then(|| (*file).to_owned())
    };
    NOT_EVERYWHERE.iter().filter_map(lacks).collect()
}

/// The limits of the node itself and of the groups above it, up to where the file system is mounted.
fn above(node: &Path, root: &Path, processors: Option<&NumberList>) -> Above {
    let groups = node.ancestors().take_while(|group| group.starts_with(root) && *group != root);
    let whose = |group: &Path| group.to_string_lossy().into_owned();
    Above {
        limits: groups
            .flat_map(|group| {
                limits_of(group, processors).into_iter().map(move |limit| (limit, whose(group)))
            })
            .collect(),
    }
}

/// The limits that a group has; what cannot be read or is without limit is none.
fn limits_of(group: &Path, processors: Option<&NumberList>) -> Vec<Limit> {
    let memory = |control, file| number(group, file).map(|value| Limit::Memory(control, Max::Value(value)));
    let cpus = || {
        let list = NumberList::parse(text(group, "cpuset.cpus.effective")?.trim()).ok()?;
        // All of them are no limit.
        (Some(&list) != processors).then_some(Limit::Cpuset(Control::AllowedCPUs, list))
    };
    let all = [
        memory(Control::MemoryMax, "memory.max"),
        memory(Control::MemoryHigh, "memory.high"),
        memory(Control::MemorySwapMax, "memory.swap.max"),
        number(group, "pids.max").map(|value| Limit::Tasks(Max::Value(value))),
        cpu_max(group).map(|(quota, period)| Limit::Cpu { quota: Max::Value(quota), period }),
        cpus(),
    ];
    all.into_iter().flatten().collect()
}
