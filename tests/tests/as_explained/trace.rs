//! What strace(1) wrote, with paths in place of descriptors.

use std::collections::BTreeMap;

/// One call as strace prints it, without its result, and with paths in place of descriptors.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) text: String,
    /// `0`, `-1 EPERM (Operation not permitted)`, a number of a descriptor or process.
    pub(crate) result: String,
}

impl Call {
    pub(crate) fn name(&self) -> &str {
        self.text.split('(').next().unwrap_or_default()
    }

    pub(crate) fn failed(&self) -> bool {
        self.result.starts_with("-1")
    }
}

/// Calls of each process.
#[derive(Debug)]
pub(crate) struct Trace(BTreeMap<u32, Vec<Call>>);

impl Trace {
    /// `== PID` and the lines of that process, for each.
    pub(crate) fn parse(text: &str) -> Self {
        let job = job_directory(text);
        let mut processes = BTreeMap::new();
        for part in format!("\n{text}").split("\n== ").filter(|part| !part.is_empty()) {
            let (pid, lines) = part.split_once('\n').expect("a pid");
            let mut open = BTreeMap::new();
            let calls = lines.lines().filter_map(|line| call(line, &mut open, job.as_ref())).collect();
            processes.insert(pid.parse().expect("a pid"), calls);
        }
        Self(processes)
    }

    /// The supervisor's calls up to the release of the child.
    pub(crate) fn parent(&self) -> &[Call] {
        let (_, calls) = self.supervisor();
        let release = calls.iter().rposition(is_release).expect("a release");
        calls.get(..=release).expect("within")
    }

    /// The child's calls up to its fork, then those of the command's process up to execve.
    pub(crate) fn child(&self) -> Vec<Call> {
        let (child, _) = self.supervisor();
        let calls = self.0.get(&child).expect("the child was traced");
        let fork = calls.iter().rposition(|call| call.name() == "clone" && !call.failed()).expect("a fork");
        let command = self.0.values().find(|calls| calls.iter().any(executes_true));
        let command = command.expect("the command was executed");
        let execve = command.iter().position(executes_true).expect("just seen");
        [calls.get(..=fork).expect("within"), command.get(..=execve).expect("within")].concat()
    }

    /// The pid of the child that the supervisor cloned last before its release, and the supervisor's calls.
    fn supervisor(&self) -> (u32, &[Call]) {
        let calls = self.0.values().find(|calls| calls.iter().any(is_release)).expect("a supervisor");
        let release = calls.iter().rposition(is_release).expect("just seen");
        let clone =
            calls.iter().take(release).rfind(|call| call.name().starts_with("clone") && !call.failed());
        (clone.expect("a clone").result.parse().expect("a pid"), calls)
    }
}

fn is_release(call: &Call) -> bool {
    call.name() == "write" && call.text.ends_with(", \"\\377\", 1)")
}

fn executes_true(call: &Call) -> bool {
    call.name() == "execve" && call.text.contains("/true\", [\"true\"]") && !call.failed()
}

/// Where the job's directories are: their name is random, `explain` calls them `/JOB`, and the job `JOB`.
fn job_directory(text: &str) -> Option<(String, String)> {
    text.lines().find_map(|line| {
        let (base, name) = line.strip_prefix("mkdirat(")?.split_once(">, \"")?;
        let name = name.split('"').next()?;
        let random = name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
        random.then(|| (format!("{}/{name}", base.split_once('<').unwrap_or_default().1), name.to_owned()))
    })
}

fn call(line: &str, open: &mut BTreeMap<u32, String>, job: Option<&(String, String)>) -> Option<Call> {
    let (text, result) = line.rsplit_once(" = ")?;
    let text = text.trim_end();
    // `+++ exited`, `--- SIGCHLD`.
    if text.starts_with(['+', '-']) || !text.ends_with(')') {
        return None;
    }
    let mut text = text.to_owned();
    if let Some((directory, id)) = job {
        text = text.replace(directory, "/JOB").replace(id, "JOB");
    }
    let opened = opened(&text);
    let text = plain(&text, open);
    if let (Some(path), Ok(fd)) = (opened, result.split('<').next().unwrap_or_default().parse()) {
        open.insert(fd, path);
    }
    Some(Call { text, result: result.to_owned() })
}

/// The path that a call opens: a mount may give a descriptor another one later, so it is that of the call.
fn opened(text: &str) -> Option<String> {
    let rest = text.strip_prefix("openat2(").or_else(|| text.strip_prefix("openat("))?;
    let (at, rest) = rest.split_once(", \"")?;
    let path = rest.split('"').next()?;
    let below = at.split_once('<').map(|(_, directory)| directory.trim_end_matches('>')).unwrap_or_default();
    Some(if path.starts_with('/') { path.to_owned() } else { format!("{below}/{path}") })
}

/// `5</path>` and `/proc/self/fd/5` become the path; comments of strace go.
fn plain(text: &str, open: &BTreeMap<u32, String>) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        // `1<<CAP_SETGID` is a shift.
        if let Some(after) = after.strip_prefix('<') {
            plain += before;
            plain += "<<";
            rest = after;
            continue;
        }
        let (inside, after) = after.split_once('>').unwrap_or((after, ""));
        let kept = before.trim_end_matches(|c: char| c.is_ascii_digit());
        plain += kept;
        // AT_FDCWD</> keeps its name; what a descriptor is counts, not its number.
        plain += if before.ends_with("AT_FDCWD") { "" } else { inside };
        rest = after;
    }
    plain += rest;
    for (fd, path) in open.iter().rev() {
        plain = plain.replace(&format!("\"/proc/self/fd/{fd}\""), &format!("{path:?}"));
        plain = plain.replace(&format!(" cgroup={fd}}}"), &format!(" cgroup={path}}}"));
    }
    while let (Some(start), Some(end)) = (plain.find(" /*"), plain.find("*/")) {
        if end < start {
            break;
        }
        plain.replace_range(start..end + 2, "");
    }
    plain
}
