//! cgroups-rs, libc, seccompiler and std, beside what we do there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::{Controller, MemoryResources, Resources};
use jacamar_kernel::{Instruction, load_filter};
use jacamar_plan::{Answer, CallRule, Control, Directories, Filter, Grant, Job, Level, Need, Site, Stage};
use jacamar_sandbox::{
    CgroupChoice, Command, Launch, LaunchError, Named, Stdio, compile, own_process, probe,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use testbed::host::ControlGroup;

use crate::bpf::{AARCH64, ALLOW, Call, ENOSYS, EPERM, I386, KILL_PROCESS, X86_64};

const LIMIT: i64 = 64 << 20;

#[test]
fn a_limit_without_its_controller_is_accepted_by_cgroups_rs_and_refused_by_us() {
    let group = ControlGroup::make().expect("this takes root").expect("this takes cgroup v2");
    // No controller is enabled in the group, so that those below it have none.
    let below = format!("{}/below", group.path());
    fs::create_dir(&below).expect("a group");
    assert!(!fs::exists(format!("{below}/memory.max")).expect("asked"), "{below} has a memory controller");

    let resources = Resources {
        memory: MemoryResources { memory_hard_limit: Some(LIMIT), ..MemoryResources::default() },
        ..Resources::default()
    };
    let theirs = MemController::new(PathBuf::from(&below), PathBuf::new(), true);
    assert!(theirs.apply(&resources).is_ok(), "cgroups-rs reports it now");

    // The planner refuses; so that the launch has its say, it is told that there is a controller.
    let mut host = probe(Level::Root, &CgroupChoice::Path(below.clone()), &Named::default()).expect("probed");
    assert_eq!(host.cgroup.node.as_deref(), Ok(below.as_str()));
    assert!(!host.cgroup.controllers.iter().any(|name| name == "memory"), "{:?}", host.cgroup);
    let mut profile = jacamar_site::profile::profile("default").expect("shipped");
    let memory = profile.settings.resources.get_mut(&Control::MemoryMax).expect("default has a limit");
    memory.need = Need::Require;
    let grant = Grant { account: account(), claims_digest: String::new(), rule: "test".into() };
    let directory = |name: &str| format!("/nowhere/{name}");
    let job = Job {
        id: "0".into(),
        directories: Directories { tmp: directory("t"), var_tmp: directory("v"), ssh_config: directory("s") },
        working_directory: "/".into(),
    };
    let site = Site::default();
    let refused =
        jacamar_plan::plan(&grant, &profile, &site, &host, &job, &Stage::Exec).expect_err("no controller");
    assert!(refused.to_string().contains("MemoryMax"), "{refused}");

    host.cgroup.controllers = vec!["memory".into(), "pids".into()];
    let plan = jacamar_plan::plan(&grant, &profile, &site, &host, &job, &Stage::Exec).expect("planned");
    let checked = jacamar_plan::check(plan).expect("allowed");
    // In a thread of its own, for it blocks signals.
    let contained = std::thread::spawn(move || {
        let own = own_process().expect("clean");
        let command = Command {
            paths: vec![c"/bin/true".to_owned()],
            arguments: vec![c"true".to_owned()],
            environment: Vec::new(),
            stdio: Stdio::Inherit,
        };
        Launch::prepare(checked, command, &own).and_then(Launch::contain).map(drop)
    });
    let error = contained.join().expect("no panic").expect_err("a limit that is not there");
    let LaunchError::Step(step) = &error else { panic!("{error}") };
    assert!(step.to_string().contains("memory"), "{step}");
}

fn account() -> jacamar_plan::Account {
    jacamar_plan::Account {
        name: "nobody".into(),
        uid: 65534,
        gid: 65534,
        groups: vec![65534],
        home: "/".into(),
        shell: "/bin/sh".into(),
    }
}

/// Not the number itself but what it does is held by `launch::the_child_is_in_its_group`.
#[test]
#[expect(deprecated, reason = "that it is of no use is the point")]
fn libc_has_no_clone_into_cgroup() {
    assert_eq!(libc::CLONE_INTO_CGROUP, 0, "libc has the flag now: jacamar-kernel can use it");
}

fn deny(call: &str) -> Filter {
    let rule = CallRule { call: call.into(), when: None, answer: Answer::Eperm };
    Filter { native_only: true, rules: vec![rule], families: None }
}

/// The same rule, as seccompiler compiles it.
fn theirs() -> Vec<Instruction> {
    let rules = BTreeMap::from([(i64::from(syscalls::Sysno::bpf.id()), Vec::new())]);
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture with a filter");
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(1), arch).expect("a filter");
    let program = BpfProgram::try_from(filter).expect("a program");
    program.into_iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn other_abis_get_enosys_from_us() {
    let (ours, theirs) = (compile(&deny("bpf")).expect("compiles"), theirs());
    let bpf = u32::try_from(syscalls::Sysno::bpf.id()).expect("small");
    let call = |number, arch| Call { number, arch, arguments: [0; 6] };
    let native = call(bpf, X86_64);
    assert_eq!((native.answer(&ours), native.answer(&theirs)), (EPERM, EPERM));
    for arch in [I386, AARCH64, 0] {
        let foreign = call(20, arch);
        assert_eq!((foreign.answer(&ours), foreign.answer(&theirs)), (ENOSYS, KILL_PROCESS), "{arch:x}");
    }
    for number in [0x4000_0000, 0x4000_0000 | bpf, 0x4000_0000 | 520, 0x7fff_ffff, u32::MAX, 0xffff, 470] {
        let other = call(number, X86_64);
        assert_eq!((other.answer(&ours), other.answer(&theirs)), (ENOSYS, ALLOW), "{number:x}");
    }
    for number in [0, 1, 59, 435, 469] {
        assert_eq!(call(number, X86_64).answer(&ours), ALLOW, "{number}");
    }
}

/// Parts are joined to one program: what one part allows must reach the next.
#[test]
#[cfg(target_arch = "x86_64")]
fn every_rule_of_the_joined_filter_answers() {
    let settings = jacamar_site::profile::profile("default").expect("shipped").settings;
    let filter = Filter {
        native_only: true,
        rules: settings.system_call_filter.expect("rules").value,
        families: settings.restrict_address_families.map(|families| families.value),
    };
    let program = compile(&filter).expect("compiles");
    let call = |number, arguments| Call { number, arch: X86_64, arguments };
    let answers: BTreeSet<u16> = filter.rules.iter().map(|rule| rule.answer.errno()).collect();
    assert!(answers.len() > 1, "one answer alone joins nothing");
    for rule in &filter.rules {
        let Ok(number) = syscalls::Sysno::from_str(&rule.call) else { continue };
        let number = u32::try_from(number.id()).expect("small");
        let expected = 0x0005_0000 | u32::from(rule.answer.errno());
        let mut arguments = [0; 6];
        if let Some(when) = rule.when {
            assert_eq!(call(number, arguments).answer(&program), ALLOW, "{rule:?}");
            *arguments.get_mut(usize::from(when.argument)).expect("six") = u64::from(when.equals) | 1 << 32;
        }
        assert_eq!(call(number, arguments).answer(&program), expected, "{rule:?}");
    }
    // What no rule names is allowed, and what is no call of this ABI is not.
    let named: BTreeSet<u32> = filter
        .rules
        .iter()
        .filter_map(|rule| u32::try_from(syscalls::Sysno::from_str(&rule.call).ok()?.id()).ok())
        .collect();
    for number in (0..=469).filter(|number| !named.contains(number) && ![41, 53].contains(number)) {
        assert_eq!(call(number, [0; 6]).answer(&program), ALLOW, "{number}");
    }
    for number in (470..600).chain([0x4000_0000, 0x4000_0027, u32::MAX]) {
        assert_eq!(call(number, [0; 6]).answer(&program), ENOSYS, "{number}");
    }
    let socket = |family| call(41, [family, 0, 0, 0, 0, 0]).answer(&program);
    assert_eq!((socket(1), socket(2), socket(38)), (ALLOW, ALLOW, 0x0005_0000 | 97));
}

/// A field of our own thread's status.
fn status(name: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/status").expect("a procfs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect("a field").trim().to_owned()
}

#[test]
fn seccompiler_sets_no_new_privs_and_we_do_not() {
    // Both are a thread's own.
    let by_them = std::thread::spawn(|| {
        let program: BpfProgram = theirs_raw();
        seccompiler::apply_filter(&program).expect("a filter");
        (status("NoNewPrivs"), status("Seccomp"))
    });
    let by_us = std::thread::spawn(|| {
        load_filter(&theirs()).expect("this takes root");
        (status("NoNewPrivs"), status("Seccomp"))
    });
    assert_eq!(
        by_them.join().expect("no panic"),
        ("1".into(), "2".into()),
        "seccompiler leaves it alone now"
    );
    assert_eq!(by_us.join().expect("no panic"), ("0".into(), "2".into()));
}

fn theirs_raw() -> BpfProgram {
    let convert = |i: Instruction| seccompiler::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k };
    theirs().into_iter().map(convert).collect()
}
