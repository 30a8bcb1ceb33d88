//! The system call filter: each shipped rule answers as planned, and nothing else changes.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use jacamar_plan::{CallRule, Profile, Setting};
use syscalls::Sysno;
use testbed::host::{Host, Place, Ran, Start, Started, Surroundings, compile};

use crate::places;

const ENOSYS: i64 = 38;
const EAFNOSUPPORT: i64 = 97;
/// Nothing that any call takes.
const BAD: [i64; 6] = [-1; 6];
/// Bits that the kernel does not look at where it takes an int (snapd's CVE-2019-7303).
const HIGH: i64 = 0x1_0000_0000;

fn profile() -> Profile {
    jacamar_site::profile::profile("default").expect("it is shipped")
}

/// Lines of the program `calls` (tests/attacks/calls.c).
#[derive(Default)]
struct Calls(String);

impl Calls {
    fn add(&mut self, name: &str, abi: &str, number: i64, arguments: [i64; 6]) {
        let words: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        self.0 += &format!("{name} {abi} {number} {}\n", words.join(" "));
    }

    fn native(&mut self, name: &str, call: &str, arguments: [i64; 6]) {
        let call = Sysno::from_str(call).unwrap_or_else(|_| panic!("{call} is no call of this architecture"));
        self.add(name, "native", i64::from(call.id()), arguments);
    }

    /// Makes them in the sandbox.
    fn inside(&self, place: &Place<'_>, profile: &str) -> BTreeMap<String, String> {
        let calls = compile(place.host, "calls");
        let mut command = place.command(&Start { profile, command: &[&calls], ..Start::default() });
        command.stdin(std::process::Stdio::piped());
        answers(&self.feed(command))
    }

    /// Makes them as the same user with the same surroundings and no_new_privs, but not in the sandbox.
    fn outside(&self, place: &Place<'_>) -> BTreeMap<String, String> {
        let calls = compile(place.host, "calls");
        let mut command = place.beside(&["setpriv", "--no-new-privs", "--", &calls]);
        command.stdin(std::process::Stdio::piped());
        answers(&self.feed(command))
    }

    fn feed(&self, command: std::process::Command) -> Ran {
        let mut started = Started::new(command);
        started.feed(self.0.as_bytes());
        started.finish()
    }
}

fn answers(ran: &Ran) -> BTreeMap<String, String> {
    assert_eq!(ran.code, 0, "{ran}");
    ran.out
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect()
}

fn rules() -> Vec<CallRule> {
    let Some(Setting { value, .. }) = profile().settings.system_call_filter else {
        panic!("default has a filter")
    };
    value.into_iter().filter(|rule| Sysno::from_str(&rule.call).is_ok()).collect()
}

/// For each rule the calls that it must answer, by name, with the errno.
fn planned() -> (Calls, BTreeMap<String, i64>) {
    let (mut calls, mut expected) = (Calls::default(), BTreeMap::new());
    for (index, rule) in rules().into_iter().enumerate() {
        let mut add = |name: String, arguments| {
            calls.native(&name, &rule.call, arguments);
            expected.insert(name, i64::from(rule.answer.errno()));
        };
        match rule.when {
            None => add(format!("{}-{index}", rule.call), BAD),
            Some(condition) => {
                for (kind, high) in [("low", 0), ("high", HIGH), ("negative", -HIGH)] {
                    let mut arguments = BAD;
                    let place = arguments.get_mut(usize::from(condition.argument)).expect("one of six");
                    *place = i64::from(condition.equals) + high;
                    add(format!("{}-{index}-{kind}", rule.call), arguments);
                }
            }
        }
    }
    (calls, expected)
}

pub(crate) fn planned_answers(surroundings: Surroundings) {
    let (mut calls, mut expected) = planned();
    let rules = expected.len();
    // Newer than the program, never a call, and those of another ABI.
    for number in [470, 471, 500, 1000, 0x3fff_ffff, -2, 0x4000_0000, 0x4000_0001, 0x4000_0000 + 521] {
        let name = format!("number-{number:x}");
        calls.add(&name, "native", number, BAD);
        expected.insert(name, ENOSYS);
    }
    if cfg!(target_arch = "x86_64") {
        // getpid, socketcall (whose family no filter can see), an unknown one.
        for number in [20, 102, 9999] {
            let name = format!("i386-{number}");
            calls.add(&name, "i386", number, [1, 0, 0, 0, 0, 0]);
            expected.insert(name, ENOSYS);
        }
    }
    for place in places(surroundings) {
        let found = calls.inside(&place, "default");
        let outside = calls.outside(&place);
        for (name, errno) in &expected {
            assert_eq!(
                found.get(name),
                Some(&errno.to_string()),
                "{place}: {name} (outside: {:?})",
                outside.get(name)
            );
        }
        // The kernel itself refuses much of this to a user; these answers are the filter's own.
        let bites: BTreeSet<&str> = expected
            .keys()
            .filter(|name| found.get(*name) != outside.get(*name))
            .filter_map(|name| name.split('-').next())
            .collect();
        for call in ["modify_ldt", "ioctl", "ustat", "sysfs"] {
            assert!(bites.contains(call), "{place}: {call}; {rules} rules, {bites:?}");
        }
    }
}

/// Calls that do something whatever their arguments are, or never return.
const NOT_IN_THE_SWEEP: [&str; 10] = [
    "fork",
    "vfork",
    "clone",
    "exit",
    "exit_group",
    "rt_sigreturn",
    "pause",
    "sync",
    "msgget",
    "restart_syscall",
];

pub(crate) fn nothing_else_changes(surroundings: Surroundings) {
    let mut planned: BTreeSet<String> =
        rules().into_iter().filter(|rule| rule.when.is_none()).map(|rule| rule.call).collect();
    // Their family -1 is not among the allowed ones.
    planned.extend(["socket".to_owned(), "socketpair".to_owned()]);
    let mut calls = Calls::default();
    for call in Sysno::iter().filter(|call| !NOT_IN_THE_SWEEP.contains(&call.name())) {
        calls.native(call.name(), call.name(), BAD);
    }
    for place in places(surroundings) {
        let (inside, outside) = (calls.inside(&place, "default"), calls.outside(&place));
        assert!(inside.len() > 300 && inside.len() == outside.len(), "{} {}", inside.len(), outside.len());
        let changed: BTreeMap<_, _> = inside
            .iter()
            .filter(|(name, answer)| outside.get(*name) != Some(*answer) && !planned.contains(*name))
            .map(|(name, answer)| (name, (answer, outside.get(name))))
            .collect();
        assert!(changed.is_empty(), "{place}: {changed:?} (inside, outside)");
    }
}

pub(crate) fn address_families(surroundings: Surroundings) {
    let Some(Setting { value: jacamar_plan::AddressFamilies::Only(allowed), .. }) =
        profile().settings.restrict_address_families
    else {
        panic!("default allows a list of families");
    };
    let mut calls = Calls::default();
    // SOCK_STREAM, SOCK_RAW, SOCK_SEQPACKET: AF_ALG takes the last one alone.
    for (family, kind) in (0..=50).flat_map(|family| [1, 3, 5].map(|kind| (family, kind))) {
        for (width, high) in [("low", 0), ("high", HIGH), ("negative", -HIGH)] {
            calls.native(
                &format!("socket-{family}-{kind}-{width}"),
                "socket",
                [family + high, kind, 0, 0, 0, 0],
            );
            calls.native(
                &format!("socketpair-{family}-{kind}-{width}"),
                "socketpair",
                [family + high, kind, 0, 0, 0, 0],
            );
        }
    }
    for place in places(surroundings) {
        let (inside, outside) = (calls.inside(&place, "default"), calls.outside(&place));
        for (name, answer) in &inside {
            let family: u32 =
                name.split('-').nth(1).and_then(|family| family.parse().ok()).expect("a family");
            if allowed.contains(&family) {
                assert_eq!(Some(answer), outside.get(name), "{place}: {name}");
            } else {
                assert_eq!(
                    *answer,
                    EAFNOSUPPORT.to_string(),
                    "{place}: {name} (outside: {:?})",
                    outside.get(name)
                );
            }
        }
    }
}

pub(crate) fn what_hpc_needs(surroundings: Surroundings) {
    let hpc = compile(Host::shared(), "hpc");
    for place in places(surroundings) {
        let inside = place.start(&Start { command: &[&hpc], ..Start::default() }).finish();
        let outside = Started::new(place.beside(&[&hpc])).finish();
        assert_eq!(answers(&inside), answers(&outside), "{place}");
        for name in ["mbind", "debugger", "process_vm_readv", "set_mempolicy", "keyctl"] {
            assert_eq!(inside.value(name), "ok", "{place}: {inside}");
        }
        let user_namespaces =
            if surroundings == Surroundings::AsItIs { "ok" } else { outside.value("unshare-mounts") };
        assert_eq!(inside.value("unshare-mounts"), user_namespaces, "{place}: {inside}");
    }
}
