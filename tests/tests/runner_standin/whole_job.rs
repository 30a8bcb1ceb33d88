//! Whole jobs on a real repository: Git over HTTP, cache, artifacts, tokens.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testbed::gitlab::{File, GitLab, IdToken, KeySet, Keys, Repository, Spoil, Upload};
use testbed::runner::Runner;

use super::support::{Place, short_pauses};

const MAKE: &str = "#!/bin/sh\nmkdir -p out deps\necho built > out/result.txt\necho cached >> deps/count\n";

fn repository(gitlab: &GitLab) -> Repository {
    let repository = gitlab.repository("group/proj").unwrap();
    let readme = File::from(("README", "hello\n"));
    let make = File { path: "make.sh", content: MAKE, executable: true };
    repository.commit([readme, make], "First").unwrap();
    repository
}

fn runner(place: &Place, gitlab: &GitLab) -> Runner {
    let runner = place.runner(gitlab.url(), "", "").pauses(short_pauses()).env("HOME", "/nonexistent");
    match gitlab.ca_pem() {
        Some(pem) => runner.ca_chain(pem),
        None => runner,
    }
}

fn unzip(upload: &Upload, name: &str) -> String {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(upload.bytes.clone())).unwrap();
    let mut text = String::new();
    archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn whole_job(gitlab: &GitLab) {
    let place = Place::new();
    place.plan(json!({}), true);
    let repository = repository(gitlab);
    let job = || {
        let job = gitlab
            .job(&repository)
            .unwrap()
            .script(["./make.sh", "cat README", "cat deps/count"])
            .after_script(["cat out/result.txt"])
            .cache("key", ["deps/"], "on_success")
            .artifact("result", ["out/"], "on_success");
        gitlab.admit(job)
    };
    let runner = runner(&place, gitlab);
    let first = runner.run(job()).unwrap();
    let log = first.plain_log();
    assert_eq!(first.failure_reason, None, "{log}");
    assert!(log.contains("Checking out ") && log.contains("\nhello\n"), "{log}");
    assert!(log.contains("\nbuilt\n"), "{log}");

    let uploads = gitlab.uploads();
    let [upload] = uploads.as_slice() else { panic!("{} uploads\n{log}", uploads.len()) };
    assert_eq!((upload.job_id, upload.file_name.as_str()), (302, "result.zip"));
    assert_eq!((upload.format.as_deref(), upload.kind.as_deref()), (Some("zip"), Some("archive")));
    assert_eq!(unzip(upload, "out/result.txt"), "built\n");

    // The second job fetches into the same directory and finds the cache of the first.
    std::fs::remove_dir_all(place.path("builds").join("group/proj/deps")).unwrap();
    let second = runner.run(job()).unwrap();
    let log = second.plain_log();
    assert!(log.contains("Successfully extracted cache"), "{log}");
    assert!(log.contains("\ncached\ncached\n"), "{log}");

    // Credentials of the job are gone from the directories.
    let temporary = place.path("builds").join("group/proj.tmp");
    assert!(!temporary.join(".gitlab-runner.ext.conf").exists());
    assert!(!place.path("builds").join("group/proj/.git/config").exists());
}

#[test]
fn a_job_clones_builds_caches_and_uploads_over_http() {
    whole_job(&GitLab::start().unwrap());
}

#[test]
fn a_job_clones_builds_caches_and_uploads_over_https() {
    whole_job(&GitLab::start_tls().unwrap());
}

#[test]
fn a_scripts_exit_code_is_the_jobs() {
    let gitlab = GitLab::start().unwrap();
    let place = Place::new();
    place.plan(json!({}), true);
    let repository = repository(&gitlab);
    let job = gitlab
        .job(&repository)
        .unwrap()
        .script(["mkdir log; echo why > log/failure", "exit 42", "echo not reached"])
        .after_script(["echo after: $CI_JOB_STATUS"])
        .artifact("log", ["log/"], "on_failure");
    let result = runner(&place, &gitlab).run(gitlab.admit(job)).unwrap();
    let log = result.plain_log();
    assert_eq!(
        (result.exit_code, result.failure_reason.as_deref()),
        (Some(42), Some("script_failure")),
        "{log}"
    );
    assert!(log.contains("\nafter: failed\n") && !log.contains("\nnot reached\n"), "{log}");
    assert_eq!(unzip(&gitlab.uploads()[0], "log/failure"), "why\n");
}

#[test]
fn a_cancel_ends_the_script_and_not_what_follows() {
    let gitlab = GitLab::start().unwrap();
    let place = Place::new();
    place.plan(json!({}), true);
    let repository = repository(&gitlab);
    let job = gitlab
        .job(&repository)
        .unwrap()
        .script(["echo MARK", "sleep 60", "echo not reached"])
        .after_script(["echo after: $CI_JOB_STATUS"]);
    let running = runner(&place, &gitlab).start(gitlab.admit(job)).unwrap();
    running.wait_for_log("\u{1b}[32;1m$ sleep 60", super::support::PATIENCE).unwrap();
    running.cancel();
    let result = running.wait();
    let log = result.plain_log();
    assert_eq!(result.failure_reason.as_deref(), Some("job_canceled"), "{log}");
    assert!(log.contains("\nafter: canceled\n") && !log.contains("\nnot reached\n"), "{log}");
    assert!(result.took < std::time::Duration::from_secs(20));
}

#[test]
fn submodules_and_dependencies_come_with_the_jobs_token() {
    let gitlab = GitLab::start().unwrap();
    let place = Place::new();
    place.plan(json!({}), true);
    let library = gitlab.repository("group/lib").unwrap();
    let library_head = library.commit([("lib.txt", "library\n")], "Library").unwrap();
    let repository = repository(&gitlab);
    add_submodule(&repository, &library_head);
    let other = gitlab.admit(gitlab.job(&repository).unwrap());
    assert_eq!(other.id, 302);
    // The artifact of the other job, made by the helper itself in an earlier job of this test.
    let made = gitlab.job(&repository).unwrap().script(["mkdir fromdep; echo dependency > fromdep/dep.txt"]);
    let made = made.artifact("dep", ["fromdep/"], "always");
    runner(&place, &gitlab).run(gitlab.admit(made)).unwrap();
    let archive = gitlab.uploads().pop().unwrap();
    gitlab.put_artifact(Upload { job_id: 301, ..archive });

    let job = gitlab
        .job(&repository)
        .unwrap()
        .variable("GIT_SUBMODULE_STRATEGY", "recursive")
        .dependency(301, "build", "glcbt-64_DEPENDENCY")
        .script(["cat lib/lib.txt", "cat fromdep/dep.txt"]);
    let result = runner(&place, &gitlab).run(gitlab.admit(job)).unwrap();
    let log = result.plain_log();
    assert_eq!(result.failure_reason, None, "{log}");
    assert!(log.contains("\nlibrary\n") && log.contains("\ndependency\n"), "{log}");
}

/// Puts `lib` into the newest commit, without a network.
fn add_submodule(repository: &Repository, commit: &str) {
    let git = |arguments: &[&str], index: &std::path::Path, input: &str| {
        use std::io::Write as _;
        let mut child = std::process::Command::new("git")
            .arg("--git-dir")
            .arg(repository.directory())
            .args(arguments)
            .env("GIT_INDEX_FILE", index)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .envs([("GIT_AUTHOR_NAME", "A"), ("GIT_AUTHOR_EMAIL", "a@example.com")])
            .envs([("GIT_COMMITTER_NAME", "A"), ("GIT_COMMITTER_EMAIL", "a@example.com")])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let directory = tempfile::tempdir().unwrap();
    let index = directory.path().join("index");
    git(&["read-tree", "HEAD"], &index, "");
    let modules = "[submodule \"lib\"]\n\tpath = lib\n\turl = ../lib.git\n";
    let blob = git(&["hash-object", "-w", "--stdin"], &index, modules);
    git(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},.gitmodules")], &index, "");
    git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},lib")], &index, "");
    let tree = git(&["write-tree"], &index, "");
    let new = git(&["commit-tree", &tree, "-p", "HEAD", "-m", "Submodule"], &index, "");
    git(&["update-ref", "HEAD", &new], &index, "");
}

#[test]
fn urls_without_tokens_still_fetch() {
    let gitlab = GitLab::start().unwrap();
    let place = Place::new();
    place.plan(json!({}), true);
    let repository = repository(&gitlab);
    let pinned = "feature_flags = { FF_GIT_URLS_WITHOUT_TOKENS = true }";
    let runner = place.runner(gitlab.url(), pinned, "").env("HOME", "/nonexistent");
    let job = gitlab.admit(gitlab.job(&repository).unwrap().script(["cat README"]));
    let token = job.token.clone();
    let result = runner.run(job).unwrap();
    let log = result.plain_log();
    assert_eq!(result.failure_reason, None, "{log}");
    let script = result.call("get_sources").unwrap().script.as_deref().unwrap();
    let in_commands =
        script.split("\\n").filter(|line| !line.starts_with("export ") && line.contains(&token));
    assert_eq!(in_commands.count(), 0);
}

#[test]
fn a_token_that_is_not_admitted_gets_nothing() {
    let gitlab = GitLab::start().unwrap();
    let place = Place::new();
    place.plan(json!({}), true);
    let repository = repository(&gitlab);
    let job = gitlab.admit(gitlab.job(&repository).unwrap());
    gitlab.revoke(&job);
    let result = runner(&place, &gitlab).run(job).unwrap();
    assert_eq!((result.exit_code, result.failure_reason.as_deref()), (Some(128), Some("script_failure")));
    assert!(gitlab.seen().iter().any(|seen| seen.path.contains(".git/") && seen.status == 403));
}

fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn an_id_token_has_gitlabs_claims_and_a_published_key() {
    let gitlab = GitLab::start().unwrap();
    let facts = gitlab.facts();
    let token = IdToken::new(&facts, "https://site.example.com").sign().unwrap();
    let (header, claims) = (part(&token, 0), part(&token, 1));
    assert_eq!((&header["alg"], &header["typ"]), (&json!("RS256"), &json!("JWT")));
    assert_eq!(claims["iss"], json!(gitlab.url()));
    assert_eq!((&claims["job_id"], &claims["runner_id"]), (&json!("302"), &json!(3)));
    assert_eq!(claims["iat"].as_i64().unwrap() - claims["nbf"].as_i64().unwrap(), 5);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), facts.timeout_s);
    assert_eq!(claims["sub"], "project_path:group/proj:ref_type:branch:ref:main");

    let keys: Value =
        serde_json::from_str(&fetch(&format!("{}/oauth/discovery/keys", gitlab.url()))).unwrap();
    let kids: Vec<&str> =
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert_eq!(kids.len(), 2);
    assert!(kids.contains(&header["kid"].as_str().unwrap()));
    verify(&token).unwrap();
}

#[test]
fn each_spoiled_token_differs_in_one_property() {
    let facts = testbed::gitlab::Facts::new("https://gitlab.example.com");
    let good = IdToken::new(&facts, "https://site.example.com");
    let sign = |spoil: Spoil| good.clone().spoil(spoil).sign().unwrap();
    for spoil in [Spoil::ForeignKey, Spoil::AlteredClaims, Spoil::AlgNone, Spoil::Hs256WithPublicKey] {
        verify(&sign(spoil)).unwrap_err();
    }
    assert_eq!(
        part(&sign(Spoil::ForeignKey), 0)["kid"],
        json!(Keys::of_this_process().unwrap().signing().kid())
    );
    assert_eq!(part(&sign(Spoil::AlgNone), 0)["alg"], "none");
    assert_eq!(part(&sign(Spoil::Hs256WithPublicKey), 0)["alg"], "HS256");
    assert_eq!(sign(Spoil::WithoutSignature).split('.').count(), 2);
    let differing = |spoil: Spoil| -> Vec<String> {
        let token = sign(spoil);
        verify(&token).unwrap();
        let (ours, theirs) = (part(&token, 1), good.claims());
        let names = theirs.as_object().unwrap().keys().chain(ours.as_object().unwrap().keys());
        let mut names: Vec<String> =
            names.filter(|name| ours.get(name) != theirs.get(name)).cloned().collect();
        names.sort();
        names.dedup();
        names
    };
    for (spoil, names) in [
        (Spoil::Expired, vec!["exp", "iat", "nbf"]),
        (Spoil::NotYetValid, vec!["exp", "nbf"]),
        (Spoil::WithoutExpiry, vec!["exp"]),
        (Spoil::WrongAudience, vec!["aud"]),
        (Spoil::AudienceList, vec!["aud"]),
        (Spoil::WrongAudienceList, vec!["aud"]),
        (Spoil::WithoutAudience, vec!["aud"]),
        (Spoil::WrongIssuer, vec!["iss"]),
        (Spoil::WithoutIssuer, vec!["iss"]),
        (Spoil::OtherJob, vec!["job_id"]),
        (Spoil::OtherPipeline, vec!["pipeline_id"]),
        (Spoil::OtherProject, vec!["job_project_id", "project_id"]),
        (Spoil::OtherUser, vec!["user_id", "user_login"]),
        (Spoil::OtherRunner, vec!["runner_id"]),
        (Spoil::Without("user_login"), vec!["user_login"]),
        (Spoil::With("user_login", json!("root")), vec!["user_login"]),
        (Spoil::UnknownKid, vec![]),
        (Spoil::WithoutKid, vec![]),
    ] {
        assert_eq!(differing(spoil.clone()), names, "{spoil:?}");
    }
}

/// Checks the signature, and nothing else, with the published key, by the library that the product uses.
fn verify(token: &str) -> Result<Value, jsonwebtoken::errors::Error> {
    let jwk: jsonwebtoken::jwk::Jwk =
        serde_json::from_value(Keys::of_this_process().unwrap().signing().jwk()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    (validation.validate_exp, validation.validate_aud) = (false, false);
    validation.required_spec_claims.clear();
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk)?;
    Ok(jsonwebtoken::decode::<Value>(token, &key, &validation)?.claims)
}

/// A client that asks no proxy and follows no redirect.
fn client() -> ureq::Agent {
    let config = ureq::Agent::config_builder().proxy(None).max_redirects(0).max_redirects_will_error(false);
    config.build().into()
}

fn fetch(url: &str) -> String {
    client().get(url).call().unwrap().body_mut().read_to_string().unwrap()
}

#[test]
fn the_key_set_can_be_spoiled() {
    let mut gitlab = GitLab::start().unwrap();
    let url = format!("{}/oauth/discovery/keys", gitlab.url());
    let size = |gitlab: &GitLab, keys: KeySet| {
        gitlab.set_key_set(keys);
        fetch(&url).len()
    };
    let good = size(&gitlab, KeySet::Good);
    assert_eq!(size(&gitlab, KeySet::Large(1 << 20)), 1 << 20);
    assert_eq!(size(&gitlab, KeySet::Bytes(b"{}".to_vec())), 2);
    assert_eq!(size(&gitlab, KeySet::Redirect("http://127.0.0.1:9/".into())), 0);
    let began = std::time::Instant::now();
    assert_eq!(size(&gitlab, KeySet::Slow(std::time::Duration::from_millis(300))), good);
    assert!(began.elapsed() >= std::time::Duration::from_millis(300));
    assert_eq!(size(&gitlab, KeySet::Drip(std::time::Duration::from_micros(100))), good);
    gitlab.set_key_set(KeySet::HangUp);
    client().get(&url).call().unwrap_err();
    gitlab.close();
    let error = std::net::TcpStream::connect(url.trim_start_matches("http://").split('/').next().unwrap());
    assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}
