//! Control groups that are there, whoever made them: for `gc`, which ends what nobody knows any more.

use std::time::SystemTime;

use jacamar_kernel::Errno;
use jacamar_plan::{JobCgroup, Level, Manager, Step, StepError};

use crate::cgroup::{as_owner, children, owner, remove_empty, step_of};

/// A job's node below the site's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobNode {
    /// Whose.
    pub uid: u32,
    /// Name of the record or command, and what else its maker put behind that.
    pub name: String,
    /// Its directory.
    pub path: String,
    /// Not before it was made.
    pub modified: SystemTime,
}

/// Every job's node below the site's; none if there is no such node.
///
/// # Errors
/// [`StepError`]
pub fn job_nodes(site: &str) -> Result<Vec<JobNode>, StepError> {
    let mut found = Vec::new();
    for uid in users(site)? {
        let (user, _) = JobCgroup::nodes(site, uid, "");
        for name in listed(&user)? {
            let path = format!("{user}/{name}");
            let prefix = format!("jacamar-u{uid}-");
            let Some(name) = name.strip_prefix(&prefix).and_then(|name| name.strip_suffix(".slice")) else {
                continue;
            };
            if let Some(modified) = modified(&path)? {
                found.push(JobNode { uid, name: name.to_owned(), path, modified });
            }
        }
    }
    Ok(found)
}

/// Removes users' nodes below the site's that are empty and that `spare` does not spare by their age; their paths.
///
/// # Errors
/// [`StepError`]
pub fn remove_empty_users(
    site: &str,
    level: Level,
    spare: impl Fn(SystemTime) -> bool,
    only_look: bool,
) -> Result<Vec<String>, StepError> {
    let mut removed = Vec::new();
    for uid in users(site)? {
        let (user, _) = JobCgroup::nodes(site, uid, "");
        let Some(modified) = modified(&user)? else { continue };
        if spare(modified) || !listed(&user)?.is_empty() {
            continue;
        }
        if !only_look {
            // Whoever makes a job's node in it meanwhile tries again.
            match crate::systemd::manager_of(site, level) {
                Manager::Systemd => crate::systemd::stop_empty(&user)
                    .map_err(|error| step_of(Step::EndCgroup { path: user.clone() }, error.errno()))?,
                Manager::Ourselves => as_owner(owner(level), || remove_empty(&user))?,
            }
        }
        removed.push(user);
    }
    Ok(removed)
}

fn users(site: &str) -> Result<Vec<u32>, StepError> {
    let uid = |name: &String| name.strip_prefix("jacamar-u")?.strip_suffix(".slice")?.parse().ok();
    Ok(listed(site)?.iter().filter_map(uid).collect())
}

/// Groups in a group; none if it is gone.
fn listed(path: &str) -> Result<Vec<String>, StepError> {
    match children(path) {
        Err(Errno::ENOENT) => Ok(Vec::new()),
        other => other.map_err(|errno| step_of(Step::EndCgroup { path: path.to_owned() }, errno)),
    }
}

fn modified(path: &str) -> Result<Option<SystemTime>, StepError> {
    match std::fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(time) => Ok(Some(time)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            Err(step_of(Step::EndCgroup { path: path.to_owned() }, errno))
        }
    }
}
