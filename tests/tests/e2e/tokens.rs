//! Tokens that are not believed.

use testbed::gitlab::{GitLab, IdToken, JobBuilder, Spoil};

use crate::direct::Direct;
use crate::place::Place;
use crate::refusal::{audited, refused};

#[test]
fn each_spoiled_token_is_a_build_failure_with_its_own_words() {
    for (name, rule, spoil) in [
        ("token-expired", "expired", Spoil::Expired),
        ("token-not-yet-valid", "not_yet_valid", Spoil::NotYetValid),
        ("token-wrong-audience", "audience", Spoil::WrongAudience),
        ("token-wrong-issuer", "issuer", Spoil::WrongIssuer),
        ("token-wrong-key", "signature", Spoil::ForeignKey),
        ("token-altered", "signature", Spoil::AlteredClaims),
        ("token-alg-none", "algorithm", Spoil::AlgNone),
        ("token-hs256", "algorithm", Spoil::Hs256WithPublicKey),
        ("token-unknown-kid", "unknown_key", Spoil::UnknownKid),
        ("token-other-job", "job_mismatch", Spoil::OtherJob),
        ("token-other-project", "project_mismatch", Spoil::OtherProject),
        ("token-other-pipeline", "pipeline_mismatch", Spoil::OtherPipeline),
    ] {
        let place = Place::usual();
        refused(&place, name, rule, place.spoiled(spoil));
    }
}

#[test]
fn a_job_without_a_token_is_told_what_to_paste() {
    let place = Place::usual();
    refused(&place, "token-missing", "no_token", JobBuilder::new(place.facts()).without_sources());
}

/// A token is only good where the configured GitLab signed it, whatever the job says about its server.
#[test]
fn another_gitlab_cannot_vouch_for_its_jobs() {
    let place = Place::usual();
    let theirs = GitLab::start().expect("a server");
    let token =
        IdToken::new(&place.facts(), place.gitlab.url()).claim("iss", theirs.url()).sign().expect("a key");
    let job = JobBuilder::new(place.facts()).id_token_value("SITE_ID_TOKEN", token).without_sources();
    let job = job.variable("CI_SERVER_URL", theirs.url()).variable("CI_JOB_ID", "1");
    let ran = Direct::new(&place, &place.gitlab.admit(job)).config();
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran}");
    audited(&place, "another GitLab", "issuer");
    assert!(theirs.seen().is_empty(), "it was not even asked: {:?}", theirs.seen());
}

/// Requests for the key set so far.
fn fetches(place: &Place) -> usize {
    place.gitlab.seen().iter().filter(|seen| seen.path == "/oauth/discovery/keys").count()
}

#[test]
fn keys_are_fetched_once_and_again_for_an_unknown_key_but_not_at_will() {
    let place = Place::usual();
    let config = |job: JobBuilder| Direct::new(&place, &place.gitlab.admit(job)).config().code;
    let good = || place.small(["true"]);
    let unknown = || place.spoiled(Spoil::UnknownKid);
    for _ in 0..3 {
        assert_eq!(config(good()), 0);
    }
    assert_eq!(fetches(&place), 1, "cached");
    // They are fresh, so an unknown key is one that the server does not have either.
    assert_eq!((config(unknown()), fetches(&place)), (1, 1));
    // After a minute GitLab is asked again, once.
    age_keys(&place, 61);
    assert_eq!((config(unknown()), fetches(&place)), (1, 2));
    assert_eq!((config(unknown()), fetches(&place)), (1, 2));
    // Other refusals ask nobody.
    age_keys(&place, 61);
    assert_eq!((config(place.spoiled(Spoil::ForeignKey)), fetches(&place)), (1, 2));
    assert_eq!((config(good()), fetches(&place)), (0, 2));
    // And after a day nothing is believed without asking.
    age_keys(&place, 24 * 60 * 60 + 1);
    assert_eq!((config(good()), fetches(&place)), (0, 3));
}

/// Makes the cached keys of the place's GitLab older.
fn age_keys(place: &Place, seconds: u64) {
    let part: String = place.gitlab.url().bytes().map(|byte| format!("{byte:02x}")).collect();
    let keys = std::fs::read_dir("/var/lib/jacamar/keys").expect("a directory").filter_map(Result::ok);
    let file = keys.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains(&part));
    let file = std::fs::File::options().write(true).open(file.expect("cached")).expect("root");
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds);
    file.set_modified(then).expect("root");
}
