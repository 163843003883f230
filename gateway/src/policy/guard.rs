//! A revision that fails in use is taken back: when too many of its decisions in the last seconds failed, or were far
//! too slow, the binding goes back to what decided before, or its trial ends. Failures that say nothing about the
//! policy (a busy pool, a request that is too large) do not count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use policy_engine::set::{Role, Step};
use policy_engine::{Failure, World, limits};
use tokio::sync::mpsc;

use super::Inner;
use crate::error::chain;

/// What is looked back on.
const WINDOW: Duration = Duration::from_secs(10);
/// Fewest failures that say anything.
const FAILURES_MIN: u32 = 5;
/// Of so many decisions one may fail.
const ONE_IN: u32 = 20;
/// Fewest decisions whose slowness says anything.
const SLOW_MIN: u32 = 50;
/// After a roll-back, how long the same revision is left alone.
const REST: Duration = Duration::from_secs(5);
/// Roll-backs that wait to be made.
const WAITING: usize = 64;
/// Revisions that are watched at once; bound by what can be bound.
const WATCHED: usize = 4 * limits::BINDINGS;

/// A revision over its budget, in one binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trip {
    binding: String,
    digest: String,
    trial: bool,
    why: String,
}

/// Binding, digest, and whether it is a trial.
type Watched = (Arc<str>, [u8; 32], bool);

pub(super) struct Guard {
    windows: Mutex<HashMap<Watched, Window>>,
    trips: mpsc::Sender<Trip>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    decided: u32,
    failed: u32,
    slow: u32,
    resting_until: Option<Instant>,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { since: now, decided: 0, failed: 0, slow: 0, resting_until: None }
    }

    /// Counts one decision; says what is over its budget, if something is.
    fn count(&mut self, now: Instant, failed: bool, slow: bool) -> Option<String> {
        if now.duration_since(self.since) > WINDOW {
            *self = Self { resting_until: self.resting_until, ..Self::new(now) };
        }
        self.decided += 1;
        self.failed += u32::from(failed);
        self.slow += u32::from(slow);
        if self.resting_until.is_some_and(|until| now < until) {
            return None;
        }
        let decided = self.decided;
        let over = if self.failed >= FAILURES_MIN && self.failed * ONE_IN > decided {
            format!("{} of its last {decided} decisions failed", self.failed)
        } else if decided >= SLOW_MIN && self.slow * 2 > decided {
            format!("{} of its last {decided} decisions took more than half of their deadline", self.slow)
        } else {
            return None;
        };
        *self = Self { resting_until: Some(now + REST), ..Self::new(now) };
        Some(over)
    }
}

impl Guard {
    pub(super) fn new() -> (Self, mpsc::Receiver<Trip>) {
        let (trips, receiver) = mpsc::channel(WAITING);
        (Self { windows: Mutex::default(), trips }, receiver)
    }

    /// Looks at a decision that counted.
    pub(super) fn note(&self, step: &Step, world: World) {
        let not_its_fault = matches!(step.failure, Some(Failure::Busy | Failure::ViewTooLarge));
        if step.role == Role::Shadow || not_its_fault {
            return;
        }
        let deadline = match world {
            World::Request => limits::REQUEST.deadline,
            World::Admission => limits::ADMISSION.deadline,
        };
        let key = (step.binding.clone(), *step.digest.as_bytes(), step.role == Role::Canary);
        let now = Instant::now();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= WATCHED && !windows.contains_key(&key) {
            windows.retain(|_, window| now.duration_since(window.since) < WINDOW);
        }
        let window = windows.entry(key).or_insert_with(|| Window::new(now));
        let over = window.count(now, step.failure.is_some(), step.elapsed > deadline / 2);
        drop(windows);
        if let Some(why) = over {
            let trip = Trip {
                binding: step.binding.to_string(),
                digest: step.digest.to_string(),
                trial: step.role == Role::Canary,
                why,
            };
            // If this many wait already, the next window trips again.
            let _ = self.trips.try_send(trip);
        }
    }
}

/// Works for ever.
pub(super) async fn run(inner: Arc<Inner>, mut trips: mpsc::Receiver<Trip>) {
    while let Some(trip) = trips.recv().await {
        let Trip { binding, digest, trial, why } = &trip;
        match inner.store.policy_revert(binding, digest, *trial, why).await {
            Ok(Some(reverted)) => {
                inner.metrics.rollbacks.inc();
                tracing::error!(
                    policy.binding = binding,
                    policy.digest = digest,
                    why,
                    from = reverted.from,
                    to = reverted.to,
                    "A policy failed in use and was rolled back."
                );
                inner.due.notify_one();
            }
            Ok(None) => tracing::error!(
                policy.binding = binding,
                policy.digest = digest,
                why,
                "A policy fails in use, and there is nothing to roll back to."
            ),
            Err(error) => tracing::error!(
                policy.binding = binding,
                policy.digest = digest,
                why,
                error = chain(&error),
                "A policy fails in use and cannot be rolled back now."
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_failures_among_many_decisions_are_no_reason() {
        let now = Instant::now();
        let mut window = Window::new(now);
        assert!((0..1000).all(|i| window.count(now, i % 100 == 99, false).is_none()));
        let mut window = Window::new(now);
        let trips = (0..6).filter(|_| window.count(now, true, false).is_some()).count();
        assert_eq!(trips, 1, "and one reason is enough for a while");
    }

    #[test]
    fn slowness_counts_when_there_is_enough_of_it() {
        let now = Instant::now();
        let mut window = Window::new(now);
        assert!((0..49).all(|_| window.count(now, false, true).is_none()));
        assert!(window.count(now, false, true).is_some_and(|why| why.contains("50 of its last 50")));
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let start = Instant::now();
        let mut window = Window::new(start);
        for i in 0..20 {
            assert!(window.count(start + WINDOW.mul_f64(1.01 * f64::from(i)), true, false).is_none());
        }
    }
}
