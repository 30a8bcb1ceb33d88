//! What a configuration means: each key of the table does what the table says.
#![forbid(unsafe_code)]

use jacamar_site::accounts::UidMin;
use jacamar_site::config::{
    AbsolutePath, Cgroup, Config, DataDir, Downscope, Executor, Fallback, Key, Kind, LogLevel, LogLocation,
    Millis, Mode, Status, keys, markdown,
};
use jacamar_site::source::{ConfigErrors, Document, Origin};

const MINIMAL: [(&str, &str, &str); 4] = [
    ("general", "executor", "\"shell\""),
    ("general", "data_dir", "\"$HOME\""),
    ("general", "gitlab_server", "\"https://gitlab.example.com\""),
    ("auth", "downscope", "\"setuid\""),
];

/// The minimal file with one key set.
fn with(table: &str, name: &str, value: &str) -> String {
    let mut lines: Vec<_> = MINIMAL.into_iter().filter(|line| (line.0, line.1) != (table, name)).collect();
    lines.push((table, name, value));
    lines.iter().map(|(table, name, value)| format!("{table}.{name} = {value}\n")).collect()
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(&Document::new("site.toml", text), &UidMin::FALLBACK)
}

fn minimal() -> Config {
    parse(&with("general", "executor", "\"shell\"")).expect("minimal")
}

fn default_of(key: &Key) -> Option<String> {
    match key.default {
        Fallback::Required(_) | Fallback::Nothing(_) => None,
        Fallback::Off => Some("false".to_owned()),
        Fallback::On => Some("true".to_owned()),
        Fallback::Text(text) | Fallback::Duration(text) => Some(format!("{text:?}")),
        Fallback::Number(number) => Some(number.to_string()),
    }
}

/// A value of the right type that is not the default.
fn other_value(key: &Key) -> String {
    let special = match (key.table, key.name) {
        ("general", "data_dir") => "\"/ecp\"",
        ("general", "gitlab_server") => "\"https://other.example.com\"",
        ("general", "https_proxy") => "\"http://proxy:3128\"",
        ("general", "shell_path" | "tls-ca-file") | ("auth", "jacamar_path") | ("sandbox", "tmp_dir") => {
            "\"/some/path\""
        }
        ("general", "user_bash_env") => "[\"A=b\"]",
        ("auth", "shell_allowlist") => "[\"/bin/zsh\"]",
        ("auth.logging", "location") => "\"syslog\"",
        ("auth.logging", "level") => "\"warn\"",
        ("auth", "downscope") => "\"none\"",
        ("sandbox", "cgroup") => "\"none\"",
        _ => "",
    };
    if !special.is_empty() {
        return special.to_owned();
    }
    match (key.kind, key.default) {
        (Kind::Switch, Fallback::On) => "false".to_owned(),
        (Kind::Switch, _) => "true".to_owned(),
        (Kind::Text | Kind::Prose, _) => "\"another\"".to_owned(),
        (Kind::List, _) => "[\"another\"]".to_owned(),
        (Kind::Number, _) => "77".to_owned(),
        (Kind::Duration, _) => "\"77s\"".to_owned(),
        (Kind::Word(words), _) => format!("{:?}", words.last().expect("words").text),
    }
}

#[test]
fn a_key_that_is_built_changes_the_settings() {
    // Nothing to change: one word alone is built, or no stage needs the value.
    let without_effect = ["executor", "mode", "jwt_exp_delay"];
    for key in keys().iter().filter(|key| key.status == Status::Built && !without_effect.contains(&key.name))
    {
        let text = with(key.table, key.name, &other_value(key));
        let config = parse(&text).unwrap_or_else(|errors| panic!("{text}{errors}"));
        assert_ne!(config.settings, minimal().settings, "{text}");
        let line = text.lines().count();
        assert_eq!(config.origin(&format!("{}.{}", key.table, key.name)), format!("site.toml:{line}"));
    }
}

#[test]
fn a_default_that_is_written_changes_nothing() {
    for key in keys() {
        let mut values: Vec<String> = default_of(key).into_iter().collect();
        match key.kind {
            Kind::Text | Kind::Prose => values.push("\"\"".to_owned()),
            Kind::List => values.push("[]".to_owned()),
            Kind::Switch | Kind::Number | Kind::Duration | Kind::Word(_) => {}
        }
        for value in values {
            if matches!(key.default, Fallback::Required(_)) {
                continue;
            }
            let text = with(key.table, key.name, &value);
            let config = parse(&text).unwrap_or_else(|errors| panic!("{text}{errors}"));
            assert_eq!(config.settings, minimal().settings, "{text}");
        }
    }
}

#[test]
fn a_key_that_is_not_built_is_refused_by_name() {
    for key in keys() {
        let Status::NotYet(what) = key.status else { continue };
        let text = with(key.table, key.name, &other_value(key));
        let errors = parse(&text).expect_err(&text);
        assert_eq!(
            errors.to_string(),
            format!("site.toml:5: {:?} in [{}] is not built yet: {what}", key.name, key.table)
        );
        let hint = &errors.iter().next().expect("one").hint;
        match default_of(key) {
            Some(value) => assert_eq!(*hint, format!("remove the line or write its default, `{value}`")),
            None => assert_eq!(hint, "remove the line"),
        }
    }
}

#[test]
fn a_word_that_is_not_built_is_refused_by_name() {
    let mut refused = 0;
    for key in keys() {
        let Kind::Word(words) = key.kind else { continue };
        for word in words {
            let text = with(key.table, key.name, &format!("{:?}", word.text));
            match word.status {
                Status::Built => assert!(parse(&text).is_ok(), "{text}"),
                Status::NotYet(what) => {
                    let message = format!(
                        ": {:?} in [{}] is {:?}, which is not built yet: {what}",
                        key.name, key.table, word.text
                    );
                    let errors = parse(&text).expect_err(&text).to_string();
                    assert!(errors.ends_with(&message), "{errors}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(refused, 12);
}

#[test]
fn the_defaults_are_these() {
    let Config { settings, origins } = minimal();
    let general = settings.general;
    assert_eq!(general.executor, Executor::Shell);
    assert_eq!(general.data_dir, DataDir::Home { below: String::new() });
    assert_eq!(general.kill_timeout, Millis::from_secs(120));
    assert_eq!(general.jwt_env_variable, "CI_JOB_JWT");
    assert_eq!(settings.auth.downscope, Downscope::Setuid);
    assert_eq!(settings.auth.jwt_issuer, "https://gitlab.example.com");
    assert_eq!(settings.auth.minimum_uid, 1000);
    assert_eq!(settings.auth.max_env_chars, 10_000);
    assert_eq!(settings.auth.logging.location, LogLocation::Auto);
    assert_eq!(settings.auth.logging.level, LogLevel::Debug);
    assert_eq!(settings.sandbox.profile, None);
    assert_eq!(settings.sandbox.mode, Mode::Enforce);
    assert_eq!(settings.sandbox.cgroup, Cgroup::Auto);
    assert_eq!(origins.len(), 4);
}

#[test]
fn values_that_are_not_defaults_arrive() {
    let path = |text: &str| AbsolutePath::new(text).expect(text);
    let text = r#"
        [general]
        executor = "shell"
        data_dir = "$HOME/ci"
        gitlab_server = "http://gitlab.example.com:8080/git/"
        kill_timeout = "1m30s"
        tls-ca-file = "/etc/pki/site.pem"
        job_message = """
Welcome!
\u001b[32mGreen.\u001b[0m"""
        [auth]
        downscope = "none"
        jwt_issuer = "https://issuer.example.com"
        runner_id = 42
        minimum_uid = 500
        user_allowlist = ["alice", 'DOM\bob']
        groups_blocklist = ["domain users"]
        shell_allowlist = ["/bin/bash"]
        run_stage_allowlist = ["get_sources", "step_script"]
        [auth.logging]
        location = "/var/log/jacamar.log"
        [sandbox]
        profile = "default"
        cgroup = "/jacamar.slice/ci"
        tmp_dir = "/scratch/tmp/"
    "#;
    let settings = parse(text).unwrap_or_else(|errors| panic!("{errors}")).settings;
    assert_eq!(settings.general.data_dir.of("alice", "/home/alice"), "/home/alice/ci/.jacamar-ci");
    assert_eq!(settings.general.gitlab_server.as_str(), "http://gitlab.example.com:8080/git");
    assert_eq!(settings.general.kill_timeout, Millis(90_000));
    assert_eq!(settings.general.job_message, "Welcome!\n\u{1b}[32mGreen.\u{1b}[0m");
    assert_eq!(settings.general.tls_ca_file, Some(path("/etc/pki/site.pem")));
    assert_eq!(settings.auth.jwt_issuer, "https://issuer.example.com");
    assert_eq!((settings.auth.runner_id, settings.auth.minimum_uid), (Some(42), 500));
    assert_eq!(settings.auth.user_allowlist, ["alice", "DOM\\bob"]);
    assert_eq!(settings.auth.run_stage_allowlist.len(), 2);
    assert_eq!(settings.auth.logging.location, LogLocation::File(path("/var/log/jacamar.log")));
    assert_eq!(settings.sandbox.cgroup, Cgroup::Path(path("/jacamar.slice/ci")));
    assert_eq!(settings.sandbox.tmp_dir, Some(path("/scratch/tmp")));
}

#[test]
fn minimum_uid_is_login_defs_unless_it_is_set() {
    let uid_min = UidMin { uid: 500, origin: Some(Origin { path: "/etc/login.defs".to_owned(), line: 172 }) };
    let parsed = |text: &str| Config::parse(&Document::new("site.toml", text), &uid_min).expect("valid");
    let config = parsed(&with("general", "name", "\"x\""));
    assert_eq!(
        (config.settings.auth.minimum_uid, config.origin("auth.minimum_uid")),
        (500, "/etc/login.defs:172".to_owned())
    );
    let config = parsed(&with("auth", "minimum_uid", "2000"));
    assert_eq!(
        (config.settings.auth.minimum_uid, config.origin("auth.minimum_uid")),
        (2000, "site.toml:5".to_owned())
    );
    assert_eq!(minimal().origin("auth.minimum_uid"), "default");
}

#[test]
fn settings_survive_a_record_and_nothing_else_is_accepted_there() {
    let config = parse(&with("sandbox", "cgroup", "\"/a/b\"")).expect("valid");
    let json = serde_json::to_string(&config).expect("JSON");
    assert_eq!(serde_json::from_str::<Config>(&json).expect("read back"), config);
    for (from, to) in [
        ("\"$HOME\"", "\"HOME\""),
        ("https://gitlab", "gitlab"),
        ("\"/a/b\"", "\"/a/../b\""),
        ("\"retain_logs\"", "\"retain_log\""),
        ("\"kill_timeout\":120000", "\"kill_timeout\":-1"),
    ] {
        assert!(json.contains(from), "{from} {json}");
        assert!(serde_json::from_str::<Config>(&json.replace(from, to)).is_err(), "{to}");
    }
}

#[test]
fn the_documentation_has_every_key_and_every_table() {
    let text = markdown();
    for key in keys() {
        assert!(text.contains(&format!("| `{}` |", key.name)), "{}", key.name);
        assert!(text.contains(&format!("### `[{}]`", key.table)), "{}", key.table);
    }
    let row = "| `kill_timeout` | a duration in quotes | `\"120s\"` | time between SIGTERM and SIGKILL; at most 24h |";
    assert!(text.lines().any(|line| line == row), "{text}");
    let lines = text.lines().filter(|line| line.starts_with("| `")).count();
    // Two of [sandbox.user], which is read like a profile.
    assert_eq!(lines, keys().len() + 2);
}
