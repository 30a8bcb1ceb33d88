//! Many at once, and names that change while we act on them: the user exchanges a directory of the job with a link to root's
//! while the job's directories are emptied.

use jacamar_plan::Level;
use testbed::host::{CI1, Host, LEVELS, Place, Start, Started, Surroundings, compile};

use crate::places;

/// A tree of root's that root's rights could empty, and the user's not.
const VICTIM: &str = "/srv/testbed/shared/victim";

fn victim(host: &Host) {
    let script = format!(
        "rm -rf {VICTIM}; mkdir -p {VICTIM}/a/b/c; for n in 1 2 3; do echo x > {VICTIM}/a/$n; done; \
         chmod -R go= {VICTIM}; chmod 0755 {VICTIM}"
    );
    let ran = Started::new(host.as_root(&["sh", "-c", &script])).finish();
    assert_eq!(ran.code, 0, "{ran}");
}

fn intact(host: &Host) -> bool {
    let ran = Started::new(host.as_root(&["sh", "-c", &format!("find {VICTIM} | wc -l")])).finish();
    ran.ok().trim() == "7"
}

/// Where the host has the job's directory: its name is in the mount that the job sees.
fn directory(place: &Place<'_>, output: &str) -> String {
    let bound = output.lines().find_map(|line| line.strip_prefix("bound=")).expect("a line");
    let id = bound.trim_end_matches("/tmp").rsplit('/').next().expect("a name");
    format!("{}/tmp/{id}/tmp", place.state(CI1))
}

/// A directory of the user's on the same mount as the job's directory, so that names can be exchanged.
fn beside(place: &Place<'_>) -> String {
    match place.level {
        Level::User => place.user().home.clone(),
        Level::Root | Level::Capabilities => {
            let path = "/srv/testbed/shared/of-ci1";
            let made =
                Started::new(place.host.as_root(&["install", "-d", "-o", CI1, "-m", "0700", path])).finish();
            assert_eq!(made.code, 0, "{made}");
            path.into()
        }
    }
}

/// CVE-2021-30465, CVE-2024-45310, CVE-2023-41914 (Slurm), CVE-2026-65109 (slurmstepd): a race on the names.
#[test]
fn cve_2021_30465_names_exchanged_while_a_job_is_removed() {
    let host = Host::shared();
    let storm = compile(host, "storm");
    victim(host);
    let mut times = 0;
    for place in places() {
        for round in 0..8 {
            let script = "mkdir -p /tmp/a/deep/er/dir; for n in $(seq 300); do mkdir /tmp/$n; done; \
                 while read -r _ _ _ root at _; do [ $at = /tmp ] && bound=$root; done < /proc/self/mountinfo; \
                 echo bound=$bound; echo up; read -r go; exit 0";
            let mut command = place.command(&Start { command: &["sh", "-c", script], ..Start::default() });
            command.stdin(std::process::Stdio::piped());
            let mut job = Started::new(command);
            let directory = directory(&place, &job.wait_for("up"));
            // The directory can be reached by its owner from outside; the link is not among what is removed.
            let link = format!("{}/link", beside(&place));
            let linked = Started::new(place.beside(&["ln", "-sfn", VICTIM, &link])).finish();
            assert_eq!(linked.code, 0, "{linked}");
            let mut exchange = place.beside(&[&storm, &format!("{directory}/a"), &link]);
            exchange.stdin(std::process::Stdio::piped());
            let mut exchanger = Started::new(exchange);
            exchanger.wait_for("storm");
            job.feed(b"go\n");
            let ran = job.finish();
            exchanger.feed(b"");
            let swept = Started::new(place.beside(&["rm", "-rf", &link])).finish();
            assert_eq!(swept.code, 0, "{swept}");
            times += exchanger.finish().value("times").parse::<u64>().expect("a number");
            assert!(intact(host), "{place}, round {round}: {ran}");
            // What could not be removed is an error that says so; nothing is followed, nothing hangs.
            assert!(ran.code == 0 || ran.err.contains("could not remove"), "{place}, round {round}: {ran}");
        }
    }
    assert!(times > 1000, "the storm was a breeze: {times}");
}

/// The base of the user level lies in the user's home: a link in its place must not lead anywhere half made.
#[test]
fn a_link_in_place_of_the_base_is_refused_or_followed_with_the_user_rights_only() {
    let [.., place] = places();
    assert_eq!(place.level, Level::User);
    victim(place.host);
    for (name, target) in [("tmp", VICTIM), ("", VICTIM), ("tmp", "/nowhere")] {
        let before = format!(
            "export XDG_STATE_HOME=$HOME/linked; rm -rf $HOME/linked; mkdir -p $HOME/linked; \
             {}; ln -s {target} $HOME/linked/jacamar/{name}",
            if name.is_empty() {
                "rmdir $HOME/linked/jacamar 2>/dev/null"
            } else {
                "mkdir $HOME/linked/jacamar"
            },
        );
        let before = before.replace("/jacamar/; ", "/jacamar; ").trim_end_matches('/').to_owned();
        let ran = place
            .start(&Start { before: &before, command: &["sh", "-c", "echo ran"], ..Start::default() })
            .finish();
        assert!(intact(place.host), "{name} {target}: {ran}");
        assert_eq!((ran.code, ran.out.as_str()), (125, ""), "{name} -> {target}: {ran}");
    }
}

/// 200 jobs at once: each has its own directory, all run, and nothing of them is left.
#[test]
fn two_hundred_jobs_that_start_together() {
    let host = Host::shared();
    for level in LEVELS {
        let place = Place { host, level, surroundings: Surroundings::AsItIs };
        let start = |number: u32| {
            let script = format!(
                "echo {number} > /tmp/own; sleep 0.5; read -r own < /tmp/own; echo $own; \
                 while read -r _ _ _ root at _; do [ $at = /tmp ] && bound=$root; done < /proc/self/mountinfo; \
                 echo bound=$bound"
            );
            let command = ["sh", "-c", &script];
            place.start(&Start { command: &command, ..Start::default() })
        };
        let jobs: Vec<Started> = (0..200).map(start).collect();
        let ran = jobs.into_iter().map(|job| job.finish().ok());
        let mut directories: Vec<String> = (0..)
            .zip(ran)
            .map(|(number, out)| {
                assert!(out.starts_with(&format!("{number}\n")), "{level}: {out}");
                directory(&place, &out)
            })
            .collect();
        directories.sort();
        directories.dedup();
        assert_eq!(directories.len(), 200, "{level}");
        let words: Vec<&str> =
            ["ls", "-d"].into_iter().chain(directories.iter().map(String::as_str)).collect();
        let left = Started::new(host.as_root(&words)).finish();
        assert_eq!(left.out, "", "{level}");
    }
}
