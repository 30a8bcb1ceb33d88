//! `jacamar-auth gc`: what nobody finishes is finished, and nothing that lives is touched.

mod commands;

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testbed::host::{LEVELS, Level, PREFIX, Process, Started, alive, wait_gone, with_descendants};

use self::commands::exec;
use crate::collector::{Site, make_old};
use crate::direct::Direct;
use crate::place::{Setup, write};

const UNIT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rpm/jacamar-gc.service"));
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A record that nobody made.
const NAME: &str = "0123456789abcdef0123456789abcdef";

fn record_file(site: &Site, name: &str) -> PathBuf {
    site.state().join("jobs").join(name).join("record.json")
}

fn edit(site: &Site, name: &str, change: impl Fn(&mut Value)) {
    let path = record_file(site, name);
    let mut record: Value = serde_json::from_str(&fs::read_to_string(&path).expect("ours")).expect("JSON");
    change(&mut record);
    fs::write(&path, record.to_string()).expect("ours");
}

fn finished(why: &str) -> String {
    format!("finished job 302 of ci1: {why}\n")
}

/// The `jacamar-auth` below a runner, once its stage has said "up".
fn driver_below(runner: &Started) -> Vec<Process> {
    runner.wait_for("up");
    let all = with_descendants(runner.pid());
    let at = all.iter().position(|process| process.name == "jacamar-auth").expect("the stage");
    all.into_iter().skip(at).collect()
}

#[test]
fn nothing_of_a_living_job_is_touched() {
    for level in LEVELS {
        let site = Site::of_level(level);
        let mut direct = site.direct();
        assert_eq!(direct.config().code, 0, "{level}");
        site.age();
        site.gc_finds_nothing(&direct, "after config");
        let ran = Started::new(direct.command(&["prepare"])).finish();
        assert_eq!(ran.code, 0, "{level}: {ran}");
        let script = direct.run("echo kept > /tmp/kept; echo up; sleep 77777\n");
        script.wait_for("up");
        let processes = with_descendants(script.pid());
        let before = (site.names("jobs"), site.names("tmp"), site.users());
        assert!(processes.len() >= 4 && before.1.len() == 1, "{processes:?} {before:?}");
        make_old(&record_file(&site, direct.record()), DAY);
        site.age();
        site.gc_finds_nothing(&direct, "while it runs");
        assert_eq!(alive(&processes).len(), processes.len(), "{level}");
        assert_eq!((site.names("jobs"), site.names("tmp"), site.users()), before, "{level}");
        kill(script.pid(), Signal::SIGTERM).expect("alive");
        assert_ne!(script.finish_within(Duration::from_secs(20)).code, 0);
        site.age();
        site.gc_finds_nothing(&direct, "between two stages");
        assert_eq!(direct.run("cat /tmp/kept\n").finish().out, "kept\n", "{level}");
        assert_eq!(direct.cleanup().code, 0);
        site.gc_finds_nothing(&direct, "after it");
        site.assert_clean(&level.to_string());
    }
}

/// Whichever stage's driver is killed, and the runner with it.
#[test]
fn a_job_whose_runner_is_gone_is_finished() {
    for level in LEVELS {
        let site = Site::of_level(level);
        let direct = site.direct();
        let script = direct.script("echo up; trap '' TERM; sleep 77777 & sleep 77777; sleep 77777\n");
        let run = format!("$D {} & wait", script.join(" "));
        for (stage, more) in [
            ("config", "echo up; exec sleep 77777"),
            ("prepare", "$D prepare; echo up; exec sleep 77777"),
            ("run", &format!("$D prepare; {run}")),
            ("cleanup", "$D prepare; $KILL $D cleanup --configuration $C; echo up; exec sleep 77777"),
        ] {
            let when = format!("{level}, {stage}");
            let runner = site.runner(&direct, more);
            runner.wait_for("up");
            let processes = with_descendants(runner.pid());
            let of_runner = |process: &&Process| {
                let waits = process.name == "sleep" && stage != "run";
                waits || matches!(process.name.as_str(), "sh" | "jacamar-auth")
            };
            for victim in processes.iter().filter(of_runner) {
                match kill(Pid::from_raw(victim.pid), Signal::SIGKILL) {
                    Ok(()) | Err(nix::Error::ESRCH) => {}
                    Err(errno) => panic!("{when}: {errno}"),
                }
            }
            assert!(runner.finish().code < 0, "{when}");
            if stage == "config" {
                site.gc_finds_nothing(&direct, "prepare may come");
                site.age();
            }
            site.gc_says(&direct, &finished("its runner is gone"), &when);
            let left = wait_gone(&processes, Duration::from_secs(5));
            assert!(left.is_empty(), "{when}: {left:?}");
            site.assert_clean(&when);
            site.gc_finds_nothing(&direct, &when);
            site.next_job_works(&when);
        }
    }
}

/// Nothing of it runs, but its directories are there, and the runner's file variables in the user's own.
#[test]
fn a_job_of_another_boot_is_finished() {
    for (level, memory) in
        [(Level::Root, false), (Level::Root, true), (Level::Capabilities, false), (Level::User, false)]
    {
        let site = Site::of_level(level);
        let direct = site.direct().prepared();
        let written = direct.run("mkdir -p \"$PWD\"; echo x > /tmp/x\n").finish();
        assert_eq!(written.code, 0, "{written}");
        let record: Value =
            serde_json::from_str(&fs::read_to_string(record_file(&site, direct.record())).expect("ours"))
                .expect("JSON");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let secret = format!(
            "{}/{}.tmp/SECRET",
            text(&record["builds_dir"]),
            text(&record["project"]["project_path"])
        );
        let made = format!("mkdir -p {0} && echo x > {0}/file", secret);
        let account = site.place.account();
        let ran = Started::new(site.place.host.as_user(account.name, &["sh", "-c", &made])).finish();
        assert_eq!(ran.code, 0, "{ran}");
        assert!(fs::exists(&secret).expect("root"));
        if memory {
            // Private directories on a tmpfs are gone after a restart.
            fs::remove_dir_all(site.state().join("tmp")).expect("root");
        }
        // What its numbers mean now is another's, such as ours.
        let own = std::process::id();
        write(
            &site.state().join("jobs").join(direct.record()).join("supervisor").display().to_string(),
            json!({"supervisor": {"pid": own, "start_time": 1}, "init": {"pid": own, "start_time": 1}})
                .to_string()
                .as_bytes(),
            0o600,
        );
        if level == Level::User {
            let file = site.state().join("jobs").join(direct.record()).join("supervisor");
            chown(file, Some(account.uid), Some(account.gid)).expect("root");
        }
        edit(&site, direct.record(), |record| {
            record["boot_id"] = json!("00000000-0000-0000-0000-000000000000");
        });
        let when = format!("{level}, {memory}");
        site.gc_says(&direct, &finished("the host restarted"), &when);
        assert!(!fs::exists(&secret).expect("root"), "{when}");
        site.assert_clean(&when);
        site.next_job_works(&when);
    }
}

#[test]
fn a_half_made_record_is_removed_once_nobody_makes_it() {
    let site = Site::usual();
    let direct = site.direct();
    site.next_job_works("the directories are made");
    let path = site.state().join("jobs").join(NAME);
    for files in [&[][..], &["lock"], &["lock", "record.json.new"], &["closing", "lock"]] {
        fs::create_dir(&path).expect("root");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&path, mode).expect("root");
        for file in files {
            write(&path.join(file).display().to_string(), b"", 0o600);
        }
        site.gc_finds_nothing(&direct, "it is young");
        if files.contains(&"lock") {
            let lock = path.join("lock").display().to_string();
            let held =
                Started::new(direct.any(&["flock", "-F", &lock, "sh", "-c", "echo up; exec sleep 77777"]));
            held.wait_for("up");
            site.age();
            site.gc_finds_nothing(&direct, "config is making it");
        }
        site.age();
        let said = format!("removed the half-made record {NAME}: config or a clean-up was killed\n");
        site.gc_says(&direct, &said, &format!("{files:?}"));
        site.assert_clean(&format!("{files:?}"));
    }
}

/// What this program cannot read is named and left, and the rest is done all the same.
#[test]
fn records_of_another_version_are_named_and_left() {
    let site = Site::usual();
    let other = site.direct().prepared();
    let direct = site.direct().prepared();
    edit(&site, direct.record(), |record| record["boot_id"] = json!("0"));
    for (said, change) in [("has format 99", json!(99)), ("is damaged", json!("x"))] {
        edit(&site, other.record(), |record| record["format"] = change.clone());
        let ran = site.gc(&direct);
        assert!(ran.code == 1 && ran.err.contains(other.record()) && ran.err.contains(said), "{ran}");
        assert_eq!(ran.err.lines().count(), 1, "{ran}");
        assert_eq!(site.names("jobs"), [other.record()]);
    }
    edit(&site, other.record(), |record| record["format"] = json!(4));
    edit(&site, other.record(), |record| record["host"] = json!("login9"));
    let ran = site.gc(&direct);
    assert!(ran.code == 1 && ran.out.is_empty() && ran.err.contains("it is of host login9"), "{ran}");
    assert_eq!(other.cleanup().code, 0);
    site.assert_clean("all of it was mended");
}

/// The end of a process that started `config` alone, or each stage, says nothing about the runner.
#[test]
fn a_job_that_wrappers_start_lives_until_its_time_is_over() {
    let site = Site::usual();
    let mut direct = site.direct();
    let runner = site.runner(&direct, "cat out.json").finish();
    assert_eq!(runner.code, 0, "{runner}");
    let [name] = &site.names("jobs")[..] else { panic!("{:?}", site.names("jobs")) };
    direct.set_record(name);
    let wrapped = |call: &str| {
        let line = format!("{PREFIX}/bin/jacamar-auth {call}; x=$?; exit $x");
        Started::new(direct.any(&["sh", "-c", &line])).finish()
    };
    site.gc_finds_nothing(&direct, "before prepare");
    assert_eq!(wrapped("prepare").code, 0);
    site.age();
    site.gc_finds_nothing(&direct, "after prepare");
    let script = direct.script("echo works\n").join(" ");
    assert_eq!(wrapped(&script).out, "works\n");
    // CI_JOB_TIMEOUT is 300 seconds, and the least that counts 600.
    let file = record_file(&site, name);
    make_old(&file, Duration::from_secs(3600 + 590));
    site.gc_finds_nothing(&direct, "its time is not over");
    make_old(&file, Duration::from_secs(3600 + 610));
    site.gc_says(&direct, &finished("its time limit has passed and nobody cleaned up"), "its time is over");
    site.assert_clean("after it");

    // Where prepare was started by the runner itself, that one can be asked.
    let runner = site.runner(&direct, "cat out.json").finish();
    assert_eq!(runner.code, 0, "{runner}");
    direct.set_record(&site.names("jobs")[0]);
    assert_eq!(Started::new(direct.command(&["prepare"])).finish().code, 0);
    make_old(&record_file(&site, direct.record()), DAY);
    site.gc_finds_nothing(&direct, "whoever started prepare lives");
    assert_eq!(direct.cleanup().code, 0);
}

/// The runner lives on, and asks for neither: config was killed before it answered, or each clean-up failed.
#[test]
fn a_living_runner_that_forgot_a_job() {
    let site = Site::usual();
    let mut direct = site.direct();
    assert_eq!(direct.config().code, 0);
    make_old(&record_file(&site, direct.record()), HOUR - Duration::from_secs(30));
    site.gc_finds_nothing(&direct, "prepare may come");
    make_old(&record_file(&site, direct.record()), HOUR + Duration::from_secs(30));
    let why = "config was killed before it answered, or prepare never came";
    site.gc_says(&direct, &finished(why), "not prepared");

    let direct = site.direct().prepared();
    let closing = site.state().join("jobs").join(direct.record()).join("closing");
    write(&closing.display().to_string(), b"", 0o600);
    make_old(&record_file(&site, direct.record()), DAY);
    make_old(&closing, HOUR - Duration::from_secs(30));
    site.gc_finds_nothing(&direct, "a clean-up may go on");
    make_old(&closing, HOUR + Duration::from_secs(30));
    site.gc_says(&direct, &finished("its clean-up began and did not end"), "closing");
    site.assert_clean("after both");
}

/// A stage that runs holds the record's lock, whatever became of its runner.
#[test]
fn a_stage_that_runs_is_not_ended() {
    let site = Site::usual();
    let direct = site.direct();
    let script = direct.script("echo up; sleep 77777\n");
    let runner = site.runner(&direct, &format!("$D prepare; $D {}", script.join(" ")));
    let stage = driver_below(&runner);
    let [name] = &site.names("jobs")[..] else { panic!("{:?}", site.names("jobs")) };
    edit(&site, name, |record| record["runner"] = json!({"pid": 1, "start_time": 1}));
    let prepared = site.state().join("jobs").join(name).join("prepared");
    let text = fs::read_to_string(&prepared).expect("ours");
    let mut mark: Value = serde_json::from_str(&text).expect("JSON");
    mark["parent"] = json!({"pid": 1, "start_time": 1});
    fs::write(&prepared, mark.to_string()).expect("ours");
    site.age();
    site.gc_finds_nothing(&direct, "a stage has the lock");
    assert_eq!(alive(&stage).len(), stage.len());
    // The runner first: it would go on, and end by itself.
    for pid in [runner.pid(), Pid::from_raw(stage[0].pid)] {
        kill(pid, Signal::SIGKILL).expect("alive");
    }
    assert!(runner.finish().code < 0);
    site.gc_says(&direct, &finished("its runner is gone"), "nobody has the lock");
    site.assert_clean("after it");
}

/// Each thing is finished once, and none of them fails because of another that does the same.
#[test]
fn collections_and_cleanups_at_once() {
    let site = Site::usual();
    let jobs: Vec<Direct<'_>> = (0..4).map(|_| site.direct().prepared()).collect();
    for job in &jobs {
        edit(&site, job.record(), |record| record["boot_id"] = json!("0"));
    }
    let collections: Vec<Started> = (0..3).map(|_| site.start_gc(&jobs[0], &[])).collect();
    let cleanups: Vec<Started> = jobs[..2]
        .iter()
        .map(|job| {
            let config = site.place.path("config.toml");
            Started::new(job.command(&["cleanup", "--configuration", &config]))
        })
        .collect();
    let ran: Vec<_> = collections.into_iter().map(Started::finish).collect();
    let cleaned: Vec<_> = cleanups.into_iter().map(Started::finish).collect();
    let lines: usize = ran.iter().map(|ran| ran.out.lines().count()).sum();
    // Where a clean-up ended the user's side of a collection's, or took its lock, that one says so: the next finishes.
    let after = site.gc(&jobs[0]);
    assert_eq!((after.code, after.err.as_str()), (0, ""), "{after}\n{ran:?}\n{cleaned:?}");
    assert!((2..=4).contains(&(lines + after.out.lines().count())), "{after}\n{ran:?}\n{cleaned:?}");
    site.assert_clean("after all of them");
    site.next_job_works("after all of them");

    // Without a clean-up in between all of them succeed.
    let jobs: Vec<Direct<'_>> = (0..4).map(|_| site.direct().prepared()).collect();
    for job in &jobs {
        edit(&site, job.record(), |record| record["boot_id"] = json!("0"));
    }
    let collections: Vec<Started> = (0..3).map(|_| site.start_gc(&jobs[0], &[])).collect();
    let ran: Vec<_> = collections.into_iter().map(Started::finish).collect();
    assert!(ran.iter().all(|ran| ran.code == 0 && ran.err.is_empty()), "{ran:?}");
    assert_eq!(ran.iter().map(|ran| ran.out.lines().count()).sum::<usize>(), 4, "{ran:?}");
    site.assert_clean("after three");
}

#[test]
fn a_dry_run_changes_nothing() {
    let site = Site::usual();
    let direct = site.direct().prepared();
    edit(&site, direct.record(), |record| record["boot_id"] = json!("0"));
    let exec = exec(&site, &direct, "default", "echo up; sleep 77777");
    exec.wait_for("up");
    exec.signal(Signal::SIGKILL);
    assert!(exec.finish().code < 0);
    let half = site.state().join("jobs").join(NAME);
    fs::create_dir(&half).expect("root");
    fs::set_permissions(&half, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("root");
    site.age();
    let all = || (site.names("jobs"), site.names("tmp"), site.place.audit().len());
    let before = all();
    let ran = site.start_gc(&direct, &["--dry-run"]).finish();
    let verbs: Vec<&str> = ran.out.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!((ran.code, verbs.len(), ran.err.as_str()), (1, 3, ""), "{ran}");
    assert!(verbs.contains(&"would finish job 302 of ci1"), "{ran}");
    assert!(verbs.contains(&format!("would remove the half-made record {NAME}").as_str()), "{ran}");
    assert_eq!(all(), before);
    assert!(direct.state().join("jobs").join(direct.record()).join("closing").symlink_metadata().is_err());
    assert_eq!(site.gc(&direct).code, 0);
    site.assert_clean("after the real one");
}

/// One line for each thing, where the job's own site has its log; one that cannot be written is told.
#[test]
fn each_thing_has_its_line_in_the_audit_log() {
    let site = Site::usual();
    let direct = site.direct().prepared();
    edit(&site, direct.record(), |record| record["boot_id"] = json!("0"));
    let half = site.state().join("jobs").join(NAME);
    fs::create_dir(&half).expect("root");
    fs::set_permissions(&half, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("root");
    make_old(&half, DAY);
    assert_eq!(site.gc(&direct).code, 0);
    let lines: Vec<Value> =
        site.place.audit().into_iter().filter(|line| line["event"] == "collected").collect();
    let of =
        |rule: &str| lines.iter().find(|line| line["rule"] == rule).unwrap_or_else(|| panic!("{lines:?}"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((&of("restarted")["job_id"], &of("restarted")["account"]), (&json!(302), &json!("ci1")));
    assert_eq!(of("half_made")["object"], json!(format!("the half-made record {NAME}")));

    let direct = site.direct().prepared();
    edit(&site, direct.record(), |record| {
        record["boot_id"] = json!("0");
        record["audit"]["location"] = json!({"file": "/nonexistent/audit.jsonl"});
    });
    let ran = site.gc(&direct);
    assert_eq!((ran.code, ran.out.as_str()), (1, finished("the host restarted").as_str()), "{ran}");
    assert!(ran.err.contains("the audit line is left: ") && ran.err.contains("/nonexistent/"), "{ran}");
    site.assert_clean("it was finished");
}

#[test]
fn what_it_is_asked_for_is_as_trusted_as_for_a_stage() {
    let site = Site::usual();
    let direct = site.direct();
    let driver = format!("{PREFIX}/bin/jacamar-auth");
    let open = site.place.path("open.toml");
    write(&open, site.place.configuration().as_bytes(), 0o666);
    for words in
        [vec!["gc", "--configuration", &open], vec!["gc", "--configuration", "/nonexistent"], vec!["gc", "x"]]
    {
        let mut words = words;
        words.insert(0, &driver);
        let ran = Started::new(direct.any(&words)).finish();
        assert!(ran.code == 125 && ran.out.is_empty() && !ran.err.is_empty(), "{words:?}: {ran}");
    }
    // The same program under the other name, and nothing there yet to be collected.
    let jacamar = format!("{PREFIX}/bin/jacamar");
    let mut command = direct.any(&[&jacamar, "gc", "--configuration", &site.place.path("config.toml")]);
    command.stdin(Stdio::null());
    let ran = Started::new(command).finish();
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{ran}");
    assert!(site.state().join("jobs").symlink_metadata().is_err(), "nothing was made");
}

/// The unit that the package has for it: its options are the program's, and its capabilities are enough.
#[test]
fn the_unit_gives_what_it_needs() {
    let words_of = |key: &str| -> Vec<&str> {
        let line = UNIT.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}"));
        line.split(' ').collect()
    };
    let command = words_of("ExecStart=");
    let site = Site::usual();
    let direct = site.direct().prepared();
    let [program, gc, option, configuration] = command[..] else { panic!("{command:?}") };
    assert_eq!((program, gc), ("/opt/jacamar/bin/jacamar-auth", "gc"));
    assert_eq!(configuration, "/etc/gitlab-runner/custom-config.toml", "where jacamar-auth looks itself");
    edit(&site, direct.record(), |record| record["boot_id"] = json!("0"));
    let capabilities: String = words_of("CapabilityBoundingSet=")
        .iter()
        .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()))
        .collect();
    let set = format!("--bounding-set=-all{capabilities}");
    let file = site.place.path("config.toml");
    let ran = Started::new(direct.command_under(&["setpriv", &set, "--"], &[gc, option, &file])).finish();
    assert_eq!((ran.code, ran.out, ran.err.as_str()), (0, finished("the host restarted"), ""));
    site.assert_clean("after it");
}

/// A user's own files can make his job impossible to finish; it is told each time, and the others are finished.
#[test]
fn one_that_cannot_be_finished_keeps_nobody() {
    let site = Site::new(Setup::default());
    let stuck = site.direct().prepared();
    let other = site.direct().prepared();
    for job in [&stuck, &other] {
        edit(&site, job.record(), |record| record["boot_id"] = json!("0"));
    }
    edit(&site, stuck.record(), |record| record["jacamar_path"] = json!("/nonexistent/jacamar"));
    for round in 0..2 {
        let ran = site.gc(&other);
        assert_eq!((ran.code, ran.out.lines().count()), (1, 1 - round), "{round}: {ran}");
        assert!(ran.err.contains("job 302 of ci1 is left: "), "{ran}");
        assert_eq!(site.names("jobs"), [stuck.record()], "{round}");
    }
    edit(&site, stuck.record(), |record| record["jacamar_path"] = json!(format!("{PREFIX}/bin/jacamar")));
    site.gc_says(&other, &finished("the host restarted"), "mended");
    site.assert_clean("after it");
}
