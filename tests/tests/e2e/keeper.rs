//! The capability level: the runner is an ordinary account, and what `jacamar-auth` keeps is the keeper's.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use testbed::host::{KEEPER, Level, RUNNER, Started, VERIFY, with_descendants};

use crate::direct::Direct;
use crate::place::{Place, STATE, Setup, write};

fn place() -> Place {
    Place::new(Setup::of_level(Level::Capabilities))
}

fn direct(place: &Place) -> Direct<'_> {
    Direct::new(place, &place.gitlab.admit(place.small(["true"])))
}

/// A line of sh(1) as an account of the host.
fn sh(direct: &Direct<'_>, account: &str, line: &str) -> testbed::host::Ran {
    let words = direct.place.host.become_user(account);
    let words: Vec<&str> = words.iter().map(String::as_str).chain(["sh", "-c", line]).collect();
    Started::new(direct.any(&words)).finish()
}

/// `/etc/passwd` with other lines, for this thread and what it starts, which have their own mounts.
fn change_passwd(place: &Place, change: impl Fn(&str) -> Option<String>) {
    let text = fs::read_to_string("/etc/passwd").expect("readable");
    let lines: Vec<String> = text.lines().filter_map(change).collect();
    let path = place.path("passwd");
    write(&path, (lines.join("\n") + "\n").as_bytes(), 0o644);
    mount(Some(path.as_str()), "/etc/passwd", None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("root");
}

#[test]
fn records_are_neither_the_runners_nor_the_users() {
    let place = place();
    let direct = direct(&place).prepared();
    let record = format!("{STATE}/jobs/{}/record.json", direct.record());
    let keeper = place.host.accounts().get(KEEPER);
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&record).expect("there"));
    assert_eq!(owner, keeper.uid);
    for account in [RUNNER, VERIFY, place.setup.user] {
        for line in [
            format!("cat {record}"),
            format!("echo > {record}"),
            format!("ls {STATE}/jobs"),
            format!("mkdir {STATE}/jobs/0123456789abcdef0123456789abcdef"),
            format!("mv {STATE}/jobs {STATE}/old"),
            format!("echo > {STATE}/slots"),
        ] {
            let ran = sh(&direct, account, &line);
            assert!(ran.code != 0 && ran.err.contains("Permission denied"), "{account}, {line}: {ran}");
        }
    }
    assert_eq!(direct.cleanup().code, 0);
}

/// Its effective and saved uid are the keeper's: the runner may signal it, and neither it nor the user trace it.
#[test]
fn the_supervisor_is_the_keepers_and_its_job_the_users() {
    let place = place();
    let direct = direct(&place).prepared();
    let script = direct.run("trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done\n");
    script.wait_for("up");
    let accounts = place.host.accounts();
    let (runner, keeper, user) =
        (accounts.get(RUNNER).uid, accounts.get(KEEPER).uid, accounts.get(place.setup.user).uid);
    let uids = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("alive");
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a line");
        line.split_whitespace().map(|id| id.parse().expect("a uid")).collect::<Vec<u32>>()
    };
    let pid = script.pid().as_raw();
    assert_eq!(uids(pid), [runner, keeper, keeper, keeper]);
    let below = with_descendants(script.pid());
    assert!(below.len() >= 4, "{below:?}");
    for process in below.iter().skip(1) {
        assert_eq!(uids(process.pid), [user; 4], "{process:?}");
    }
    for account in [RUNNER, place.setup.user] {
        for line in [format!("cat /proc/{pid}/environ"), format!("ls -l /proc/{pid}/fd")] {
            let ran = sh(&direct, account, &line);
            assert!(ran.err.contains("Permission denied"), "{account}, {line}: {ran}");
        }
        // The namespace in which the user's rights are to be had.
        let enter = format!("nsenter --user=/proc/{}/ns/user true", below[1].pid);
        assert_ne!(sh(&direct, account, &enter).code, 0, "{account}");
    }
    assert_ne!(sh(&direct, place.setup.user, &format!("kill -0 {pid}")).code, 0);
    assert_eq!(sh(&direct, RUNNER, &format!("kill -TERM {pid}")).code, 0);
    // As the runner sees a cancelled script: a failed build.
    assert_eq!(script.finish().code, 1);
    assert_eq!(direct.cleanup().code, 0);
}

#[test]
fn whoever_may_start_it_becomes_nobody_by_its_other_commands() {
    let place = place();
    let direct = direct(&place);
    for words in [
        ["exec", "--user", "ci2", "--profile", "default", "--", "id"].as_slice(),
        &["explain", "--user", "ci2", "--profile", "default"],
    ] {
        let ran = Started::new(direct.command(words)).finish();
        assert!(ran.code == 125 && ran.out.is_empty(), "{words:?}: {ran}");
        assert!(ran.err.contains("only root may use this"), "{words:?}: {ran}");
    }
}

/// Each is a system failure, with what root has to type.
#[test]
fn without_a_keeper_nothing_is_done() {
    let place = place();
    let mut job = direct(&place);
    let keeper = format!("{KEEPER}:");
    change_passwd(&place, |line| (!line.starts_with(&keeper)).then(|| line.to_owned()));
    let ran = job.config();
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
    assert!(ran.err.contains("account jacamar: is missing on this host"), "{ran}");
    assert!(ran.err.contains("hint: as root: useradd --system"), "{ran}");

    let place = self::place();
    let mut job = direct(&place);
    let uid = place.host.accounts().get(RUNNER).uid;
    let shared = format!("{KEEPER}:x:{uid}:{uid}::/:/usr/sbin/nologin");
    change_passwd(&place, |line| {
        Some(if line.starts_with(&keeper) { shared.clone() } else { line.to_owned() })
    });
    let ran = job.config();
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
    assert!(ran.err.contains("the runner's account is jacamar: it could write records"), "{ran}");

    let place = self::place();
    let mut job = direct(&place);
    std::os::unix::fs::chown(STATE, Some(0), Some(0)).expect("root");
    let ran = job.config();
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
    assert!(
        ran.err.contains("hint: as root: install -d -o jacamar -g jacamar -m 0711 /var/lib/jacamar"),
        "{ran}"
    );
}

/// Neither a control group nor, with setuid helpers allowed, a pid namespace: there is no way to end the job.
#[test]
fn without_a_delegated_group_compat_is_refused_with_the_drop_in() {
    let place = Place::new(Setup { profile: Some("compat"), ..Setup::of_level(Level::Capabilities) });
    let mut job = direct(&place);
    job.outside_of_the_group();
    let ran = job.config();
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran}");
    assert!(ran.err.contains("a way to end the job") && ran.err.contains("`Delegate=yes`"), "{ran}");
    let place = self::place();
    let mut job = direct(&place);
    job.outside_of_the_group();
    let ran = job.config();
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(Started::new(job.command(&["prepare"])).finish().code, 0);
    assert_eq!(job.run("id -un\n").finish().out, format!("{}\n", place.setup.user));
    assert_eq!(job.cleanup().code, 0);
}

/// Root executes the same program, so nobody else may be able to write it; and who drives a job is who began it.
#[test]
fn the_program_is_roots_and_the_job_its_starters() {
    let place = place();
    let own = place.path("jacamar-auth");
    fs::copy(place.driver(), &own).expect("root");
    let accounts = place.host.accounts();
    let runner = accounts.get(RUNNER);
    std::os::unix::fs::chown(&own, Some(runner.uid), Some(runner.gid)).expect("root");
    let set = std::process::Command::new("setcap").args(["cap_setuid,cap_setgid=ep", &own]).status();
    assert!(set.expect("setcap").success());
    let direct = direct(&place).prepared();
    let config = place.path("config.toml");
    let ran = sh(&direct, RUNNER, &format!("{own} config --configuration {config}"));
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
    assert!(
        ran.err.contains("it must be root's to write alone") && ran.err.contains("hint: as root"),
        "{ran}"
    );

    // Another account that may start it, by a mistake with its mode.
    let open = place.path("open-to-all");
    fs::copy(place.driver(), &open).expect("root");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("root");
    let set = std::process::Command::new("setcap").args(["cap_setuid,cap_setgid=ep", &open]).status();
    assert!(set.expect("setcap").success());
    let ran = sh(&direct, "ci2", &format!("{open} prepare"));
    assert!(ran.code == 2 && ran.err.contains("this stage was started by uid"), "{ran}");
    assert_eq!(direct.cleanup().code, 0);
}

/// Process 1 is the user's there, who can stop it: the group ends it, with what left its session.
#[test]
fn a_job_that_stops_its_process_1_is_ended() {
    let setup = Setup {
        profile: Some("compat"),
        general: "kill_timeout = \"500ms\"".into(),
        ..Setup::of_level(Level::Capabilities)
    };
    let place = Place::new(setup);
    let direct = direct(&place).prepared();
    let script = "trap '' TERM; (setsid sleep 77777 >/dev/null 2>&1 &); up() { p=$PPID; \
        while read -r k v _; do [ $k = PPid: ] && p=$v; done < /proc/$PPID/status; kill -STOP $p $PPID; }; up; echo up; \
        while :; do sleep 77777; done\n";
    let script = direct.run(script);
    script.wait_for("up");
    let all = with_descendants(script.pid());
    assert!(all.len() >= 4, "{all:?}");
    script.signal(Signal::SIGTERM);
    assert_ne!(script.finish().code, 0);
    let left = testbed::host::alive(&all);
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(direct.cleanup().code, 0);
}

/// The end of a signal that asks for it.
#[test]
fn the_runners_sigterm_ends_a_script_that_ignores_it() {
    for profile in ["default", "compat"] {
        let setup = Setup {
            profile: Some(profile),
            general: "kill_timeout = \"500ms\"".into(),
            ..Setup::of_level(Level::Capabilities)
        };
        let place = Place::new(setup);
        let direct = direct(&place).prepared();
        let script = direct
            .run("trap '' TERM; (trap '' TERM; sleep 77777) & echo up; while :; do sleep 77777; done\n");
        script.wait_for("up");
        let all = with_descendants(script.pid());
        script.signal(Signal::SIGTERM);
        assert_eq!(script.finish().code, 1, "{profile}");
        let left = testbed::host::alive(&all);
        assert!(left.is_empty(), "{profile}: {left:?}");
        assert_eq!(direct.cleanup().code, 0, "{profile}");
    }
}
