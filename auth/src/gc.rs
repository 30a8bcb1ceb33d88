//! `jacamar-auth gc`: finishes what a killed driver or a restart of the host left.
//!
//! Safe beside running jobs and beside itself. What is in use is known by its lock or by what is made before it and
//! removed after it: a name in `jobs/` before a job's directories and control groups, a locked private directory before
//! a command's control group. So whatever was listed and has neither afterwards is nobody's. In between mkdir(2) and
//! flock(2) its age protects it.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use jacamar_contract::environment::RecordName;
use jacamar_plan::Level;
use jacamar_record::{AuditSettings, Jobs, OpenJob, RecordError, is_young};
use jacamar_sandbox::{CgroupChoice, LeftDirectory, Own, cgroup_nodes, job_nodes, remove_job_cgroup};
use jacamar_site::trusted_file::Trust;
use nix::unistd::getuid;
use serde_json::Value;

use crate::audit::Priority;
use crate::stage::finish::{END_WITHIN, UserFiles, finish};
use crate::stage::known::Known;
use crate::stage::user_side::{same_level, state};
use crate::stage::{audit_settings, choice, hostname, settings, tell};
use crate::stale::{Here, Why};

/// Nothing left to do.
const CLEAN: u8 = 0;
/// Something is left: it failed, it is another program's, or it was only looked at.
const LEFT: u8 = 1;

/// Collects, or says what it would collect; the exit code.
pub(crate) fn gc(
    own: &Own,
    level: Level,
    configuration: Option<&Path>,
    only_look: bool,
) -> anyhow::Result<u8> {
    let trust = match level {
        Level::Root | Level::Capabilities => Trust::RootOnly,
        Level::User => Trust::Caller(getuid().as_raw()),
    };
    let settings = configuration.map(|path| settings(Some(path), trust)).transpose()?;
    if let Some(settings) = &settings {
        // With file capabilities that have no effect it would look into another state directory, and find nothing.
        crate::stage::level(level, settings)?;
    }
    let state = state(level)?;
    if !state.join("jobs").exists() && !state.join("tmp").exists() {
        return Ok(CLEAN);
    }
    let jobs = Jobs::open(&state)?;
    let audit = settings.as_ref().map(audit_settings);
    let groups = settings.as_ref().map_or(CgroupChoice::Auto, choice);
    let mut collector = Collector { own, level, jobs, state, audit, only_look, left: false };
    collector.records();
    // Those of `exec`, which reads no configuration.
    collector.commands();
    collector.groups(&groups);
    Ok(if collector.left { LEFT } else { CLEAN })
}

struct Collector<'a> {
    own: &'a Own,
    level: Level,
    jobs: Jobs,
    state: PathBuf,
    /// For what has no record; none: as where no configuration was read.
    audit: Option<AuditSettings>,
    only_look: bool,
    left: bool,
}

/// Something that is finished or removed.
struct Found {
    /// "finish" or "remove", which become "finished" and "removed".
    verb: &'static str,
    thing: String,
    why: String,
    rule: &'static str,
    user_files: UserFiles,
}

impl Found {
    fn remove(thing: String, rule: &'static str, why: &str) -> Self {
        Self { verb: "remove", thing, why: why.into(), rule, user_files: UserFiles::Removed }
    }
}

impl Collector<'_> {
    /// Says what was done, or would be; the rest goes on whatever becomes of the words.
    fn collected(&mut self, known: &Known, found: &Found) {
        let Found { verb, thing, why, rule, user_files } = found;
        let files = match user_files {
            UserFiles::Removed => "",
            UserFiles::Left => "; temporary files in the user's own directories are left",
        };
        let line = if self.only_look {
            self.left = true;
            format!("would {verb} {thing}: {why}\n")
        } else {
            let past = verb.trim_end_matches('e');
            format!("{past}ed {thing}: {why}{files}\n")
        };
        let mut output = std::io::stdout();
        if let Err(error) = output.write_all(line.as_bytes()).and_then(|()| output.flush()) {
            self.failed(known, "the line on standard output", &error.into());
        }
        if self.only_look {
            return;
        }
        let mut fields: Vec<(&'static str, Value)> =
            vec![("rule", (*rule).into()), ("object", thing.clone().into()), ("cause", why.clone().into())];
        if *user_files == UserFiles::Left {
            fields.push(("user_files", "left".into()));
        }
        if let Err(unwritten) = known.line(Priority::Info, "collected", fields) {
            self.said("the audit line", &unwritten);
        }
    }

    /// What stays, and why.
    fn failed(&mut self, known: &Known, thing: &str, error: &anyhow::Error) {
        self.said(thing, error);
        if self.only_look {
            return;
        }
        let fields = vec![("object", thing.into()), ("cause", format!("{error:#}").into())];
        if let Err(unwritten) = known.line(Priority::Error, "broken", fields) {
            self.said("the audit line", &unwritten);
        }
    }

    fn said(&mut self, thing: &str, error: &anyhow::Error) {
        self.left = true;
        tell(&format!("jacamar-auth: {thing} is left: {error:#}\n"));
    }

    /// What is known of things without a record.
    fn known(&mut self) -> Known {
        let mut known = Known::default();
        if let Some(audit) = &self.audit
            && let Err(error) = known.open_lines(audit, &self.state)
        {
            self.said("the audit log", &error);
        }
        known
    }

    /// What became of a thing: nothing, if it is in use or gone.
    fn conclude(&mut self, thing: &str, result: anyhow::Result<Option<Found>>) {
        let known = self.known();
        match result {
            Ok(Some(found)) => self.collected(&known, &found),
            Ok(None) => {}
            Err(error) => self.failed(&known, thing, &error),
        }
    }

    fn records(&mut self) {
        let (names, here) = match (self.jobs.names(), Here::look()) {
            (Ok(names), Ok(here)) => (names, here),
            (Err(error), _) => return self.conclude("the directory of records", Err(error.into())),
            (_, Err(error)) => return self.conclude("the directory of records", Err(error)),
        };
        for name in names.iter().filter(|name| RecordName::new(name).is_some()) {
            match self.jobs.find(name) {
                Ok(job) => self.job(&here, job),
                Err(RecordError::Missing(_)) => self.half_made(name),
                Err(error) => self.conclude(&format!("record {name}"), Err(error.into())),
            }
        }
    }

    fn half_made(&mut self, name: &str) {
        let thing = format!("the half-made record {name}");
        let removed = self.jobs.remove_half_made(name, self.only_look);
        let found = |removed: bool| {
            removed.then(|| Found::remove(thing.clone(), "half_made", "config or a clean-up was killed"))
        };
        self.conclude(&thing, removed.map(found).map_err(anyhow::Error::from));
    }

    fn job(&mut self, here: &Here, job: OpenJob) {
        let mut known = Known::default();
        known.job(job.record());
        let thing = format!("job {} of {}", job.record().project.job_id, job.record().grant.account.name);
        let opened = known.open_lines(&job.record().audit.clone(), &self.state);
        match self.finish(here, job) {
            Ok(Some((why, user_files))) => {
                let (why, rule) = (why.to_string(), why.rule());
                self.collected(&known, &Found { verb: "finish", thing, why, rule, user_files });
            }
            Ok(None) => return,
            Err(error) => self.failed(&known, &thing, &error),
        }
        // Done is what can be, also where that cannot be told.
        if let Err(error) = opened {
            self.said("the audit line", &error);
        }
    }

    fn finish(&self, here: &Here, job: OpenJob) -> anyhow::Result<Option<(Why, UserFiles)>> {
        let (host, own_host) = (&job.record().host, hostname()?);
        if *host != own_host {
            // Homes are shared between hosts; its runner, boot and locks are to be seen there alone.
            return match self.level {
                Level::User => Ok(None),
                Level::Root | Level::Capabilities => {
                    Err(anyhow!("it is of host {host}, and this is {own_host}: run gc there"))
                }
            };
        }
        if here.why(&job)?.is_none() {
            return Ok(None);
        }
        let lock = match job.try_lock() {
            Ok(Some(lock)) => lock,
            // A stage or another clean-up.
            Ok(None) | Err(RecordError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Again: a stage may have run meanwhile, and no other begins now.
        let Some(why) = here.why(&job)? else { return Ok(None) };
        same_level(job.record(), self.level)?;
        let user_files = match self.only_look {
            true => UserFiles::Removed,
            false => finish(self.own, job, Some(lock), &self.jobs, self.level)?,
        };
        Ok(Some((why, user_files)))
    }

    /// Private directories without a record, of commands whose supervisor was killed.
    fn commands(&mut self) {
        let base = self.state.join("tmp");
        let nodes = cgroup_nodes(self.level, &CgroupChoice::Auto);
        let (names, nodes) = match (LeftDirectory::names(&base), nodes) {
            (Ok(names), Ok(nodes)) => (names, nodes),
            (Err(error), _) => return self.conclude("the private directories", Err(error.into())),
            (_, Err(error)) => return self.conclude("the private directories", Err(error.into())),
        };
        for name in names.iter().filter(|name| RecordName::new(name).is_some()) {
            let result = self.command(&base, name, &nodes);
            self.conclude(&format!("the private directory {}", base.join(name).display()), result);
        }
    }

    fn command(&self, base: &Path, name: &str, nodes: &[String]) -> anyhow::Result<Option<Found>> {
        if self.jobs.has(name)? {
            return Ok(None);
        }
        let Some(mut directory) = LeftDirectory::look(base, name, self.level)? else { return Ok(None) };
        if is_young(directory.modified) || !directory.hold()? {
            return Ok(None);
        }
        if !self.only_look {
            for node in nodes {
                remove_job_cgroup(node, directory.uid, name, self.level, END_WITHIN)?;
            }
            directory.remove()?;
        }
        let thing = format!("the private directory {name} of uid {}", directory.uid);
        Ok(Some(Found::remove(thing, "command_gone", "its exec was killed")))
    }

    fn groups(&mut self, choice: &CgroupChoice) {
        match cgroup_nodes(self.level, choice) {
            Ok(nodes) => nodes.iter().for_each(|node| self.groups_below(node)),
            Err(error) => self.conclude("the control groups", Err(error.into())),
        }
    }

    fn groups_below(&mut self, node: &str) {
        match job_nodes(node) {
            Ok(jobs) => {
                for found in jobs {
                    let result = self.group(node, &found);
                    self.conclude(&format!("the control group {}", found.path), result);
                }
            }
            Err(error) => return self.conclude("the control groups", Err(error.into())),
        }
        match jacamar_sandbox::remove_empty_users(node, self.level, is_young, self.only_look) {
            Ok(users) => {
                for path in users {
                    let found =
                        Found::remove(format!("the control group {path}"), "empty_group", "it is empty");
                    self.conclude(&path, Ok(Some(found)));
                }
            }
            Err(error) => self.conclude("the users' control groups", Err(error.into())),
        }
    }

    fn group(&self, node: &str, found: &jacamar_sandbox::JobNode) -> anyhow::Result<Option<Found>> {
        // Helpers of `config` have a word behind the record's name.
        let record = found.name.split('_').next().and_then(RecordName::new);
        let Some(record) = record.filter(|_| !is_young(found.modified)) else { return Ok(None) };
        let record = record.as_str();
        let directory = self.state.join("tmp").join(record);
        if self.jobs.has(record)? || directory.try_exists()? || !Path::new(&found.path).try_exists()? {
            return Ok(None);
        }
        if !self.only_look {
            remove_job_cgroup(node, found.uid, &found.name, self.level, END_WITHIN)?;
        }
        let thing = format!("the control group {}", found.path);
        Ok(Some(Found::remove(thing, "group_of_nobody", "no job or command has it")))
    }
}
