//! Jobs that succeed, at root and at user level, under each shipped profile.

use std::path::Path;

use serde::Deserialize;
use testbed::gitlab::JobBuilder;
use testbed::runner::{JobResult, State, Version};

use crate::left;
use crate::place::{Place, STATE, Setup, record_of, write};
use crate::user_level;

const ORDER: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/runner/order.toml"));

/// The calls of a job that has everything.
fn order() -> String {
    #[derive(Deserialize)]
    struct Golden {
        case: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        name: String,
        calls: String,
    }
    let golden: Golden = toml::from_str(ORDER).expect("TOML");
    golden.case.into_iter().find(|case| case.name == "a good job").expect("the first case").calls
}

/// A job with sources, a cache, an artifact of an earlier job, `release`, `after_script` and an artifact.
fn whole(place: &Place, token: &str, name: &str) -> JobBuilder {
    place
        .job()
        .hook("pre_get_sources_script", [format!("echo from-the-hook > /tmp/{name}")])
        .script([
            "git log --oneline | grep First",
            "grep hello README",
            "grep made-before out/result",
            "echo made-here > out/result",
            "id -un",
            &format!("cat /tmp/{name}"),
            &format!("echo from-the-script >> /tmp/{name}"),
            "mkdir -p deps; echo cached > deps/file",
        ])
        .release(["true"])
        .after_script([format!("echo after: $(cat /tmp/{name})")])
        .cache("key", ["deps/"], "always")
        .artifact("result", ["out/"], "always")
        .dependency(301, "build", token)
}

/// The job before it, whose artifact is downloaded.
fn earlier(place: &Place) -> (JobBuilder, String) {
    let mut facts = place.facts();
    facts.job_id = 301;
    facts.job_token = "glcbt-64_TESTBEDxTOKENx0301".into();
    let job = place.job_of(&facts).without_sources();
    let job =
        job.script(["mkdir -p out; echo made-before > out/result"]).artifact("result", ["out/"], "always");
    (job, facts.job_token)
}

/// Runs both jobs and looks at everything that is promised of a good job.
fn check(place: &Place, state: &Path, name: &str, run: impl Fn(JobBuilder) -> JobResult) {
    let (job, token) = earlier(place);
    let first = run(job);
    assert_eq!(first.state, Some(State::Success), "{}", first.plain_log());
    left::assert_nothing(state, &record_of(&first), &[]);

    let result = run(whole(place, &token, name));
    let log = result.plain_log();
    assert_eq!((result.state, result.exit_code), (Some(State::Success), None), "{log}");
    assert_eq!(result.stages().join(" "), order(), "{log}");
    assert!(log.contains(&format!("Running as {}", place.setup.user)), "{log}");
    assert!(log.contains(&format!("\n{}\n", place.setup.user)), "{log}");
    assert!(log.contains("after: from-the-hook from-the-script"), "{log}");
    left::assert_nothing(state, &record_of(&result), &[]);
    assert!(result.left_behind.is_empty(), "{:?}", result.left_behind);

    let uploads = place.gitlab.uploads();
    let artifact = uploads.iter().find(|upload| upload.job_id == 302).expect("an artifact");
    let path = place.path("artifact.zip");
    write(&path, &artifact.bytes, 0o644);
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).expect("there")).expect("a ZIP");
    let mut file = archive.by_name("out/result").expect("the file");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut file, &mut text).expect("text");
    assert_eq!(text, "made-here\n");

    let audit = place.audit();
    let events: Vec<String> =
        audit.iter().map(|line| line["event"].as_str().expect("a word").to_owned()).collect();
    for line in audit.iter().filter(|line| line["event"] != "debug") {
        assert!(line["job_id"].is_u64() && line["project_path"] == "group/proj", "{line}");
        assert!(line["account"].is_string() && line["uid"].is_u64(), "{line}");
        let ended = line["outcome"] == "exited" && line["exit_code"] == 0 && line["terminated"] == false;
        assert!(ended || line["event"] == "granted", "{line}");
    }
    assert_eq!(events.iter().filter(|event| *event == "granted").count(), 2, "{events:?}");
    assert_eq!(events.last().map(String::as_str), Some("cleanup"), "{events:?}");
}

#[test]
fn under_default() {
    let place = Place::usual();
    check(&place, Path::new(STATE), "e2e-default", |job| place.run(job));
    assert!(!Path::new("/tmp/e2e-default").exists(), "the job's /tmp is its own");
}

/// What a configuration of Jacamar's gets: the host's own /tmp, as before.
#[test]
fn under_compat_and_without_a_sandbox_table() {
    for (profile, name) in [(Some("compat"), "e2e-compat"), (None, "e2e-none")] {
        let place = Place::new(Setup { profile, ..Setup::default() });
        check(&place, Path::new(STATE), name, |job| place.run(job));
        assert!(Path::new("/tmp").join(name).exists(), "compat changes nothing that a job can notice");
    }
}

#[test]
fn at_the_user_level() {
    let place = Place::new(Setup { downscope: "none", ..Setup::default() });
    let state = place.directory.join("state/jacamar");
    check(&place, &state, "e2e-user", |job| user_level::run(&place, job));
    assert!(!Path::new("/tmp/e2e-user").exists(), "the job's /tmp is its own");
}

/// Its runner is an ordinary account in a delegated control group, and nothing is root's but the configuration.
#[test]
fn at_the_capability_level() {
    for (profile, name) in [("default", "e2e-caps"), ("compat", "e2e-caps-compat")] {
        let setup = Setup { capabilities: true, profile: Some(profile), ..Setup::default() };
        let place = Place::new(setup);
        check(&place, Path::new(STATE), name, |job| user_level::run(&place, job));
        assert_eq!(Path::new("/tmp").join(name).exists(), profile == "compat");
        let group = place.delegated.as_ref().expect("a delegated group").path();
        let left = crate::collector::children(&Path::new(group).join("jacamar.slice"));
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn with_older_runners() {
    for version in [Version::V17_3, Version::V17_4] {
        let place = Place::new(Setup { version, ..Setup::default() });
        let result = place.run(place.job().script(["grep hello README"]).after_script(["true"]));
        assert_eq!(result.state, Some(State::Success), "{version:?}: {}", result.plain_log());
        left::assert_nothing(Path::new(STATE), &record_of(&result), &[]);
    }
}
