//! How a stage ends for GitLab Runner: the exit code, and what `BUILD_EXIT_CODE_FILE` must hold.
//!
//! What the runner makes of it (executors/custom/command/command.go): 0 goes on; the build failure code is the
//! job's own failure and is never retried, with the number in the file as the job's exit code; everything else
//! is a system failure (three attempts of `config` and `prepare`, "runner system failure" for a `run`).
//! The file is not reset between stages and a stale number would count for a later stage, so every verdict says
//! what becomes of it.

use std::num::NonZeroU8;

use jacamar_plan::{Outcome, Stage};

/// The two exit codes that the runner names in its environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCodes {
    /// `BUILD_FAILURE_EXIT_CODE`.
    pub build_failure: NonZeroU8,
    /// `SYSTEM_FAILURE_EXIT_CODE`.
    pub system_failure: NonZeroU8,
}

impl Default for ExitCodes {
    /// 1 and 2, both constants in the runner so far.
    fn default() -> Self {
        Self { build_failure: NonZeroU8::MIN, system_failure: NonZeroU8::MIN.saturating_add(1) }
    }
}

/// Whether the runner asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// No SIGTERM came before the stage's command ended.
    ByItself,
    /// A SIGTERM came first (cancel, a time limit, the runner's own end).
    ByTermination,
}

/// How a stage ends for the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Exit code of the driver.
    pub exit_code: u8,
    /// What `BUILD_EXIT_CODE_FILE` holds when the driver exits. To be done before it exits, and by the
    /// supervisor: the runner opens the file, and a FIFO there would hang it.
    pub code_file: CodeFile,
}

/// What `BUILD_EXIT_CODE_FILE` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeFile {
    /// The file must not exist.
    Removed,
    /// The file holds this number and a line end.
    Holds(NonZeroU8),
}

impl CodeFile {
    /// The bytes of the file: digits and one line end, as `strconv.Atoi` reads the first line without trimming.
    /// `None`: the file must not exist.
    #[must_use]
    pub fn content(self) -> Option<String> {
        match self {
            Self::Removed => None,
            Self::Holds(code) => Some(format!("{code}\n")),
        }
    }
}

/// The one place where an outcome becomes the runner's exit code.
///
/// - 0 only for a command that exited with 0 and that nobody had asked to end. The runner takes 0 for success
///   where its own time limit for the call struck (`config_exec_timeout`, `get_sources_timeout`, ...).
/// - `run`: what the script did is the job's own: build failure, with the shell's number for it (its exit code,
///   or 128 + signal). A script that ended with 0 after SIGTERM counts as 143, what the same shell says when
///   SIGTERM ended it. What runs next does not depend on the number: `after_script` and the clean-up follow
///   every failure of `build_script`, and after a cancel or the job's time limit the runner ignores the code.
/// - `config`, `prepare`, `cleanup`: no text of the job's author runs in them, so a non-zero end of our own
///   program is our failure; and a time limit that struck is the site's matter, worth the runner's next attempt.
/// - A refusal is a build failure in every stage: no retry, and no number, since no script ran.
/// - A breakage is a system failure in every stage.
/// - `exec` is a person's command, not the runner's: the command's own number, and 125 where it never ran, as
///   env(1) and chroot(1) have it. There is no file.
///
/// A number that wait(2) cannot give (exit code outside 0..=255, signal outside 1..=64) is a breakage: what is
/// not understood is not reported as the job's.
#[must_use]
pub fn verdict(stage: &Stage, outcome: &Outcome, ended: Ended, codes: ExitCodes) -> Verdict {
    let end = match outcome {
        Outcome::Exited(code) => match (*code, ended) {
            (0, Ended::ByItself) => End::Success,
            (0, Ended::ByTermination) => End::Failed(SIGTERM_NUMBER),
            (code, Ended::ByItself | Ended::ByTermination) => {
                u8::try_from(code).ok().and_then(NonZeroU8::new).map_or(End::Broken, End::Failed)
            }
        },
        Outcome::Signalled(signal) => signal_number(*signal).map_or(End::Broken, End::Failed),
        Outcome::Refused(_) => End::Refused,
        Outcome::Broken(_) => End::Broken,
    };
    match (stage, end) {
        (Stage::Config | Stage::Prepare | Stage::Run(_) | Stage::Cleanup | Stage::Exec, End::Success) => {
            Verdict { exit_code: 0, code_file: CodeFile::Removed }
        }
        (Stage::Run(_), End::Failed(number)) => {
            Verdict { exit_code: codes.build_failure.get(), code_file: CodeFile::Holds(number) }
        }
        (Stage::Exec, End::Failed(number)) => without_file(number),
        (Stage::Config | Stage::Prepare | Stage::Cleanup, End::Failed(_)) => {
            without_file(codes.system_failure)
        }
        (Stage::Config | Stage::Prepare | Stage::Run(_) | Stage::Cleanup, End::Refused) => {
            without_file(codes.build_failure)
        }
        (Stage::Config | Stage::Prepare | Stage::Run(_) | Stage::Cleanup, End::Broken) => {
            without_file(codes.system_failure)
        }
        (Stage::Exec, End::Refused | End::Broken) => without_file(NEVER_RAN),
    }
}

/// 128 + SIGTERM (15), as a shell names it.
const SIGTERM_NUMBER: NonZeroU8 = NonZeroU8::new(143).expect("143 is not 0");

/// Exit code of env(1), chroot(1) and others if they themselves fail.
const NEVER_RAN: NonZeroU8 = NonZeroU8::new(125).expect("125 is not 0");

/// What an outcome is, whatever the stage.
#[derive(Clone, Copy)]
enum End {
    Success,
    Failed(NonZeroU8),
    Refused,
    Broken,
}

fn without_file(code: NonZeroU8) -> Verdict {
    Verdict { exit_code: code.get(), code_file: CodeFile::Removed }
}

/// 128 + signal; signals are 1..=64 on Linux (signal(7)).
fn signal_number(signal: i32) -> Option<NonZeroU8> {
    let signal = u8::try_from(signal).ok().filter(|signal| (1..=64).contains(signal))?;
    NonZeroU8::new(128 + signal)
}

#[cfg(test)]
mod tests {
    use jacamar_plan::{Refusal, Step, StepError, SubStage};
    use proptest::prelude::*;

    use super::*;

    fn run() -> Stage {
        Stage::Run(SubStage::new("build_script").expect("a name"))
    }

    fn stages() -> [Stage; 5] {
        [Stage::Config, Stage::Prepare, run(), Stage::Cleanup, Stage::Exec]
    }

    fn refused() -> Outcome {
        let text = || "x".to_owned();
        Outcome::Refused(Refusal { rule: text(), object: text(), cause: text(), hint: text() })
    }

    fn broken() -> Outcome {
        Outcome::Broken(StepError { step: Step::Fork, errno: 12 })
    }

    fn codes() -> ExitCodes {
        ExitCodes {
            build_failure: NonZeroU8::new(51).expect("not 0"),
            system_failure: NonZeroU8::new(52).expect("not 0"),
        }
    }

    #[test]
    fn the_runners_codes_are_one_and_two_by_default() {
        let codes = ExitCodes::default();
        assert_eq!((codes.build_failure.get(), codes.system_failure.get()), (1, 2));
    }

    #[test]
    fn every_end_of_every_stage() {
        use Ended::{ByItself, ByTermination};
        use Outcome::{Exited, Signalled};
        // Columns: config, prepare, run, cleanup, exec; then the file after a `run`.
        let table: [(Outcome, Ended, [u8; 5], Option<&str>); 14] = [
            (Exited(0), ByItself, [0, 0, 0, 0, 0], None),
            (Exited(0), ByTermination, [52, 52, 51, 52, 143], Some("143\n")),
            (Exited(1), ByItself, [52, 52, 51, 52, 1], Some("1\n")),
            (Exited(42), ByItself, [52, 52, 51, 52, 42], Some("42\n")),
            (Exited(1), ByTermination, [52, 52, 51, 52, 1], Some("1\n")),
            (Exited(255), ByItself, [52, 52, 51, 52, 255], Some("255\n")),
            (Exited(256), ByItself, [52, 52, 52, 52, 125], None),
            (Exited(-1), ByItself, [52, 52, 52, 52, 125], None),
            (Signalled(9), ByItself, [52, 52, 51, 52, 137], Some("137\n")),
            (Signalled(15), ByTermination, [52, 52, 51, 52, 143], Some("143\n")),
            (Signalled(64), ByItself, [52, 52, 51, 52, 192], Some("192\n")),
            (Signalled(0), ByItself, [52, 52, 52, 52, 125], None),
            (refused(), ByItself, [51, 51, 51, 51, 125], None),
            (broken(), ByItself, [52, 52, 52, 52, 125], None),
        ];
        for (outcome, ended, expected, file) in table {
            for (stage, exit_code) in stages().iter().zip(expected) {
                let verdict = verdict(stage, &outcome, ended, codes());
                assert_eq!(verdict.exit_code, exit_code, "{stage} {outcome:?} {ended:?}");
                let file = if *stage == run() { file } else { None };
                assert_eq!(verdict.code_file.content().as_deref(), file, "{stage} {outcome:?} {ended:?}");
            }
        }
    }

    #[test]
    fn a_signal_that_does_not_exist_is_no_number() {
        for signal in [i32::MIN, -1, 0, 65, 128, i32::MAX] {
            assert_eq!(signal_number(signal), None, "{signal}");
        }
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            any::<i32>().prop_map(Outcome::Exited),
            (-2..300).prop_map(Outcome::Exited),
            any::<i32>().prop_map(Outcome::Signalled),
            (-2..70).prop_map(Outcome::Signalled),
            Just(refused()),
            Just(broken()),
        ]
    }

    proptest! {
        #[test]
        fn zero_only_for_a_command_that_ended_well_by_itself(
            outcome in any_outcome(),
            ended in prop_oneof![Just(Ended::ByItself), Just(Ended::ByTermination)],
            stage in 0_usize..5,
        ) {
            let verdict = verdict(&stages()[stage], &outcome, ended, codes());
            prop_assert_eq!(verdict.exit_code == 0, outcome == Outcome::Exited(0) && ended == Ended::ByItself);
            let held = matches!(verdict.code_file, CodeFile::Holds(_));
            prop_assert!(!held || verdict.exit_code == 51, "a number goes with the build failure code alone");
        }
    }
}
