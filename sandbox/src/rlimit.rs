//! Resource limits of processes, getrlimit(2).

use jacamar_plan::{Max, PlannedRlimit, Resource};
use nix::sys::resource::{self, RLIM_INFINITY, rlim_t};

/// The kernel's number for a resource.
pub(crate) const fn resource(name: Resource) -> resource::Resource {
    match name {
        Resource::CPU => resource::Resource::RLIMIT_CPU,
        Resource::FSIZE => resource::Resource::RLIMIT_FSIZE,
        Resource::DATA => resource::Resource::RLIMIT_DATA,
        Resource::STACK => resource::Resource::RLIMIT_STACK,
        Resource::CORE => resource::Resource::RLIMIT_CORE,
        Resource::RSS => resource::Resource::RLIMIT_RSS,
        Resource::NOFILE => resource::Resource::RLIMIT_NOFILE,
        Resource::AS => resource::Resource::RLIMIT_AS,
        Resource::NPROC => resource::Resource::RLIMIT_NPROC,
        Resource::MEMLOCK => resource::Resource::RLIMIT_MEMLOCK,
        Resource::LOCKS => resource::Resource::RLIMIT_LOCKS,
        Resource::SIGPENDING => resource::Resource::RLIMIT_SIGPENDING,
        Resource::MSGQUEUE => resource::Resource::RLIMIT_MSGQUEUE,
        Resource::NICE => resource::Resource::RLIMIT_NICE,
        Resource::RTPRIO => resource::Resource::RLIMIT_RTPRIO,
        Resource::RTTIME => resource::Resource::RLIMIT_RTTIME,
    }
}

/// Soft and hard, as the kernel counts. Allocates nothing.
pub(crate) fn pair(limit: &PlannedRlimit) -> (rlim_t, rlim_t) {
    let number = |max: Max| max.value().unwrap_or(RLIM_INFINITY);
    (number(limit.soft), number(limit.hard))
}
