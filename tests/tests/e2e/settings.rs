//! Keys of the configuration that change what a job meets.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use testbed::gitlab::GitLab;
use testbed::host::Started;

use crate::direct::Direct;
use crate::left;
use crate::place::{Place, STATE, Setup, write};

fn builds_dir(answer: &str) -> String {
    let answer: Value = serde_json::from_str(answer).expect("JSON");
    answer["builds_dir"].as_str().expect("a path").to_owned()
}

/// Two open records of an account, runner and project never have one directory, however many `config` run at once; a
/// number that is free again is taken again, so that a clone is kept for `fetch`.
#[test]
fn build_directories_are_never_shared() {
    const JOBS: usize = 16;
    let mut place = Place::usual();
    place.setup.general = String::new();
    place.configure(&place.configuration().replace("data_dir = \"$HOME\"", "data_dir = \"$HOME/slots\""));
    let file = place.path("config.toml");
    let jobs = |count: usize| {
        let directs: Vec<Direct<'_>> =
            (0..count).map(|_| Direct::new(&place, &place.gitlab.admit(place.small(["true"])))).collect();
        let started: Vec<Started> = directs
            .iter()
            .map(|direct| Started::new(direct.command(&["config", "--configuration", &file])))
            .collect();
        directs
            .into_iter()
            .zip(started)
            .map(|(mut direct, started)| {
                let ran = started.finish();
                assert_eq!(ran.code, 0, "{ran}");
                let answer: Value = serde_json::from_str(&ran.out).expect("JSON");
                direct.set_record(answer["job_env"]["JACAMAR_CI_RECORD"].as_str().expect("a name"));
                (direct, builds_dir(&ran.out))
            })
            .collect::<Vec<_>>()
    };
    let first = jobs(JOBS);
    let taken: BTreeSet<&str> = first.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(taken.len(), JOBS, "{taken:?}");
    let numbers: BTreeSet<&str> = taken.iter().filter_map(|path| path.rsplit('/').next()).collect();
    assert_eq!((numbers.first(), numbers.last()), (Some(&"000"), Some(&"015")), "{numbers:?}");

    let (ended, open): (Vec<_>, Vec<_>) =
        first.iter().partition(|(_, path)| ["003", "007", "011"].iter().any(|number| path.ends_with(number)));
    for (direct, _) in &ended {
        assert_eq!(direct.cleanup().code, 0);
    }
    let again = jobs(3);
    let freed: BTreeSet<&str> = ended.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(again.iter().map(|(_, path)| path.as_str()).collect::<BTreeSet<_>>(), freed);
    for (direct, _) in again.iter().chain(open) {
        assert_eq!(direct.cleanup().code, 0);
        left::assert_nothing(Path::new(STATE), direct.record(), &[]);
    }
}

#[test]
fn a_sub_stage_that_the_site_does_not_run_is_skipped() {
    let auth = "run_stage_allowlist = [\"get_sources\"]".to_owned();
    let place = Place::new(Setup { auth, ..Setup::default() });
    let direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).prepared();
    let ran = direct.run("echo ran; exit 3\n").finish();
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran}");
    assert!(ran.err.contains("this site does not run build_script, it is skipped"), "{ran}");
    let audit = place.audit();
    assert_eq!(audit.last().map(|line| &line["event"]), Some(&"skipped".into()), "{audit:?}");
    let [run, script, _] = direct.script("echo ran; exit 3\n");
    let ran = Started::new(direct.command(&[&run, &script, "get_sources"])).finish();
    assert_eq!(ran.out, "ran\n", "{ran}");
    assert_eq!(direct.cleanup().code, 0);
}

#[test]
fn the_login_shell_has_the_sites_variables() {
    let general = "user_bash_env = [\"SITE_ONE=a b\", \"SITE_TWO=x=y;$(id)\"]".to_owned();
    for downscope in ["setuid", "none"] {
        let place = Place::new(Setup { general: general.clone(), downscope, ..Setup::default() });
        let direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).prepared();
        let ran = direct.run("echo \"<$SITE_ONE><$SITE_TWO><$JACAMAR_CI_SHELL>\"\n").finish();
        assert_eq!(ran.out, "<a b><x=y;$(id)></bin/bash>\n", "{downscope}: {ran}");
        assert_eq!(direct.cleanup().code, 0);
    }
}

/// Only the site's own file can vouch for another authority than the host's; who could write it could name his own GitLab.
#[test]
fn an_authority_of_the_sites_own() {
    let mut place = Place::usual();
    // The first one keeps the repository.
    let tls = GitLab::start_tls().expect("a server");
    let _first = std::mem::replace(&mut place.gitlab, tls);
    let authority = place.path("ca.pem");
    let with = |place: &mut Place, line: &str| {
        place.setup.general = line.to_owned();
        place.configure(&place.configuration());
        let mut direct = Direct::new(place, &place.gitlab.admit(place.small(["true"])));
        let ran = direct.config();
        if ran.code == 0 {
            assert_eq!(direct.cleanup().code, 0);
        }
        ran
    };
    let ran = with(&mut place, "");
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
    assert!(ran.err.contains("TLS: ") && ran.err.contains("tls-ca-file"), "{ran}");

    let line = format!("tls-ca-file = \"{authority}\"");
    write(&authority, place.gitlab.ca_pem().expect("TLS").as_bytes(), 0o666);
    let ran = with(&mut place, &line);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran}");
    assert!(ran.err.contains(&format!("chmod go-w {authority}")), "{ran}");

    write(&authority, place.gitlab.ca_pem().expect("TLS").as_bytes(), 0o644);
    let ran = with(&mut place, &line);
    assert_eq!(ran.code, 0, "{ran}");
}
