//! Resource limits of processes: all sixteen, lowered and raised, at each level.

use jacamar_plan::Resource;
use testbed::host::{LEVELS, Level, Place, Start};

use crate::root;

/// `RLIMIT_STACK` is `Max stack size` in /proc/PID/limits.
fn line(resource: Resource) -> &'static str {
    match resource {
        Resource::CPU => "Max cpu time",
        Resource::FSIZE => "Max file size",
        Resource::DATA => "Max data size",
        Resource::STACK => "Max stack size",
        Resource::CORE => "Max core file size",
        Resource::RSS => "Max resident set",
        Resource::NOFILE => "Max open files",
        Resource::AS => "Max address space",
        Resource::NPROC => "Max processes",
        Resource::MEMLOCK => "Max locked memory",
        Resource::LOCKS => "Max file locks",
        Resource::SIGPENDING => "Max pending signals",
        Resource::MSGQUEUE => "Max msgqueue size",
        Resource::NICE => "Max nice priority",
        Resource::RTPRIO => "Max realtime priority",
        Resource::RTTIME => "Max realtime timeout",
    }
}

/// Soft and hard limit as the kernel shows them.
fn shown(limits: &str, resource: Resource) -> (String, String) {
    let name = line(resource);
    let found = limits
        .lines()
        .find_map(|text| text.strip_prefix(name))
        .unwrap_or_else(|| panic!("{name} in {limits}"));
    let mut words = found.split_whitespace().map(str::to_owned);
    (words.next().expect("soft"), words.next().expect("hard"))
}

/// Key, value in a profile, soft and hard as the kernel shows them. None is too small for cat(1).
const LOWERED: [(&str, &str, &str, &str); 16] = [
    ("LimitCPU", "10min:1h", "600", "3600"),
    ("LimitFSIZE", "1G", "1073741824", "1073741824"),
    ("LimitDATA", "2G:3G", "2147483648", "3221225472"),
    ("LimitSTACK", "4M:16M", "4194304", "16777216"),
    ("LimitCORE", "0", "0", "0"),
    ("LimitRSS", "1G", "1073741824", "1073741824"),
    ("LimitNOFILE", "512:700", "512", "700"),
    ("LimitAS", "4G", "4294967296", "4294967296"),
    ("LimitNPROC", "500", "500", "500"),
    ("LimitMEMLOCK", "32K", "32768", "32768"),
    ("LimitLOCKS", "7", "7", "7"),
    ("LimitSIGPENDING", "100", "100", "100"),
    ("LimitMSGQUEUE", "4K", "4096", "4096"),
    ("LimitNICE", "0", "0", "0"),
    ("LimitRTPRIO", "0", "0", "0"),
    ("LimitRTTIME", "50ms", "50000", "50000"),
];

fn profile(name: &str, job: &str) {
    // At the levels below root a job needs a pid namespace where no group is delegated.
    let text = format!(
        "description = \"a test\"\n[job]\n{job}\n[processes]\nPrivatePIDs = true\nNoNewPrivileges = true\n"
    );
    root().host.site_profile(name, &text);
}

fn limits_of(place: Place<'_>, profile: &str, under: &[&str]) -> String {
    let command = ["cat", "/proc/self/limits"];
    // As a child of the shell, which stands for the runner: what our start loses is read from there.
    let before = "\"$@\"; exit $?";
    place.start(&Start { profile, before, under, command: &command, ..Start::default() }).finish().ok()
}

#[test]
fn every_limit_is_lowered_at_every_level() {
    let lines: Vec<String> = LOWERED.iter().map(|(key, value, ..)| format!("{key} = \"{value}\"")).collect();
    profile("lowered", &lines.join("\n"));
    for level in LEVELS {
        let limits = limits_of(Place { level, ..root() }, "lowered", &[]);
        for ((key, _, soft, hard), resource) in LOWERED.iter().zip(Resource::ALL) {
            assert_eq!(*key, resource.to_string());
            assert_eq!(shown(&limits, resource), ((*soft).into(), (*hard).into()), "{level}, {key}");
        }
    }
}

#[test]
fn a_hard_limit_is_raised_as_root_and_refused_where_there_is_no_right() {
    profile("raised", "LimitNOFILE = \"3000:4000\"\nLimitMEMLOCK = \"infinity\"");
    let under = ["prlimit", "--nofile=1024:2048", "--memlock=65536:65536", "--"];
    let limits = limits_of(root(), "raised", &under);
    assert_eq!(shown(&limits, Resource::NOFILE), ("3000".into(), "4000".into()));
    assert_eq!(shown(&limits, Resource::MEMLOCK), ("unlimited".into(), "unlimited".into()));
    for level in [Level::Capabilities, Level::User] {
        let place = Place { level, ..root() };
        let command = ["true"];
        let start = Start { profile: "raised", under: &under, command: &command, ..Start::default() };
        let ran = place.start(&start).finish();
        assert_eq!(ran.code, 125, "{level}: {ran}");
        assert!(ran.err.contains("CAP_SYS_RESOURCE") && ran.err.contains("LimitNOFILE"), "{level}: {ran}");
    }
}

#[test]
fn what_is_not_set_is_what_the_service_gave() {
    profile("nothing-set", "TasksMax = \"infinity\"");
    let under = ["prlimit", "--nofile=1111:2222", "--core=5:6", "--stack=16777216:33554432", "--"];
    for level in LEVELS {
        let limits = limits_of(Place { level, ..root() }, "nothing-set", &under);
        assert_eq!(shown(&limits, Resource::NOFILE), ("1111".into(), "2222".into()), "{level}");
        // Ours is none; the job's is what was inherited.
        assert_eq!(shown(&limits, Resource::CORE), ("5".into(), "6".into()), "{level}");
        // The kernel resets it at a start with file capabilities: it is the starter's all the same.
        assert_eq!(shown(&limits, Resource::STACK), ("16777216".into(), "33554432".into()), "{level}");
    }
}

/// The kernel's nr_open is the wall behind CAP_SYS_RESOURCE.
#[test]
fn no_more_open_files_than_the_kernel_allows() {
    profile("too-many", "LimitNOFILE = \"infinity\"");
    let ran = root().start(&Start { profile: "too-many", ..Start::default() }).finish();
    assert_eq!(ran.code, 125, "{ran}");
    assert!(ran.err.contains("fs.nr_open"), "{ran}");
}

/// Too small for the launch itself: an error with the step, and nothing runs.
#[test]
fn limits_in_which_nothing_can_start_are_an_error_and_no_hang() {
    for (job, step) in [("LimitAS = \"64K\"", ""), ("LimitNPROC = 1", ""), ("LimitNOFILE = 1", "")] {
        profile("too-little", job);
        let command = ["echo", "started"];
        let ran =
            root().start(&Start { profile: "too-little", command: &command, ..Start::default() }).finish();
        assert!(ran.code != 0 && ran.out.is_empty() && ran.err.contains(step), "{job}: {ran}");
    }
}
