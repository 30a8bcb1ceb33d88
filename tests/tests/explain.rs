//! `explain` for host facts of the systems that sites run, at each level, for each shipped profile: checked in and
//! reviewed like code. And the list of keys in `docs/profiles.md`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p testbed --test explain` writes the files anew and fails, so that it is never a
//! green run; read the difference before it is committed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jacamar_plan::{
    Account, CgroupHost, CgroupVersion, Delegated, Directories, Explanation, Grant, Host, Job, Key, Level,
    Manager, Plan, Refusal, Site, Stage, SubStage,
};

const LEVELS: [Level; 3] = [Level::Root, Level::Capabilities, Level::User];
const PROFILES: [&str; 2] = ["default", "compat"];

fn golden(folder: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).join(folder)
}

/// Host facts by name, as root finds them: `tests/golden/hosts/*.json`.
fn hosts() -> Vec<(String, Host)> {
    let entries = std::fs::read_dir(golden("hosts")).expect("tests/golden/hosts");
    let mut hosts: Vec<(String, Host)> = entries
        .map(|entry| {
            let path = entry.expect("entry").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).expect("host facts");
            (name, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        })
        .collect();
    hosts.sort_by(|(a, _), (b, _)| a.cmp(b));
    hosts
}

/// The same host, asked by a process of another level. What changes is what the kernel answers to such a process:
///
/// - Below root all namespaces are made in a user namespace: without one there is none of them.
/// - Root makes control groups below the root group. Others have what systemd delegated to them: to a service of the
///   system with `Delegate=yes` (capabilities), to one of the user's own manager (user). On cgroup v1 and hybrid it delegates nothing that
///   helps.
fn at_level(mut host: Host, level: Level) -> Host {
    host.level = level;
    let (own, delegated) = match level {
        Level::Root => return host,
        Level::Capabilities => ("/system.slice/gitlab-runner.service", "/system.slice/gitlab-runner.service"),
        Level::User => (
            "/user.slice/user-1001.slice/session-1.scope",
            "/user.slice/user-1001.slice/user@1001.service/app.slice/gitlab-runner.service",
        ),
    };
    if !host.user_namespaces.is_present() {
        (host.namespaces, host.own_proc) = (host.user_namespaces, host.user_namespaces);
    }
    host.raises_limits = false;
    (host.cgroup.manager, host.cgroup.systemd) = (Manager::Ourselves, None);
    if !host.cgroup.version1.is_empty() {
        host.cgroup.version1.clear();
        host.cgroup.controllers.clear();
        host.cgroup.missing.clear();
    }
    let CgroupHost { version, node, controllers, delegated: group, .. } = &mut host.cgroup;
    match (*version, &node) {
        (CgroupVersion::V2, Ok(_)) => {
            let path = format!("/sys/fs/cgroup{delegated}");
            *node = Ok(format!("{path}/jacamar.slice"));
            // The runner, until we move it.
            *group = Some(Delegated { path, crowded: true });
            controllers.retain(|name| ["cpu", "memory", "pids"].contains(&name.as_str()));
        }
        (CgroupVersion::Hybrid, Ok(_)) => {
            let path = format!("/sys/fs/cgroup/unified{own}");
            *node = Err(format!("{path} is not delegated to us ({path}: Permission denied)"));
        }
        (CgroupVersion::None | CgroupVersion::V1, _)
        | (CgroupVersion::V2 | CgroupVersion::Hybrid, Err(_)) => {}
    }
    host
}

fn planned(host: &Host, profile: &str) -> Result<Plan, Refusal> {
    let account = Account {
        name: "alice".into(),
        uid: 1001,
        gid: 1001,
        groups: vec![1001, 2000, 2001, 5000],
        home: "/users/alice".into(),
        shell: "/bin/bash".into(),
    };
    let grant = Grant { account, claims_digest: String::new(), rule: "user_allowlist".into() };
    let at = |name: &str| format!("/var/lib/jacamar/tmp/4711/{name}");
    let directories = Directories { tmp: at("tmp"), var_tmp: at("var-tmp"), ssh_config: at("ssh_config.d") };
    let job = Job { id: "4711".into(), directories, working_directory: "/users/alice".into() };
    let stage = Stage::Run(SubStage::new("build_script").expect("a sub-stage"));
    let profile = jacamar_site::profile::profile(profile).expect("a shipped profile");
    let plan = jacamar_plan::plan(&grant, &profile, &Site::default(), host, &job, &stage)?;
    Ok(jacamar_plan::check(plan).expect("the checker accepts every plan").plan().clone())
}

fn explained(host: &Host, profile: &str) -> Result<Explanation, Refusal> {
    planned(host, profile).map(|plan| jacamar_plan::explain(&plan))
}

/// As the programs print a refusal.
fn in_words(result: Result<Explanation, Refusal>) -> String {
    match result {
        Ok(explanation) => explanation.to_string(),
        Err(refusal) => format!("refused: {refusal}\nhint: {}\n", refusal.hint),
    }
}

/// Compares with the checked-in files: no text differs, none is missing, none is left over.
fn compare(texts: &[(String, String)]) {
    let folder = golden("explain");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    if update {
        std::fs::create_dir_all(&folder).expect("folder");
        for (name, text) in texts {
            std::fs::write(folder.join(name), text).expect("file");
        }
    }
    for (name, text) in texts {
        let expected =
            std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let differing = (1..).zip(text.lines().zip(expected.lines())).find(|(_, (is, was))| is != was);
        assert!(*text == expected, "{name} has changed, first in line {differing:?} (is, checked in)");
    }
    let expected: BTreeSet<&str> = texts.iter().map(|(name, _)| name.as_str()).collect();
    for entry in std::fs::read_dir(&folder).expect("folder") {
        let name = entry.expect("entry").file_name().into_string().expect("text");
        assert!(expected.contains(name.as_str()), "tests/golden/explain/{name} is left over");
    }
    assert!(!update, "the files were written; run the test again without UPDATE_GOLDEN");
}

#[test]
fn each_host_level_and_profile_as_checked_in() {
    let mut texts = Vec::new();
    for (name, host) in hosts() {
        for level in LEVELS {
            let host = at_level(host.clone(), level);
            for profile in PROFILES {
                texts.push((format!("{name}-{level}-{profile}.txt"), in_words(explained(&host, profile))));
            }
        }
        if name == "el9" {
            let explanation = explained(&host, "default").expect("a plan");
            texts.push((format!("{name}-root-default.json"), explanation.to_json().expect("JSON") + "\n"));
        }
    }
    compare(&texts);
}

/// What a profile asked for is either a reason of a step, or a value that asks for nothing, or a `without` line.
#[test]
fn no_key_of_a_profile_is_passed_over_in_silence() {
    for (name, host) in hosts() {
        for (level, profile) in LEVELS.into_iter().flat_map(|level| PROFILES.map(|profile| (level, profile)))
        {
            let host = at_level(host.clone(), level);
            let Ok(plan) = planned(&host, profile) else { continue };
            let explanation = jacamar_plan::explain(&plan);
            let reasons: BTreeSet<Key> =
                explanation.steps.iter().flat_map(|step| &step.reasons).map(|reason| reason.key).collect();
            for key in plan.origin.keys() {
                assert!(reasons.contains(key), "{name} {level} {profile}: no step says {key}");
            }
            for without in &plan.without {
                let given = reasons.iter().any(|key| key.to_string() == without.what);
                assert!(!given, "{name} {level} {profile}: {} is given and missing", without.what);
            }
        }
    }
}

/// A key without a section in the document, or a section without a key.
#[test]
fn every_key_has_its_section_in_the_document() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/profiles.md");
    let document = std::fs::read_to_string(file).expect("docs/profiles.md");
    // One heading may name several keys.
    let sections: Vec<(Vec<&str>, &str)> = document
        .split("\n### `")
        .skip(1)
        .filter_map(|section| {
            let (heading, text) = section.split_once("`\n")?;
            Some((heading.split("`, `").collect(), text))
        })
        .collect();
    let named: Vec<&str> = sections.iter().flat_map(|(keys, _)| keys.iter().copied()).collect();
    let keys: Vec<String> = Key::all().map(|key| key.to_string()).collect();
    assert_eq!(named, keys, "headings of docs/profiles.md and Key::all()");
    for (names, text) in sections {
        for name in names {
            let key = Key::named(name).expect("compared above");
            let place = format!("`[{}]`", key.table());
            assert!(text.contains(&place), "the section of {key} does not name its table {place}");
        }
    }
    for name in jacamar_site::profile::names() {
        assert!(
            document.contains(&format!("| `{name}` |")),
            "docs/profiles.md does not list the profile {name}"
        );
    }
}
