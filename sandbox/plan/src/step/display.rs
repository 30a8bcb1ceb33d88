//! Steps in words, for `explain`, errors and the audit log.

use std::fmt;

use super::Step;
use crate::{AddressFamilies, CgroupNode, IdMap};

/// `a, b and c`
fn in_a_row(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [name] => (*name).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartSlice { path } => write!(f, "have systemd start slice {}", CgroupNode::unit(path)),
            Self::StartScope { path } => {
                write!(f, "have systemd take the waiting child into scope {}", CgroupNode::unit(path))
            }
            Self::MoveRunner { from, to } => write!(f, "move the runner from {from} into {to}"),
            Self::CreateCgroup { path } => write!(f, "make control group {path}"),
            Self::EnableControllers { path, controllers } => {
                let names: Vec<&str> = controllers.iter().map(String::as_str).collect();
                write!(f, "enable {} for the children of {path}", in_a_row(&names))
            }
            Self::Limit { path, limit } => write!(f, "set {} in {path}", limit.limit),
            Self::Clone { namespaces, cgroup } => {
                let names: Vec<&str> = [
                    (namespaces.user, "user"),
                    (namespaces.mount, "mount"),
                    (namespaces.pid, "pid"),
                    (namespaces.ipc, "ipc"),
                ]
                .into_iter()
                .filter(|(wanted, _)| *wanted)
                .map(|(_, name)| name)
                .collect();
                match names.as_slice() {
                    [] => f.write_str("clone without new namespaces")?,
                    [name] => write!(f, "clone with a new {name} namespace")?,
                    names => write!(f, "clone with new {} namespaces", in_a_row(names))?,
                }
                match cgroup {
                    Some(path) => write!(f, " into {path}"),
                    None => Ok(()),
                }
            }
            Self::JoinCgroup { path } => write!(f, "move the waiting child into {path}"),
            Self::DenySetgroups => f.write_str("deny setgroups in the user namespace"),
            Self::MapUids { map } => write!(f, "map user ids {}", ranges(map)),
            Self::MapGids { map } => write!(f, "map group ids {}", ranges(map)),
            Self::RaiseLimit { limit } => {
                write!(f, "raise the hard limit {} of the waiting child to {}", limit.resource, limit.hard)
            }
            Self::Release => f.write_str("release the child"),
            Self::AwaitRelease => f.write_str("wait for the release"),
            Self::DieWithSupervisor => f.write_str("die with the supervisor"),
            Self::OrdinaryOomScore => f.write_str("give back the runner's protection from the OOM killer"),
            Self::OrdinaryNice => f.write_str("give back the runner's negative nice value"),
            Self::OrdinaryScheduling => f.write_str("give back the runner's realtime scheduling"),
            Self::OrdinaryIo => f.write_str("give back the runner's realtime I/O class"),
            Self::NewSession => f.write_str("start a new session"),
            Self::SessionKeyring => f.write_str("join a new session keyring"),
            Self::SlaveMounts => f.write_str("let no mount leave the namespace"),
            Self::SetGroups { groups } => write!(f, "set {} supplementary groups", groups.len()),
            Self::WearGid { gid } => write!(f, "wear group {gid}"),
            Self::WearUid { uid } => write!(f, "wear user {uid}"),
            Self::WearCapabilities { sys_admin: true } => f.write_str("keep CAP_SYS_ADMIN alone effective"),
            Self::WearCapabilities { sys_admin: false } => f.write_str("keep no capability effective"),
            Self::Undumpable => f.write_str("forbid tracing and core dumps, which a change of ids may allow"),
            Self::VerifyProc => f.write_str("verify that /proc is a procfs"),
            Self::OpenSource { path } => write!(f, "open {path} as the user"),
            Self::Mount(mount) => write!(f, "{mount}"),
            Self::RaiseCapabilities { .. } => {
                f.write_str("raise the capabilities for the change of identity")
            }
            Self::CoreLimit => f.write_str("give back the inherited core limit"),
            Self::SetLimit { limit } => {
                write!(f, "set {} to {} (hard {})", limit.resource, limit.soft, limit.hard)
            }
            Self::DropBounding { last } => write!(f, "drop capabilities 0 to {last} from the bounding set"),
            Self::KeepCapabilities => f.write_str("keep capabilities over the change of user"),
            Self::BecomeGid { gid } => write!(f, "become group {gid}"),
            Self::BecomeUid { uid } => write!(f, "become user {uid}"),
            Self::KeepSysAdmin => f.write_str("keep CAP_SYS_ADMIN alone, until the filter stands"),
            Self::ChangeDirectory { path } => write!(f, "change to directory {path}"),
            Self::CloseDescriptors => f.write_str("close all descriptors but 0, 1 and 2"),
            Self::NoNewPrivileges => f.write_str("set no_new_privs"),
            Self::Filter { rules, families, native_only } => {
                write!(f, "load the system call filter ({rules} rules")?;
                match families {
                    Some(AddressFamilies::Only(list)) => write!(f, ", {} socket families", list.len())?,
                    Some(AddressFamilies::Except(list)) => {
                        write!(f, ", without {} socket families", list.len())?
                    }
                    None => {}
                }
                f.write_str(if *native_only { ", native calls only)" } else { ")" })
            }
            Self::DropCapabilities => f.write_str("drop all capabilities"),
            Self::ClearAmbient => f.write_str("clear the ambient capabilities"),
            Self::Prove => f.write_str("prove that there is no way back"),
            Self::Subreaper => f.write_str("become the reaper of what the job leaves"),
            Self::Fork => f.write_str("fork the command's process"),
            Self::Execute => f.write_str("execute the command"),
            Self::AwaitEnd => f.write_str("learn how the command ended"),
            Self::EndCgroup { path } => write!(f, "end and remove control group {path}"),
        }
    }
}

fn ranges(map: &[IdMap]) -> String {
    let text = |r: &IdMap| match r.count {
        1 => r.first.to_string(),
        n => format!("{}-{}", r.first, u64::from(r.first) + u64::from(n) - 1),
    };
    map.iter().map(text).collect::<Vec<_>>().join(", ")
}
