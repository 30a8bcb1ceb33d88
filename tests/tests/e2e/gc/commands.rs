//! What has no record: private directories of commands, control groups of nobody, and what another host has.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use testbed::host::{Level, PREFIX, Process, Started, alive, marked, wait_gone, with_descendants};

use super::{DAY, NAME, edit};
use crate::collector::{Site, children, make_old};
use crate::direct::Direct;

/// A home that two hosts share: what the other one has is not ours to judge.
#[test]
fn at_the_user_level_another_host_is_left_in_peace() {
    let site = Site::of_level(Level::User);
    let direct = site.direct().prepared();
    edit(&site, direct.record(), |record| {
        record["host"] = json!("login9");
        record["boot_id"] = json!("0");
    });
    let command = exec(&site, &direct, "default", "echo up; exec sleep 77777");
    command.wait_for("up");
    command.signal(Signal::SIGKILL);
    assert!(command.finish().code < 0);
    let private = site.names("tmp").into_iter().find(|name| name != direct.record()).expect("that of exec");
    let link = site.state().join("tmp").join(&private).join("host");
    fs::remove_file(&link).expect("made by exec");
    std::os::unix::fs::symlink("login9", &link).expect("root");
    site.age();
    site.gc_finds_nothing(&direct, "it is of another host");
    assert_eq!((site.names("jobs").len(), site.names("tmp").len()), (1, 2));
}

/// A command of a person, at the level of the place.
pub(super) fn exec(site: &Site, direct: &Direct<'_>, profile: &str, script: &str) -> Started {
    let driver = format!("{PREFIX}/bin/jacamar-auth");
    let user = site.place.account().name;
    Started::new(direct.any(&[
        &driver,
        "exec",
        "--user",
        user,
        "--profile",
        profile,
        "--",
        "sh",
        "-c",
        script,
    ]))
}

#[test]
fn what_a_killed_exec_leaves_is_removed() {
    for (level, profile) in [(Level::Root, "default"), (Level::Root, "compat"), (Level::User, "default")] {
        let site = Site::of_level(level);
        let direct = site.direct();
        let when = format!("{level}, {profile}");
        let mark = format!("MARK_GC_{}_{level}_{profile}", std::process::id());
        let script = format!(
            "export {mark}=1; echo x > /tmp/x\n\
             setsid sh -c 'trap \"\" TERM HUP; exec </dev/null >/dev/null 2>&1; sleep 77777; sleep 77777' &\n\
             sleep 0.1; echo up; sleep 77777; sleep 77777\n"
        );
        let command = exec(&site, &direct, profile, &script);
        command.wait_for("up");
        site.age();
        site.gc_finds_nothing(&direct, "while it lives");
        let [name] = &site.names("tmp")[..] else { panic!("{when}: {:?}", site.names("tmp")) };
        let processes = with_descendants(command.pid());
        let processes: Vec<Process> = processes.into_iter().chain(marked(&mark)).collect();
        assert_eq!(alive(&processes).len(), processes.len(), "{when}");
        // What it leaves of `compat` holds its output open: it is finished later.
        let supervisor = with_descendants(command.pid());
        command.signal(Signal::SIGKILL);
        assert!(wait_gone(&supervisor[..1], Duration::from_secs(5)).is_empty(), "{when}");
        make_old(&site.state().join("tmp").join(name), DAY);
        let uid = site.place.account().uid;
        let said = format!("removed the private directory {name} of uid {uid}: its exec was killed\n");
        site.gc_says(&direct, &said, &when);
        assert!(command.finish().code < 0, "{when}");
        let left = wait_gone(&processes, Duration::from_secs(5));
        assert!(left.is_empty() && alive(&marked(&mark)).is_empty(), "{when}: {left:?}");
        assert_eq!(groups_of(name), Vec::<PathBuf>::new(), "{when}");
        site.assert_clean(&when);
        let ran = exec(&site, &direct, profile, "echo works").finish();
        assert_eq!((ran.code, ran.out.as_str()), (0, "works\n"), "{when}: {ran}");
    }
}

/// Groups of the usual site's node with this word in their name: those of `exec`.
fn groups_of(name: &str) -> Vec<PathBuf> {
    let group = testbed::host::ControlGroup::make().expect("root").expect("cgroup v2");
    let site = std::path::Path::new(group.path()).parent().expect("a root").join("jacamar.slice");
    let all = children(&site).into_iter().flat_map(|user| children(&user));
    all.filter(|path| path.to_string_lossy().contains(name)).collect()
}

/// Young, or not yet locked, it may be in the making; its owner cannot make it look so for ever.
#[test]
fn a_young_private_directory_is_left() {
    let site = Site::usual();
    let direct = site.direct();
    site.next_job_works("the directories are made");
    let path = site.state().join("tmp").join(NAME);
    let account = site.place.account();
    for uid in [account.uid, 0] {
        fs::create_dir(&path).expect("root");
        chown(&path, Some(uid), Some(uid)).expect("root");
        site.gc_finds_nothing(&direct, "young");
        let file = fs::File::open(&path).expect("root");
        file.set_modified(std::time::SystemTime::now() + DAY).expect("root");
        let said = format!("removed the private directory {NAME} of uid {uid}: its exec was killed\n");
        site.gc_says(&direct, &said, "a time that has not come");
        site.assert_clean("after it");
    }
    // One that was never given away is empty, or not what we think: nothing is emptied with root's rights.
    let file = path.join("file");
    fs::create_dir(&path).expect("root");
    fs::write(&file, "x").expect("root");
    make_old(&path, DAY);
    let ran = site.gc(&direct);
    assert!(ran.code == 1 && ran.out.is_empty() && ran.err.contains("is left: could not remove"), "{ran}");
    assert!(fs::exists(&file).expect("root"));
}

#[test]
fn control_groups_of_nobody_are_ended() {
    let site = Site::usual();
    let living = site.direct().prepared();
    let uid = site.place.account().uid;
    let user = site.group.path().to_owned() + &format!("/jacamar-u{uid}.slice");
    let node = |name: &str| format!("{user}/jacamar-u{uid}-{name}.slice");
    let empty = site.group.path().to_owned() + "/jacamar-u1.slice";
    let sleepers: Vec<Started> = [NAME.to_owned(), format!("{NAME}_verify"), living.record().to_owned()]
        .iter()
        .map(|name| {
            let leaf = format!("{}/x.scope", node(name));
            fs::create_dir_all(&leaf).expect("root");
            let line = format!("echo $$ > {leaf}/cgroup.procs; echo up; exec sleep 77777");
            let sleeper = Started::new(living.any(&["sh", "-c", &line]));
            sleeper.wait_for("up");
            sleeper
        })
        .collect();
    fs::create_dir_all(&empty).expect("root");
    let foreign = node("somebody-else");
    fs::create_dir_all(&foreign).expect("root");
    site.gc_finds_nothing(&living, "young");
    site.age();
    let ran = site.gc(&living);
    let mut said: Vec<&str> = ran.out.lines().collect();
    said.sort_unstable();
    let mut expected: Vec<String> = [NAME.to_owned(), format!("{NAME}_verify")]
        .iter()
        .map(|name| format!("removed the control group {}: no job or command has it", node(name)))
        .collect();
    expected.push(format!("removed the control group {empty}: it is empty"));
    expected.sort_unstable();
    assert_eq!((ran.code, said), (0, expected.iter().map(String::as_str).collect()), "{ran}");
    let [first, second, third] = <[Started; 3]>::try_from(sleepers).expect("three");
    assert!(first.finish().code < 0 && second.finish().code < 0);
    assert!(fs::exists(&foreign).expect("root") && fs::exists(node(living.record())).expect("root"));
    let ran = living.cleanup();
    assert_eq!(ran.code, 0, "{ran}");
    assert!(third.finish().code < 0, "cleanup ended it");
    fs::remove_dir(&foreign).expect("empty");
}
