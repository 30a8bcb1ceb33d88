//! `MaxJobsPerUser`: who is above it waits, and nobody who is gone holds a place.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testbed::host::{LEVELS, Level, Ran, Started, alive, wait_gone, with_descendants};

use crate::collector::Site;
use crate::direct::Direct;

/// What the job log says at the start of a wait.
const WAITS: &str = "this job waits: ";

fn site(level: Level, keys: &str) -> Site {
    let site = Site::of_level(level);
    // Build directories that no test of another file looks into meanwhile.
    let text = configuration(&site).replace("data_dir = \"$HOME\"", "data_dir = \"$HOME/turns\"");
    site.place.configure(&text);
    limit(&site, keys);
    site
}

/// What was written last.
fn configuration(site: &Site) -> String {
    fs::read_to_string(site.place.path("config.toml")).expect("ours")
}

/// Jobs from here on have these keys of `[sandbox.user]`.
fn limit(site: &Site, keys: &str) {
    let text = configuration(site);
    let before = text.split("[sandbox.user]").next().unwrap_or_default();
    site.place.configure(&format!("{before}[sandbox.user]\n{keys}\n"));
}

fn configured(site: &Site) -> Direct<'_> {
    let mut direct = site.direct();
    let ran = direct.config();
    assert_eq!(ran.code, 0, "{ran}");
    direct
}

fn prepared(site: &Site) -> Direct<'_> {
    site.direct().prepared()
}

/// `prepare`, with the job log on its standard output.
fn prepare(direct: &Direct<'_>) -> Started {
    Started::new(direct.command_under(&["sh", "-c", "exec \"$@\" 2>&1", "sh"], &["prepare"]))
}

/// A `prepare` that has said that it waits.
#[track_caller]
fn waiting(direct: &Direct<'_>) -> Started {
    let started = prepare(direct);
    started.wait_for(WAITS);
    started
}

/// Its turn comes soon, and it said so.
#[track_caller]
fn comes(started: Started, when: &str) -> Ran {
    let ran = started.finish_within(Duration::from_secs(10));
    assert!(ran.code == 0 && ran.out.contains("for its turn and goes on"), "{when}: {ran}");
    ran
}

#[track_caller]
fn cleaned(direct: &Direct<'_>, when: &str) {
    let ran = direct.cleanup();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{when}: {ran}");
}

fn edit(site: &Site, direct: &Direct<'_>, change: impl Fn(&mut Value)) {
    let path = site.state().join("jobs").join(direct.record()).join("record.json");
    let mut record: Value = serde_json::from_str(&fs::read_to_string(&path).expect("ours")).expect("JSON");
    change(&mut record);
    fs::write(&path, record.to_string()).expect("ours");
}

/// Files in a record's directory.
fn files(site: &Site, direct: &Direct<'_>) -> Vec<String> {
    site.names(&format!("jobs/{}", direct.record()))
}

#[test]
fn the_third_waits_until_one_ends() {
    for level in LEVELS {
        let when = &level.to_string();
        let site = site(level, "MaxJobsPerUser = 2");
        let (first, second) = (prepared(&site), prepared(&site));
        let scripts = [&first, &second].map(|job| job.run("echo up; sleep 77777\n"));
        for script in &scripts {
            script.wait_for("up");
        }
        let third = configured(&site);
        let waits = waiting(&third);
        std::thread::sleep(Duration::from_millis(1500));
        // Nothing of it has happened.
        assert!(!site.names("tmp").contains(&third.record().to_owned()), "{level}");
        assert_eq!(
            files(&site, &third),
            ["lock", "record.json", "supervisor", "turn"],
            "{level}: it waits, and is known to cleanup"
        );
        let [script, other] = scripts;
        script.signal(Signal::SIGTERM);
        assert_ne!(script.finish().code, 0);
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(files(&site, &third).len(), 4, "{level}: until its clean-up the first one is a job");
        cleaned(&first, when);
        let ran = comes(waits, when);
        let said = format!(
            "account ci1 (uid {}) has 2 jobs running on {}, and no more than 2 may run there at the same time \
             (MaxJobsPerUser, {}:",
            site.place.account().uid,
            fs::read_to_string("/proc/sys/kernel/hostname").expect("readable").trim_end(),
            site.place.path("config.toml")
        );
        assert!(ran.out.contains(&said), "{said}\n{ran}");
        assert!(
            ran.out.contains("it waits at most 9 min ") && ran.out.contains("(what is left of its own"),
            "{ran}"
        );
        assert_eq!(third.run("echo works\n").finish().out, "works\n", "{level}");
        other.signal(Signal::SIGKILL);
        assert!(other.finish().code < 0);
        cleaned(&second, when);
        cleaned(&third, when);
        site.assert_clean(when);
        let waited: Vec<Value> = site
            .place
            .audit()
            .into_iter()
            .filter(|line| line["event"] == "prepare")
            .map(|line| line["waited_ms"].clone())
            .collect();
        let long = waited[2].as_u64().expect("a number");
        assert!(waited.len() == 3 && waited[0].as_u64() < Some(1000) && long > 3000, "{waited:?}");
        let granted = site.place.audit().into_iter().find(|line| line["event"] == "granted").expect("a line");
        assert!(granted["limits"].to_string().contains("user MaxJobsPerUser = 2"), "{granted}");
    }
}

/// However many begin at the same moment, and for whichever runner service.
#[test]
fn no_more_than_the_limit_come_at_once_and_in_their_order() {
    let site = site(Level::Root, "MaxJobsPerUser = 2");
    let jobs: Vec<Direct<'_>> = (0..6).map(|_| configured(&site)).collect();
    let mut started: Vec<(Started, &Direct<'_>)> = jobs.iter().map(|job| (prepare(job), job)).collect();
    let state = |job: &Direct<'_>| -> (u64, bool) {
        let path = site.state().join("jobs").join(job.record()).join("turn");
        let Ok(text) = fs::read_to_string(path) else { return (0, false) };
        let turn: Value = serde_json::from_str(&text).expect("written as a whole");
        (turn["number"].as_u64().expect("a number"), turn["state"] == "come")
    };
    let until = Instant::now() + Duration::from_secs(20);
    while jobs.iter().any(|job| state(job).0 == 0) {
        assert!(Instant::now() < until, "all of them have a number");
        std::thread::sleep(Duration::from_millis(10));
    }
    while !started.is_empty() {
        std::thread::sleep(Duration::from_millis(1500));
        let come = started.iter().filter(|(_, job)| state(job).1).count();
        assert_eq!(come, 2, "places are used, and no more");
        started.sort_by_key(|(_, job)| state(job).0);
        assert!(state(started[0].1).1 && state(started[1].1).1, "who came first");
        let (first, job) = started.remove(0);
        let ran = first.finish();
        assert_eq!(ran.code, 0, "{ran}");
        cleaned(job, "one ends");
        if started.len() == 1 {
            let (last, job) = started.remove(0);
            assert_eq!(last.finish().code, 0);
            cleaned(job, "the last");
        }
    }
    site.assert_clean("all of them ran");
}

#[test]
fn a_wait_has_an_end_and_that_is_the_jobs_failure() {
    let site = site(Level::Root, "MaxJobsPerUser = 1\nMaxJobsWaitSec = \"2s\"");
    let first = prepared(&site);
    for (keys, least, why) in [
        ("MaxJobsPerUser = 1\nMaxJobsWaitSec = \"2s\"", 2, "this job has waited 2.0 s (MaxJobsWaitSec, "),
        ("MaxJobsPerUser = 1\nMaxJobsWaitSec = 0", 0, "this job does not wait (MaxJobsWaitSec, "),
        ("MaxJobsPerUser = 1", 2, "this job has waited 2."),
    ] {
        limit(&site, keys);
        let late = configured(&site);
        if !keys.contains("Wait") {
            // Ten seconds before the runner would end it.
            edit(&site, &late, |record| record["timeout_s"] = json!(13));
        }
        let begin = Instant::now();
        let ran = prepare(&late).finish_within(Duration::from_secs(10));
        let took = begin.elapsed().as_secs();
        assert_eq!((ran.code, late.exit_code_file()), (1, None), "{keys}: {ran}");
        assert!((least..least + 3).contains(&took), "{keys}: {took}");
        for said in [
            why,
            "rule max_jobs_per_user",
            "ERROR: account ci1 (uid ",
            "has 1 job running on ",
            "retry this job when",
        ] {
            assert!(ran.out.contains(said), "{keys}: {said}\n{ran}");
        }
        assert_eq!(ran.out.contains(WAITS), least > 0, "{ran}");
        let line =
            site.place.audit().into_iter().rev().find(|line| line["event"] == "refused").expect("a line");
        assert_eq!(line["rule"], "max_jobs_per_user");
        assert!(line["waited_ms"].as_u64() >= Some(least * 1000), "{line}");
        cleaned(&late, keys);
    }
    cleaned(&first, "the first");
    site.assert_clean("after all");
    site.next_job_works("after all");
}

#[test]
fn whoever_asks_for_its_end_has_it_at_once() {
    for level in LEVELS {
        let when = &level.to_string();
        let site = site(level, "MaxJobsPerUser = 1");
        let first = prepared(&site);
        let late = configured(&site);
        let begin = Instant::now();
        let cancelled = waiting(&late);
        cancelled.signal(Signal::SIGTERM);
        let ran = cancelled.finish_within(Duration::from_secs(3));
        assert_eq!((ran.code, late.exit_code_file()), (2, None), "{level}: {ran}");
        assert!(begin.elapsed() < Duration::from_secs(3), "{level}");
        let line =
            site.place.audit().into_iter().rev().find(|line| line["event"] == "prepare").expect("a line");
        assert_eq!((&line["terminated"], &line["signal"]), (&json!(true), &json!(15)), "{line}");
        cleaned(&late, "cancelled");

        // The runner dies: nobody waits for the answer.
        let late = site.direct();
        let runner = site.runner(&late, "$D prepare 2>&1");
        runner.wait_for(WAITS);
        let processes = with_descendants(runner.pid());
        assert!(processes.iter().any(|process| process.name == "jacamar-auth"), "{processes:?}");
        kill(runner.pid(), Signal::SIGKILL).expect("alive");
        let left = wait_gone(&processes, Duration::from_secs(3));
        assert!(left.is_empty(), "{level}: {left:?}");
        assert!(runner.finish().code < 0);
        site.age();
        site.gc_says(&late, "finished job 302 of ci1: its runner is gone\n", when);
        assert_eq!(site.names("jobs"), [first.record()], "{level}");

        // And cleanup comes while it waits.
        let late = configured(&site);
        let ended = waiting(&late);
        let processes = with_descendants(ended.pid());
        let begin = Instant::now();
        cleaned(&late, when);
        assert!(begin.elapsed() < Duration::from_millis(1500), "{level}: {:?}", begin.elapsed());
        assert!(alive(&processes).is_empty(), "{level}");
        assert_ne!(ended.finish().code, 0);
        assert_eq!(site.names("jobs"), [first.record()], "{level}");
        cleaned(&first, when);
        site.assert_clean(when);
    }
}

/// Cleanup comes before anybody could know that the job waits.
#[test]
fn a_wait_ends_when_the_record_is_closing() {
    let site = site(Level::Root, "MaxJobsPerUser = 1");
    let first = prepared(&site);
    let late = configured(&site);
    let ended = waiting(&late);
    let directory = site.state().join("jobs").join(late.record());
    fs::remove_file(directory.join("supervisor")).expect("root");
    let begin = Instant::now();
    cleaned(&late, "closing");
    assert!(begin.elapsed() < Duration::from_millis(2500), "{:?}", begin.elapsed());
    let ran = ended.finish();
    assert!(ran.code == 2 && ran.out.contains("is closing"), "{ran}");
    cleaned(&first, "the first");
    site.assert_clean("after both");
}

#[test]
fn a_waiting_prepare_that_was_killed_holds_nobody_up() {
    for level in LEVELS {
        let when = &level.to_string();
        let site = site(level, "MaxJobsPerUser = 1");
        let first = prepared(&site);
        let killed = site.direct();
        let runner = site.runner(&killed, "$D prepare 2>&1 & wait");
        runner.wait_for(WAITS);
        let behind = configured(&site);
        let waits = waiting(&behind);
        let processes = with_descendants(runner.pid());
        let driver = processes.iter().find(|process| process.name == "jacamar-auth").expect("prepare");
        kill(Pid::from_raw(driver.pid), Signal::SIGKILL).expect("alive");
        cleaned(&first, when);
        // One before it in the line has a runner that lives, and a lower number.
        comes(waits, when);
        let left = site.names("jobs").into_iter().filter(|name| name != behind.record());
        let [name] = &left.collect::<Vec<_>>()[..] else { panic!("{:?}", site.names("jobs")) };
        assert!(site.names(&format!("jobs/{name}")).contains(&"turn".to_owned()));
        assert_eq!(runner.finish().code, 0);
        site.age();
        site.gc_says(&killed, "finished job 302 of ci1: its runner is gone\n", when);
        cleaned(&behind, when);
        site.assert_clean(when);
    }
}

/// What `gc` would finish counts no more, whether it comes or not; what still runs does.
#[test]
fn a_job_of_a_dead_runner_holds_no_place() {
    let site = site(Level::Root, "MaxJobsPerUser = 1\nMaxJobsWaitSec = 0");
    let dead = site.direct();
    let runner = site.runner(&dead, "$D prepare; echo up; exec sleep 77777");
    runner.wait_for("up");
    let late = configured(&site);
    assert_eq!(prepare(&late).finish().code, 1, "while its runner lives");
    kill(runner.pid(), Signal::SIGKILL).expect("alive");
    assert!(runner.finish().code < 0);
    let ran = prepare(&late).finish();
    assert_eq!(ran.code, 0, "{ran}");
    cleaned(&late, "late");
    site.gc_says(&dead, "finished job 302 of ci1: its runner is gone\n", "gc comes at last");

    // A script that runs is one that runs, whatever became of its runner.
    let direct = prepared(&site);
    let script = direct.run("echo up; sleep 77777\n");
    script.wait_for("up");
    let gone = json!({"pid": 1, "start_time": 1});
    edit(&site, &direct, |record| record["runner"] = gone.clone());
    let prepared = site.state().join("jobs").join(direct.record()).join("prepared");
    let mut mark: Value = serde_json::from_str(&fs::read_to_string(&prepared).expect("ours")).expect("JSON");
    mark["parent"] = gone;
    fs::write(&prepared, mark.to_string()).expect("ours");
    let late = configured(&site);
    assert_eq!(prepare(&late).finish().code, 1, "its script runs");
    script.signal(Signal::SIGKILL);
    assert!(script.finish().code < 0);
    assert_eq!(prepare(&late).finish().code, 0, "nothing of it runs");
    cleaned(&late, "late");

    // Before the last restart of the host.
    edit(&site, &direct, |record| record["boot_id"] = json!("0"));
    let late = configured(&site);
    assert_eq!(prepare(&late).finish().code, 0, "of another boot");
    cleaned(&late, "late");
    site.gc_says(&direct, "finished job 302 of ci1: the host restarted\n", "and gc");
    site.assert_clean("after all");
}

#[test]
fn whose_jobs_count() {
    // Without a limit of their own, of the same account.
    let site = site(Level::Root, "MaxJobsPerUser = \"infinity\"");
    let unlimited = [prepared(&site), prepared(&site)];
    assert!(!files(&site, &unlimited[0]).contains(&"turn".to_owned()));
    let not_begun = configured(&site);
    limit(&site, "MaxJobsPerUser = 3\nMaxJobsWaitSec = 0");
    let limited = prepared(&site);
    let late = configured(&site);
    assert_eq!(prepare(&late).finish().code, 1);
    // Another's.
    let uid = site.place.account().uid;
    edit(&site, &unlimited[0], |record| record["grant"]["account"]["uid"] = json!(uid + 1));
    assert_eq!(prepare(&late).finish().code, 0);
    edit(&site, &unlimited[0], |record| record["grant"]["account"]["uid"] = json!(uid));
    // Another host's, and what this program cannot read.
    for (field, value) in [("host", json!("login9")), ("format", json!(99))] {
        let late = configured(&site);
        assert_eq!(prepare(&late).finish().code, 1, "{field}");
        let before = fs::read_to_string(site.state().join("jobs").join(limited.record()).join("record.json"));
        edit(&site, &unlimited[1], |record| record[field] = value.clone());
        edit(&site, &limited, |record| record[field] = value.clone());
        assert_eq!(prepare(&late).finish().code, 0, "{field}");
        let before: Value = serde_json::from_str(&before.expect("ours")).expect("JSON");
        for job in [&unlimited[1], &limited] {
            edit(&site, job, |record| record[field] = before[field].clone());
        }
        cleaned(&late, field);
    }
    // The account's own word is the last.
    limit(&site, "MaxJobsPerUser = 1\nMaxJobsWaitSec = 0\n[sandbox.user.account.ci1]\nMaxJobsPerUser = 9");
    let more = prepared(&site);
    for job in unlimited.iter().chain([&not_begun, &limited, &late, &more]) {
        cleaned(job, "all of them");
    }
    site.assert_clean("all of them");
}

/// Whichever call `prepare` is killed at, its clean-up frees the place.
#[test]
fn a_prepare_that_was_killed_anywhere_leaves_no_place_taken() {
    let site = site(Level::Root, "MaxJobsPerUser = 1\nMaxJobsWaitSec = 0");
    let mut killed = 0;
    for call in ["flock", "renameat", "unlinkat", "openat"] {
        let every = if call == "openat" { 7 } else { 1 };
        for when in (1..).step_by(every) {
            let direct = configured(&site);
            let inject = format!("inject={call}:signal=KILL:when={when}");
            let words = ["strace", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject];
            let code = Started::new(direct.command_under(&words, &["prepare"])).finish().code;
            cleaned(&direct, &inject);
            site.assert_clean(&inject);
            if code == 0 {
                break;
            }
            assert!(code < 0, "{inject}: {code}");
            killed += 1;
        }
    }
    assert!(killed > 10, "{killed}");
    site.next_job_works("after all");
}

/// The lock on turns is held for one look; one that is held for ever keeps nobody from being cancelled.
#[test]
fn a_lock_that_is_held_does_not_hang_a_job() {
    let site = site(Level::Root, "MaxJobsPerUser = 1");
    prepared(&site).cleanup();
    let direct = configured(&site);
    let lock = site.state().join("turns").display().to_string();
    let held = Started::new(direct.any(&["flock", "-F", &lock, "sh", "-c", "echo up; exec sleep 77777"]));
    held.wait_for("up");
    let cancelled = prepare(&direct);
    std::thread::sleep(Duration::from_millis(500));
    cancelled.signal(Signal::SIGTERM);
    let ran = cancelled.finish_within(Duration::from_secs(3));
    assert_eq!(ran.code, 2, "{ran}");
    let ran = prepare(&direct).finish_within(Duration::from_secs(20));
    assert!(ran.code == 2 && ran.out.contains("the lock on turns, "), "{ran}");
    let waits = prepare(&direct);
    std::thread::sleep(Duration::from_millis(500));
    held.signal(Signal::SIGKILL);
    let ran = waits.finish_within(Duration::from_secs(3));
    assert!(ran.code == 0 && ran.out.starts_with("Running as ci1 on "), "{ran}");
    cleaned(&direct, "it came");
    site.assert_clean("after it");
}
