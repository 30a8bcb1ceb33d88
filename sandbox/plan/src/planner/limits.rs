//! Limits: of the three nodes, of each process, and what they mean for parallel builds.

use std::fmt;

use super::{Planner, Unplannable};
use crate::{
    Amount, Bytes, CgroupNode, Control, CpuQuota, Delegated, DelegatedGroup, Grant, Job, JobCgroup, Key,
    Limit, Manager, Max, Memory, Micros, Need, OomPolicy, PlannedLimit, PlannedRlimit, Resource, Resources,
    Setting, Stage, Tasks, Weight,
};

/// Whose limits they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Site,
    User,
    Job,
}

impl Node {
    fn what(self, control: Control) -> String {
        match self {
            Self::Site => format!("{control} of [sandbox.site]"),
            Self::User => format!("{control} of [sandbox.user]"),
            Self::Job => control.to_string(),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Site => "all jobs of this host",
            Self::User => "all jobs of this user",
            Self::Job => "the job",
        })
    }
}

/// Nodes above one, the nearest first, with their limits.
type Parents<'p> = [(Node, &'p [PlannedLimit])];

/// Controllers that count: usage and deaths are explained by them, where the host has them.
const COUNTING: [&str; 4] = ["cpu", "io", "memory", "pids"];

impl Planner<'_> {
    pub(super) fn cgroup(
        &mut self,
        grant: &Grant,
        job: &Job,
        stage: &Stage,
    ) -> Result<Option<JobCgroup>, Unplannable> {
        let (own, configured) = (self.profile, self.site);
        let site = self.node_limits(Node::Site, &configured.site, &[])?;
        let user = self.node_limits(Node::User, &configured.user, &[(Node::Site, &site)])?;
        let parents: [(Node, &[PlannedLimit]); 2] = [(Node::User, &user), (Node::Site, &site)];
        let limits = self.node_limits(Node::Job, &own.settings.resources, &parents)?;
        let Ok(node) = &self.host.cgroup.node else { return Ok(None) };
        let needed: Vec<&str> =
            site.iter().chain(&user).chain(&limits).map(|l| l.limit.control().controller()).collect();
        let wanted = |name: &&String| COUNTING.contains(&name.as_str()) || needed.contains(&name.as_str());
        let controllers = self.host.cgroup.controllers.iter().filter(wanted).cloned().collect();
        let (user_path, job_path) = JobCgroup::nodes(node, grant.account.uid, &job.id);
        let manager = self.host.cgroup.manager;
        let leaf = match stage {
            Stage::Run(sub_stage) => sub_stage.as_str(),
            Stage::Config => "config",
            Stage::Prepare => "prepare",
            Stage::Cleanup => "cleanup",
            Stage::Exec => "exec",
        };
        let leaf = match manager {
            Manager::Ourselves => format!("{job_path}/{leaf}.scope"),
            // A unit's name is one of the whole host.
            Manager::Systemd => format!("{job_path}/jacamar-u{}-{}-{leaf}.scope", grant.account.uid, job.id),
        };
        let delegated = self.host.cgroup.delegated.as_ref().map(|Delegated { path, crowded }| {
            DelegatedGroup { path: path.clone(), runner: crowded.then(|| format!("{path}/runner")) }
        });
        Ok(Some(JobCgroup {
            delegated,
            site: CgroupNode { path: node.clone(), limits: site },
            user: CgroupNode { path: user_path, limits: user },
            job: CgroupNode { path: job_path, limits },
            leaf,
            controllers,
            clone_into: manager == Manager::Ourselves && self.host.calls.clone_into_cgroup.is_present(),
            manager,
            version1: self.host.cgroup.version1.clone(),
        }))
    }

    /// The limits of one node, resolved within those above it.
    fn node_limits(
        &mut self,
        node: Node,
        resources: &Resources,
        parents: &Parents<'_>,
    ) -> Result<Vec<PlannedLimit>, Unplannable> {
        let mut planned = Vec::new();
        for (control, setting) in resources {
            let key = Key::Control(*control);
            // A new group has no limit; one that stands may have one of another configuration.
            if node == Node::Job && setting.value.is_infinite() {
                self.origin.insert(key, setting.origin.clone());
                continue;
            }
            let limits = match self.obstacle(key) {
                Some(reason) => Err(reason),
                None => self.resolve(node, *control, setting, resources, parents),
            };
            match limits {
                Ok(limits) => {
                    if node == Node::Job {
                        self.origin.insert(key, setting.origin.clone());
                    }
                    let origin = || setting.origin.clone();
                    planned.extend(limits.into_iter().map(|limit| PlannedLimit { limit, origin: origin() }));
                }
                Err(reason) => self.lacking_of(node.what(*control), key, setting, reason)?,
            }
        }
        Ok(planned)
    }

    /// What is written for one key, or why it cannot be.
    fn resolve(
        &self,
        node: Node,
        control: Control,
        setting: &Setting<Amount>,
        resources: &Resources,
        parents: &Parents<'_>,
    ) -> Result<Vec<Limit>, String> {
        let limits = match &setting.value {
            Amount::Memory(memory) => {
                // Swap is no share of the memory.
                let total =
                    self.least(Control::MemoryMax, parents).unwrap_or(u64::MAX).min(self.host.memory.0);
                vec![Limit::Memory(control, memory.resolve(Bytes(total)).map(|bytes| bytes.0).into())]
            }
            Amount::Tasks(tasks) => {
                let total = self.least(Control::TasksMax, parents).unwrap_or(u64::MAX).min(self.host.tasks);
                vec![Limit::Tasks(tasks.resolve(total).into())]
            }
            Amount::OomPolicy(policy) => vec![Limit::OomGroup(*policy == OomPolicy::Kill)],
            Amount::CpuQuota(quota) => vec![cpu(*quota, resources)?],
            // A part of the quota.
            Amount::Period(_) if resources.contains_key(&Control::CPUQuota) => Vec::new(),
            Amount::Period(_) => return Err("it says nothing without CPUQuota".into()),
            Amount::Weight(Weight::Idle) => vec![Limit::CpuIdle],
            Amount::Weight(Weight::Value(weight)) if control == Control::IOWeight => {
                vec![Limit::IoWeight(*weight)]
            }
            Amount::Weight(Weight::Value(weight)) => vec![Limit::CpuWeight(*weight)],
            Amount::Numbers(list) => {
                if control == Control::AllowedCPUs
                    && let Some(processors) = &self.host.processors
                    && !list.is_within(processors)
                {
                    return Err(format!(
                        "{list} are not all among the processors of this host, {processors}"
                    ));
                }
                vec![Limit::Cpuset(control, list.clone())]
            }
            Amount::Rates(rates) => {
                let one = |rate: &crate::Rate| match self.host.devices.get(&rate.path) {
                    Some(Ok(device)) => {
                        Ok(Limit::Io { control, device: device.clone(), rate: rate.per_second.into() })
                    }
                    Some(Err(reason)) => Err(format!("{}: {reason}", rate.path)),
                    None => Err(format!("{} was not looked at", rate.path)),
                };
                rates.iter().map(one).collect::<Result<_, _>>()?
            }
            Amount::HugePages(all) => {
                let one = |pages: &crate::HugePages| {
                    let max = match pages.max {
                        Memory::Bytes(bytes) => Max::Value(bytes / pages.size * pages.size),
                        Memory::Percent(_) | Memory::Infinity => Max::Infinity,
                    };
                    Limit::HugeTlb { size: pages.size_name(), max }
                };
                all.iter().map(one).collect()
            }
        };
        for limit in &limits {
            if self.host.cgroup.missing.contains(&limit.file()) {
                return Err(match self.host.cgroup.version1.is_empty() {
                    true => format!("this kernel has no {}", limit.file()),
                    false => format!("control groups of version 1 have no {}", limit.control()),
                });
            }
            possible(limit, node, parents)?;
            if let Some((above, whose)) = self.above().find(|(above, _)| limit.is_above(above)) {
                let (limit, above) = (limit.in_words(), above.in_words());
                return Err(format!("{limit} for {node} are more than the {above} of {whose}"));
            }
        }
        Ok(limits)
    }

    /// Limits that are there before we write any, but those of our own node that we are to write.
    fn above(&self) -> impl Iterator<Item = (&Limit, &str)> {
        let node = self.host.cgroup.node.as_deref().unwrap_or_default();
        let ours =
            move |limit: &Limit, whose: &str| whose == node && self.site.site.contains_key(&limit.control());
        let all = self.host.cgroup.above.limits.iter().map(|(limit, whose)| (limit, whose.as_str()));
        all.filter(move |(limit, whose)| !ours(limit, whose))
    }

    /// The least limit of a kind that stands above a node.
    fn least(&self, control: Control, parents: &Parents<'_>) -> Option<u64> {
        let own = parents.iter().flat_map(|(_, limits)| limits.iter().map(|planned| &planned.limit));
        own.chain(self.above().map(|(limit, _)| limit))
            .filter(|limit| limit.control() == control)
            .filter_map(|limit| match limit {
                Limit::Memory(_, max) | Limit::Tasks(max) => max.value(),
                _ => None,
            })
            .min()
    }

    /// Variables for builds that would else count the processors of the machine.
    pub(super) fn parallelism(&mut self, cgroup: Option<&JobCgroup>) -> Vec<(String, String)> {
        let Some(setting) = &self.profile.settings.parallelism_variables else { return Vec::new() };
        let nodes = cgroup.map(|cgroup| [&cgroup.site, &cgroup.user, &cgroup.job]);
        let planned = nodes.into_iter().flatten().flat_map(|node| node.limits.iter().map(|l| &l.limit));
        let above = self.above().map(|(limit, _)| limit).filter(|_| cgroup.is_some());
        let processors = planned.chain(above).filter_map(|limit| match limit {
            Limit::Cpu { quota: Max::Value(quota), period } => Some((quota / (*period).max(1)).max(1)),
            Limit::Cpuset(Control::AllowedCPUs, list) => Some(list.count()),
            _ => None,
        });
        // Without a limit the machine's own number is right.
        let Some(processors) = processors.min() else { return Vec::new() };
        self.origin.insert(Key::ParallelismVariables, setting.origin.clone());
        let value = |text: &str| text.replace("%n", &processors.to_string());
        setting.value.iter().map(|(name, text)| (name.clone(), value(text))).collect()
    }

    /// Limits of each process, within what may be raised.
    pub(super) fn rlimits(&mut self) -> Result<Vec<PlannedRlimit>, Unplannable> {
        let profile = self.profile;
        let mut planned = Vec::new();
        for (resource, setting) in &profile.settings.limits {
            let key = Key::Limit(*resource);
            let inherited = self.host.rlimits.get(resource).map_or(Max::Infinity, |(_, hard)| *hard);
            let mut hard = setting.value.hard.unwrap_or(inherited);
            let open_files = Max::Value(self.host.open_files_max);
            let obstacle = if *resource == Resource::NOFILE && hard > open_files.max(inherited) {
                hard = hard.min(open_files);
                Some(format!("the kernel allows no more than fs.nr_open = {open_files} open files"))
            } else if hard > inherited && !self.host.raises_limits {
                hard = inherited;
                Some(format!(
                    "the hard limit is {inherited}, and to raise it takes CAP_SYS_RESOURCE; a higher {resource}= in the \
                     runner's unit is inherited"
                ))
            } else {
                None
            };
            if let Some(reason) = obstacle {
                let reason = match setting.need {
                    Need::Prefer => format!("{reason}; it is {hard} instead"),
                    Need::Require => reason,
                };
                self.lacking(key, setting, reason)?;
            }
            self.origin.insert(key, setting.origin.clone());
            planned.push(PlannedRlimit {
                resource: *resource,
                soft: setting.value.soft.min(hard),
                hard,
                raise: hard > inherited,
                origin: Some(setting.origin.clone()),
            });
        }
        if let Some(soft) = self.host.lost_stack
            && !profile.settings.limits.contains_key(&Resource::STACK)
        {
            let hard = self.host.rlimits.get(&Resource::STACK).map_or(Max::Infinity, |(_, hard)| *hard);
            let soft = soft.min(hard);
            planned.push(PlannedRlimit { resource: Resource::STACK, soft, hard, raise: false, origin: None });
        }
        Ok(planned)
    }
}

impl Amount {
    /// Whether it asks for nothing.
    fn is_infinite(&self) -> bool {
        matches!(
            self,
            Self::Memory(Memory::Infinity)
                | Self::Tasks(Tasks::Infinity)
                | Self::CpuQuota(CpuQuota::Infinity)
                | Self::OomPolicy(OomPolicy::Continue)
        )
    }
}

/// The least quota that the kernel takes, in microseconds: `min_cfs_quota_period` of `kernel/sched/core.c`.
const QUOTA_MIN: u64 = 1000;

fn cpu(quota: CpuQuota, resources: &Resources) -> Result<Limit, String> {
    let period = match resources.get(&Control::CPUQuotaPeriodSec).map(|setting| &setting.value) {
        Some(Amount::Period(Micros(period))) => *period,
        _ => Micros::DEFAULT_PERIOD.0,
    };
    let quota = match quota {
        CpuQuota::Infinity => Max::Infinity,
        CpuQuota::Percent(percent) => {
            let quota = u64::from(percent) * period / 100;
            if quota < QUOTA_MIN {
                return Err(format!(
                    "{percent}% of a period of {period} us are {quota} us, and the kernel takes no less than {QUOTA_MIN} us"
                ));
            }
            Max::Value(quota)
        }
    };
    Ok(Limit::Cpu { quota, period })
}

/// A group never has more than the one above it, whatever is written into its files.
fn possible(limit: &Limit, node: Node, parents: &Parents<'_>) -> Result<(), String> {
    for (parent, limits) in parents {
        for planned in *limits {
            if limit.is_above(&planned.limit) {
                let (limit, above) = (limit.in_words(), planned.limit.in_words());
                return Err(format!(
                    "{limit} for {node} are more than the {above} for {parent} ({})",
                    planned.origin
                ));
            }
        }
        // Protected memory is given on by the parent, and no more than it has itself.
        if let Limit::Memory(control @ (Control::MemoryMin | Control::MemoryLow), _) = limit
            && !limits.iter().any(|planned| planned.limit.control() == *control)
        {
            return Err(format!("it has no effect: {parent} have no {control} of which it could be a part"));
        }
    }
    Ok(())
}
