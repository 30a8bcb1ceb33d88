//! A configuration that is wrong, or that others could have written: the administrator reads the message in the job log.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, chown, symlink};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use testbed::host::CI1;

use crate::direct::Direct;
use crate::golden;
use crate::left;
use crate::place::{Place, Setup, enter};
use crate::refusal::{audited, broken};

/// As [`changed`], in a configuration that was changed already.
fn changed_again(place: &Place, from: &str, to: &str) {
    let text = fs::read_to_string(place.path("config.toml")).expect("ours");
    assert!(text.contains(from), "{from}\n{text}");
    place.configure(&text.replace(from, to));
}

/// Text that is put in place of another one.
fn changed(place: &Place, from: &str, to: &str) {
    let text = place.configuration();
    assert!(text.contains(from), "{from}\n{text}");
    place.configure(&text.replace(from, to));
}

#[test]
fn keys_that_are_wrong_are_named_with_file_and_line() {
    for (name, from, to) in [
        ("config-unknown-key", "downscope =", "downscop ="),
        ("config-not-built", "[auth]\n", "[auth]\nroot_dir_creation = true\n"),
        ("config-slurm", "executor = \"shell\"", "executor = \"slurm\""),
        ("config-sudo", "downscope = \"setuid\"", "downscope = \"sudo\""),
        ("config-data-dir", "data_dir = \"$HOME\"", "data_dir = \"ci\""),
        ("config-wrong-type", "downscope = \"setuid\"", "downscope = \"setuid\"\nminimum_uid = \"1000\""),
        ("config-no-server", "gitlab_server =", "# gitlab_server ="),
        ("config-not-toml", "[auth]\n", "[auth\n"),
        ("config-unknown-profile", "profile = \"default\"", "profile = \"defualt\""),
        ("config-runners-file", "[general]\n", "concurrent = 4\n[[runners]]\nname = \"x\"\n[general]\n"),
    ] {
        let place = Place::usual();
        changed(&place, from, to);
        broken(&place, name, place.small(["true"]));
    }
}

#[test]
fn a_file_that_others_could_have_written_prints_what_mends_it() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::usual();
    let path = place.path("config.toml");
    let account = place.account();

    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("root");
    let ran = broken(&place, "config-writable", place.small(["true"]));
    assert!(ran.err.contains(&format!("chmod go-w {path}")), "{ran}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("root");

    chown(&path, Some(account.uid), Some(account.gid)).expect("root");
    let ran = broken(&place, "config-owner", place.small(["true"]));
    assert!(ran.err.contains(&format!("chown root:root {path}")), "{ran}");
    chown(&path, Some(0), Some(0)).expect("root");

    fs::set_permissions(&place.directory, fs::Permissions::from_mode(0o777)).expect("root");
    let ran = broken(&place, "config-directory-writable", place.small(["true"]));
    assert!(ran.err.contains("chmod go-w "), "{ran}");
    fs::set_permissions(&place.directory, fs::Permissions::from_mode(0o755)).expect("root");

    // A link of somebody else's, to a good file.
    fs::rename(&path, place.path("real.toml")).expect("root");
    symlink(place.path("real.toml"), &path).expect("root");
    std::os::unix::fs::lchown(&path, Some(account.uid), Some(account.gid)).expect("root");
    let ran = broken(&place, "config-link", place.small(["true"]));
    assert!(ran.err.contains(&format!("chown -h root:root {path}")), "{ran}");
    fs::remove_file(&path).expect("root");

    broken(&place, "config-missing", place.small(["true"]));
    fs::rename(place.path("real.toml"), &path).expect("root");
    let ran = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).config();
    assert_eq!(ran.code, 0, "all of it was mended: {ran}");
}

/// `config`'s answer.
fn answer(place: &Place, direct: &mut Direct<'_>) -> Value {
    let ran = direct.config();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}: {ran}", place.setup.general);
    serde_json::from_str(&ran.out).expect("JSON alone")
}

fn with_data_dir(path: &str) -> Place {
    let place = Place::usual();
    changed(&place, "data_dir = \"$HOME\"", &format!("data_dir = \"{path}\""));
    place
}

/// A link that the user controls leads where the user may go, and the runner is told where that is.
#[test]
fn directories_are_canonical_and_the_users() {
    let home = format!("/home/{CI1}");
    let account = Place::usual().account();
    fs::create_dir_all(format!("{home}/real")).expect("root");
    chown(format!("{home}/real"), Some(account.uid), Some(account.gid)).expect("root");
    symlink(format!("{home}/real"), format!("{home}/link")).expect("root");
    let place = with_data_dir("$HOME/link/below");
    let mut direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"])));
    let told = answer(&place, &mut direct);
    let builds = told["builds_dir"].as_str().expect("a path");
    assert!(builds.starts_with(&format!("{home}/real/below/")), "{told}");
    assert!(
        told["cache_dir"].as_str().is_some_and(|path| path.starts_with(&format!("{home}/real/"))),
        "{told}"
    );

    // Turned into a link between `config` and `prepare`.
    fs::create_dir_all("/srv/testbed/e2e-elsewhere").expect("root");
    fs::rename(format!("{home}/real"), format!("{home}/moved")).expect("root");
    symlink("/srv/testbed/e2e-elsewhere", format!("{home}/real")).expect("root");
    let ran = testbed::host::Started::new(direct.command(&["prepare"])).finish();
    assert_eq!(ran.code, 1, "{ran}");
    assert_eq!(fs::read_dir("/srv/testbed/e2e-elsewhere").expect("root").count(), 0);
    golden::check(&place, "data-dir-became-a-link", &ran.err);
    // The user made it impossible to look for the runner's temporary files: told, and nobody's record is held by it.
    let ran = direct.cleanup();
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran}");
    assert!(ran.err.contains("cannot be opened"), "{ran}");
    let audit = place.audit();
    assert_eq!(audit.last().map(|line| &line["user_files"]), Some(&"left".into()), "{audit:?}");
    assert_eq!(fs::read_dir("/srv/testbed/e2e-elsewhere").expect("root").count(), 0);
    left::assert_nothing(&direct.state(), direct.record(), &[]);
}

#[test]
fn directories_that_the_user_cannot_use_are_refused() {
    enter();
    let home = format!("/home/{CI1}");
    let closed = "/srv/testbed/e2e-closed";
    fs::DirBuilder::new().mode(0o700).create(closed).expect("root");
    let to_root = format!("{closed}/x");
    for (target, link) in [("/home/ci2", "to-another"), (&*to_root, "to-root"), ("/no/such", "to-nowhere")] {
        symlink(target, format!("{home}/{link}")).expect("root");
        let place = with_data_dir(&format!("$HOME/{link}"));
        let ran = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).config();
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{link}: {ran}");
        audited(&place, link, "directory");
        golden::check(&place, &format!("data-dir-link-{link}"), &ran.err);
    }
    fs::create_dir_all("/srv/testbed/e2e-of-root").expect("root");
    let place = with_data_dir("/srv/testbed/e2e-of-root");
    let direct = {
        let mut direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"])));
        answer(&place, &mut direct);
        direct
    };
    let ran = testbed::host::Started::new(direct.command(&["prepare"])).finish();
    assert_eq!(ran.code, 1, "{ran}");
    golden::check(&place, "data-dir-of-root", &ran.err);
    assert_eq!(direct.cleanup().code, 0);

    // The job would have another /tmp than the runner's answer speaks of.
    for (number, path) in ["/tmp/builds", "/var/tmp/a/b", "/dev/shm/x"].iter().enumerate() {
        let place = with_data_dir(path);
        let ran = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).config();
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{path}: {ran}");
        audited(&place, path, "data_dir_covered");
        golden::check(&place, &format!("data-dir-covered-{number}"), &ran.err);
    }
    let place = with_data_dir("/tmp/builds");
    changed_again(&place, "profile = \"default\"", "profile = \"compat\"");
    let mut direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"])));
    answer(&place, &mut direct);
    assert_eq!(direct.cleanup().code, 0);

    let place = with_data_dir("/srv/testbed/a`id`b");
    let ran = Direct::new(&place, &place.gitlab.admit(place.small(["true"]))).config();
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran}");
    audited(&place, "backticks", "directory_name");
    golden::check(&place, "data-dir-backticks", &ran.err);
}

#[test]
fn wishes_of_the_job() {
    let place = Place::usual();
    let with = |name: &str, value: &str| {
        Direct::new(&place, &place.gitlab.admit(place.small(["true"]).variable(name, value)))
    };
    // Empty is unset; whatever it says, no directory comes from it unless the site says so.
    for value in ["", "/tmp/mine", "$HOME/mine"] {
        let mut direct = with("CUSTOM_CI_BUILDS_DIR", value);
        let told = answer(&place, &mut direct);
        assert!(!told["builds_dir"].as_str().expect("a path").contains("mine"), "{told}");
        assert_eq!(direct.cleanup().code, 0);
    }
    for (name, variable, value) in [
        ("wish-not-a-bool", "JACAMAR_NO_BASH_PROFILE", "perhaps"),
        ("wish-two-lines", "CUSTOM_CI_BUILDS_DIR", "/tmp/mine\nx"),
    ] {
        let ran = with(variable, value).config();
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{name}: {ran}");
        audited(&place, name, "job_variable");
        golden::check(&place, name, &ran.err);
    }
}

/// It becomes part of a path that the runner's scripts hold between double quotes.
#[test]
fn a_host_name_that_a_shell_would_act_on() {
    let place = Place::usual();
    // For this thread and what it starts.
    unshare(CloneFlags::CLONE_NEWUTS).expect("root");
    fs::write("/proc/sys/kernel/hostname", "a\";$(touch /tmp/e2e-hostname)`id`/../b").expect("root");
    let mut direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"])));
    let told = answer(&place, &mut direct);
    assert_eq!(told.get("hostname"), None, "{told}");
    let builds = told["builds_dir"].as_str().expect("a path");
    assert!(builds.contains("/a____touch__tmp_e2e-hostname__id__.._b/0"), "{told}");
    assert_eq!(direct.cleanup().code, 0);
    let result = place.run(place.job().script(["grep hello README", "test ! -e /tmp/e2e-hostname"]));
    assert_eq!(result.state, Some(testbed::runner::State::Success), "{}", result.plain_log());
}

/// Without root there is no other account to become.
#[test]
fn downscope_setuid_of_an_ordinary_user() {
    for (name, under) in [
        ("setuid-of-a-user", [].as_slice()),
        ("setuid-no-new-privileges", ["setpriv", "--no-new-privs", "--"].as_slice()),
    ] {
        // "none" makes the test's calls those of the user.
        let place = Place::new(Setup { downscope: "none", ..Setup::default() });
        changed(&place, "downscope = \"none\"", "downscope = \"setuid\"");
        let direct = Direct::new(&place, &place.gitlab.admit(place.small(["true"])));
        let config = ["config", "--configuration", &place.path("config.toml")];
        let ran = testbed::host::Started::new(direct.command_under(under, &config)).finish();
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{name}: {ran}");
        golden::check(&place, name, &ran.err);
    }
}
