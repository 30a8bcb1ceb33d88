//! What a job finds, at each of the three levels, whatever is around.
//!
//! Each check runs on this host as it is, under a parent filter that answers ENOSYS to all that is newer than Linux
//! 4.18, under one that answers EPERM, and without cgroup v2. The host and its accounts are the testbed's.

mod compat;
mod delegated;
mod ends;
mod filter;
mod identity;
mod lacking;
mod process;
mod ssh;
mod terminal;
mod view;

use testbed::host::{Host, Place, Surroundings};

/// The places in which a check is made.
fn places(surroundings: Surroundings) -> [Place<'static>; 3] {
    Place::levels(Host::shared(), surroundings)
}

macro_rules! in_all_surroundings {
    ($($check:path as $name:ident),* $(,)?) => {
        in_all_surroundings! { @one as_it_is AsItIs $($check as $name),* }
        in_all_surroundings! { @one old_kernel OldKernel $($check as $name),* }
        in_all_surroundings! { @one container Container $($check as $name),* }
        in_all_surroundings! { @one no_cgroup2 NoCgroup2 $($check as $name),* }
    };
    (@one $module:ident $surroundings:ident $($check:path as $name:ident),*) => {
        mod $module {
            $(#[test] fn $name() { $check(testbed::host::Surroundings::$surroundings); })*
        }
    };
}

in_all_surroundings! {
    crate::identity::ids_and_groups as ids_and_groups,
    crate::identity::files_of_each_group as files_of_each_group,
    crate::identity::chgrp_to_each_group as chgrp_to_each_group,
    crate::process::no_capabilities as no_capabilities,
    crate::process::nothing_of_a_caller_with_capabilities as nothing_of_a_caller_with_capabilities,
    crate::process::own_processes_only as own_processes_only,
    crate::process::descriptors as descriptors,
    crate::process::signals as signals,
    crate::process::ordinary_urgency as ordinary_urgency,
    crate::process::umask_of_the_caller as umask_of_the_caller,
    crate::view::private_directories as private_directories,
    crate::view::no_way_to_others as no_way_to_others,
    crate::view::system_is_read_only as system_is_read_only,
    crate::view::nothing_is_left_on_the_host as nothing_is_left_on_the_host,
    crate::ends::exit_codes as exit_codes,
    crate::ends::daemons_end as daemons_end,
    crate::filter::planned_answers as planned_answers,
    crate::filter::nothing_else_changes as nothing_else_changes,
    crate::filter::address_families as address_families,
    crate::filter::what_hpc_needs as what_hpc_needs,
    crate::ssh::client_reads_its_configuration as ssh_client_reads_its_configuration,
    crate::ssh::git_clone as ssh_git_clone,
    crate::compat::setuid_helpers as compat_setuid_helpers,
    crate::compat::floor as compat_floor,
}
