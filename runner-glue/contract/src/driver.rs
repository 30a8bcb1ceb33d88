//! The driver's arguments, as Jacamar CI has them and as GitLab Runner completes them.
//!
//! The runner appends the script's path and the sub-stage's name to whatever `run_args` says, so these two are
//! read from the end and a script whose name begins with `-` is no option. A general argument parser does it the
//! other way round, which is why the four stages are parsed here and every other sub-command is left to clap
//! ([`parse`] answers `None`).

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use jacamar_plan::{InvalidSubStage, Stage, SubStage};

/// One call of the driver by GitLab Runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Options that stand before the stage or beside it.
    pub flags: Flags,
    /// The stage and what belongs to it.
    pub call: Call,
}

/// Options of Jacamar CI that are no stage's own. The programs refuse what they do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `-u`, `--unobfuscated` of `jacamar-auth`: the full text of an error goes to the job log.
    pub unobfuscated: bool,
    /// `--no-auth` of `jacamar`: no authorization, the caller's own account.
    pub no_auth: bool,
}

/// The stage and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `config [--configuration FILE]`
    Config {
        /// The site's configuration.
        configuration: Option<PathBuf>,
    },
    /// `prepare`
    Prepare,
    /// `run SCRIPT SUB-STAGE`
    Run {
        /// The runner's script. It lies in a directory that the runner's account alone can enter.
        script: PathBuf,
        /// The runner's name for it.
        sub_stage: SubStage,
    },
    /// `cleanup [--configuration FILE]`
    Cleanup {
        /// Accepted because Jacamar's own `[runners.custom]` passes it; the record holds what is needed.
        configuration: Option<PathBuf>,
    },
}

/// The arguments name a stage, and the rest does not fit it.
///
/// Whoever configured the runner has to act, so the program ends with the runner's system failure code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCall {
    /// An argument that the stage does not have.
    #[error("{stage} {argument:?}: no such argument")]
    Unknown {
        /// Word of the stage.
        stage: &'static str,
        /// The argument.
        argument: OsString,
    },
    /// `--configuration` without a file, or twice.
    #[error("{stage} --configuration: {problem}")]
    Configuration {
        /// Word of the stage.
        stage: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// `run` with less than two arguments.
    #[error("run: script and sub-stage are missing, GitLab Runner passes them as the last two arguments")]
    ScriptMissing,
    /// The last argument of `run` is no sub-stage.
    #[error("run: {0}")]
    SubStage(#[from] InvalidSubStage),
}

impl Call {
    /// The stage of the plan.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Config { .. } => Stage::Config,
            Self::Prepare => Stage::Prepare,
            Self::Run { sub_stage, .. } => Stage::Run(sub_stage.clone()),
            Self::Cleanup { .. } => Stage::Cleanup,
        }
    }
}

/// Reads the arguments after the program's own name. `None`: the first word is none of the four stages, so
/// another parser has to look.
///
/// # Errors
/// [`InvalidCall`] if a stage is named and the rest does not fit it.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Invocation>, InvalidCall> {
    let mut arguments = arguments.into_iter().peekable();
    let mut flags = Flags::default();
    while arguments.next_if(|argument| flags.take(argument)).is_some() {}
    let Some(word) = arguments.next() else { return Ok(None) };
    let rest: Vec<OsString> = arguments.collect();
    let call = if word == "config" {
        Call::Config { configuration: configuration("config", rest, &mut flags)? }
    } else if word == "prepare" {
        nothing_else("prepare", &rest, &mut flags)?;
        Call::Prepare
    } else if word == "run" {
        run(&rest, &mut flags)?
    } else if word == "cleanup" {
        Call::Cleanup { configuration: configuration("cleanup", rest, &mut flags)? }
    } else {
        return Ok(None);
    };
    Ok(Some(Invocation { flags, call }))
}

impl Flags {
    /// Takes the argument if it is one of the flags.
    fn take(&mut self, argument: &OsStr) -> bool {
        if argument == "-u" || argument == "--unobfuscated" {
            self.unobfuscated = true;
        } else if argument == "--no-auth" {
            self.no_auth = true;
        } else {
            return false;
        }
        true
    }
}

fn nothing_else(stage: &'static str, rest: &[OsString], flags: &mut Flags) -> Result<(), InvalidCall> {
    match rest.iter().find(|argument| !flags.take(argument)) {
        Some(argument) => Err(InvalidCall::Unknown { stage, argument: argument.clone() }),
        None => Ok(()),
    }
}

fn run(rest: &[OsString], flags: &mut Flags) -> Result<Call, InvalidCall> {
    let [before @ .., script, sub_stage] = rest else { return Err(InvalidCall::ScriptMissing) };
    nothing_else("run", before, flags)?;
    let sub_stage = SubStage::new(&sub_stage.to_string_lossy())?;
    Ok(Call::Run { script: PathBuf::from(script), sub_stage })
}

fn configuration(
    stage: &'static str,
    rest: Vec<OsString>,
    flags: &mut Flags,
) -> Result<Option<PathBuf>, InvalidCall> {
    let wrong = |problem| InvalidCall::Configuration { stage, problem };
    let mut file = None;
    let mut rest = rest.into_iter();
    while let Some(argument) = rest.next() {
        if flags.take(&argument) {
            continue;
        }
        let value = if argument == "--configuration" {
            rest.next().ok_or_else(|| wrong("the file is missing"))?
        } else {
            match argument.as_encoded_bytes().strip_prefix(b"--configuration=") {
                Some(value) => std::os::unix::ffi::OsStringExt::from_vec(value.to_vec()),
                None => return Err(InvalidCall::Unknown { stage, argument }),
            }
        };
        if value.is_empty() {
            return Err(wrong("the file's name is empty"));
        }
        if file.replace(PathBuf::from(value)).is_some() {
            return Err(wrong("given twice"));
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<Invocation>, InvalidCall> {
        parse(arguments.iter().map(OsString::from))
    }

    fn call(arguments: &[&str]) -> Call {
        parsed(arguments).expect("fits").expect("a stage").call
    }

    fn said(arguments: &[&str]) -> String {
        parsed(arguments).expect_err("does not fit").to_string()
    }

    #[test]
    fn jacamars_own_runner_configuration_fits() {
        let file = "/etc/gitlab-runner/custom-config.toml";
        let configuration = Some(PathBuf::from(file));
        assert_eq!(
            call(&["config", "--configuration", file]),
            Call::Config { configuration: configuration.clone() }
        );
        assert_eq!(call(&["prepare"]), Call::Prepare);
        assert_eq!(
            call(&["run", "/tmp/custom-executor1/script2/script", "get_sources"]),
            Call::Run {
                script: PathBuf::from("/tmp/custom-executor1/script2/script"),
                sub_stage: SubStage::new("get_sources").expect("a name")
            }
        );
        assert_eq!(call(&["cleanup", &format!("--configuration={file}")]), Call::Cleanup { configuration });
        assert_eq!(call(&["cleanup"]), Call::Cleanup { configuration: None });
    }

    #[test]
    fn script_and_sub_stage_are_read_from_the_end() {
        let Call::Run { script, .. } = call(&["run", "-u", "build_script"]) else { panic!("run") };
        assert_eq!(script, PathBuf::from("-u"), "a script's name is never an option");
        let invocation = parsed(&["run", "-u", "/s", "build_script"]).expect("fits").expect("a stage");
        assert!(invocation.flags.unobfuscated);
        assert_eq!(said(&["run", "x", "/s", "build_script"]), "run \"x\": no such argument");
    }

    #[test]
    fn flags_stand_before_the_stage_or_beside_it() {
        for arguments in [&["-u", "config"][..], &["--unobfuscated", "config"], &["config", "-u"]] {
            let invocation = parsed(arguments).expect("fits").expect("a stage");
            assert_eq!(invocation.flags, Flags { unobfuscated: true, no_auth: false }, "{arguments:?}");
        }
        let invocation = parsed(&["--no-auth", "prepare"]).expect("fits").expect("a stage");
        assert!(invocation.flags.no_auth);
    }

    #[test]
    fn other_words_are_for_another_parser() {
        for arguments in [&[][..], &["-u"], &["exec", "--user", "alice"], &["--version"], &["Config"]] {
            assert_eq!(parsed(arguments), Ok(None), "{arguments:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (arguments, text) in [
            (&["config", "--configuration"][..], "config --configuration: the file is missing"),
            (&["config", "--configuration="], "config --configuration: the file's name is empty"),
            (
                &["cleanup", "--configuration", "/a", "--configuration", "/b"],
                "cleanup --configuration: given twice",
            ),
            (&["config", "--configuratio", "/a"], "config \"--configuratio\": no such argument"),
            (&["prepare", "x"], "prepare \"x\": no such argument"),
            (
                &["run", "/s"],
                "run: script and sub-stage are missing, GitLab Runner passes them as the last two arguments",
            ),
        ] {
            assert_eq!(said(arguments), text);
        }
        assert!(said(&["run", "/s", "../x"]).starts_with("run: \"../x\" is not the name of a sub-stage"));
    }

    #[test]
    fn names_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(b"/tmp/\xff".to_vec());
        let arguments = ["run".into(), odd.clone(), "build_script".into()];
        let Ok(Some(Invocation { call: Call::Run { script, .. }, .. })) = parse(arguments) else {
            panic!("run")
        };
        assert_eq!(script, PathBuf::from(odd.clone()));
        assert!(parse(["run".into(), "/s".into(), odd]).is_err());
    }
}
