//! `MaxJobsPerUser`: a job above it waits in `prepare`, before anything of it happens, until its turn comes.
//!
//! What counts stands in the records themselves, so it goes with them: a record with a turn that has come, or one that
//! nothing limits and that is prepared, until it is removed. One that `gc` would finish counts no more, and one that waits
//! only as long as its `prepare` lives.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use jacamar_plan::{Duration as InWords, Refusal};
use jacamar_record::{Jobs, JobsAtOnce, OpenJob, RecordError, Running, Turn, TurnState};
use jacamar_sandbox::Own;

use super::known::Known;
use super::user_side::{identify, runner};
use super::{StageError, hostname, tell};
use crate::stale::Here;

/// Between two looks at the records.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at the lock on turns, which others hold for one look.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// Nobody holds it longer.
const LOCKED_WITHIN: Duration = Duration::from_secs(10);
/// Between two lines in the job log.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// So long before the job's time limit the wait ends: later the runner would say that the job was too slow.
const BEFORE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The job may go on.
    Come,
    /// A signal asked for our end, or the runner is gone.
    AskedToEnd,
}

/// Waits until the job's turn has come; the caller holds the record's lock.
pub(super) fn await_turn(
    own: &Own,
    jobs: &Jobs,
    job: &OpenJob,
    known: &mut Known,
) -> Result<Awaited, StageError> {
    let record = job.record();
    let Some(limit) = &record.jobs_at_once else { return Ok(Awaited::Come) };
    let begin = Instant::now();
    let age = SystemTime::now().duration_since(job.written()?).unwrap_or_default();
    let time_left = Duration::from_secs(record.timeout_s).saturating_sub(age + BEFORE_TIMEOUT);
    let account = &record.grant.account;
    let words = Words {
        account: format!("{} (uid {})", account.name, account.uid),
        host: &record.host,
        limit,
        patience: Patience::of(limit, time_left),
    };
    let awaited = wait(own, begin, &mut Line::new(jobs, job, limit.max)?, &words);
    known.waited(begin.elapsed());
    awaited
}

fn wait(own: &Own, begin: Instant, line: &mut Line<'_>, words: &Words<'_>) -> Result<Awaited, StageError> {
    let job = line.job;
    let parent = runner(job.record())?;
    let mut looked = begin;
    let mut said: Option<Instant> = None;
    loop {
        // `cleanup` ends us where it knows of us; it need not wait where it came before that.
        if job.closed()?.is_some() {
            return Err(RecordError::Closing(job.name().to_owned()).into());
        }
        let pause = match line.look()? {
            None if looked.elapsed() > LOCKED_WITHIN => {
                return Err(anyhow::anyhow!(
                    "the lock on turns, below the state directory, is held for more than {} s by another process",
                    LOCKED_WITHIN.as_secs()
                )
                .into());
            }
            None => TRY_EVERY,
            Some(Seen { turn: Turn { state: TurnState::Come, .. }, .. }) => {
                if said.is_some() {
                    job.clear_running()?;
                    tell(&words.goes_on(begin.elapsed()));
                }
                return Ok(Awaited::Come);
            }
            Some(seen) => {
                looked = Instant::now();
                let waited = begin.elapsed();
                if waited >= words.patience.time {
                    return Err(StageError::Refused(words.refusal(&seen, waited)));
                }
                if said.is_none() {
                    // For `cleanup`: the end of this process is the end of the stage.
                    let own = identify(nix::unistd::getpid())?;
                    job.set_running(&Running { supervisor: own, init: own })?;
                    tell(&words.begins(&seen));
                    said = Some(looked);
                } else if said.is_some_and(|at| at.elapsed() >= SAY_EVERY) {
                    tell(&words.goes_on_waiting(&seen, waited));
                    said = Some(looked);
                }
                LOOK_EVERY.min(words.patience.time - waited)
            }
        };
        if own.asked_to_end_within(&parent, pause).map_err(anyhow::Error::from)? {
            return Ok(Awaited::AskedToEnd);
        }
    }
}

/// Jobs of one user, as they stand at one moment.
struct Line<'a> {
    jobs: &'a Jobs,
    job: &'a OpenJob,
    max: u64,
    here: Here,
    host: String,
    /// Records that are none of this user's on this host: what is written in them stays.
    foreign: HashSet<String>,
}

/// The others of the line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Others {
    running: u64,
    /// Numbers of those that wait.
    waiting: Vec<u64>,
    /// The highest number that any of them has.
    highest: u64,
}

/// What comes of a look.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    turn: Turn,
    running: u64,
    /// So many wait since longer.
    before: u64,
}

impl<'a> Line<'a> {
    fn new(jobs: &'a Jobs, job: &'a OpenJob, max: u64) -> anyhow::Result<Self> {
        let (here, host) = (Here::look()?, hostname()?);
        Ok(Self { jobs, job, max, here, host, foreign: HashSet::new() })
    }

    /// Whether the job's turn has come, and writes it down; `None`: another process is looking.
    fn look(&mut self) -> anyhow::Result<Option<Seen>> {
        let Some(locked) = self.jobs.try_turns()? else { return Ok(None) };
        let own = self.job.turn()?;
        let seen = judge(own, &self.others()?, self.max);
        if own != Some(seen.turn) {
            self.job.set_turn(&locked, seen.turn)?;
        }
        Ok(Some(seen))
    }

    fn others(&mut self) -> anyhow::Result<Others> {
        let mut others = Others::default();
        for name in self.jobs.names()? {
            if name == self.job.name() || self.foreign.contains(&name) {
                continue;
            }
            let job = match self.jobs.find(&name) {
                Ok(job) => job,
                // In the making, removed meanwhile, or not ours to read: `gc` names the last.
                Err(RecordError::Missing(_) | RecordError::Format { .. } | RecordError::Damaged { .. }) => {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if job.record().grant.account.uid == self.job.record().grant.account.uid
                && job.record().host == self.host
            {
                self.count(&job, &mut others)?;
            } else {
                self.foreign.insert(name);
            }
        }
        Ok(others)
    }

    fn count(&self, job: &OpenJob, others: &mut Others) -> anyhow::Result<()> {
        let turn = job.turn()?;
        others.highest = others.highest.max(turn.map_or(0, |turn| turn.number));
        match turn {
            // Its `prepare` holds the lock, or it was killed.
            Some(Turn { number, state: TurnState::Waiting }) if job.is_locked()? => {
                others.waiting.push(number)
            }
            Some(Turn { state: TurnState::Waiting, .. }) => {}
            Some(Turn { state: TurnState::Come, .. }) => others.running += self.lives(job)?,
            None if job.prepared()?.is_some() => others.running += self.lives(job)?,
            None => {}
        }
        Ok(())
    }

    /// 0: no stage of it runs, and either its clean-up has begun or nobody will finish it but `gc`.
    fn lives(&self, job: &OpenJob) -> anyhow::Result<u64> {
        let over = job.closed()?.is_some() || self.here.why(job)?.is_some();
        Ok(u64::from(!over || job.is_locked()?))
    }
}

/// A place is free for a job if those that wait since longer leave one.
fn judge(own: Option<Turn>, others: &Others, max: u64) -> Seen {
    let number = own.map_or(others.highest.saturating_add(1), |turn| turn.number);
    let before = others.waiting.iter().filter(|waiting| **waiting < number).count() as u64;
    let has_come = own.is_some_and(|turn| turn.state == TurnState::Come);
    let is_free = others.running.saturating_add(before) < max;
    let state = if has_come || is_free { TurnState::Come } else { TurnState::Waiting };
    Seen { turn: Turn { number, state }, running: others.running, before }
}

/// How long a job waits, and why no longer.
struct Patience {
    time: Duration,
    why: String,
}

impl Patience {
    fn of(limit: &JobsAtOnce, time_left: Duration) -> Self {
        let wish = limit.wait.value().map(Duration::from_millis);
        match wish.filter(|wish| *wish <= time_left) {
            Some(time) => {
                let origin =
                    limit.wait_origin.as_ref().map_or_else(|| "the default".to_owned(), ToString::to_string);
                Self { time, why: format!("MaxJobsWaitSec, {origin}") }
            }
            None => Self { time: time_left, why: "what is left of its own time limit".to_owned() },
        }
    }
}

/// What the job log says.
struct Words<'a> {
    account: String,
    host: &'a str,
    limit: &'a JobsAtOnce,
    patience: Patience,
}

impl Words<'_> {
    fn begins(&self, seen: &Seen) -> String {
        let Patience { time, why } = &self.patience;
        format!(
            "jacamar-auth: this job waits: account {} {}; it waits at most {} ({why}){}\n",
            self.account,
            self.state(seen),
            in_words(*time),
            before(seen)
        )
    }

    fn goes_on_waiting(&self, seen: &Seen, waited: Duration) -> String {
        format!(
            "jacamar-auth: this job waits since {}: account {} {}; it waits at most {} more{}\n",
            in_words(waited),
            self.account,
            self.state(seen),
            in_words(self.patience.time.saturating_sub(waited)),
            before(seen)
        )
    }

    fn goes_on(&self, waited: Duration) -> String {
        format!("jacamar-auth: this job waited {} for its turn and goes on\n", in_words(waited))
    }

    /// `has 2 jobs running on login1, and no more may run there at the same time (MaxJobsPerUser = 2, FILE:LINE)`
    fn state(&self, seen: &Seen) -> String {
        format!(
            "has {} running on {}, and no more than {} may run there at the same time (MaxJobsPerUser, {})",
            jobs(seen.running),
            self.host,
            self.limit.max,
            self.limit.origin
        )
    }

    fn refusal(&self, seen: &Seen, waited: Duration) -> Refusal {
        let Patience { why, .. } = &self.patience;
        let waited = match self.patience.time {
            Duration::ZERO => format!("this job does not wait ({why})"),
            _ => format!("this job has waited {} ({why})", in_words(waited)),
        };
        Refusal {
            rule: "max_jobs_per_user".into(),
            object: format!("account {}", self.account),
            cause: format!("{}; {waited}{}", self.state(seen), before(seen)),
            hint: "retry this job when another one has ended, or cancel one; `resource_group:` in .gitlab-ci.yml makes \
                   jobs follow one another without holding a runner"
                .into(),
        }
    }
}

fn before(seen: &Seen) -> String {
    match seen.before {
        0 => String::new(),
        1 => ", and 1 job waits before it".into(),
        number => format!(", and {number} jobs wait before it"),
    }
}

fn jobs(number: u64) -> String {
    if number == 1 { "1 job".into() } else { format!("{number} jobs") }
}

fn in_words(time: Duration) -> InWords {
    InWords(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use jacamar_plan::{Max, Origin};

    use super::*;

    fn others(running: u64, waiting: &[u64]) -> Others {
        let highest = waiting.iter().copied().max().unwrap_or_default();
        Others { running, waiting: waiting.to_vec(), highest }
    }

    const fn waits(number: u64) -> Option<Turn> {
        Some(Turn { number, state: TurnState::Waiting })
    }

    /// Whether it has come, and which number it has.
    fn judged(own: Option<Turn>, others: &Others, max: u64) -> (bool, u64) {
        let seen = judge(own, others, max);
        (seen.turn.state == TurnState::Come, seen.turn.number)
    }

    #[test]
    fn who_comes_later_waits_longer() {
        assert_eq!(judged(None, &others(0, &[]), 1), (true, 1));
        assert_eq!(judged(None, &others(1, &[]), 2), (true, 1));
        assert_eq!(judged(None, &others(2, &[]), 2), (false, 1));
        // A place is free, and another waits for it.
        assert_eq!(judged(None, &others(1, &[5]), 2), (false, 6));
        assert_eq!(judged(waits(5), &others(1, &[6, 7]), 2), (true, 5));
        assert_eq!(judged(waits(6), &others(1, &[5, 7]), 2), (false, 6));
        // Two are free: the second need not wait for the first to see it.
        assert_eq!(judged(waits(6), &others(0, &[5, 7]), 2), (true, 6));
        assert_eq!(judged(waits(7), &others(0, &[5, 6]), 2), (false, 7));
        // Others may have had another limit, or none.
        assert_eq!(judged(waits(1), &others(9, &[]), 2), (false, 1));
    }

    #[test]
    fn a_turn_that_has_come_stays() {
        let come = Some(Turn { number: 3, state: TurnState::Come });
        assert_eq!(judged(come, &others(2, &[1, 2]), 2), (true, 3));
    }

    fn limit(wait: Max, written: bool) -> JobsAtOnce {
        let origin = |line| Origin { file: "/etc/site.toml".into(), line, shipped: false };
        JobsAtOnce { max: 2, origin: origin(7), wait, wait_origin: written.then(|| origin(8)) }
    }

    #[test]
    fn nobody_waits_longer_than_the_job_may_take() {
        let minute = Duration::from_secs(60);
        let of = |wait, written, left| {
            let Patience { time, why } = Patience::of(&limit(wait, written), left);
            (time, why)
        };
        let default = "MaxJobsWaitSec, the default".to_owned();
        assert_eq!(of(Max::Value(60_000), false, minute), (minute, default));
        let written = "MaxJobsWaitSec, /etc/site.toml:8".to_owned();
        assert_eq!(of(Max::Value(0), true, minute), (Duration::ZERO, written));
        let own = "what is left of its own time limit".to_owned();
        assert_eq!(of(Max::Value(60_001), true, minute), (minute, own.clone()));
        assert_eq!(of(Max::Infinity, true, Duration::ZERO), (Duration::ZERO, own));
    }

    #[test]
    fn the_job_log_names_account_number_limit_and_time() {
        let limit = limit(Max::Value(600_000), true);
        let patience = Patience::of(&limit, Duration::from_secs(3600));
        let words = Words { account: "ci1 (uid 1001)".into(), host: "login1", limit: &limit, patience };
        let seen = judge(waits(4), &others(2, &[3]), 2);
        let state = "account ci1 (uid 1001) has 2 jobs running on login1, and no more than 2 may run there at the same \
                     time (MaxJobsPerUser, /etc/site.toml:7)";
        assert_eq!(
            words.begins(&seen),
            format!(
                "jacamar-auth: this job waits: {state}; it waits at most 10 min 0 s (MaxJobsWaitSec, /etc/site.toml:8), \
                 and 1 job waits before it\n"
            )
        );
        assert_eq!(
            words.goes_on_waiting(&seen, Duration::from_secs(61)),
            format!(
                "jacamar-auth: this job waits since 1 min 1 s: {state}; it waits at most 8 min 59 s more, and 1 job \
                 waits before it\n"
            )
        );
        let seen = judge(waits(4), &others(2, &[]), 2);
        let refusal = words.refusal(&seen, Duration::from_secs(600));
        assert_eq!(
            format!("{} {}", refusal.object, refusal.cause),
            format!("{state}; this job has waited 10 min 0 s (MaxJobsWaitSec, /etc/site.toml:8)")
        );
    }
}
