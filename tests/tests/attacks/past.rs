//! Attacks that worked on others, by their ids. Those with a file of their own:
//! CVE-2016-9962 and CVE-2026-41163 (worn.rs), CVE-2021-30465 (storm.rs), CVE-2021-4034, CVE-2021-3156, CVE-2019-16884
//! (begin.rs), CVE-2025-4598 (inside.rs).

use jacamar_plan::Level;
use testbed::host::{CI1, CI2, Host, PREFIX, Ran, Start, Started, Surroundings, compile};

use crate::{STATUS, assert_whole, places};

/// Makes calls in a job of `default`; lines `NAME ABI NUMBER A0..A5`.
#[cfg(target_arch = "x86_64")]
fn calls(place: &testbed::host::Place<'_>, lines: &str) -> Ran {
    let calls = compile(place.host, "calls");
    let mut command = place.command(&Start { command: &[&calls], ..Start::default() });
    command.stdin(std::process::Stdio::piped());
    let mut started = Started::new(command);
    started.feed(lines.as_bytes());
    let ran = started.finish();
    assert_eq!(ran.code, 0, "{place}: {ran}");
    ran
}

#[test]
fn cve_2019_5736_the_launcher_cannot_be_overwritten() {
    for place in places() {
        let script = format!(
            "for f in /proc/1/exe {PREFIX}/bin/jacamar-auth {PREFIX}/bin/jacamar /proc/$PPID/exe; do \
             (true >> $f) 2>/dev/null && echo written=$f; cp /bin/true $f 2>/dev/null && echo replaced=$f; done; \
             mv {PREFIX}/bin {PREFIX}/old 2>/dev/null && echo moved; echo end"
        );
        assert_eq!(place.run("default", &script).out, "end\n", "{place}");
    }
}

#[test]
fn cve_2022_29162_and_2022_27650_inheritable_capabilities() {
    let caps = "--inh-caps=+chown,+dac_override,+setuid,+setgid,+setpcap,+sys_admin,+sys_ptrace";
    for place in places() {
        let start =
            Start { under: &["setpriv", caps, "--"], command: &["sh", "-c", STATUS], ..Start::default() };
        assert_whole(&place.start(&start).finish(), &place);
    }
}

#[test]
fn cve_2023_25809_no_control_group_file_can_be_written() {
    for place in places() {
        let ran = place.run("default", "find /sys/fs/cgroup -writable 2>/dev/null | head -3; echo end");
        assert_eq!(ran.out, "end\n", "{place}: {ran}");
    }
}

#[test]
fn cve_2022_0492_no_control_group_v1_with_a_release_agent() {
    for place in places() {
        let script = "unshare -UrmC sh -c 'mkdir -p /tmp/v1; for c in rdma misc memory cpu pids; do \
                      mount -t cgroup -o $c cgroup /tmp/v1 && (echo /x > /tmp/v1/release_agent) && echo written=$c; \
                      umount /tmp/v1; done; for f in $(find /sys/fs/cgroup -name release_agent); do (echo /x > $f) && echo written=$f; \
                      done' 2>/dev/null; echo end";
        assert_eq!(place.run("default", script).out, "end\n", "{place}");
    }
}

#[test]
fn cve_2024_21626_a_leaked_directory_is_no_working_directory() {
    for place in places() {
        for fd in [3, 7, 9] {
            // The caller stands in a descriptor, as runc's configuration could say.
            let before = format!("exec {fd}</etc; cd /proc/self/fd/{fd}");
            let script = "pwd; readlink /proc/self/cwd; ls /proc/$$/fd; \
                          for n in $(seq 3 64); do for p in self 1 $$ thread-self; do cat /proc/$p/fd/$n/../shadow && echo escaped; \
                          done; done 2>/dev/null; touch ./x 2>/dev/null && rm x";
            let start = Start { before: &before, command: &["sh", "-c", script], ..Start::default() };
            let ran = place.start(&start).finish();
            let cwd = if place.level == Level::User { "/etc" } else { "/home/ci1" };
            assert_eq!(ran.out, format!("{cwd}\n{cwd}\n0\n1\n2\n"), "{place}: {ran}");
        }
    }
    // One that is gone cannot be entered again, and nothing stands in for it.
    let [.., user] = places();
    let before = "mkdir /tmp/gone.$$; cd /tmp/gone.$$; rmdir /tmp/gone.$$";
    let ran = user.start(&Start { before, command: &["echo", "ran"], ..Start::default() }).finish();
    assert_eq!((ran.code, ran.out.as_str()), (125, ""), "{ran}");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn cve_2017_5226_2016_2779_2019_7303_2019_10063_2023_1523_no_words_into_a_terminal() {
    // ioctl: TIOCSTI, TIOCLINUX, TIOCSETD, plain and with bits that the kernel does not look at.
    let lines = "sti native 16 0 0x5412 0 0 0 0\nlinux native 16 0 0x541c 0 0 0 0\n\
                 sti-high native 16 0 0x100005412 0 0 0 0\nlinux-high native 16 0 0x7fffffff0000541c 0 0 0 0\n\
                 setd native 16 0 0x5423 0 0 0 0\nsetd-high native 16 0 0x900005423 0 0 0 0\n\
                 winsize native 16 0 0x5413 0 0 0 0\n";
    for place in places() {
        let ran = calls(&place, lines);
        for name in ["sti", "linux", "sti-high", "linux-high", "setd", "setd-high"] {
            assert_eq!(ran.value(name), "1", "{place}: {ran}");
        }
        // The others still reach the kernel: ENOTTY of a pipe.
        assert_eq!(ran.value("winsize"), "25", "{place}: {ran}");
        // A session of its own, without the caller's terminal.
        let ran = place.run("default", "read -r pid _ _ _ _ session _ < /proc/self/stat; echo same=$((session == $$)); (true < /dev/tty) 2>&1; true");
        assert_eq!(ran.value("same"), "1", "{place}: {ran}");
        assert!(ran.out.contains("No such device or address"), "{place}: {ran}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn cve_2021_41133_calls_newer_than_the_program() {
    let lines = "next native 470 -1 -1 -1 -1 -1 -1\nfar native 600 -1 -1 -1 -1 -1 -1\nx32 native 0x40000065 -1 -1 -1 -1 -1 -1\n";
    for place in places() {
        let ran = calls(&place, lines);
        for name in ["next", "far", "x32"] {
            assert_eq!(ran.value(name), "38", "{place}: {ran}");
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn cve_2026_31431_af_alg_and_isolate_2_6_vsock_and_io_uring() {
    let lines = "alg native 41 38 5 0 0 0 0\nalg-high native 41 0x100000026 5 0 0 0 0\nvsock native 41 40 1 0 0 0 0\n\
                 alg-i386 i386 359 38 5 0 0 0 0\nring native 425 1 0 0 0 0 0\nunix native 41 1 1 0 0 0 0\n";
    for place in places() {
        let ran = calls(&place, lines);
        for (name, errno) in [
            ("alg", "97"),
            ("alg-high", "97"),
            ("vsock", "97"),
            ("alg-i386", "38"),
            ("ring", "1"),
            ("unix", "ok"),
        ] {
            assert_eq!(ran.value(name), errno, "{place}: {name}: {ran}");
        }
    }
}

#[test]
fn isolate_2_6_dev_shm_and_ipc_are_not_shared() {
    for place in places() {
        let script = "echo x > /dev/shm/shared; ipcmk -Q >/dev/null; echo up; exec sleep 77777";
        let other = place.start(&Start { user: CI2, command: &["sh", "-c", script], ..Start::default() });
        other.wait_for("up");
        let ran = place.run("default", "ls /dev/shm; ls /dev/mqueue; ipcs -q | grep -c 0x");
        assert_eq!(ran.out, "0\n", "{place}: {ran}");
    }
    // None is left on the host either.
    let host = Host::shared();
    let ran = Started::new(host.as_root(&["sh", "-c", "ls /dev/shm/shared"])).finish();
    assert_ne!(ran.code, 0, "{ran}");
}

/// CVE-2019-12439 (bubblewrap) and CVE-2026-3888 (snap-confine): directories with names that one can guess.
#[test]
fn cve_2019_12439_and_2026_3888_names_of_directories_are_random() {
    let script = "while read -r _ _ _ root at _; do [ $at = /tmp ] && bound=$root; done < /proc/self/mountinfo; echo $bound";
    for place in places() {
        let names: std::collections::BTreeSet<String> = (0..4)
            .map(|_| {
                place
                    .run("default", script)
                    .ok()
                    .trim_end_matches("/tmp\n")
                    .rsplit('/')
                    .next()
                    .expect("a name")
                    .to_owned()
            })
            .collect();
        assert_eq!(names.len(), 4, "{place}: {names:?}");
        assert!(names.iter().all(|name| name.len() == 32), "{place}: {names:?}");
    }
}

/// sudo's CVE-2019-14287: an id that means "unchanged"; crun's CVE-2026-30892: an id read wrongly.
#[test]
fn cve_2019_14287_and_2026_30892_no_id_becomes_root() {
    let host = Host::build().unwrap_or_else(|error| panic!("{error:#}"));
    let script = "printf 'toor:x:0:0::/:/bin/sh\\nghost:x:4294967295:4294967295::/:/bin/sh\\nhalf:x:52999:4294967295::/:/bin/sh\\n' >> /etc/passwd";
    let prepared = Started::new(host.as_root(&["sh", "-c", script])).finish();
    assert_eq!(prepared.code, 0, "{prepared}");
    let names = [
        "-1",
        "#-1",
        "#0",
        "0",
        "root",
        "toor",
        "ghost",
        "half",
        "4294967295",
        "4294967296",
        " 0",
        "+0",
        "0x0",
        "",
        "ci1\n",
        "../ci1",
        "ci1:0",
    ];
    let places = testbed::host::Place::levels(&host, Surroundings::AsItIs);
    for place in places.iter().take(2) {
        for name in names {
            let start = Start { user: name, command: &["sh", "-c", "id -u; id -G"], ..Start::default() };
            let ran = place.start(&start).finish();
            assert_eq!((ran.code, ran.out.as_str()), (125, ""), "{place}: {name:?}: {ran}");
        }
        let ran = place.start(&Start { command: &["id", "-un"], ..Start::default() }).finish();
        assert_eq!(ran.ok(), format!("{CI1}\n"), "{place}: the host itself works");
    }
}

/// glibc's CVE-2023-4911 and CVE-2025-4802: variables of the caller in a program with file capabilities.
#[test]
fn cve_2023_4911_and_2025_4802_no_library_of_the_caller() {
    let host = Host::shared();
    let source = "#include <stdio.h>\n__attribute__((constructor)) static void loaded(void) { FILE *f = fopen(\"/tmp/preloaded\", \"a\"); \
                  if (f) fclose(f); }\n";
    let compiled = format!("printf '%s' '{source}' | cc -shared -fPIC -x c -o /srv/testbed/shared/evil.so -");
    let ran = Started::new(host.as_root(&["sh", "-c", &compiled])).finish();
    assert_eq!(ran.code, 0, "{ran}");
    let [_, capabilities, _] = places();
    // Here it is loaded, so the library works.
    let env = "LD_PRELOAD=/srv/testbed/shared/evil.so";
    let sanity = Started::new(host.as_user("gitlab-runner", &["env", env, "true"])).finish();
    let found = Started::new(host.as_root(&["sh", "-c", "rm /tmp/preloaded"])).finish();
    assert_eq!((sanity.code, found.code), (0, 0), "{sanity} {found}");
    let before = "export LD_AUDIT=/srv/testbed/shared/evil.so GLIBC_TUNABLES=glibc.malloc.check=3";
    let before = format!("set -- env {env} \"$@\"; {before}");
    // `env` itself loads it; the trace is taken away by the time the launcher starts.
    let start = Start {
        before: &before,
        command: &["sh", "-c", "env | grep -E '^(LD_|GLIBC)'; echo end"],
        ..Start::default()
    };
    let ran = capabilities.start(&start).finish();
    assert_eq!(ran.out, "end\n", "{ran}");
}
