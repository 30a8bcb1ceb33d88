//! The levels without root, in a control group that was delegated to the starter, as by `Delegate=yes`.

use jacamar_plan::Level;
use testbed::host::{ControlGroup, Host, Place, RUNNER, Ran, Start, Started, Surroundings, alive, marked};

/// Starts a job in a delegated group; the group lives as long as the answer.
fn start(
    level: Level,
    surroundings: Surroundings,
    profile: &str,
    script: &str,
) -> Option<(ControlGroup, Started)> {
    let host = Host::shared();
    let place = Place { host, level, surroundings };
    let group = ControlGroup::make().expect("root can make a control group")?;
    let starter = if level == Level::Capabilities { host.accounts().get(RUNNER) } else { place.user() };
    group.delegate(starter).expect("root can give it away");
    let enter = group.enter();
    let under: Vec<&str> = enter.iter().map(String::as_str).collect();
    let started =
        place.start(&Start { profile, under: &under, command: &["sh", "-c", script], ..Start::default() });
    Some((group, started))
}

fn run(level: Level, surroundings: Surroundings, profile: &str, script: &str) -> Option<Ran> {
    let (group, started) = start(level, surroundings, profile, script)?;
    let ran = started.finish();
    let left = std::fs::read_dir(format!("{}/jacamar.slice", group.path())).expect("the site's node stays");
    let left: Vec<_> = left.filter_map(Result::ok).filter(|entry| entry.path().is_dir()).collect();
    assert!(left.is_empty(), "{level}, {surroundings:?}: {left:?}");
    Some(ran)
}

#[test]
fn the_job_is_in_its_own_group() {
    for surroundings in [Surroundings::AsItIs, Surroundings::OldKernel, Surroundings::Container] {
        for level in [Level::Capabilities, Level::User] {
            let Some(ran) = run(level, surroundings, "default", "cat /proc/self/cgroup") else { return };
            let own = ran.out.lines().find(|line| line.starts_with("0::")).unwrap_or_default();
            assert!(
                own.contains("/testbed-") && own.contains("/jacamar.slice/") && own.ends_with("/exec.scope"),
                "{level}, {surroundings:?}: {ran}"
            );
        }
    }
}

/// A profile that needs setuid helpers gets at the capability level neither namespaces nor filter.
#[test]
fn compat_at_the_capability_level_has_neither_namespaces_nor_filter() {
    let outside: Vec<String> = ["mnt", "pid", "user", "ipc"]
        .iter()
        .map(|kind| {
            std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string()
        })
        .collect();
    let mark = format!("MARK_COMPAT_{}", std::process::id());
    let script = format!(
        "export {mark}=1; (setsid sh -c '(trap \"\" HUP TERM; exec </dev/null >/dev/null 2>&1; sleep 77777) &' &); \
         for n in pid user ipc; do echo $n=$(readlink /proc/self/ns/$n); done; \
         while read -r n v; do case $n in Cap???:|NoNewPrivs:|Seccomp:) echo ${{n%:}}=$v;; esac; done < /proc/self/status; \
         echo ids=$(id -u) $(id -G); echo fds=$(echo /proc/self/fd/*)"
    );
    let Some(ran) = run(Level::Capabilities, Surroundings::AsItIs, "compat", &script) else { return };
    for (kind, link) in ["pid", "user", "ipc"].iter().zip(&outside[1..]) {
        assert_eq!(ran.value(kind), link, "{ran}");
    }
    assert_eq!((ran.value("NoNewPrivs"), ran.value("Seccomp")), ("0", "0"), "{ran}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(ran.value(set), "0000000000000000", "{ran}");
    }
    let user = Host::shared().accounts().get("ci1");
    let mut ids = vec![user.uid.to_string()];
    ids.extend(user.groups.iter().map(ToString::to_string));
    assert_eq!(ran.value("ids"), ids.join(" "), "{ran}");
    let left = alive(&marked(&mark));
    assert!(left.is_empty(), "{left:?}");
}

/// Where the supervisor may not signal the user's processes, the group ends them.
#[test]
fn compat_at_the_capability_level_ends_on_sigterm() {
    let script =
        "trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 77777' &); echo up; sleep 77777; sleep 77777";
    let Some((_group, started)) = start(Level::Capabilities, Surroundings::AsItIs, "compat", script) else {
        return;
    };
    started.wait_for("up");
    let all = testbed::host::with_descendants(started.pid());
    started.signal(nix::sys::signal::Signal::SIGTERM);
    let ran = started.finish();
    assert_ne!(ran.code, 0, "{ran}");
    let left = alive(&all);
    assert!(left.is_empty(), "{left:?} {ran}");
}

/// There PDEATHSIG does not arrive: end of file on the supervisor's pipe must end the command.
#[test]
fn compat_at_the_capability_level_ends_when_the_supervisor_is_killed() {
    let script = "trap '' TERM; sleep 77777 & echo up; wait; sleep 77777";
    let Some((_group, started)) = start(Level::Capabilities, Surroundings::AsItIs, "compat", script) else {
        return;
    };
    started.wait_for("up");
    let all = testbed::host::with_descendants(started.pid());
    assert!(all.len() >= 4, "{all:?}");
    started.signal(nix::sys::signal::Signal::SIGKILL);
    let left = testbed::host::wait_gone(&all, std::time::Duration::from_secs(5));
    assert!(left.is_empty(), "{left:?}");
}
