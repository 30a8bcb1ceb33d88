//! What our process inherited of limits, and what a host has of processors and disks.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use jacamar_kernel::Errno;
use jacamar_plan::{Level, Max, NumberList, Resource};
use nix::sys::resource::{RLIM_INFINITY, getrlimit, rlim_t, setrlimit};
use nix::sys::stat::{major, minor};
use nix::unistd::getppid;

use super::ProbeError;
use crate::rlimit::resource;

type Rlimits = BTreeMap<Resource, (Max, Max)>;

fn max(value: rlim_t) -> Max {
    if value == RLIM_INFINITY { Max::Infinity } else { Max::Value(value) }
}

/// Soft and hard limits of our process.
pub(super) fn inherited() -> Result<Rlimits, ProbeError> {
    let one = |name: Resource| {
        let (soft, hard) = getrlimit(resource(name))
            .map_err(|errno| ProbeError::Call { what: "read a resource limit", errno })?;
        Ok((name, (max(soft), max(hard))))
    };
    Resource::ALL.into_iter().map(one).collect()
}

/// The soft stack limit of the process that started us, if ours is another: at a start with file capabilities the kernel
/// sets it to 8 MiB before our first instruction (`begin_new_exec` in `fs/exec.c`).
pub(super) fn lost_stack(level: Level, own: &Rlimits) -> Result<Option<Max>, ProbeError> {
    if level != Level::Capabilities {
        return Ok(None);
    }
    let parent = getppid().as_raw();
    // 0 is outside of our pid namespace; one that is gone tells nothing either.
    // The keeper may not look at it.
    let limits =
        crate::as_starter(|| procfs::process::Process::new(parent).and_then(|process| process.limits()))
            .map_err(|_| ProbeError::Call {
                what: "look at the process that started us",
                errno: Errno::EPERM,
            })?;
    let Ok(limits) = limits else { return Ok(None) };
    let soft = match limits.max_stack_size.soft_limit {
        procfs::process::LimitValue::Unlimited => Max::Infinity,
        procfs::process::LimitValue::Value(value) => Max::Value(value),
    };
    Ok(Some(soft).filter(|soft| own.get(&Resource::STACK).is_none_or(|(own, _)| own != soft)))
}

/// Whether hard limits can be raised: tried on one that can be, and taken back.
pub(super) fn raises(own: &Rlimits) -> Result<bool, ProbeError> {
    let failed = |errno| ProbeError::Call { what: "lower a resource limit again", errno };
    // Neither is used between the two calls, and each has no effect on us.
    for name in [Resource::MSGQUEUE, Resource::SIGPENDING, Resource::LOCKS, Resource::NICE] {
        if let Some((soft, Max::Value(hard))) = own.get(&name)
            && *hard < RLIM_INFINITY - 1
        {
            let soft = soft.value().unwrap_or(RLIM_INFINITY);
            return match setrlimit(resource(name), soft, hard + 1) {
                Ok(()) => setrlimit(resource(name), soft, *hard).map(|()| true).map_err(failed),
                Err(Errno::EPERM) => Ok(false),
                Err(errno) => Err(failed(errno)),
            };
        }
    }
    // Nothing is limited: nothing needs to be raised but what another limit takes.
    caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE)
        .map_err(|_| failed(Errno::EIO))
}

/// `fs.nr_open`, proc_sys_fs(5).
pub(super) fn open_files_max() -> Result<u64, ProbeError> {
    let text = std::fs::read_to_string("/proc/sys/fs/nr_open");
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let read = text.map_err(errno).and_then(|text| text.trim().parse().map_err(|_| Errno::EBADMSG));
    read.map_err(|errno| ProbeError::Call { what: "read /proc/sys/fs/nr_open", errno })
}

/// Online processors; not every container shows them.
pub(super) fn processors() -> Option<NumberList> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    NumberList::parse(text.trim()).ok()
}

/// The disk of each path: itself, or the one on which it lies. Of a partition the whole disk, which is what the kernel
/// limits.
pub(super) fn devices(paths: &[String]) -> BTreeMap<String, Result<String, String>> {
    paths.iter().map(|path| (path.clone(), device(path))).collect()
}

fn device(path: &str) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    let number = if metadata.file_type().is_block_device() { metadata.rdev() } else { metadata.dev() };
    let name = format!("{}:{}", major(number), minor(number));
    if major(number) == 0 {
        return Err(
            "its file system has no disk of its own (network, memory, several disks): no rate can be set"
                .into(),
        );
    }
    let sys = format!("/sys/dev/block/{name}");
    if !Path::new(&sys).exists() {
        return Err(format!("{name} is no disk of this host"));
    }
    if !Path::new(&sys).join("partition").exists() {
        return Ok(name);
    }
    let whole = std::fs::canonicalize(&sys).ok().and_then(|partition| Some(partition.parent()?.join("dev")));
    let text = whole.and_then(|file| std::fs::read_to_string(file).ok());
    text.map(|text| text.trim().to_owned())
        .ok_or_else(|| format!("the disk of partition {name} cannot be found"))
}
