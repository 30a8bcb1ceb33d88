//! What `jacamar run` says about its shell, besides its exit code.
//!
//! A script may end with any exit code, so no code is left for "the script never began". The report is one frame in
//! a memfd that the supervisor made and reads when `jacamar` has ended; written once, when the shell has ended, and
//! Bash does not inherit it. It is the CI user's word, no fact: the supervisor believes it only where the exit code
//! agrees ([`believed`]), and decides by it only between kinds of failure of that user's own job.
//!
//! A memfd and no pipe: nobody has to read meanwhile, and its length cannot change.

use jacamar_plan::{Outcome, Refusal};

use crate::frame::{FrameError, HEADER_BYTES, Kind, Payload, Reader, Writer};
use crate::text::{InvalidText, TextProblem};

/// The report's descriptor; open if the request says so. 0 is the request, 1 and 2 are the job log.
///
/// It is a memfd of [`REPORT_BYTES`] zero bytes with the seals `F_SEAL_GROW | F_SEAL_SHRINK`. Zero bytes are no frame,
/// so a report that was never written is none.
pub const DESCRIPTOR: i32 = 3;

/// Length of every report, in bytes.
pub const REPORT_BYTES: usize = HEADER_BYTES + 3 * (4 + 2);

/// Exit codes of `jacamar STAGE` itself. In `run` the script's own code takes their place as soon as it began.
pub mod exit_code {
    /// All is done.
    pub const DONE: u8 = 0;
    /// A rule says no, and the job log says which: a build failure. Also a shell that a start-up file ended.
    pub const REFUSED: u8 = 1;
    /// A failure of ours: a system failure. env(1) has the same number.
    pub const BROKEN: u8 = 125;
}

/// How far the shell came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It ended before the first line of the job's script.
    StartupFiles,
    /// The job's script began.
    Script,
}

/// How the shell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShellEnd {
    /// With this exit code.
    Exited(u8),
    /// By this signal, 1 to 64.
    Signalled(u8),
}

/// How the shell of a `run` ended. No report: it never started, or `jacamar` itself was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageReport {
    /// How far it came.
    pub reached: Reached,
    /// How it ended.
    pub end: ShellEnd,
}

impl StageReport {
    /// The exit code of `jacamar run`: the shell's own, 128 and the signal, or [`exit_code::REFUSED`] for a shell that
    /// exited (also with 0) before the job's script began.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match (self.reached, self.end) {
            (Reached::Script, ShellEnd::Exited(code)) => code,
            (Reached::StartupFiles, ShellEnd::Exited(_)) => exit_code::REFUSED,
            (Reached::StartupFiles | Reached::Script, ShellEnd::Signalled(signal)) => {
                128_u8.saturating_add(signal)
            }
        }
    }

    /// The outcome of the stage. The refusal was shown in the job log already; it is for the audit line.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match (self.reached, self.end) {
            (Reached::Script, ShellEnd::Exited(code)) => Outcome::Exited(code.into()),
            (Reached::StartupFiles, ShellEnd::Exited(code)) => {
                Outcome::Refused(startup_refusal("start-up files of the shell", code, Taken::Nothing))
            }
            (Reached::StartupFiles | Reached::Script, ShellEnd::Signalled(signal)) => {
                Outcome::Signalled(signal.into())
            }
        }
    }
}

/// The outcome of a `run`, from how `jacamar` itself ended and what it reported.
///
/// `None` is a system failure: `jacamar` was ended by a signal, failed before the shell started, or reported
/// something else than it exited with. What is no end of a process (a refusal, a failed step) stays what it is.
#[must_use]
pub fn believed(process: &Outcome, report: Option<StageReport>) -> Option<Outcome> {
    match process {
        Outcome::Exited(code) => {
            let report = report.filter(|report| i32::from(report.exit_code()) == *code)?;
            Some(report.outcome())
        }
        Outcome::Signalled(_) => None,
        Outcome::Refused(_) | Outcome::Broken(_) => Some(process.clone()),
    }
}

/// Whether the start-up files took what was meant for the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The script was not touched.
    Nothing,
    /// Something read from standard input, where the script comes from, or the shell could not announce the script.
    Input,
}

/// The refusal for a shell that exited before the job's script began. `files` names the start-up files.
#[must_use]
pub fn startup_refusal(files: &str, code: u8, taken: Taken) -> Refusal {
    let (cause, hint) = match taken {
        Taken::Nothing => (
            format!("ended the shell before the job's script began (exit code {code})"),
            "look for `exit`, `exec`, or `set -e` and a command that fails; ",
        ),
        Taken::Input => (
            format!(
                "read the job's script, or closed descriptor 8, before the script began (exit code {code})"
            ),
            "look for a command that reads standard input, and give it `< /dev/null`; ",
        ),
    };
    Refusal {
        rule: "startup_file".to_owned(),
        object: files.to_owned(),
        cause,
        hint: format!(
            "{hint}or leave these files out, in .gitlab-ci.yml:\nvariables:\n  JACAMAR_NO_BASH_PROFILE: \"1\""
        ),
    }
}

const EXITED: u16 = 1;
const SIGNALLED: u16 = 2;

impl Payload for StageReport {
    const KIND: Kind = Kind::StageReport;

    fn check(&self) -> Result<(), FrameError> {
        let problem = match self.end {
            ShellEnd::Exited(_) | ShellEnd::Signalled(1..=64) => return Ok(()),
            ShellEnd::Signalled(0) => TextProblem::Zero,
            ShellEnd::Signalled(found) => TextProblem::TooLarge { found: found.into(), max: 64 },
        };
        Err(InvalidText { field: "signal", problem }.into())
    }

    fn write(&self, fields: &mut Writer) {
        fields.word(match self.reached {
            Reached::StartupFiles => 1,
            Reached::Script => 2,
        });
        let (kind, number) = match self.end {
            ShellEnd::Exited(code) => (EXITED, code),
            ShellEnd::Signalled(signal) => (SIGNALLED, signal),
        };
        fields.word(kind);
        fields.word(number.into());
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FrameError> {
        let meaningless = |field, number: u16| FrameError::Meaningless { field, number: number.into() };
        let reached = match fields.word("reached")? {
            1 => Reached::StartupFiles,
            2 => Reached::Script,
            other => return Err(meaningless("reached", other)),
        };
        let kind = fields.word("end")?;
        let found = fields.word("number")?;
        let number = u8::try_from(found).map_err(|_| meaningless("number", found))?;
        let end = match kind {
            EXITED => ShellEnd::Exited(number),
            SIGNALLED => ShellEnd::Signalled(number),
            other => return Err(meaningless("end", other)),
        };
        Ok(Self { reached, end })
    }
}

#[cfg(test)]
mod tests {
    use jacamar_plan::{Step, StepError};

    use super::*;
    use crate::frame;

    fn report(reached: Reached, end: ShellEnd) -> StageReport {
        StageReport { reached, end }
    }

    #[test]
    fn every_report_comes_back_and_has_one_size() {
        let ends = (0..=255).map(ShellEnd::Exited).chain((1..=64).map(ShellEnd::Signalled));
        for end in ends {
            for reached in [Reached::StartupFiles, Reached::Script] {
                let bytes = frame::encode(&report(reached, end)).expect("good");
                assert_eq!(bytes.len(), REPORT_BYTES);
                assert_eq!(frame::decode(&bytes), Ok(report(reached, end)));
            }
        }
        for signal in [0, 65, 255] {
            assert!(
                frame::encode(&report(Reached::Script, ShellEnd::Signalled(signal))).is_err(),
                "{signal}"
            );
        }
    }

    #[test]
    fn a_number_without_a_meaning_is_no_report() {
        let good = frame::encode(&report(Reached::Script, ShellEnd::Exited(1))).expect("good");
        for (at, byte) in [(17, 0), (17, 3), (23, 0), (23, 3), (28, 1)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert!(frame::decode::<StageReport>(&bytes).is_err(), "{at} {byte}");
        }
    }

    #[test]
    fn success_is_a_script_that_began_and_nothing_else() {
        use Reached::{Script, StartupFiles};
        use ShellEnd::{Exited, Signalled};
        let exited = |code, report| believed(&Outcome::Exited(code), report);
        assert_eq!(exited(0, Some(report(Script, Exited(0)))), Some(Outcome::Exited(0)));
        assert_eq!(exited(42, Some(report(Script, Exited(42)))), Some(Outcome::Exited(42)));
        assert_eq!(exited(137, Some(report(Script, Signalled(9)))), Some(Outcome::Signalled(9)));
        assert_eq!(exited(143, Some(report(StartupFiles, Signalled(15)))), Some(Outcome::Signalled(15)));
        for code in [0, 3] {
            let refused = exited(1, Some(report(StartupFiles, Exited(code))));
            assert!(matches!(refused, Some(Outcome::Refused(refusal)) if refusal.rule == "startup_file"));
        }
        // No report, another one, `jacamar` itself killed.
        assert_eq!(exited(0, None), None);
        assert_eq!(exited(125, None), None);
        assert_eq!(exited(0, Some(report(StartupFiles, Exited(0)))), None);
        assert_eq!(exited(1, Some(report(Script, Exited(0)))), None);
        assert_eq!(believed(&Outcome::Signalled(9), Some(report(Script, Exited(0)))), None);
        let broken = Outcome::Broken(StepError { step: Step::Fork, errno: 12 });
        assert_eq!(believed(&broken, None), Some(broken));
    }
}
