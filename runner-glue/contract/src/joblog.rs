//! The words for the person who reads the job log.
//!
//! One form for every "no": what it is about and why, what to type or paste next, and whom to ask. It is a pure
//! function from a [`Refusal`] to text, so every message of ours is a file in `tests/golden/joblog/`.

use jacamar_plan::{Duration, JobUsage, Refusal};

use crate::text::is_shown;
use crate::verify::{VerifyRefused, VerifyRule};

/// Longest object, cause, hint or contact that is shown, in bytes; the rest is replaced by `...`.
pub const TEXT_MAX_BYTES: usize = 4096;

/// What a message about the token has to say about this site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenSite<'a> {
    /// `[general] jwt_env_variable`
    pub variable: &'a str,
    /// `[auth] jwt_required_aud`, if any.
    pub audience: Option<&'a str>,
    /// `[auth] jwt_issuer`: the GitLab server that this site trusts. Where no audience is required, the message
    /// proposes this one.
    pub issuer: &'a str,
}

/// The message for the job log: a red line, a line (or block) of help, whom to ask, and the rule by name.
/// `support_contact` may be empty.
///
/// Texts that come from strangers are shown as they are, except that no character of theirs can move the cursor,
/// colour the log or open one of GitLab's sections.
#[must_use]
pub fn message(refusal: &Refusal, support_contact: &str) -> String {
    let mut text = format!("{RED}ERROR: {}: {}{END}\n", one_line(&refusal.object), one_line(&refusal.cause));
    if !refusal.hint.is_empty() {
        text.push_str(&format!("{YELLOW}hint:{END} {}\n", lines(&refusal.hint)));
    }
    let contact = match one_line(support_contact) {
        contact if contact.is_empty() => "the administrators of this runner".to_owned(),
        contact => contact,
    };
    text.push_str(&format!("{YELLOW}ask:{END} {contact} (rule {})\n", one_line(&refusal.rule)));
    text
}

/// What the job used so far, for the end of its log; empty where nobody counted.
#[must_use]
pub fn usage_report(usage: &JobUsage, profile: &str) -> String {
    let lines = usage.to_string();
    if lines.is_empty() {
        return lines;
    }
    let time = Duration(usage.elapsed_ms);
    format!("{BOLD}Used by this job in {time}{END}, sandbox profile {}:\n{lines}", one_line(profile))
}

/// A token that was not believed, with what helps at this site.
#[must_use]
pub fn token_refusal(refused: &VerifyRefused, site: TokenSite<'_>) -> Refusal {
    let object = match refused.object.strip_prefix("claim ") {
        // Only whoever knows the token's name can look for it.
        Some(claim) => format!("token {}, claim {claim}", site.variable),
        None => refused.object.clone(),
    };
    Refusal {
        rule: refused.rule.word().to_owned(),
        object,
        cause: refused.cause.clone(),
        hint: token_hint(refused.rule, site),
    }
}

/// The lines that give every job of a `.gitlab-ci.yml` the token that this site checks.
#[must_use]
pub fn id_tokens_yaml(site: TokenSite<'_>) -> String {
    let audience = site.audience.unwrap_or(site.issuer);
    // A string of JSON is a string of YAML (YAML 1.2, section 1.3).
    let audience = serde_json::Value::from(audience).to_string();
    format!("default:\n  id_tokens:\n    {}:\n      aud: {audience}\n", site.variable)
}

/// Colours of GitLab's own messages in a job log.
const RED: &str = "\x1b[31;1m";
const BOLD: &str = "\x1b[0;1m";
const YELLOW: &str = "\x1b[33;1m";
const END: &str = "\x1b[0;m";

fn token_hint(rule: VerifyRule, site: TokenSite<'_>) -> String {
    let TokenSite { variable, issuer, .. } = site;
    let yaml = || id_tokens_yaml(site);
    match rule {
        VerifyRule::NoToken => {
            format!(
                "add these lines to .gitlab-ci.yml (in a job that has `id_tokens:` of its own: the last two), then \
                 run the pipeline again:\n{}",
                yaml()
            )
        }
        VerifyRule::TokenTooLarge | VerifyRule::Malformed | VerifyRule::Algorithm => format!(
            "GitLab itself has to make the token; in .gitlab-ci.yml, and nowhere in `variables:`:\n{}",
            yaml()
        ),
        VerifyRule::UnknownKey | VerifyRule::Signature => format!(
            "only tokens of {issuer} are taken; if the job does come from there, retry it in two minutes (the \
             server's keys may have changed)"
        ),
        VerifyRule::Expired => "retry the job; GitLab makes a new token for every job".to_owned(),
        VerifyRule::NotYetValid => {
            "the clocks of the GitLab server and of this host differ; the people below can mend that".to_owned()
        }
        VerifyRule::Issuer => format!("run the job from a project of {issuer}"),
        VerifyRule::Audience => {
            format!("write this audience into .gitlab-ci.yml, then run the pipeline again:\n{}", yaml())
        }
        VerifyRule::ClaimMissing | VerifyRule::ClaimInvalid => {
            "the GitLab server is older than this site supports, or the pipeline has no user; start it as a \
             person, or ask the people below"
                .to_owned()
        }
        VerifyRule::JobMismatch
        | VerifyRule::ProjectMismatch
        | VerifyRule::PipelineMismatch
        | VerifyRule::UserMismatch => format!(
            "a token is good for one job; remove {variable} from `variables:` and do not pass it on by artifacts \
             or dotenv reports"
        ),
        VerifyRule::RunnerMismatch => {
            "[auth] runner_id names another runner than the one that took the job; the people below can mend that".to_owned()
        }
        VerifyRule::ResponseUnreadable => "retry the job; if it happens again, ask the people below".to_owned(),
        VerifyRule::ResponseTooLarge => {
            "shorten the job's variables and its script; large data belongs into the repository or an artifact"
                .to_owned()
        }
        VerifyRule::KeysUnreadable => {
            "[general] gitlab_server does not answer as a GitLab server does; the people below can mend that".to_owned()
        }
    }
}

/// One line: what is not shown as itself is written as `\u{..}`, and so is a line end.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        if line.len() >= TEXT_MAX_BYTES {
            line.push_str("...");
            break;
        }
        if is_shown(character) {
            line.push(character);
        } else {
            line.extend(character.escape_unicode());
        }
    }
    line
}

/// Lines that can be pasted: the first stands behind its label, the others at the margin.
fn lines(text: &str) -> String {
    text.trim_end_matches('\n').split('\n').map(one_line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(object: &str, cause: &str, hint: &str) -> Refusal {
        Refusal {
            rule: "some_rule".to_owned(),
            object: object.to_owned(),
            cause: cause.to_owned(),
            hint: hint.to_owned(),
        }
    }

    #[test]
    fn object_cause_hint_contact_rule() {
        let text = message(&refusal("account bob", "no", "do\nthis\n"), "hpc@example.org");
        assert_eq!(
            text,
            "\x1b[31;1mERROR: account bob: no\x1b[0;m\n\x1b[33;1mhint:\x1b[0;m do\nthis\n\
             \x1b[33;1mask:\x1b[0;m hpc@example.org (rule some_rule)\n"
        );
        let text = message(&refusal("account bob", "no", ""), "");
        assert!(!text.contains("hint:"));
        assert!(text.contains("ask:\x1b[0;m the administrators of this runner (rule some_rule)"));
    }

    #[test]
    fn a_strangers_text_cannot_act_on_the_log() {
        let evil = "a\x1b[2J\r\nsection_start:1:x\u{202e}\u{9b}1m";
        let text = message(&refusal(evil, evil, evil), evil);
        let ours = text.replace(RED, "").replace(YELLOW, "").replace(END, "");
        assert!(ours.chars().all(|c| c == '\n' || is_shown(c)), "{ours:?}");
        assert!(ours.contains(r"a\u{1b}[2J\u{d}\u{a}section_start:1:x\u{202e}\u{9b}1m"), "{ours}");
    }

    #[test]
    fn a_long_text_is_cut() {
        let text = message(&refusal(&"x".repeat(1_000_000), "no", &"é".repeat(1_000_000)), "");
        assert!(text.len() < 3 * TEXT_MAX_BYTES, "{}", text.len());
        assert!(text.contains("x...: no"));
    }

    #[test]
    fn the_yaml_names_variable_and_audience() {
        let site = TokenSite {
            variable: "SITE_ID_TOKEN",
            audience: Some("https://hpc.example.org"),
            issuer: "https://gitlab.example.com",
        };
        assert_eq!(
            id_tokens_yaml(site),
            "default:\n  id_tokens:\n    SITE_ID_TOKEN:\n      aud: \"https://hpc.example.org\"\n"
        );
        let any = TokenSite { audience: None, ..site };
        assert!(id_tokens_yaml(any).ends_with("aud: \"https://gitlab.example.com\"\n"));
        let odd = TokenSite { audience: Some("a\"b: #c"), ..site };
        assert!(id_tokens_yaml(odd).ends_with("aud: \"a\\\"b: #c\"\n"));
    }
}
