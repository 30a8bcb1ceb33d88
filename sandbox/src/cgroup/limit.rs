//! Limits of a node: cgroups-rs writes what it has a setter for; each value is read back, because its setters are right and
//! its readers and its `apply` are not.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use cgroups_rs::fs::blkio::BlkIoController;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::hugetlb::HugeTlbController;
use cgroups_rs::fs::memory::{MemController, SetMemory};
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{MaxValue, error::Error as CgroupsError};
use jacamar_kernel::Errno;
use jacamar_plan::{CgroupNode, Control, Limit, Max, PlannedLimit, Step, StepError};
use nix::sys::stat::Mode;

use super::{DIRECTORY, read_file, step_of, write_file};

/// Writes the limits of a node, each only where its controller is there, and reads each back: a group without the
/// controller, or a directory that is none, would take a value for nothing.
pub(super) fn limit(node: &CgroupNode) -> Result<(), StepError> {
    each(&node.path, &node.limits)
}

/// Of a slice of systemd's: those values that no property of it stands for, and which it leaves alone.
pub(super) fn without_property(node: &CgroupNode) -> Result<(), StepError> {
    each(&node.path, node.limits.iter().filter(|planned| !crate::systemd::has_property(&planned.limit)))
}

fn each<'p>(path: &str, limits: impl IntoIterator<Item = &'p PlannedLimit>) -> Result<(), StepError> {
    limits.into_iter().try_for_each(|planned| {
        limit_one(path, planned)
            .map_err(|e| step_of(Step::Limit { path: path.to_owned(), limit: planned.clone() }, e))
    })
}

fn limit_one(path: &str, planned: &PlannedLimit) -> Result<(), Errno> {
    let limit = &planned.limit;
    let group = nix::fcntl::open(path, DIRECTORY, Mode::empty())?;
    has_controller(group.as_fd(), limit.control().controller())?;
    match set(path, limit) {
        Some(result) => result.map_err(|error| errno_of(&error))?,
        None => {
            let file = CString::new(limit.file()).map_err(|_| Errno::EINVAL)?;
            write_file(group.as_fd(), &file, limit.text().as_bytes())?;
        }
    }
    let file = CString::new(limit.file()).map_err(|_| Errno::EINVAL)?;
    if limit.is_in(&read_file(group.as_fd(), &file)?) { Ok(()) } else { Err(Errno::EBADMSG) }
}

/// Through the setters of cgroups-rs; `None` where it has none that is right on cgroup v2.
fn set(path: &str, limit: &Limit) -> Option<Result<(), CgroupsError>> {
    fn controller<C>(new: fn(std::path::PathBuf, std::path::PathBuf, bool) -> C, path: &str) -> C {
        new(path.into(), std::path::PathBuf::new(), true)
    }
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    // -1 is its "no limit".
    let amount = |max: &Max| max.value().map_or(-1, signed);
    let max_value = |max: &Max| max.value().map_or(MaxValue::Max, |value| MaxValue::Value(signed(value)));
    match limit {
        Limit::Memory(Control::MemoryMax, max) => {
            Some(controller(MemController::new, path).set_limit(amount(max)))
        }
        Limit::Memory(Control::MemorySwapMax, max) => {
            Some(controller(MemController::new, path).set_memswap_limit(amount(max)))
        }
        Limit::Memory(control, max) => {
            let value = Some(max_value(max));
            let set = match control {
                Control::MemoryMin => SetMemory { min: value, ..none() },
                Control::MemoryLow => SetMemory { low: value, ..none() },
                _ => SetMemory { high: value, ..none() },
            };
            Some(controller(MemController::new, path).set_mem(set))
        }
        Limit::Cpu { quota, period } => {
            let cpu = controller(CpuController::new, path);
            Some(cpu.set_cfs_quota_and_period(Some(amount(quota)), Some(*period)))
        }
        Limit::CpuWeight(weight) => Some(controller(CpuController::new, path).set_shares(u64::from(*weight))),
        Limit::Cpuset(control, list) => {
            let cpuset = controller(CpuSetController::new, path);
            Some(match control {
                Control::AllowedMemoryNodes => cpuset.set_mems(&list.to_string()),
                _ => cpuset.set_cpus(&list.to_string()),
            })
        }
        Limit::Tasks(max) => Some(controller(PidController::new, path).set_pid_max(max_value(max))),
        Limit::Io { control, device, rate: Max::Value(rate) } => {
            let (major, minor) = device.split_once(':')?;
            let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
            let io = controller(BlkIoController::new, path);
            Some(match control {
                Control::IOReadBandwidthMax => io.throttle_read_bps_for_device(major, minor, *rate),
                Control::IOWriteBandwidthMax => io.throttle_write_bps_for_device(major, minor, *rate),
                Control::IOReadIOPSMax => io.throttle_read_iops_for_device(major, minor, *rate),
                _ => io.throttle_write_iops_for_device(major, minor, *rate),
            })
        }
        Limit::HugeTlb { size, max: Max::Value(value) } => {
            Some(controller(HugeTlbController::new, path).set_limit_in_bytes(size, *value))
        }
        // It writes io.bfq.weight, cannot lift a rate and knows neither oom.group nor idle.
        Limit::IoWeight(_)
        | Limit::Io { rate: Max::Infinity, .. }
        | Limit::HugeTlb { max: Max::Infinity, .. }
        | Limit::OomGroup(_)
        | Limit::CpuIdle => None,
    }
}

fn none() -> SetMemory {
    SetMemory { low: None, high: None, min: None, max: None }
}

fn errno_of(error: &CgroupsError) -> Errno {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(code) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return Errno::from_raw(code);
        }
        source = error.source();
    }
    Errno::EIO
}

fn has_controller(group: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let list = read_file(group, c"cgroup.controllers")?;
    if list.split_whitespace().any(|word| word == name) { Ok(()) } else { Err(Errno::ENODEV) }
}
