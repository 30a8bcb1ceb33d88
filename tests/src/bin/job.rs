//! A whole job on the built host: GitLab stand-in, runner stand-in and the installed driver, in one process.
//!
//! `job [--show] [--user-level DIRECTORY]` reads a wish as JSON from standard input and prints the result as JSON, or with
//! `--show` the job log as a CI user sees it. It runs inside the namespace that `testbed-host` makes; with `--user-level`
//! anywhere, as the caller, with all of its files in that directory.
//!
//! `job --many-variables COMMAND...` executes a command with an environment of 100,000 job variables, `job --empty-argv PROGRAM`
//! without any argument, `job --observe` is the witness of the test on secrecy.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a program of the testbed talks to its starter"
)]

#[path = "job/observe.rs"]
mod observe;

use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use testbed::gitlab::{File, GitLab, IdToken, KeySet, Spoil};
use testbed::host::{BIN, PREFIX};
use testbed::runner::{JobResult, Pauses, Runner, State};

/// What is wished for; everything has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    /// GitLab login of who triggered the job.
    user: String,
    /// `[sandbox] profile`
    profile: Option<String>,
    /// Lines of `[general]`, `[auth]` and `[sandbox]` besides.
    general: String,
    auth: String,
    sandbox: String,
    /// A repository of this machine; else a small one is made.
    import: Option<PathBuf>,
    script: Vec<String>,
    after_script: Vec<String>,
    variables: Vec<(String, String)>,
    artifacts: Vec<String>,
    /// What is wrong with the token: a word of `spoil`, or `none`: no token at all.
    spoil: Option<String>,
    /// Seconds that the server needs for its keys, or -1: it refuses.
    keys_delay_s: i64,
    /// SIGTERM comes so long, in seconds, before SIGKILL.
    graceful_kill_timeout: u64,
    /// A program that is called for each sub-stage in place of the driver, and calls it.
    run_exec: Option<PathBuf>,
    /// The job is cancelled when this text is in its log.
    cancel_at: Option<String>,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            user: "ci1".into(),
            profile: Some("default".into()),
            general: String::new(),
            auth: String::new(),
            sandbox: String::new(),
            import: None,
            script: vec!["true".into()],
            after_script: Vec::new(),
            variables: Vec::new(),
            artifacts: Vec::new(),
            spoil: None,
            keys_delay_s: 0,
            graceful_kill_timeout: 20,
            run_exec: None,
            cancel_at: None,
        }
    }
}

/// Where things are: on the built host, or at the user level.
struct Site {
    configuration: String,
    driver: PathBuf,
    data_dir: String,
    downscope: &'static str,
    /// Lines of `[general]`.
    general: String,
    audit: String,
    runner: Box<dyn Fn(Runner) -> Runner>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("job: {error:#}");
            ExitCode::from(125)
        }
    }
}

/// Executes a command with an environment that takes a raised limit of the stack.
fn many_variables(mut command: impl Iterator<Item = String>) -> Result<bool> {
    let program = command.next().context("no command")?;
    let variables = (0..100_000).map(|number| (format!("CUSTOM_ENV_V{number}"), "x"));
    let error = std::process::Command::new(&program).args(command).envs(variables).exec();
    Err(error).with_context(|| format!("could not execute {program}"))
}

/// Executes a program without any argument, its own name included.
fn empty_argv(mut program: impl Iterator<Item = String>) -> Result<bool> {
    let program = CString::new(program.next().context("no program")?)?;
    let none: [&CStr; 0] = [];
    let Err(errno) = nix::unistd::execv(&program, &none);
    Err(errno).with_context(|| format!("could not execute {program:?}"))
}

fn run() -> Result<bool> {
    let (mut show, mut user_level) = (false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--observe" {
            return observe::observe(arguments).map(|()| true);
        }
        if argument == "--many-variables" {
            return many_variables(arguments);
        }
        if argument == "--empty-argv" {
            return empty_argv(arguments);
        }
        match argument.as_str() {
            "--show" => show = true,
            "--user-level" => {
                user_level = Some(PathBuf::from(arguments.next().context("--user-level DIRECTORY")?))
            }
            other => bail!("unknown argument {other}"),
        }
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("could not read the wish")?;
    let mut wish: Wish = if text.trim().is_empty() { Wish::default() } else { serde_json::from_str(&text)? };
    let site = match &user_level {
        None => built_host()?,
        Some(directory) => at_user_level(directory, &mut wish)?,
    };
    let gitlab = GitLab::start()?;
    match wish.keys_delay_s {
        0 => {}
        seconds @ 1.. => gitlab.set_key_set(KeySet::Slow(Duration::from_secs(seconds.unsigned_abs()))),
        _ => gitlab.set_key_set(KeySet::HangUp),
    }
    configure(&site, &wish, &gitlab)?;
    let result = job(&site, &wish, &gitlab)?;
    let good = result.state == Some(State::Success);
    if show {
        print!("{}", result.plain_log());
        for upload in gitlab.uploads() {
            println!("artifact received by GitLab: {} ({} bytes)", upload.file_name, upload.bytes.len());
        }
    } else {
        println!("{}", serde_json::to_string(&result)?);
    }
    Ok(good)
}

fn built_host() -> Result<Site> {
    // The helper in the login shell's PATH.
    std::fs::create_dir_all("/etc/profile.d").context("could not make /etc/profile.d")?;
    write("/etc/profile.d/testbed.sh", &format!("PATH={BIN}:$PATH\n"), 0o644)?;
    Ok(Site {
        configuration: "/etc/jacamar/config.toml".into(),
        driver: PathBuf::from(format!("{PREFIX}/bin/jacamar-auth")),
        data_dir: "$HOME".into(),
        downscope: "setuid",
        general: String::new(),
        audit: "/var/lib/jacamar/audit.jsonl".into(),
        runner: Box::new(|runner| runner),
    })
}

/// Everything below one directory of the caller's, who is the job's user as well.
fn at_user_level(directory: &Path, wish: &mut Wish) -> Result<Site> {
    let directory = directory.canonicalize().context("the directory for --user-level")?;
    let own = std::env::current_exe().context("the running program has no path")?;
    let own = own.parent().context("the running program lies in no directory")?;
    let programs = std::env::var_os("JACAMAR_BIN_DIR").map_or_else(|| own.to_owned(), PathBuf::from);
    wish.user = jacamar_site::accounts::current()?.name;
    // /etc/profile would set another PATH.
    wish.variables.push(("JACAMAR_NO_BASH_PROFILE".into(), "1".into()));
    let (state, home) = (directory.join("state"), std::env::var("HOME").unwrap_or_else(|_| "/".into()));
    let text = |path: &Path| path.display().to_string();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", text(own));
    Ok(Site {
        configuration: text(&directory.join("config.toml")),
        driver: programs.join("jacamar-auth"),
        data_dir: text(&directory.join("data")),
        downscope: "none",
        general: format!("user_bash_env = [\"PATH={path}\"]\n"),
        audit: text(&directory.join("audit.jsonl")),
        runner: Box::new(move |runner| {
            runner.env("HOME", &home).env("XDG_STATE_HOME", &text(&state)).temp_root(&directory)
        }),
    })
}

/// The site's configuration.
fn configure(site: &Site, wish: &Wish, gitlab: &GitLab) -> Result<()> {
    let url = gitlab.url();
    let profile = wish.profile.as_ref().map(|name| format!("profile = \"{name}\"\n")).unwrap_or_default();
    let Wish { general, auth, sandbox, .. } = wish;
    let Site { data_dir, downscope, general: own, audit, .. } = site;
    let text = format!(
        "[general]\nexecutor = \"shell\"\ndata_dir = \"{data_dir}\"\ngitlab_server = \"{url}\"\n\
         jwt_env_variable = \"SITE_ID_TOKEN\"\nsupport_contact = \"support@hpc.example.com\"\n{own}{general}\n\
         [auth]\ndownscope = \"{downscope}\"\njwt_required_aud = \"{url}\"\n{auth}\n\
         [auth.logging]\nlocation = \"{audit}\"\n\
         [sandbox]\n{profile}{sandbox}\n"
    );
    write(&site.configuration, &text, 0o600)
}

fn write(path: &str, text: &str, mode: u32) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("could not write {path}"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("could not set the mode of {path}"))
}

fn job(site: &Site, wish: &Wish, gitlab: &GitLab) -> Result<JobResult> {
    let repository = match &wish.import {
        Some(path) => gitlab.import("group/proj", path)?,
        None => {
            let repository = gitlab.repository("group/proj")?;
            repository.commit([File::from(("README", "hello\n"))], "First")?;
            repository
        }
    };
    let mut facts = gitlab.facts();
    facts.project.path = repository.path().to_owned();
    facts.sha = repository.head()?;
    facts.user.login.clone_from(&wish.user);
    facts.user.email = format!("{}@example.com", wish.user);
    let mut builder = testbed::gitlab::JobBuilder::new(facts.clone());
    builder = builder.script(wish.script.clone()).after_script(wish.after_script.clone());
    for (name, value) in &wish.variables {
        builder = builder.variable(name, value);
    }
    if !wish.artifacts.is_empty() {
        builder = builder.artifact("result", wish.artifacts.clone(), "always");
    }
    builder = match wish.spoil.as_deref() {
        Some("none") => builder,
        Some(word) => {
            let token = IdToken::new(&facts, gitlab.url()).spoil(spoil(word)?).sign()?;
            builder.id_token_value("SITE_ID_TOKEN", token)
        }
        None => builder.id_token("SITE_ID_TOKEN", gitlab.url())?,
    };
    let job = gitlab.admit(builder);
    let (driver, configuration) = (site.driver.display(), &site.configuration);
    let run_exec = wish.run_exec.as_ref().unwrap_or(&site.driver).display();
    let config = format!(
        "[[runners]]\nname = \"testbed\"\nurl = \"{}\"\nid = 3\ntoken = \"glrt-testbed\"\nexecutor = \"custom\"\n\
         [runners.custom]\nconfig_exec = \"{driver}\"\n\
         config_args = [\"config\", \"--configuration\", \"{configuration}\"]\n\
         prepare_exec = \"{driver}\"\nprepare_args = [\"prepare\"]\nrun_exec = \"{run_exec}\"\nrun_args = [\"run\"]\n\
         cleanup_exec = \"{driver}\"\n\
         cleanup_args = [\"cleanup\", \"--configuration\", \"{configuration}\"]\n\
         graceful_kill_timeout = {}\n",
        gitlab.url(),
        wish.graceful_kill_timeout,
    );
    let runner = Runner::from_text(&config)?
        .temp_root(Path::new("/tmp"))
        .pauses(Pauses { preparation: Duration::from_millis(100), ..Pauses::default() });
    let running = (site.runner)(runner).start(job)?;
    if let Some(text) = &wish.cancel_at {
        running.wait_for_log(text, Duration::from_secs(60))?;
        running.cancel();
    }
    Ok(running.wait())
}

fn spoil(word: &str) -> Result<Spoil> {
    Ok(match word {
        "expired" => Spoil::Expired,
        "not_yet_valid" => Spoil::NotYetValid,
        "wrong_audience" => Spoil::WrongAudience,
        "wrong_issuer" => Spoil::WrongIssuer,
        "unknown_kid" => Spoil::UnknownKid,
        "alg_none" => Spoil::AlgNone,
        "hs256" => Spoil::Hs256WithPublicKey,
        "foreign_key" => Spoil::ForeignKey,
        "other_job" => Spoil::OtherJob,
        "other_project" => Spoil::OtherProject,
        other => bail!("no way to spoil a token is called {other}"),
    })
}
