//! Nothing survives: whoever of a job's processes is killed, `cleanup` alone leaves nothing of it.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::host::{Level, Process, Started, alive, marked, wait_gone, with_descendants};

use crate::direct::Direct;
use crate::left;
use crate::place::{Place, Setup};

/// Where it is tried, with SIGTERM alone taking longer than any test waits: under both profiles as root and with file capabilities, user level under `default`.
fn places() -> [(&'static str, Setup); 5] {
    let setup = |level, profile| Setup {
        profile: Some(profile),
        general: "kill_timeout = \"1h\"".into(),
        ..Setup::of_level(level)
    };
    [
        ("root, default", setup(Level::Root, "default")),
        ("root, compat", setup(Level::Root, "compat")),
        ("capabilities, default", setup(Level::Capabilities, "default")),
        ("capabilities, compat", setup(Level::Capabilities, "compat")),
        ("user, default", setup(Level::User, "default")),
    ]
}

/// A stage under way: its script ignores SIGTERM, and so do a process in the background and one in a session of its
/// own that has closed its output.
struct Stubborn {
    driver: Started,
    processes: Vec<Process>,
}

impl Stubborn {
    #[track_caller]
    fn start(direct: &Direct<'_>, mark: &str) -> Self {
        let script = format!(
            "export {mark}=1; trap '' TERM HUP INT\n\
             (trap '' TERM; sleep 77777) &\n\
             setsid sh -c 'trap \"\" TERM HUP; exec </dev/null >/dev/null 2>&1; sleep 77777; sleep 77777' &\n\
             sleep 0.1; echo up\nwhile :; do sleep 77777; done\n"
        );
        let driver = direct.run(&script);
        driver.wait_for("up");
        let mut processes = with_descendants(driver.pid());
        processes.extend(marked(mark).into_iter().filter(|found| found.name != "nsenter"));
        assert!(processes.len() >= 6, "driver, pid 1, jacamar run, bash, two or three more: {processes:?}");
        Self { driver, processes }
    }

    fn init(&self) -> Pid {
        Pid::from_raw(self.processes.get(1).expect("pid 1 of the stage").pid)
    }
}

fn prepared(place: &Place) -> Direct<'_> {
    let job = place.gitlab.admit(place.small(["true"]));
    Direct::new(place, &job).prepared()
}

#[test]
fn cleanup_alone_leaves_nothing_after_sigkill() {
    for (name, setup) in places() {
        let place = Place::new(setup);
        for (number, victims) in
            [["supervisor", ""], ["pid 1", ""], ["supervisor", "pid 1"]].iter().enumerate()
        {
            let direct = prepared(&place);
            let mark = format!("MARK_E2E_{}_{}_{number}", std::process::id(), name.replace(", ", "_"));
            let stage = Stubborn::start(&direct, &mark);
            for victim in victims.iter().filter(|victim| !victim.is_empty()) {
                let pid = if *victim == "pid 1" { stage.init() } else { stage.driver.pid() };
                kill(pid, Signal::SIGKILL).expect("alive");
            }
            let ran = direct.cleanup();
            assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{name}, {victims:?}");
            let ended = stage.driver.finish_within(Duration::from_secs(10));
            assert_ne!(ended.code, 0, "{name}, {victims:?}: {ended}");
            left::assert_nothing(&direct.state(), direct.record(), &stage.processes);
            let found = alive(&marked(&mark));
            assert!(found.is_empty(), "{name}, {victims:?}: {found:?}");
        }
    }
}

#[test]
fn cleanup_ends_a_run_that_ignores_sigterm() {
    for (name, setup) in places() {
        let place = Place::new(setup);
        let direct = prepared(&place);
        let stage =
            Stubborn::start(&direct, &format!("MARK_E2E_{}_{}", std::process::id(), name.replace(", ", "_")));
        stage.driver.signal(Signal::SIGTERM);
        std::thread::sleep(Duration::from_millis(300));
        assert!(!alive(&stage.processes).is_empty(), "{name}: it ignores SIGTERM");
        let begin = Instant::now();
        let ran = direct.cleanup();
        assert_eq!(ran.code, 0, "{name}: {ran}");
        let ended = stage.driver.finish_within(Duration::from_secs(5));
        assert!(begin.elapsed() < Duration::from_secs(5), "{name}: {:?}", begin.elapsed());
        assert_ne!(ended.code, 0, "{name}: {ended}");
        left::assert_nothing(&direct.state(), direct.record(), &stage.processes);
    }
}

/// Nobody waits for the stage any more when its runner is gone: nothing of it outlives the runner for long, also where
/// no cleanup comes.
#[test]
fn a_runner_that_dies_ends_the_stage() {
    for (name, setup) in places() {
        let place = Place::new(Setup { general: "kill_timeout = \"500ms\"".into(), ..setup });
        let direct = prepared(&place);
        let words = direct.script("trap '' TERM; echo up; while :; do sleep 77777; done\n");
        let driver = place.driver_words().join(" ");
        let line = format!("{driver} {} & wait", words.join(" "));
        // The shell is the runner: it starts the driver and waits.
        let runner = Started::new(direct.any(&["sh", "-c", &line]));
        runner.wait_for("up");
        let processes = with_descendants(runner.pid());
        assert!(processes.len() >= 4, "{name}: {processes:?}");
        kill(runner.pid(), Signal::SIGKILL).expect("alive");
        let left = wait_gone(&processes, Duration::from_secs(5));
        assert!(left.is_empty(), "{name}: {left:?}");
        let ran = direct.cleanup();
        assert_eq!(ran.code, 0, "{name}: {ran}");
        left::assert_nothing(&direct.state(), direct.record(), &processes);
    }
}

#[test]
fn cleanup_comes_as_often_as_it_likes() {
    for (name, setup) in places() {
        let place = Place::new(setup);
        let direct = prepared(&place);
        let script = direct.run("echo hello\n").finish();
        assert_eq!((script.code, script.out.as_str()), (0, "hello\n"), "{name}: {script}");
        for round in 1..=3 {
            let ran = direct.cleanup();
            assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{name}, {round}");
            left::assert_nothing(&direct.state(), direct.record(), &[]);
        }
        let mut without = Direct::new(&place, &place.gitlab.admit(place.small(["true"])));
        let ran = without.cleanup();
        assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{name}: {ran}");
        without.set_record("0123456789abcdef0123456789abcdef");
        let ran = without.cleanup();
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{name}");
        // And a stage after it says why it does not run.
        let late = direct.run("echo late\n").finish();
        assert_eq!((late.code, late.out.as_str()), (2, ""), "{name}: {late}");
        assert!(late.err.contains("there is no record"), "{name}: {late}");
    }
}
