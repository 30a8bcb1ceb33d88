//! Token, response file and key set in other forms than GitLab's and the runner's.

use jacamar_contract::verify::VerifyRule;
use serde_json::{Value, json};
use testbed::gitlab::Keys;

use super::{assert_rule, id_token, judge, keys, request, response, second};

#[test]
fn other_writings_of_a_token_are_refused() {
    let token = id_token();
    let good = token.sign().expect("signed");
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let header = |text: &str| {
        use base64::Engine as _;
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!("{header}.{}", good.split_once('.').expect("three parts").1)
    };
    let kid = Keys::of_this_process().expect("keys").signing().kid();
    let table = [
        (format!(" {good}"), VerifyRule::Malformed),
        (format!("{good} "), VerifyRule::Malformed),
        (format!("{good}="), VerifyRule::Malformed),
        (format!("{good}."), VerifyRule::Malformed),
        (format!("{signed}."), VerifyRule::Signature),
        (format!("{signed}.{}", &signature[..340]), VerifyRule::Signature),
        (header(""), VerifyRule::Malformed),
        (header("[\"RS256\"]"), VerifyRule::Malformed),
        (header(r#"{"kid":"x"}"#), VerifyRule::Malformed),
        (header(r#"{"alg":"RS256","alg":"RS256","kid":"x"}"#), VerifyRule::Malformed),
        (
            header(&format!(r#"{{"alg":"RS256","kid":"{kid}","crit":["b64"],"b64":false}}"#)),
            VerifyRule::Malformed,
        ),
        (header(r#"{"alg":"rs256","kid":"x"}"#), VerifyRule::Algorithm),
        (header(r#"{"alg":"PS256","kid":"x"}"#), VerifyRule::Algorithm),
        (header(r#"{"alg":"RS256","kid":"x","jwk":{"kty":"RSA"}}"#), VerifyRule::UnknownKey),
        (header(&format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#)), VerifyRule::Signature),
    ];
    for (text, rule) in table {
        let judged = judge(&request(), &response(&text), &keys(), second(&token, "iat"));
        assert_rule(judged, rule, "token SITE_ID_TOKEN");
    }
}

#[test]
fn a_response_file_of_another_form_is_refused_without_its_values() {
    let good = response(&id_token().sign().expect("signed"));
    let cut = |length: usize| good[..length].to_vec();
    let table = [
        (Vec::new(), "does not begin"),
        (b"null".to_vec(), "does not begin"),
        (b"[302]".to_vec(), "does not begin"),
        (b"{}".to_vec(), "missing or of another type"),
        (br#"{"id":"glcbt-secret"}"#.to_vec(), "missing or of another type"),
        (br#"{"id":302}"#.to_vec(), "missing or of another type"),
        (br#"{"id":-1,"job_info":{"project_id":20}}"#.to_vec(), "missing or of another type"),
        (br#"{"id":302,"id":302,"job_info":{"project_id":20}}"#.to_vec(), "missing or of another type"),
        (
            br#"{"id":302,"job_info":{"project_id":20},"variables":[{}]}"#.to_vec(),
            "missing or of another type",
        ),
        (b"{glcbt-secret".to_vec(), "not JSON"),
        ([good.as_slice(), b"{}"].concat(), "not JSON"),
        (cut(good.len() / 2), "ends too early"),
        (cut(good.len() - 2), "ends too early"),
        (["{\"x\":".repeat(100_000).into_bytes(), Vec::new()].concat(), "ends too early"),
    ];
    for (file, what) in table {
        let judged = judge(&request(), &file, &keys(), 0);
        let refused = assert_rule(judged, VerifyRule::ResponseUnreadable, "response file");
        assert!(
            refused.cause.contains(what),
            "{refused}: {}",
            String::from_utf8_lossy(&file[..file.len().min(80)])
        );
        assert!(!refused.cause.contains("secret"), "{refused}");
    }
}

#[test]
fn a_key_must_be_for_rs256_signatures() {
    let token = id_token();
    let text = token.sign().expect("signed");
    let judged = |keys: &str| judge(&request(), &response(&text), keys.as_bytes(), second(&token, "iat"));
    let set = Keys::of_this_process().expect("keys").jwks();
    let with = |name: &str, value: Value| {
        let mut set = set.clone();
        set["keys"][1][name] = value;
        set.to_string()
    };
    judged(&with("alg", Value::Null)).expect("alg may be missing");
    judged(&with("key_ops", json!(["verify"]))).expect("other members do not count");
    for (name, value) in [
        ("kty", json!("EC")),
        ("kty", json!("oct")),
        ("kty", Value::Null),
        ("use", json!("enc")),
        ("use", Value::Null),
        ("alg", json!("PS256")),
        ("alg", json!("HS256")),
        ("n", json!("***")),
        ("n", Value::Null),
        ("e", json!(3)),
    ] {
        let refused = assert_rule(judged(&with(name, value)), VerifyRule::UnknownKey, "token SITE_ID_TOKEN");
        assert!(refused.cause.contains("not for RS256"), "{refused}");
    }
    for (name, value) in [("n", json!("")), ("n", json!("AQAB")), ("e", json!("")), ("e", json!("AQ"))] {
        assert_rule(judged(&with(name, value)), VerifyRule::Signature, "token SITE_ID_TOKEN");
    }
    assert_rule(judged(&with("kid", json!("x"))), VerifyRule::UnknownKey, "token SITE_ID_TOKEN");
    // The other published key under this kid.
    let swapped = with("n", set["keys"][0]["n"].clone());
    assert_rule(judged(&swapped), VerifyRule::Signature, "token SITE_ID_TOKEN");
    let strange = json!({"keys": [7, null, {"kid": 7}, {"kty": "AKP", "kid": "y"}, set["keys"][1].clone()]});
    judged(&strange.to_string()).expect("keys of other kinds are skipped");
    assert_rule(judged(r#"{"keys":[]}"#), VerifyRule::UnknownKey, "token SITE_ID_TOKEN");
    for bad in
        ["", "null", "[]", "{}", r#"{"keys":null}"#, r#"{"keys":{}}"#, "<html>502 Bad Gateway</html>", "[[]]"]
    {
        assert_rule(judged(bad), VerifyRule::KeysUnreadable, "key set");
    }
}
