//! What the job's process inherits, and what it must not.

use jacamar_plan::Level;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use testbed::host::{CI1, CI2, Host, PREFIX, SHARED, Start, Started, Surroundings};

use crate::places;

/// Prints the lines of /proc/self/status that matter, of the shell itself.
const STATUS: &str = "while read -r name value; do case $name in \
    CapInh:|CapPrm:|CapEff:|CapBnd:|CapAmb:|NoNewPrivs:|Seccomp:|SigBlk:|SigIgn:|Threads:) echo \"${name%:}=$value\";; \
    esac; done < /proc/$$/status";

fn assert_powerless(ran: &testbed::host::Ran, place: &impl std::fmt::Display) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(ran.value(set), "0000000000000000", "{place}: {set}\n{ran}");
    }
    assert_eq!(ran.value("NoNewPrivs"), "1", "{place}");
    assert_eq!(ran.value("Seccomp"), "2", "{place}");
}

pub(crate) fn no_capabilities(surroundings: Surroundings) {
    for place in places(surroundings) {
        assert_powerless(&place.run("default", STATUS), &place);
    }
}

const CAPS: &str = "--inh-caps=+chown,+dac_override,+setuid,+setgid,+setpcap,+sys_admin,+sys_ptrace";
const AMBIENT: &str = "--ambient-caps=+chown,+dac_override,+setuid,+setgid,+setpcap,+sys_admin,+sys_ptrace";

/// runc's CVE-2022-29162 and crun's CVE-2022-27650: inheritable capabilities of the caller reached the job.
pub(crate) fn nothing_of_a_caller_with_capabilities(surroundings: Surroundings) {
    for place in places(surroundings) {
        // A program with file capabilities drops ambient ones; the inheritable ones stay.
        let under: &[&str] = match place.level {
            Level::Root => &["setpriv", CAPS, AMBIENT, "--"],
            Level::Capabilities | Level::User => &["setpriv", CAPS, "--"],
        };
        let start = Start { under, command: &["sh", "-c", STATUS], ..Start::default() };
        assert_powerless(&place.start(&start).finish(), &place);
    }
}

pub(crate) fn own_processes_only(surroundings: Surroundings) {
    let host = Host::shared();
    let decoy = "echo up; exec sleep 77777";
    let decoys: Vec<Started> =
        [CI1, CI2].iter().map(|user| Started::new(host.as_user(user, &["sh", "-c", decoy]))).collect();
    for decoy in &decoys {
        decoy.wait_for("up");
    }
    for place in places(surroundings) {
        // `echo` and the pattern are the shell's own: no process is started meanwhile.
        let ran = place.run(
            "default",
            "echo own=$$; set -- /proc/[0-9]*; echo all=$*; echo ppid=$PPID; echo uids=$(id -u)",
        );
        let own = format!("/proc/{}", ran.value("own"));
        let all: Vec<&str> = ran.value("all").split(' ').collect();
        // Process 1 cannot be traced, so a hidden /proc hides it from the user.
        assert!(all == [own.as_str()] || all == ["/proc/1", own.as_str()], "{place}: {ran}");
        assert_eq!(ran.value("ppid"), "1", "{place}: {ran}");
        for decoy in &decoys {
            let pid = decoy.pid();
            let kill =
                place.run("default", &format!("kill -0 {pid} 2>&1; echo code=$?; ls -d /proc/{pid} 2>&1"));
            assert_eq!(kill.value("code"), "1", "{place}: {kill}");
        }
    }
}

pub(crate) fn descriptors(surroundings: Surroundings) {
    // A file of root's, open directories, a socket's neighbour, high numbers: opened by the caller, who may.
    let leaks = "exec 3</etc/passwd 4</ 5</proc 6>/dev/null 7</etc 9</usr";
    for place in places(surroundings) {
        for before in [leaks, "exec 3</ 200</etc 1000</", "exec 7</; cd /proc/self/fd/7"] {
            // dash takes descriptors of one digit only.
            let command = ["sh", "-c", "ls /proc/$$/fd; :"];
            let before = format!("exec bash -c '{before}; exec \"$@\"' bash \"$@\"");
            let start = Start { before: &before, command: &command, ..Start::default() };
            let ran = place.start(&start).finish();
            assert_eq!(ran.out, "0\n1\n2\n", "{place}, {before}: {ran}");
        }
        let walk = "for n in $(seq 3 64); do cd /proc/self/fd/$n 2>/dev/null && echo escaped=$n; \
                    cd /proc/$$/fd/$n 2>/dev/null && echo escaped=$n; cd /proc/1/fd/$n 2>/dev/null && echo escaped=$n; \
                    done; echo end=1";
        let before = format!("exec bash -c '{leaks}; exec \"$@\"' bash \"$@\"");
        let start = Start { before: &before, command: &["sh", "-c", walk], ..Start::default() };
        let ran = place.start(&start).finish();
        assert_eq!(ran.out, "end=1\n", "{place}: {ran}");
    }
}

pub(crate) fn signals(surroundings: Surroundings) {
    for place in places(surroundings) {
        let ignore = "trap '' HUP INT QUIT PIPE ALRM TERM USR1 USR2 CHLD CONT TSTP TTIN TTOU XFSZ XCPU WINCH";
        let start = Start { before: ignore, command: &["sh", "-c", STATUS], ..Start::default() };
        let command = place.command(&start);
        // std passes the thread's mask on, whatever it is; signals of the test itself are not touched by others.
        let mut old = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut old)).expect("a mask");
        let started = Started::new(command);
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&old), None).expect("a mask");
        let ran = started.finish();
        assert_eq!(ran.value("SigBlk"), "0000000000000000", "{place}: {ran}");
        assert_eq!(ran.value("SigIgn"), "0000000000000000", "{place}: {ran}");
    }
}

/// What the runner's unit may have (`Nice=`, `CPUSchedulingPolicy=`, `IOSchedulingClass=`) above ordinary processes is not
/// the job's, what is below stays. A negative `OOMScoreAdjust=` is tried in the virtual machine.
pub(crate) fn ordinary_urgency(surroundings: Surroundings) {
    let print = "echo nice=$(nice); echo policy=$(chrt -p $$ | head -n 1); echo io=$(ionice -p $$)";
    let cases: [(&[&str], [&str; 3]); 3] = [
        (&["nice", "-n", "-5"], ["0", "SCHED_OTHER", "none"]),
        (&["nice", "-n", "7"], ["7", "SCHED_OTHER", "none"]),
        (&["chrt", "--fifo", "10", "ionice", "-c", "1", "-n", "3"], ["0", "SCHED_OTHER", "none"]),
    ];
    for place in places(surroundings) {
        for (under, [nice, policy, io]) in cases {
            let start = Start { under, command: &["bash", "-c", print], ..Start::default() };
            let ran = place.start(&start).finish();
            assert_eq!(ran.value("nice"), nice, "{place}, {under:?}: {ran}");
            assert!(ran.value("policy").ends_with(policy), "{place}, {under:?}: {ran}");
            assert!(ran.value("io").starts_with(io), "{place}, {under:?}: {ran}");
        }
    }
}

pub(crate) fn umask_of_the_caller(surroundings: Surroundings) {
    for place in places(surroundings) {
        for umask in ["0000", "0022", "0027", "0077"] {
            let before = format!("umask {umask}");
            let start = Start { before: &before, command: &["sh", "-c", "umask"], ..Start::default() };
            assert_eq!(place.start(&start).finish().ok().trim(), umask, "{place}");
        }
    }
}

/// The programs themselves lie where every user can read them, and nothing else of the tests does.
#[test]
fn the_runner_directory_is_there_to_be_refused() {
    let host = Host::shared();
    let script = format!("cat {SHARED}/custom-executor/script && ls {PREFIX}/bin");
    let ran = Started::new(host.as_root(&["sh", "-c", &script])).finish();
    assert!(ran.out.starts_with("secret") && ran.out.contains("jacamar-auth"), "{ran}");
}
