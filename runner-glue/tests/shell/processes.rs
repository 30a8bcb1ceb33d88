//! The shell's life: signals, what it leaves, what others can see of it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use jacamar_contract::stage_report::{Reached, ShellEnd, believed};
use jacamar_plan::Outcome;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::frames::frame;
use crate::host::{Host, exists};

fn wait_for(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !exists(path) {
        assert!(Instant::now() < deadline, "{} did not appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn sigterm_to_us_alone_waits_for_the_script() {
    let host = Host::new();
    let running = host.start(&frame("19.1", "touch ~/begun\nsleep 0.5\nexit 7\n"));
    wait_for(&host.path("home/begun"));
    kill(Pid::from_raw(running.pid()), Signal::SIGTERM).expect("running");
    let ran = running.wait();
    assert_eq!((ran.code, ran.err.as_str()), (Some(7), ""), "{ran:?}");
}

#[test]
fn sigterm_to_all_ends_the_script() {
    for (version, code) in [("19.1", 1), ("18.0", 143), ("17.3", 143)] {
        let host = Host::new();
        let running = host.start(&frame(version, "touch ~/begun\nsleep 60\n"));
        wait_for(&host.path("home/begun"));
        let asked = Instant::now();
        killpg(Pid::from_raw(running.pid()), Signal::SIGTERM).expect("running");
        let ran = running.wait();
        assert!(asked.elapsed() < Duration::from_secs(10), "at once: {version}");
        assert_eq!(ran.code, Some(code), "{version}: {ran:?}");
    }
}

#[test]
fn sigterm_during_the_start_up_files_is_not_their_fault() {
    let host = Host::with_profile("touch ~/begun\nsleep 60\n");
    let running = host.start(&frame("19.1", "echo not reached\n"));
    wait_for(&host.path("home/begun"));
    killpg(Pid::from_raw(running.pid()), Signal::SIGTERM).expect("running");
    let ran = running.wait();
    assert_eq!((ran.code, ran.out.as_str()), (Some(143), ""), "{ran:?}");
    assert!(
        ran.err.ends_with("ended by SIGTERM before the job's script began (exit code 143)\n"),
        "{}",
        ran.err
    );
    let report = ran.report.expect("a report");
    assert_eq!((report.reached, report.end), (Reached::StartupFiles, ShellEnd::Signalled(15)));
}

#[test]
fn sigterm_at_any_moment_of_the_start_ends_it() {
    for delay_us in (0..40_u64).map(|n| n * 400) {
        let host = Host::new();
        let running = host.start(&frame("19.1", "sleep 60\n"));
        std::thread::sleep(Duration::from_micros(delay_us));
        killpg(Pid::from_raw(running.pid()), Signal::SIGTERM).expect("running");
        let begun = Instant::now();
        let ran = running.wait();
        assert!(begun.elapsed() < Duration::from_secs(20), "{ran:?}");
        assert_ne!(ran.code, Some(0), "{ran:?}");
    }
}

#[test]
fn our_own_death_is_no_exit_code_of_the_script() {
    let host = Host::new();
    let running = host.start(&frame("19.1", "echo $$ > ~/pid\nmv ~/pid ~/begun\nsleep 60\n"));
    wait_for(&host.path("home/begun"));
    kill(Pid::from_raw(running.pid()), Signal::SIGKILL).expect("running");
    let shell: i32 =
        fs::read_to_string(host.path("home/begun")).expect("pid").trim().parse().expect("a number");
    let deadline = Instant::now() + Duration::from_secs(10);
    let gone = || {
        let status = fs::read_to_string(format!("/proc/{shell}/stat")).unwrap_or_default();
        status.is_empty() || status.contains(") Z ")
    };
    while !gone() {
        assert!(Instant::now() < deadline, "the shell ends with us");
        std::thread::sleep(Duration::from_millis(5));
    }
    killpg(Pid::from_raw(running.pid()), Signal::SIGKILL)
        .expect("sleep is left, process 1 is not in this test");
    let ran = running.wait();
    assert_eq!((ran.signal, ran.report), (Some(9), None));
    assert_eq!(believed(&Outcome::Signalled(9), ran.report), None);
}

#[test]
fn a_background_process_that_holds_the_output_does_not_hold_us() {
    let host = Host::new();
    let begun = Instant::now();
    let mut running = host.start(&frame("19.1", "sleep 60 &\necho $! > ~/pid\nexit 6\n"));
    let status = running.child.wait().expect("ended");
    assert_eq!(status.code(), Some(6));
    assert!(begun.elapsed() < Duration::from_secs(30));
    let pid = fs::read_to_string(host.path("home/pid")).expect("pid").trim().parse().expect("a number");
    kill(Pid::from_raw(pid), Signal::SIGKILL)
        .expect("still there: process 1 ends it, which is not in this test");
}

#[test]
fn no_argument_or_environment_of_ours_shows_the_script() {
    const SECRET: &str = "glcbt-64_sEcReT";
    let mut host = Host::new();
    host.request.environment = vec![("LMOD_ADMIN_FILE".to_owned(), "none".to_owned())];
    let body =
        format!("export CI_JOB_TOKEN={SECRET}\ntouch ~/begun\nwhile [ ! -e ~/go ]; do sleep 0.05; done\n");
    let running = host.start(&frame("19.1", &body));
    wait_for(&host.path("home/begun"));
    let (mut ours, mut seen) = (0, 0);
    for entry in fs::read_dir("/proc").expect("proc").flatten() {
        let read = |name: &str| {
            fs::read(entry.path().join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let Ok(arguments) = read("cmdline") else { continue };
        assert!(!arguments.contains(SECRET), "{arguments}");
        seen += 1;
        if arguments.ends_with("jacamar\0run\0") || arguments == "/bin/bash\0--login\0" {
            let environment = read("environ").unwrap_or_default();
            assert!(!environment.contains(SECRET), "{arguments}: {environment}");
            ours += 1;
        }
    }
    assert!(ours >= 2 && seen >= 3, "{ours} of {seen}");
    let files = fs::read_dir(host.path("home")).expect("home").flatten().map(|entry| entry.file_name());
    assert_eq!(files.collect::<Vec<_>>(), ["begun"]);
    fs::write(host.path("home/go"), "").expect("go");
    assert_eq!(running.wait().code, Some(0));
}
