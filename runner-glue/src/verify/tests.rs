//! The judgement as a function: every claim's form, the clock, the response file's form, the key set's, and
//! properties. The whole program is tested in `tests/identity/`.

use jacamar_contract::claims::Claims;
use jacamar_contract::verify::{TOKEN_MAX_BYTES, VerifyRefused, VerifyRequest, VerifyRule};
use serde_json::{Value, json};
use testbed::gitlab::{Facts, IdToken, Job, JobBuilder, Keys, Spoil, Variable};

use super::judge;
use super::statement::LEEWAY_S;

mod forms;
mod properties;

const SERVER: &str = "https://gitlab.example.com";
const AUDIENCE: &str = "https://hpc.example.org";
const NAME: &str = "SITE_ID_TOKEN";

fn request() -> VerifyRequest {
    VerifyRequest {
        issuer: SERVER.to_owned(),
        audience: Some(AUDIENCE.to_owned()),
        runner_id: Some(3),
        token_variable: NAME.to_owned(),
    }
}

fn id_token() -> IdToken {
    IdToken::new(&Facts::new(SERVER), AUDIENCE)
}

fn job(token: &str) -> Job {
    JobBuilder::new(Facts::new(SERVER)).id_token_value(NAME, token).build()
}

fn response(token: &str) -> Vec<u8> {
    job(token).response_json().expect("JSON")
}

fn keys() -> Vec<u8> {
    Keys::of_this_process().expect("keys").jwks().to_string().into_bytes()
}

fn second(token: &IdToken, claim: &str) -> u64 {
    token.claims()[claim].as_u64().expect("a number")
}

/// The verdict on this token of the ordinary job, at the time it was issued.
fn verdict(token: &IdToken) -> Result<Claims, VerifyRefused> {
    let text = token.sign().expect("signed");
    judge(&request(), &response(&text), &keys(), second(&id_token(), "iat"))
}

fn with(claim: &'static str, value: Value) -> Result<Claims, VerifyRefused> {
    verdict(&id_token().spoil(Spoil::With(claim, value)))
}

/// The verdict on the good token in this response file.
fn of_response(change: impl FnOnce(&mut Value)) -> Result<Claims, VerifyRefused> {
    let token = id_token();
    let mut file = serde_json::to_value(job(&token.sign().expect("signed"))).expect("JSON");
    change(&mut file);
    judge(&request(), file.to_string().as_bytes(), &keys(), second(&token, "iat"))
}

#[track_caller]
fn assert_rule(verdict: Result<Claims, VerifyRefused>, rule: VerifyRule, object: &str) -> VerifyRefused {
    let refused = verdict.expect_err(object);
    assert_eq!((refused.rule, refused.object.as_str()), (rule, object), "{refused}");
    refused
}

#[test]
fn a_good_token_gives_gitlabs_claims() {
    let claims = verdict(&id_token()).expect("good");
    let fields = claims.fields();
    assert_eq!((fields.user_id, fields.user_login.as_str()), (7, "alice"));
    assert_eq!((fields.job_id, fields.pipeline_id, fields.project_id), (302, 574, 20));
    assert_eq!((fields.runner_id, fields.job_project_id, fields.namespace_id), (3, Some(20), Some(10)));
    assert_eq!(fields.audience.as_deref(), Some(AUDIENCE));
    assert!(!fields.reference_protected && !fields.composite_identity);
    assert_eq!(jacamar_contract::verify::compare(&request(), &claims), Ok(()));
}

#[test]
fn another_libraries_default_provider_is_never_asked() {
    use jsonwebtoken::crypto::{CryptoProvider, KeyUtils};
    // What the process-wide provider is when two crates switch on two back ends.
    static PANICS: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| panic!("asked to sign"),
        verifier_factory: |_, _| panic!("asked to verify"),
        key_utils: KeyUtils::new_unimplemented(),
    };
    PANICS.install_default().expect("nobody else installs one");
    verdict(&id_token()).expect("good");
}

#[test]
fn every_claim_that_is_needed_is_missed_by_name() {
    for claim in [
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "user_id",
        "user_login",
        "project_id",
        "project_path",
        "namespace_path",
        "job_id",
        "pipeline_id",
        "pipeline_source",
        "ref",
        "ref_type",
        "ref_protected",
        "sha",
        "runner_id",
    ] {
        let object = format!("claim {claim}");
        let missing = verdict(&id_token().spoil(Spoil::Without(claim)));
        assert_rule(missing, VerifyRule::ClaimMissing, &object);
        assert_rule(with(claim, Value::Null), VerifyRule::ClaimMissing, &object);
    }
    for claim in [
        "user_email",
        "user_access_level",
        "job_project_id",
        "job_project_path",
        "namespace_id",
        "runner_environment",
        "jti",
        "ref_path",
        "user_identities",
    ] {
        verdict(&id_token().spoil(Spoil::Without(claim))).expect(claim);
        with(claim, Value::Null).expect(claim);
    }
}

#[test]
fn a_claim_of_another_form_is_refused_by_name() {
    let table: &[(&str, &[Value])] = &[
        ("iss", &[json!([SERVER]), json!(7), json!({}), json!(true)]),
        ("sub", &[json!(""), json!(7), json!([])]),
        ("aud", &[json!(7), json!([AUDIENCE, 7]), json!({})]),
        ("exp", &[json!("4102444800"), json!(1e10), json!(4_102_444_800.5), json!(-1), json!([])]),
        ("nbf", &[json!("1"), json!(-1), json!(false)]),
        ("iat", &[json!("1"), json!(1.5)]),
        (
            "job_id",
            &[
                json!("0302"),
                json!("+302"),
                json!(" 302"),
                json!("302 "),
                json!("302\n"),
                json!(""),
                json!("0x12e"),
                json!(302.0),
                json!(-302),
                json!(true),
                json!([302]),
                json!("18446744073709551616"),
                json!("0"),
                json!("٣"),
            ],
        ),
        ("runner_id", &[json!(0), json!("")]),
        ("user_id", &[json!(0), json!("alice")]),
        ("ref_protected", &[json!(true), json!("TRUE"), json!("yes"), json!(1)]),
        ("user_login", &[json!(""), json!("a/b"), json!("a\nb"), json!("-x"), json!(7)]),
        ("project_path", &[json!("group/../x"), json!("")]),
        ("sha", &[json!("0123"), json!(7)]),
        ("pipeline_source", &[json!("push\u{1b}[2J")]),
        ("job_project_id", &[json!(""), json!("20a")]),
    ];
    for (claim, values) in table {
        for value in *values {
            // `sha` is compared with the response file first.
            let refused = with(claim, value.clone()).expect_err(claim);
            let bound = [VerifyRule::JobMismatch, VerifyRule::RunnerMismatch, VerifyRule::UserMismatch];
            assert!(
                refused.rule == VerifyRule::ClaimInvalid || bound.contains(&refused.rule),
                "{claim} {value}: {refused}"
            );
            assert_eq!(refused.object, format!("claim {claim}"), "{value}");
        }
    }
    let refused = assert_rule(with("iss", json!([SERVER])), VerifyRule::ClaimInvalid, "claim iss");
    assert_eq!(refused.cause, VerifyRule::ClaimInvalid.cause());
}

#[test]
fn ids_are_numbers_or_their_digits() {
    with("job_id", json!(302)).expect("a number");
    with("runner_id", json!("3")).expect("digits");
    let huge = with("user_id", json!("9223372036854775807"));
    assert_rule(huge, VerifyRule::UserMismatch, "claim user_id");
}

#[test]
fn the_clock_has_five_seconds_and_no_more() {
    let token = id_token();
    let text = token.sign().expect("signed");
    let at = |now_s| judge(&request(), &response(&text), &keys(), now_s);
    let (issued_s, expires_s) = (second(&token, "iat"), second(&token, "exp"));
    at(issued_s - LEEWAY_S).expect("iat within the leeway");
    assert_rule(at(issued_s - LEEWAY_S - 1), VerifyRule::NotYetValid, "claim iat");
    assert_rule(at(0), VerifyRule::NotYetValid, "claim nbf");
    at(expires_s + LEEWAY_S - 1).expect("exp within the leeway");
    assert_rule(at(expires_s + LEEWAY_S), VerifyRule::Expired, "claim exp");
    let refused = assert_rule(at(expires_s + 30), VerifyRule::Expired, "claim exp");
    assert_eq!(refused.cause, "expired 30 seconds ago");
    let ahead = id_token().claim("iat", issued_s).spoil(Spoil::With("nbf", json!(issued_s + 3600)));
    let ahead = judge(&request(), &response(&ahead.sign().expect("signed")), &keys(), issued_s);
    let refused = assert_rule(ahead, VerifyRule::NotYetValid, "claim nbf");
    assert_eq!(refused.cause, "lies 3600 seconds ahead of this host's clock");
    assert_rule(at(u64::MAX), VerifyRule::Expired, "claim exp");
    with("exp", json!(u64::MAX)).expect("no overflow");
}

#[test]
fn unset_settings_are_not_compared() {
    let any = VerifyRequest { audience: None, runner_id: None, ..request() };
    let token = id_token().claim("aud", json!([])).claim("runner_id", 999);
    let text = token.sign().expect("signed");
    let claims = judge(&any, &response(&text), &keys(), second(&token, "iat")).expect("good");
    assert_eq!((claims.fields().audience.as_deref(), claims.fields().runner_id), (None, 999));
}

#[test]
fn the_job_is_bound_by_what_the_runner_sent() {
    let fork = id_token().claim("project_id", "999");
    verdict(&fork).expect("a merge request from a fork");
    let old = fork.spoil(Spoil::Without("job_project_id"));
    assert_rule(verdict(&old), VerifyRule::ProjectMismatch, "claim project_id");
    let object = |name: &str| format!("claim {name}");
    for (pointer, rule, claim) in [
        ("/id", VerifyRule::JobMismatch, "job_id"),
        ("/job_info/project_id", VerifyRule::ProjectMismatch, "job_project_id"),
        ("/job_info/pipeline_id", VerifyRule::PipelineMismatch, "pipeline_id"),
        ("/job_info/user_id", VerifyRule::UserMismatch, "user_id"),
    ] {
        let other = of_response(|file| *file.pointer_mut(pointer).expect(pointer) = json!(999));
        let refused = assert_rule(other, rule, &object(claim));
        assert!(refused.cause.ends_with("the job has 999"), "{refused}");
    }
    let other = of_response(|file| file["git_info"]["sha"] = json!("f".repeat(40)));
    assert_rule(other, VerifyRule::JobMismatch, "claim sha");
    // GitLab Runner 17.3 sends none of these; a newer one may send 0 or nothing.
    for empty in [json!(0), Value::Null] {
        of_response(|file| {
            file["job_info"]["pipeline_id"] = empty.clone();
            file["job_info"]["user_id"] = empty.clone();
            file["git_info"] = Value::Null;
        })
        .expect("not sent");
    }
    of_response(|file| {
        file["job_info"] = json!({"project_id": 20});
        file["git_info"] = json!({"sha": ""});
    })
    .expect("not sent");
}

#[test]
fn a_composite_identity_is_told() {
    let claims = of_response(|file| file["job_info"]["scoped_user_id"] = json!(8)).expect("good");
    assert!(claims.fields().composite_identity);
    let claims = of_response(|file| file["job_info"]["scoped_user_id"] = Value::Null).expect("good");
    assert!(!claims.fields().composite_identity);
}

#[test]
fn the_first_variable_of_the_name_counts() {
    let token = id_token();
    let good = token.sign().expect("signed");
    let mut job = job(&good);
    let own = |value: &str| Variable { key: NAME.to_owned(), value: value.to_owned(), ..Variable::default() };
    let mut variables = job.variables.take().expect("variables");
    variables.push(own("somebody's own"));
    job.variables = Some(variables.clone());
    let judged =
        |job: &Job| judge(&request(), &job.response_json().expect("JSON"), &keys(), second(&token, "iat"));
    judged(&job).expect("the later one is the user's");
    variables.insert(0, own(""));
    job.variables = Some(variables.clone());
    assert_rule(judged(&job), VerifyRule::NoToken, "job variable SITE_ID_TOKEN");
    for bad in ["x", "a.b", "a.b.c", "a.b.c.d", "..", "ey\"J.e.e", "\u{1f980}.e.e"] {
        variables[0] = own(bad);
        job.variables = Some(variables.clone());
        assert_rule(judged(&job), VerifyRule::Malformed, "token SITE_ID_TOKEN");
    }
    variables[0] = own(&format!("{good}{}", "a".repeat(TOKEN_MAX_BYTES)));
    job.variables = Some(variables.clone());
    assert_rule(judged(&job), VerifyRule::TokenTooLarge, "token SITE_ID_TOKEN");
    for none in [None, Some(Vec::new())] {
        job.variables = none;
        assert_rule(judged(&job), VerifyRule::NoToken, "job variable SITE_ID_TOKEN");
    }
}
