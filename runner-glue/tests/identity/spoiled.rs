//! One row per way to spoil a token.

use jacamar_contract::verify::{VerifyAnswer, VerifyRule};
use serde_json::json;
use testbed::gitlab::{IdToken, Spoil};

use crate::call::{AUDIENCE, SERVER, facts, key_set, response, verify};

const TOKEN: &str = "token SITE_ID_TOKEN";

#[test]
fn a_good_token_gives_claims() {
    for spoil in [None, Some(Spoil::AudienceList)] {
        let mut token = IdToken::new(&facts(), AUDIENCE);
        if let Some(spoil) = spoil {
            token = token.spoil(spoil);
        }
        let (answer, output) = verify(&response(&token.sign().expect("signed")), &key_set());
        let VerifyAnswer::Claims(claims) = answer else { panic!("{output:?}") };
        let fields = claims.fields();
        assert_eq!(
            (fields.user_login.as_str(), fields.job_id, fields.issuer.as_str()),
            ("alice", 302, SERVER)
        );
    }
}

#[test]
fn each_spoiled_token_has_its_rule() {
    use VerifyRule as R;
    let now_s = IdToken::new(&facts(), AUDIENCE).claims()["iat"].as_u64().expect("a number");
    let table = [
        (Spoil::Expired, R::Expired, "claim exp"),
        (Spoil::With("exp", json!(now_s - 30)), R::Expired, "claim exp"),
        (Spoil::NotYetValid, R::NotYetValid, "claim nbf"),
        (Spoil::With("nbf", json!(now_s + 3600)), R::NotYetValid, "claim nbf"),
        (Spoil::With("iat", json!(now_s + 3600)), R::NotYetValid, "claim iat"),
        (Spoil::WithoutExpiry, R::ClaimMissing, "claim exp"),
        (Spoil::Without("nbf"), R::ClaimMissing, "claim nbf"),
        (Spoil::Without("iat"), R::ClaimMissing, "claim iat"),
        (Spoil::Without("sub"), R::ClaimMissing, "claim sub"),
        (Spoil::With("exp", json!("4102444800")), R::ClaimInvalid, "claim exp"),
        (Spoil::WrongAudience, R::Audience, "claim aud"),
        (Spoil::WrongAudienceList, R::Audience, "claim aud"),
        (Spoil::With("aud", json!([])), R::Audience, "claim aud"),
        (Spoil::With("aud", json!(7)), R::ClaimInvalid, "claim aud"),
        (Spoil::WithoutAudience, R::ClaimMissing, "claim aud"),
        (Spoil::WrongIssuer, R::Issuer, "claim iss"),
        (Spoil::With("iss", json!(format!("{SERVER}/"))), R::Issuer, "claim iss"),
        (Spoil::With("iss", json!([SERVER])), R::ClaimInvalid, "claim iss"),
        (Spoil::With("iss", json!(7)), R::ClaimInvalid, "claim iss"),
        (Spoil::WithoutIssuer, R::ClaimMissing, "claim iss"),
        (Spoil::UnknownKid, R::UnknownKey, TOKEN),
        (Spoil::WithoutKid, R::UnknownKey, TOKEN),
        (Spoil::AlgNone, R::Algorithm, TOKEN),
        (Spoil::Hs256WithPublicKey, R::Algorithm, TOKEN),
        (Spoil::ForeignKey, R::Signature, TOKEN),
        (Spoil::AlteredClaims, R::Signature, TOKEN),
        (Spoil::WithoutSignature, R::Malformed, TOKEN),
        (Spoil::OtherJob, R::JobMismatch, "claim job_id"),
        (Spoil::With("sha", json!("f".repeat(40))), R::JobMismatch, "claim sha"),
        (Spoil::OtherPipeline, R::PipelineMismatch, "claim pipeline_id"),
        (Spoil::OtherProject, R::ProjectMismatch, "claim job_project_id"),
        (Spoil::OtherUser, R::UserMismatch, "claim user_id"),
        (Spoil::OtherRunner, R::RunnerMismatch, "claim runner_id"),
        (Spoil::With("user_login", json!("a\nb")), R::ClaimInvalid, "claim user_login"),
        (Spoil::With("project_path", json!("a/../b")), R::ClaimInvalid, "claim project_path"),
        (Spoil::With("ref_protected", json!(true)), R::ClaimInvalid, "claim ref_protected"),
        (Spoil::Without("user_id"), R::ClaimMissing, "claim user_id"),
    ];
    for (spoil, rule, object) in table {
        let row = format!("{spoil:?}");
        let token = IdToken::new(&facts(), AUDIENCE).spoil(spoil).sign().expect("signed");
        let (answer, output) = verify(&response(&token), &key_set());
        let VerifyAnswer::Refused(refused) = answer else { panic!("{row} is believed") };
        assert_eq!((refused.rule, refused.object.as_str()), (rule, object), "{row}: {refused}");
        assert!(!refused.cause.is_empty());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        for part in token.split('.').filter(|part| !part.is_empty()) {
            let start: String = part.chars().take(12).collect();
            assert!(!said.contains(&start), "{row}: the answer repeats the token: {said}");
        }
    }
}
