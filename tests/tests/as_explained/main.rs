//! What `explain` says is what the kernel is asked: compared with strace(1), not with our own messages.
//!
//! The child is compared from the clone to execve: every explained call occurs, in order, and nothing of what changes
//! identity, rights, namespaces or mounts occurs that is not explained. The parent is compared up to the release: its
//! control groups and what it writes into them and into /proc.

mod compare;
mod trace;

use jacamar_plan::{Level, Phase};
use serde::Deserialize;
use testbed::host::{
    BIN, CI1, ControlGroup, Host, KEEPER, PREFIX, Place, RUNNER, Ran, SHARED, Start, Started, Surroundings,
};

use crate::compare::{child, parent};
use crate::trace::Trace;

/// Calls that strace(1) records: those that are compared and those that open what the others name by descriptor.
const TRACED: &str = "trace=execve,clone,clone3,fork,vfork,mkdir,read,write,prctl,openat,openat2,fstatfs,close_range,\
    mount,umount2,move_mount,open_tree,fsopen,fsconfig,fsmount,fspick,mount_setattr,pivot_root,chroot,chdir,fchdir,\
    setsid,setpgid,setns,unshare,keyctl,add_key,request_key,setuid,setgid,setreuid,setregid,setresuid,setresgid,\
    setfsuid,setfsgid,setgroups,capset,seccomp,prlimit64,setrlimit,umask,mkdirat,personality,sched_setaffinity,\
    setpriority,sched_setscheduler,ioprio_set,sethostname";

/// `explain --json`, as far as it is compared.
#[derive(Deserialize)]
struct Explained {
    steps: Vec<ExplainedStep>,
}

#[derive(Deserialize)]
struct ExplainedStep {
    phase: Phase,
    calls: Vec<String>,
}

/// One launch, explained and traced.
struct Launch {
    place: Place<'static>,
    profile: &'static str,
    /// A command that executes the launcher.
    under: &'static [&'static str],
    /// A control group delegated to the starter, as by `Delegate=yes`.
    group: Option<ControlGroup>,
}

impl Launch {
    fn new(level: Level, surroundings: Surroundings, profile: &'static str) -> Self {
        Self { place: Place { host: Host::shared(), level, surroundings }, profile, under: &[], group: None }
    }

    fn compare(&self) {
        let name = format!("{}, {}", self.place, self.profile);
        let (explained, trace) = (self.explained(), self.traced());
        let calls = |contain: bool| -> Vec<String> {
            let of = explained.steps.iter().filter(|step| (step.phase == Phase::Contain) == contain);
            of.flat_map(|step| step.calls.clone()).collect()
        };
        parent(&name, &calls(true), trace.parent());
        child(&name, &calls(false), &trace.child());
    }

    fn run(&self, under: &[&str], before: &str) -> Ran {
        let enter = self.group.as_ref().map(ControlGroup::enter).into_iter().flatten().collect::<Vec<_>>();
        let enter = enter.iter().map(String::as_str);
        let under: Vec<&str> = enter.chain(self.under.iter().copied()).chain(under.iter().copied()).collect();
        self.place
            .start(&Start {
                profile: self.profile,
                under: &under,
                before,
                command: &["true"],
                ..Start::default()
            })
            .finish()
    }

    /// `explain --json` of the same program by the same starter.
    fn explained(&self) -> Explained {
        let profile = self.profile;
        let keeper = self.place.host.accounts().get(KEEPER).uid;
        let explain = match self.place.level {
            Level::Root => {
                format!("{PREFIX}/bin/jacamar-auth explain --user {CI1} --profile {profile} --json")
            }
            Level::Capabilities => format!("{BIN}/capability-level {keeper} {CI1} {profile} --explain"),
            Level::User => format!("{PREFIX}/bin/jacamar explain --profile {profile} --json"),
        };
        serde_json::from_str(&self.run(&[], &format!("exec {explain}")).ok()).expect("JSON")
    }

    /// The launch under strace(1), one file for each process.
    fn traced(&self) -> Trace {
        let root = |command: &[&str]| Started::new(self.place.host.as_root(command)).finish();
        let missing = root(&["sh", "-c", "command -v strace"]).code != 0;
        assert!(!missing, "strace is missing: install the package `strace` (`make setup` does)");
        let folder = root(&["mktemp", "-d", &format!("{SHARED}/strace.XXXXXX")]).ok();
        let folder = folder.trim_end();
        let prefix = format!("{folder}/of");
        let ran = self.run(&["strace", "-ff", "-y", "-v", "-s", "4096", "-o", &prefix, "-e", TRACED], ":");
        assert_eq!(ran.code, 0, "{}, {}: {ran}", self.place, self.profile);
        let files = "cd \"$1\" && for f in of.*; do echo \"== ${f#of.}\"; cat \"$f\"; done";
        Trace::parse(&root(&["sh", "-c", files, "sh", folder]).ok())
    }
}

fn compare(level: Level, surroundings: Surroundings, profile: &'static str) {
    Launch::new(level, surroundings, profile).compare();
}

/// The same in a delegated control group, where this host can give one.
fn compare_delegated(level: Level, profile: &'static str) {
    let mut launch = Launch::new(level, Surroundings::AsItIs, profile);
    let Some(group) = ControlGroup::make().expect("root can make a control group") else { return };
    let starter = if level == Level::Capabilities { RUNNER } else { CI1 };
    group.delegate(launch.place.host.accounts().get(starter)).expect("root can give it away");
    launch.group = Some(group);
    launch.compare();
}

#[test]
fn root_default() {
    compare(Level::Root, Surroundings::AsItIs, "default");
}

/// What the runner's unit has of `Nice=`, `CPUSchedulingPolicy=` and `IOSchedulingClass=`.
const URGENT: &[&str] = &["nice", "-n", "-5", "chrt", "--fifo", "10", "ionice", "-c", "1"];

#[test]
fn root_default_under_an_urgent_runner() {
    Launch { under: URGENT, ..Launch::new(Level::Root, Surroundings::AsItIs, "default") }.compare();
}

#[test]
fn user_default_under_an_urgent_runner() {
    Launch { under: URGENT, ..Launch::new(Level::User, Surroundings::AsItIs, "default") }.compare();
}

#[test]
fn root_default_without_cgroup2() {
    compare(Level::Root, Surroundings::NoCgroup2, "default");
}

/// The filter is loaded with CAP_SYS_ADMIN, and without namespaces or no_new_privs.
#[test]
fn root_compat() {
    compare(Level::Root, Surroundings::AsItIs, "compat");
}

#[test]
fn capabilities_default() {
    compare(Level::Capabilities, Surroundings::AsItIs, "default");
}

#[test]
fn user_default() {
    compare(Level::User, Surroundings::AsItIs, "default");
}

#[test]
fn user_compat() {
    compare(Level::User, Surroundings::AsItIs, "compat");
}

#[test]
fn user_default_delegated() {
    compare_delegated(Level::User, "default");
}

#[test]
fn capabilities_default_delegated() {
    compare_delegated(Level::Capabilities, "default");
}

/// Neither namespaces nor filter.
#[test]
fn capabilities_compat_delegated() {
    compare_delegated(Level::Capabilities, "compat");
}
