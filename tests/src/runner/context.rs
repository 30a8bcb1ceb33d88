//! What can end work from outside: a cancel or a deadline, inherited from parent to child.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::failure::{Cause, Failure};

/// A scope of work. A child ends with its parent, never the other way round; the first reason stays.
#[derive(Clone, Debug)]
pub(crate) struct Context(Arc<Node>);

#[derive(Debug)]
struct Node {
    parent: Option<Context>,
    deadline: Option<(Instant, Cause)>,
    ended: Mutex<Option<Cause>>,
}

impl Context {
    pub(crate) fn root() -> Context {
        Context::node(None, None)
    }

    fn node(parent: Option<Context>, deadline: Option<(Instant, Cause)>) -> Context {
        Context(Arc::new(Node { parent, deadline, ended: Mutex::new(None) }))
    }

    pub(crate) fn child(&self) -> Context {
        Context::node(Some(self.clone()), None)
    }

    /// A child that ends after this time; a parent that ends earlier keeps its own reason.
    pub(crate) fn with_timeout(&self, timeout: Duration, cause: Cause) -> Context {
        let Some(deadline) = Instant::now().checked_add(timeout) else { return self.child() };
        let sooner = self.deadline().is_some_and(|parents| parents < deadline);
        Context::node(Some(self.clone()), (!sooner).then_some((deadline, cause)))
    }

    fn deadline(&self) -> Option<Instant> {
        let inherited = self.0.parent.as_ref().and_then(Context::deadline);
        let own = self.0.deadline.map(|(at, _)| at);
        own.into_iter().chain(inherited).min()
    }

    /// The time that is left, if there is a limit.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.deadline().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Why it ended, with the name of the limit that struck.
    pub(crate) fn cause(&self) -> Option<Cause> {
        let mut ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.is_none() {
            *ended = self.0.parent.as_ref().and_then(Context::cause);
        }
        if ended.is_none() {
            *ended = self.0.deadline.filter(|(at, _)| *at <= Instant::now()).map(|(_, cause)| cause);
        }
        *ended
    }

    /// Why it ended, as `ctx.Err()` has it: cancelled, or out of time.
    pub(crate) fn ended(&self) -> Option<Cause> {
        self.cause().map(|cause| if cause == Cause::Canceled { cause } else { Cause::Deadline })
    }

    pub(crate) fn cancel(&self) {
        if self.cause().is_none() {
            *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Cause::Canceled);
        }
    }

    /// The failure of work that was not even begun.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.ended() {
            None => Ok(()),
            Some(Cause::Canceled) => Err(Failure::system("context canceled").by(Cause::Canceled)),
            Some(cause) => Err(Failure::system("context deadline exceeded").by(cause)),
        }
    }

    /// Sleeps, but not longer than the scope lasts. `false`: it ended.
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.ended().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5).min(until.saturating_duration_since(Instant::now())));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_ends_with_its_parent_and_not_the_other_way_round() {
        let parent = Context::root();
        let child = parent.child();
        let other = parent.child();
        child.cancel();
        assert_eq!((child.ended(), parent.ended(), other.ended()), (Some(Cause::Canceled), None, None));
        parent.cancel();
        assert_eq!(other.ended(), Some(Cause::Canceled));
    }

    #[test]
    fn the_sooner_limit_gives_the_reason() {
        let job = Context::root().with_timeout(Duration::ZERO, Cause::Deadline);
        let later = job.with_timeout(Duration::from_secs(5), Cause::PrepareTimeout);
        assert_eq!(later.cause(), Some(Cause::Deadline));
        let job = Context::root().with_timeout(Duration::from_secs(5), Cause::Deadline);
        let sooner = job.with_timeout(Duration::ZERO, Cause::PrepareTimeout);
        assert_eq!((sooner.cause(), sooner.ended()), (Some(Cause::PrepareTimeout), Some(Cause::Deadline)));
        sooner.cancel();
        assert_eq!(sooner.cause(), Some(Cause::PrepareTimeout));
    }
}
