//! Submodules, within `get_sources`.

use super::sources::{EXTERNAL_VARIABLE, with};
use super::writer::Writer;
use crate::runner::build::Build;
use crate::runner::failure::Failure;
use crate::runner::settings::Submodules;

pub(super) fn update(w: &mut Writer<'_>, build: &Build) -> Result<(), Failure> {
    match build.settings().submodules() {
        Submodules::Normal => update_all(w, build, false),
        Submodules::Recursive => update_all(w, build, true),
        Submodules::None => {
            w.notice("Skipping Git submodules setup");
            Ok(())
        }
        Submodules::Invalid => Err(Failure::system("unknown GIT_SUBMODULE_STRATEGY")),
    }
}

/// Submodules do not read the configuration of the project: they are told of it.
fn with_credentials(arguments: &[&str]) -> Vec<String> {
    let include = format!("include.path=${EXTERNAL_VARIABLE}");
    ["git", "-c", &include].into_iter().chain(arguments.iter().copied()).map(str::to_owned).collect()
}

fn expanding(w: &mut Writer<'_>, words: &[String]) {
    w.command_expanding(&words.iter().map(String::as_str).collect::<Vec<_>>());
}

fn update_all(w: &mut Writer<'_>, build: &Build, recursive: bool) -> Result<(), Failure> {
    let settings = build.settings();
    let depth = settings.submodule_depth;
    let how = if recursive { " recursively" } else { "" };
    w.notice(&match depth {
        1.. => format!("Updating/initializing submodules{how} with git depth set to {depth}..."),
        _ => format!("Updating/initializing submodules{how}..."),
    });
    if settings.submodule_paths.iter().any(|path| path == ":(exclude)") {
        return Err(Failure::system("GIT_SUBMODULE_PATHS: invalid submodule pathspec"));
    }
    let mut paths: Vec<&str> = Vec::new();
    if !settings.submodule_paths.is_empty() {
        paths.push("--");
        paths.extend(settings.submodule_paths.iter().map(String::as_str));
    }
    let recursive_flag: &[&str] = if recursive { &["--recursive"] } else { &[] };
    let depth = depth.to_string();
    let depth_flag: &[&str] = if settings.submodule_depth > 0 { &["--depth", &depth] } else { &[] };
    let own_flags: Vec<&str> = settings.submodule_update_flags.iter().map(String::as_str).collect();

    let sync = [&["git", "submodule", "sync"], recursive_flag, &paths].concat();
    let update =
        [&["submodule", "update", "--init"], recursive_flag, depth_flag, &own_flags, &paths].concat();
    let foreach = [&["git", "submodule", "foreach"], recursive_flag].concat();
    let default_clean = ["-ffdx".to_owned()];
    let clean_flags =
        if settings.clean_flags.is_empty() { &default_clean[..] } else { &settings.clean_flags[..] };
    let clean = [foreach.clone(), with(&["git", "clean"], clean_flags)].concat();
    let reset = [&foreach[..], &["git", "reset", "--hard"]].concat();

    w.command(&["git", "submodule", "init"]);
    w.command(&sync);
    w.command(&clean);
    w.command(&reset);
    let authorized = with_credentials(&update);
    w.if_command_expanding(&authorized.iter().map(String::as_str).collect::<Vec<_>>());
    w.notice("Updated submodules");
    w.command(&sync);
    w.otherwise();
    w.warning("Updating submodules failed. Retrying...");
    let foreach_arguments = foreach.get(1..).unwrap_or_default();
    if own_flags.iter().any(|flag| flag.eq_ignore_ascii_case("--remote")) {
        let heads = ["git", "fetch", "origin", "+refs/heads/*:refs/remotes/origin/*"];
        expanding(w, &with_credentials(&[foreach_arguments, &heads].concat()));
    }
    w.command(&sync);
    expanding(w, &authorized);
    w.command(&reset);
    w.end_if();
    w.command(&clean);
    w.notice("Configuring submodules to use parent git credentials...");
    let always_recursive: &[&str] = if recursive { &[] } else { &["--recursive"] };
    let external = format!("${EXTERNAL_VARIABLE}");
    let configure = ["git", "config", "--replace-all", "include.path", &external];
    w.command_expanding(&[&foreach[..], always_recursive, &configure].concat());
    if !settings.lfs_skip_smudge {
        w.if_command(&["git", "lfs", "version"]);
        w.notice("Pulling LFS files...");
        expanding(w, &with_credentials(&[foreach_arguments, &["git", "lfs", "pull"]].concat()));
        w.end_if();
    }
    Ok(())
}
