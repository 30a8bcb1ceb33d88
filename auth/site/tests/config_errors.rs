//! Each message about a configuration, word for word.
#![forbid(unsafe_code)]

use jacamar_site::accounts::UidMin;
use jacamar_site::config::Config;
use jacamar_site::source::{ConfigErrors, Document};

const GENERAL: &str =
    "[general]\nexecutor = \"shell\"\ndata_dir = \"$HOME\"\ngitlab_server = \"https://gitlab.example.com\"\n";
const AUTH: &str = "[auth]\ndownscope = \"setuid\"\n";

fn errors(text: &str) -> ConfigErrors {
    Config::parse(&Document::new("x", text), &UidMin::FALLBACK).expect_err(text)
}

/// The one error and its hint.
fn one(text: &str) -> (String, String) {
    let errors = errors(text);
    assert_eq!(errors.iter().count(), 1, "{errors}");
    errors.iter().map(|error| (error.to_string(), error.hint.clone())).next().expect("one")
}

/// A line at the end of `[general]` or `[auth]`.
fn general(line: &str) -> (String, String) {
    one(&format!("{AUTH}{GENERAL}{line}\n"))
}

fn auth(line: &str) -> (String, String) {
    one(&format!("{GENERAL}{AUTH}{line}\n"))
}

fn sandbox(line: &str) -> (String, String) {
    one(&format!("{GENERAL}{AUTH}[sandbox]\n{line}\n"))
}

#[track_caller]
fn check((message, hint): (String, String), expected: &str, expected_hint: &str) {
    assert_eq!((message.as_str(), hint.as_str()), (expected, expected_hint));
}

#[test]
fn unknown_keys_name_the_nearest() {
    check(general("nmae = 1"), "x:7: unknown key \"nmae\" in [general], did you mean \"name\"?", "");
    check(
        general("tls_ca_file = \"/x\""),
        "x:7: unknown key \"tls_ca_file\" in [general], did you mean \"tls-ca-file\"?",
        "",
    );
    check(general("zzz = 1"), "x:7: unknown key \"zzz\" in [general]", "");
    check(general("\"\\u001b[31m\" = 1"), "x:7: unknown key \"\\u{1b}[31m\" in [general]", "");
    check(general("podmann = {}"), "x:7: unknown key \"podmann\" in [general], did you mean \"podman\"?", "");
    check(
        general("minimum_uid = 1"),
        "x:7: unknown key \"minimum_uid\" in [general]",
        "this key belongs into [auth]",
    );
    check(
        auth("[auth.loging]\nlevel = \"debug\""),
        "x:7: unknown key \"loging\" in [auth], did you mean \"logging\"?",
        "",
    );
    check(
        one(&format!("executor = \"shell\"\n{GENERAL}{AUTH}")),
        "x:1: unknown key \"executor\" at the top of the file",
        "this key belongs into [general]",
    );
    check(
        one(&format!("{GENERAL}{AUTH}[sandbx]\n")),
        "x:7: unknown key \"sandbx\" at the top of the file, did you mean \"sandbox\"?",
        "",
    );
    check(
        one("concurrent = 1\n[[runners]]\n".trim_start_matches("concurrent = 1\n")),
        "x:1: unknown key \"runners\" at the top of the file",
        "this looks like GitLab Runner's config.toml; --configuration names a file of its own",
    );
}

#[test]
fn keys_that_nobody_publishes_are_refused_unless_they_are_off() {
    check(
        auth("[feature_flags]\nff_new = true"),
        "x:8: \"ff_new\" in [feature_flags] is not built yet",
        "remove the line or write `false`",
    );
    check(
        auth("[general.charliecloud]\npath = \"\""),
        "x:8: \"path\" in [general.charliecloud] is not built yet",
        "remove the line or write `false`",
    );
    let text =
        format!("{GENERAL}{AUTH}[feature_flags]\nff_new = false\n[general.charliecloud]\n[auth.runas]\n");
    assert!(Config::parse(&Document::new("x", text), &UidMin::FALLBACK).is_ok());
}

#[test]
fn a_wrong_type_shows_a_right_line() {
    check(
        general("kill_timeout = 120"),
        "x:7: \"kill_timeout\" in [general] must be a duration in quotes, found a whole number",
        "for example: kill_timeout = \"90s\"",
    );
    check(
        general("retain_logs = \"true\""),
        "x:7: \"retain_logs\" in [general] must be `true` or `false`, found a text",
        "for example: retain_logs = true",
    );
    check(
        general("name = 4.5"),
        "x:7: \"name\" in [general] must be a text in quotes, found a number with a fraction",
        "for example: name = \"...\"",
    );
    check(
        auth("user_allowlist = \"alice\""),
        "x:7: \"user_allowlist\" in [auth] must be a list of texts in quotes, found a text",
        "for example: user_allowlist = [\"...\", \"...\"]",
    );
    check(
        auth("user_allowlist = [\n  \"alice\",\n  7,\n]"),
        "x:9: \"user_allowlist\" in [auth] must be a list of texts in quotes, found a whole number in it",
        "for example: user_allowlist = [\"...\", \"...\"]",
    );
    check(
        auth("max_env_chars = \"10000\""),
        "x:7: \"max_env_chars\" in [auth] must be a whole number, found a text",
        "for example: max_env_chars = 10000",
    );
    check(
        sandbox("mode = true"),
        "x:8: \"mode\" in [sandbox] must be \"enforce\" (not built yet: \"observe\", \"warn\"), found `true` or `false`",
        "for example: mode = \"enforce\"",
    );
    check(
        one(&format!("auth = 1\n{GENERAL}")),
        "x:1: [auth] is a table of keys, found a whole number",
        "write [auth] on a line of its own",
    );
}

#[test]
fn numbers_have_a_range() {
    check(auth("runner_id = -1"), "x:7: \"runner_id\" in [auth] is out of range", "");
    check(auth("runner_id = 99999999999999999999"), "x:7: \"runner_id\" in [auth] is out of range", "");
    check(auth("runner_id = 0"), "x:7: \"runner_id\" in [auth]: 0 is not possible, at least 1", "");
    check(
        auth("minimum_uid = 4294967295"),
        "x:7: \"minimum_uid\" in [auth]: 4294967295 is not possible, at most 4294967294",
        "",
    );
    check(auth("max_env_chars = 0"), "x:7: \"max_env_chars\" in [auth]: 0 is not possible, at least 1", "");
}

#[test]
fn durations_say_their_form_and_maximum() {
    check(
        general("kill_timeout = \"120\""),
        "x:7: \"kill_timeout\" in [general]: \"120\" is not a duration",
        "a duration is a number with a unit, such as \"120s\", \"2m\", \"1h30m\" or \"500ms\"",
    );
    check(
        general("kill_timeout = \"25h\""),
        "x:7: \"kill_timeout\" in [general]: \"25h\" is more than 24h",
        "",
    );
    check(general("kill_timeout = \"-1s\""), "x:7: \"kill_timeout\" in [general]: \"-1s\" is negative", "");
    check(
        general("kill_timeout = \"0s\""),
        "x:7: \"kill_timeout\" in [general]: no time at all",
        "give a job at least `1ms` to end by itself, or remove the line",
    );
    check(auth("jwt_exp_delay = \"2h\""), "x:7: \"jwt_exp_delay\" in [auth]: \"2h\" is more than 1h", "");
}

#[test]
fn a_wrong_word_shows_the_nearest_and_all() {
    check(
        sandbox("mode = \"enforced\""),
        "x:8: \"mode\" in [sandbox] is \"enforced\", which is not known, did you mean \"enforce\"?",
        "it is \"enforce\" (not built yet: \"observe\", \"warn\")",
    );
    check(
        sandbox("mode = \"warn\""),
        "x:8: \"mode\" in [sandbox] is \"warn\", which is not built yet: modes that only observe",
        "what is built: mode = \"enforce\"",
    );
    check(
        one(&format!("{GENERAL}[auth]\ndownscope = \"\"\n")),
        "x:6: \"downscope\" in [auth] is \"\", which is not known",
        "it is \"setuid\" or \"none\" (not built yet: \"sudo\", \"su\")",
    );
}

#[test]
fn what_must_be_set_is_printed_as_a_line_to_add() {
    let found: Vec<_> =
        errors("[general]\n\n[auth]\n").iter().map(|error| (error.to_string(), error.hint.clone())).collect();
    let found: Vec<_> = found.iter().map(|(message, hint)| (message.as_str(), hint.as_str())).collect();
    assert_eq!(
        found,
        [
            (
                "x:1: \"executor\" in [general] must be set: where the job's script runs",
                "below [general] add the line: executor = \"shell\""
            ),
            (
                "x:1: \"data_dir\" in [general] must be set: base of all files of jobs: `$HOME` or `$HOME/...`, to \
                 which `.jacamar-ci` is added, or an absolute path, to which the account is added",
                "below [general] add the line: data_dir = \"$HOME\""
            ),
            (
                "x:1: \"gitlab_server\" in [general] must be set: the GitLab server; never taken from the job",
                "below [general] add the line: gitlab_server = \"https://gitlab.example.com\""
            ),
            (
                "x:3: \"downscope\" in [auth] must be set: how the job becomes its user",
                "below [auth] add the line: downscope = \"setuid\""
            ),
        ]
    );
    assert_eq!(errors("").iter().count(), 4);
}

#[test]
fn single_values_are_judged() {
    check(
        one(&format!(
            "{AUTH}[general]\nexecutor = \"shell\"\ngitlab_server = \"https://h\"\ndata_dir = \"work\"\n"
        )),
        "x:6: \"data_dir\" in [general]: \"work\" is neither an absolute path nor below `$HOME`",
        "write for example `data_dir = \"$HOME\"` or `data_dir = \"/ecp\"`",
    );
    check(
        one(&format!(
            "{AUTH}[general]\nexecutor = \"shell\"\ndata_dir = \"/x\"\ngitlab_server = \"gitlab.example.com\"\n"
        )),
        "x:6: \"gitlab_server\" in [general]: \"gitlab.example.com\" does not begin with https:// or http://",
        "write for example \"https://gitlab.example.com\"",
    );
    check(
        general("shell_path = \"bash\""),
        "x:7: \"shell_path\" in [general]: \"bash\" is not an absolute path",
        "begin it with a slash",
    );
    check(
        general("jwt_env_variable = \"CUSTOM_ENV_TOKEN\""),
        "x:7: \"jwt_env_variable\" in [general]: \"CUSTOM_ENV_TOKEN\" is the runner's name for the variable",
        "write the job's name for it: \"TOKEN\"",
    );
    check(
        general("jwt_env_variable = \"1X\""),
        "x:7: \"jwt_env_variable\" in [general]: \"1X\" is not the name of a variable",
        "a variable's name has letters, digits and `_`, and begins with no digit",
    );
    check(
        general("user_bash_env = [\"A=1\", \"B\"]"),
        "x:7: \"user_bash_env\" in [general]: \"B\" is not of the form NAME=value",
        "",
    );
    check(
        general("name = \"a\\nb\""),
        "x:7: \"name\" in [general] has control characters; it is one line of text",
        "",
    );
    check(
        general(&format!("job_message = \"{}\"", "x".repeat(8193))),
        "x:7: \"job_message\" in [general] has 8193 bytes, at most 8192 are possible",
        "",
    );
    check(
        auth("user_blocklist = [\"alice, bob\"]"),
        "x:7: \"user_blocklist\" in [auth]: \"alice, bob\" is not one name",
        "each name is an entry of its own: [\"alice\", \"bob\"]",
    );
    check(
        auth("user_blocklist = [\"\"]"),
        "x:7: \"user_blocklist\" in [auth] has an empty entry",
        "for example: user_blocklist = [\"...\", \"...\"]",
    );
    check(
        auth("run_stage_allowlist = [\"../x\"]"),
        "x:7: \"run_stage_allowlist\" in [auth]: \"../x\" is not the name of a sub-stage (letters, digits, `_`, `-`, \
         `.`; at most 64 characters)",
        "",
    );
    check(
        auth("jwt_required_aud = \"a b\""),
        "x:7: \"jwt_required_aud\" in [auth]: \"a b\" has spaces in it",
        "",
    );
    check(
        auth("logging.location = \"file\""),
        "x:7: \"location\" in [auth.logging]: \"file\" is neither `syslog` nor an absolute path",
        "remove the line for journald",
    );
    check(
        sandbox("profile = \"../etc\""),
        "x:8: \"profile\" in [sandbox]: \"../etc\" is not the name of a profile",
        "it has letters, digits, `_` and `-`, at most 64; the file is found by it",
    );
    check(
        sandbox("cgroup = \"jacamar\""),
        "x:8: \"cgroup\" in [sandbox]: \"jacamar\" is neither `auto` nor `none` nor an absolute path",
        "",
    );
    check(
        sandbox("tmp_dir = \"/a/../b\""),
        "x:8: \"tmp_dir\" in [sandbox]: \"/a/../b\" has `.` or `..` in it",
        "write the path without them",
    );
}

#[test]
fn a_password_is_in_no_message() {
    let errors = errors(&format!("{AUTH}{GENERAL}https_proxy = \"http://me:hunter2@proxy\"\n"));
    assert!(!errors.render().contains("hunter2"), "{}", errors.render());
    assert_eq!(
        errors.to_string(),
        "x:7: \"https_proxy\" in [general]: the URL has a user name or a password in it"
    );
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    let text = format!("{AUTH}runer_id = 1\n{GENERAL}retain_logs = 1\ncustom_build_dir = true\n");
    assert_eq!(
        errors(&text).to_string(),
        "x:3: unknown key \"runer_id\" in [auth], did you mean \"runner_id\"?\n\
         x:8: \"retain_logs\" in [general] must be `true` or `false`, found a whole number\n\
         x:9: \"custom_build_dir\" in [general] is not built yet: build directories of the job's choice"
    );
}

#[test]
fn their_number_is_bounded() {
    let mut text = format!("{AUTH}{GENERAL}");
    for number in 0..10_000 {
        text.push_str(&format!("key{number} = 1\n"));
    }
    assert_eq!(errors(&text).iter().count(), 50);
}

#[test]
fn a_duplicate_key_stands_on_its_second_line() {
    assert_eq!(one(&format!("{GENERAL}executor = \"shell\"\n")).0, "x:5: duplicate key");
}

#[test]
fn a_person_sees_the_line_with_a_mark() {
    let errors = errors(&format!("{AUTH}{GENERAL}kil_timeout = \"90s\"\n"));
    assert_eq!(
        errors.render(),
        "error: unknown key \"kil_timeout\" in [general], did you mean \"kill_timeout\"?\n --> x:7:1\n  |\n\
         7 | kil_timeout = \"90s\"\n  | ^^^^^^^^^^^"
    );
}
