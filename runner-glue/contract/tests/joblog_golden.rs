//! Every message about a token and about keys, as it stands in the job log.
//!
//! `UPDATE_GOLDEN=1 cargo test -p jacamar-contract` writes the files anew and fails, so that it is never a green
//! run; read the difference before it is committed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jacamar_contract::config_json::RunnerDirectory;
use jacamar_contract::job_variables::{JobVariables, Names};
use jacamar_contract::joblog::{TokenSite, message, token_refusal};
use jacamar_contract::keys::{KeysFailed, KeysRule};
use jacamar_contract::verify::{VerifyRefused, VerifyRule};

const SUPPORT: &str = "HPC support, support@hpc.example.org";

const SITE: TokenSite<'static> = TokenSite {
    variable: "SITE_ID_TOKEN",
    audience: Some("https://hpc.example.org"),
    issuer: "https://gitlab.example.com",
};

/// Compares with the checked-in files of one prefix: no text differs, none is missing, none is left over.
fn compare(prefix: &str, messages: Vec<(String, String)>) {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/joblog"));
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut names = BTreeSet::new();
    for (name, text) in messages {
        let name = format!("{prefix}-{name}.txt");
        let file = folder.join(&name);
        if update {
            std::fs::create_dir_all(&folder).expect("folder");
            std::fs::write(&file, &text).expect("file");
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(text, expected, "{name}");
        names.insert(name);
    }
    for entry in std::fs::read_dir(&folder).expect("folder") {
        let name = entry.expect("entry").file_name().into_string().expect("text");
        let ours = name.starts_with(&format!("{prefix}-"));
        assert!(!ours || names.contains(&name), "{name} belongs to no message");
    }
    assert!(!update, "the files were written; run the tests again without UPDATE_GOLDEN");
}

fn object(rule: VerifyRule) -> &'static str {
    match rule {
        VerifyRule::NoToken => "job variable SITE_ID_TOKEN",
        VerifyRule::ClaimMissing | VerifyRule::ClaimInvalid => "token SITE_ID_TOKEN, claim sha",
        VerifyRule::ResponseUnreadable | VerifyRule::ResponseTooLarge => "the runner's response file",
        VerifyRule::KeysUnreadable => "https://gitlab.example.com/oauth/discovery/keys",
        VerifyRule::TokenTooLarge
        | VerifyRule::Malformed
        | VerifyRule::Algorithm
        | VerifyRule::UnknownKey
        | VerifyRule::Signature
        | VerifyRule::Expired
        | VerifyRule::NotYetValid
        | VerifyRule::Issuer
        | VerifyRule::Audience
        | VerifyRule::JobMismatch
        | VerifyRule::ProjectMismatch
        | VerifyRule::PipelineMismatch
        | VerifyRule::UserMismatch
        | VerifyRule::RunnerMismatch => "token SITE_ID_TOKEN",
    }
}

#[test]
fn each_refusal_of_a_token() {
    let text = |rule: VerifyRule| {
        let refusal = token_refusal(&VerifyRefused::new(rule, object(rule)), SITE);
        (rule.word().to_owned(), message(&refusal, SUPPORT))
    };
    let mut messages: Vec<_> = VerifyRule::ALL.iter().map(|rule| text(*rule)).collect();
    let any = TokenSite { audience: None, ..SITE };
    let refused = VerifyRefused::new(VerifyRule::NoToken, object(VerifyRule::NoToken));
    let unset = message(&token_refusal(&refused, any), "");
    messages.push(("no_token-without-audience-and-contact".to_owned(), unset));
    compare("verify", messages);
}

#[test]
fn each_failure_of_the_key_fetch() {
    let url = "https://gitlab.example.com/oauth/discovery/keys";
    let text =
        |rule: &KeysRule| (rule.word().to_owned(), message(&KeysFailed::new(*rule, url).words(), SUPPORT));
    compare("keys", KeysRule::ALL.iter().map(text).collect());
}

#[test]
fn each_refusal_of_a_wish_and_of_a_directory() {
    let refused = |name: &str, value: &str| {
        let pair = (format!("CUSTOM_ENV_{name}").into(), value.into());
        let names = Names { token: "SITE_ID_TOKEN", value_max_bytes: 10_000 };
        message(&JobVariables::read([pair], names).expect_err("refused"), SUPPORT)
    };
    let directory = RunnerDirectory::new("builds_dir", "/scratch/$USER/ci").expect_err("refused");
    compare(
        "config",
        vec![
            ("not-a-bool".to_owned(), refused("JACAMAR_NO_BASH_PROFILE", "perhaps")),
            ("two-lines".to_owned(), refused("CUSTOM_CI_BUILDS_DIR", "/scratch/alice\n")),
            ("too-long".to_owned(), refused("SCHEDULER_PARAMETERS", &"-x ".repeat(4000))),
            ("directory_name".to_owned(), message(&directory, SUPPORT)),
        ],
    );
}
