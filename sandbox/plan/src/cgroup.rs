//! The control groups of a job, as a plan has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::PlannedLimit;

/// Who makes the groups of jobs and writes into them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// We do: mkdir(2) and write(2).
    #[default]
    Ourselves,
    /// systemd, which owns the whole tree of a host that it has booted ("single-writer rule",
    /// <https://systemd.io/CGROUP_DELEGATION>): nodes are its slices, and a stage's leaf is a scope.
    Systemd,
}

/// The nested control groups: site, user, job, stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobCgroup {
    /// The delegated group above the site's node; none as root.
    pub delegated: Option<DelegatedGroup>,
    /// The site's node, which stays.
    pub site: CgroupNode,
    /// The user's, below it; removed by whoever finds it empty.
    pub user: CgroupNode,
    /// The job's, below that.
    pub job: CgroupNode,
    /// The stage's leaf, in which the processes are.
    pub leaf: String,
    /// Controllers that the delegated group, the site's and the user's node enable for their children: those that a limit needs, and those
    /// that count.
    pub controllers: Vec<String>,
    /// Whether the clone starts in it (else the waiting child is moved there before the release).
    pub clone_into: bool,
    /// Who makes them.
    pub manager: Manager,
    /// Hierarchies of version 1 by controller, each with the same directories.
    pub version1: BTreeMap<String, String>,
}

/// The delegated group, and what must be done there before groups below it can have controllers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelegatedGroup {
    /// Its directory.
    pub path: String,
    /// A leaf into which every process of the group itself goes, the runner above all; none where that is not needed.
    pub runner: Option<String>,
}

/// One of them, with the limits that are written before any process is in it, and read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupNode {
    /// Its directory.
    pub path: String,
    /// Its limits, in the order in which they are written.
    pub limits: Vec<PlannedLimit>,
}

impl CgroupNode {
    /// Name of the unit that a group is where systemd made it.
    #[must_use]
    pub fn unit(path: &str) -> &str {
        path.rsplit('/').next().unwrap_or(path)
    }
}

impl JobCgroup {
    /// Name of the site's node where the site has not named it: a slice of systemd's, or a directory of the same name.
    pub const SITE: &str = "jacamar.slice";

    /// Paths of the user's and of the job's node, named as systemd nests slices, systemd.slice(5): each `-` is a level, and
    /// a job's id has none.
    #[must_use]
    pub fn nodes(site: &str, uid: u32, job_id: &str) -> (String, String) {
        let user = format!("{site}/jacamar-u{uid}.slice");
        let job = format!("{user}/jacamar-u{uid}-{job_id}.slice");
        (user, job)
    }
}
