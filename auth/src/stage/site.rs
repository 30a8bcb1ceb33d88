//! What `config` takes from the site before it looks at the job: the configuration file, the level, our own program.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use jacamar_plan::{Level, Max, Need, Origin, Profile, Refusal, Resource, Rlimit, Setting, Site};
use jacamar_record::JobsAtOnce;
use jacamar_sandbox::{CgroupChoice, Named};
use jacamar_site::accounts;
use jacamar_site::config::{self, Cgroup, Downscope, Settings};
use jacamar_site::trusted_file::{self, Trust, Untrusted};

/// Where Jacamar's documents put the file that `--configuration` names.
const CONFIGURATION: &str = "/etc/gitlab-runner/custom-config.toml";

/// The configuration at this path, or where Jacamar's documents put it.
pub(crate) fn settings(path: Option<&Path>, trust: Trust) -> anyhow::Result<Settings> {
    let uid_min = accounts::uid_min(Trust::RootOnly)?;
    let path = path.unwrap_or_else(|| Path::new(CONFIGURATION));
    match jacamar_sandbox::as_starter(|| config::read(path, trust, &uid_min))? {
        Ok(config) => Ok(config.settings),
        Err(config::ReadError::Invalid(errors)) => bail!("the configuration is wrong\n{}", errors.render()),
        Err(config::ReadError::Untrusted(untrusted)) => Err(mend("configuration file", untrusted)),
    }
}

/// Limits of all jobs of the host, and of those of one user, who is in these groups.
pub(crate) fn limits(settings: &Settings, account: &str, groups: &[String]) -> Site {
    let limits = &settings.sandbox.limits;
    Site { site: limits.site.clone(), user: limits.of_user(account, groups).resources }
}

/// Below the hour that the runner gives `prepare` (`prepare_exec_timeout`), or it would end the wait, as a system failure.
const WAIT_DEFAULT: Duration = Duration::from_secs(55 * 60);

/// How many jobs of this user run at the same time; none: any number.
pub(super) fn jobs_at_once(settings: &Settings, account: &str, groups: &[String]) -> Option<JobsAtOnce> {
    let jobs = settings.sandbox.limits.of_user(account, groups).jobs;
    let Setting { value: Max::Value(max), origin, need: _ } = jobs.max? else { return None };
    let (wait, wait_origin) = match jobs.wait {
        Some(Setting { value, origin, need: _ }) => (value, Some(origin)),
        None => (Max::Value(u64::try_from(WAIT_DEFAULT.as_millis()).unwrap_or(u64::MAX)), None),
    };
    Some(JobsAtOnce { max, origin, wait, wait_origin })
}

/// The profile that the site wants, with what other keys say of a job.
pub(crate) fn profile(settings: &Settings) -> anyhow::Result<Profile> {
    let name = settings.sandbox.profile.as_deref().unwrap_or("compat");
    let read = || jacamar_site::profile::profile(name);
    let mut profile = jacamar_sandbox::as_starter(read)?.context("[sandbox] profile")?;
    if settings.auth.no_new_privs {
        profile.settings.no_new_privileges.get_or_insert(own_setting("[auth] no_new_privs", ()));
    }
    if settings.general.set_stack_size {
        // As much as the hard limit allows.
        let all = Rlimit { soft: Max::Infinity, hard: None };
        let setting = own_setting("[general] set_stack_size", all);
        profile.settings.limits.entry(Resource::STACK).or_insert(setting);
    }
    Ok(profile)
}

/// A key of the configuration that stands for one of a profile.
fn own_setting<T>(key: &str, value: T) -> Setting<T> {
    let origin = Origin { file: key.into(), line: 1, shipped: false };
    Setting { value, origin, need: Need::Require }
}

/// What the profile and the limits of all users name.
pub(crate) fn named(profile: &Profile, settings: &Settings) -> Named {
    let limits = &settings.sandbox.limits;
    let of_some = limits.groups.iter().chain(&limits.accounts).map(|(_, limits)| &limits.resources);
    Named::by(profile, [&limits.site, &limits.user.resources].into_iter().chain(of_some))
}

/// Where the site wants control groups.
pub(crate) fn choice(settings: &Settings) -> CgroupChoice {
    match &settings.sandbox.cgroup {
        Cgroup::Auto => CgroupChoice::Auto,
        Cgroup::None => CgroupChoice::None,
        Cgroup::Path(path) => CgroupChoice::Path(path.as_str().to_owned()),
    }
}

/// A file that is not believed, with the commands that mend it.
pub(crate) fn mend(object: &str, untrusted: Untrusted) -> anyhow::Error {
    let hint = match untrusted.hint() {
        commands if !commands.is_empty() && untrusted.is_the_callers() => format!("type:\n{commands}"),
        commands if !commands.is_empty() => format!("as root:\n{commands}"),
        _ if object == "configuration file" => {
            "`--configuration` in config_args of the runner's config.toml names it".to_owned()
        }
        commands => commands,
    };
    let cause = format!("{:#}", anyhow::Error::from(untrusted));
    Refusal { rule: "trusted_file".into(), object: object.into(), cause, hint }.into()
}

/// The level of the job: `downscope = "none"` stays who we are.
pub(crate) fn level(process: Level, settings: &Settings) -> anyhow::Result<Level> {
    match (settings.auth.downscope, process) {
        (Downscope::None, Level::User) => Ok(Level::User),
        (Downscope::None, Level::Root | Level::Capabilities) => bail!(
            "downscope = \"none\" runs every job as the runner's own account: start the runner as that account, not \
             as root and not with file capabilities"
        ),
        (Downscope::Setuid, Level::Root | Level::Capabilities) => Ok(process),
        (Downscope::Setuid, Level::User) => {
            let (cause, hint) = if nix::sys::prctl::get_no_new_privs().unwrap_or(false) {
                (
                    "needs root or file capabilities, and NoNewPrivileges=yes turns those off",
                    "in `systemctl edit gitlab-runner` write `[Service]` and below it `NoNewPrivileges=no`",
                )
            } else {
                (
                    "needs root or file capabilities",
                    "run the runner as root (User= of its unit), or give jacamar-auth capabilities: setcap \
                     cap_setuid,cap_setgid=ep",
                )
            };
            let hint =
                format!("{hint}; or write downscope = \"none\": every job then has the runner's account");
            let object = "[auth] downscope = \"setuid\"".into();
            Err(Refusal { rule: "downscope".into(), object, cause: cause.into(), hint }.into())
        }
    }
}

/// `[auth] jacamar_path`, else the one beside our own executable; never from PATH.
pub(super) fn jacamar(settings: &Settings, trust: Trust) -> anyhow::Result<PathBuf> {
    let path = match &settings.auth.jacamar_path {
        Some(path) => PathBuf::from(path.as_str()),
        None => {
            let own = std::fs::read_link("/proc/self/exe").context("could not find our own executable")?;
            own.parent().context("our own executable has no directory")?.join("jacamar")
        }
    };
    trusted_file::program(&path, trust).map_err(|untrusted| mend("program jacamar", untrusted))
}
