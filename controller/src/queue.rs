//! Work to do: each key once, never twice at the same time, later if it comes again meanwhile. Knows when a key
//! is due, how often it failed, and that decisions come first; knows nothing of what the work is. Bounded by the number
//! of objects.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::world::Key;

/// First wait after a failure.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// Callers wait for decisions, so these come first; but after so many in a row something else has its turn.
const DECISIONS_IN_A_ROW: u32 = 4;

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    ready: VecDeque<Key>,
    /// Ready too: who is admitted.
    decisions: VecDeque<Key>,
    /// Decisions since anything else was begun.
    decided: u32,
    waiting: HashSet<Key>,
    running: HashSet<Key>,
    /// Came again while running.
    again: HashSet<Key>,
    due: BTreeMap<(Instant, u64), Key>,
    due_of: HashMap<Key, (Instant, u64)>,
    failures: HashMap<Key, u32>,
    counter: u64,
    closed: bool,
}

/// How the work on a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing to do until something changes.
    Settled,
    /// Look again after that time.
    After(Duration),
    /// Try again after a while that grows with every failure.
    Failed,
}

impl Queue {
    /// There is work on this key.
    pub fn add(&self, key: Key) {
        self.inner().push(key);
        self.changed.notify_one();
    }

    /// The next key, or nothing once the queue is closed. [`Queue::done`] must follow.
    pub async fn take(&self) -> Option<Key> {
        loop {
            let until = {
                let mut inner = self.inner();
                if inner.closed {
                    drop(inner);
                    self.changed.notify_one();
                    return None;
                }
                inner.wake_due();
                if let Some(key) = inner.start() {
                    let more = inner.ready() > 0;
                    drop(inner);
                    if more {
                        self.changed.notify_one();
                    }
                    return Some(key);
                }
                inner.due.keys().next().map(|(at, _)| *at)
            };
            match until {
                Some(at) => tokio::select! {
                    () = self.changed.notified() => (),
                    () = tokio::time::sleep_until(at) => (),
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// The work on a key ended.
    pub fn done(&self, key: &Key, next: Next) {
        let mut inner = self.inner();
        inner.running.remove(key);
        let again = inner.again.remove(key);
        if next == Next::Failed {
            let failures = inner.failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            // What came meanwhile may have mended it; but never at once, or a failure that changes something spins.
            let delay = if again { BACKOFF_MIN } else { backoff(*failures) };
            inner.schedule(key.clone(), jittered(delay));
        } else {
            inner.failures.remove(key);
            match next {
                _ if again => inner.push(key.clone()),
                Next::After(delay) => inner.schedule(key.clone(), delay),
                Next::Settled | Next::Failed => (),
            }
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// No key is given out any more.
    pub fn close(&self) {
        self.inner().closed = true;
        self.changed.notify_one();
    }

    /// Keys that wait to be worked on now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner().ready()
    }

    /// Whether nothing waits to be worked on now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete when it returns: a panic elsewhere leaves the queue sound.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push(&mut self, key: Key) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            match key {
                Key::Admission(_) => self.decisions.push_back(key),
                Key::Tenant(_) | Key::Function(_) | Key::Invocation(_) => self.ready.push_back(key),
            }
        }
    }

    fn ready(&self) -> usize {
        self.ready.len() + self.decisions.len()
    }

    fn start(&mut self) -> Option<Key> {
        let key = if self.decided < DECISIONS_IN_A_ROW || self.ready.is_empty() {
            self.decisions.pop_front().or_else(|| self.ready.pop_front())
        } else {
            self.ready.pop_front()
        };
        let key = key?;
        self.decided = if matches!(key, Key::Admission(_)) { self.decided.saturating_add(1) } else { 0 };
        self.waiting.remove(&key);
        if let Some(at) = self.due_of.remove(&key) {
            self.due.remove(&at);
        }
        self.running.insert(key.clone());
        Some(key)
    }

    fn schedule(&mut self, key: Key, delay: Duration) {
        self.counter += 1;
        let at = (Instant::now() + delay, self.counter);
        if let Some(before) = self.due_of.insert(key.clone(), at) {
            self.due.remove(&before);
        }
        self.due.insert(at, key);
    }

    fn wake_due(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.due_of.remove(&key);
            self.push(key);
        }
    }
}

/// The wait after so many failures in a row.
fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(BACKOFF_MAX)
}

/// A fifth less to a fifth more, so that many objects that failed together do not come back together.
fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::Tenant(name.to_owned())
    }

    #[tokio::test]
    async fn a_key_waits_once_and_runs_once_at_a_time() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.add(key("a"));
        assert_eq!(queue.take().await, Some(key("a")));
        assert!(queue.is_empty());
        queue.add(key("a"));
        assert!(queue.is_empty(), "not while it runs");
        queue.done(&key("a"), Next::Settled);
        assert_eq!(queue.take().await, Some(key("a")));
    }

    #[tokio::test]
    async fn decisions_come_first_but_not_alone() {
        let queue = Queue::default();
        let decision = |i: u32| Key::Admission(i.to_string());
        for i in 0..6 {
            queue.add(key(&i.to_string()));
            queue.add(decision(i));
        }
        assert_eq!(queue.len(), 12);
        let mut order = Vec::new();
        for _ in 0..8 {
            order.push(matches!(queue.take().await, Some(Key::Admission(_))));
        }
        assert_eq!(order, [true, true, true, true, false, true, true, false]);
    }

    /// Seconds until the key is due.
    fn due_in(queue: &Queue, key: &Key) -> f64 {
        queue.inner().due_of[key].0.duration_since(Instant::now()).as_secs_f64()
    }

    #[tokio::test]
    async fn failures_wait_longer_and_longer_and_a_change_does_not_wait() {
        let queue = Queue::default();
        for expected in [1.0, 2.0, 4.0] {
            queue.add(key("a"));
            assert_eq!(queue.take().await, Some(key("a")), "a change does not wait");
            queue.done(&key("a"), Next::Failed);
            let due = due_in(&queue, &key("a"));
            assert!((expected * 0.7..expected * 1.2).contains(&due), "{due} instead of {expected}");
        }
        queue.add(key("a"));
        queue.take().await;
        queue.add(key("a"));
        queue.done(&key("a"), Next::Failed);
        assert!(due_in(&queue, &key("a")) <= 1.2, "what came meanwhile may have mended it");
        queue.add(key("a"));
        queue.take().await;
        queue.done(&key("a"), Next::Settled);
        let inner = queue.inner();
        assert!(inner.failures.is_empty() && inner.due.is_empty() && inner.due_of.is_empty(), "nothing is left");
    }

    #[tokio::test]
    async fn what_is_due_comes_by_itself() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.take().await;
        queue.done(&key("a"), Next::After(Duration::from_millis(1)));
        assert_eq!(queue.take().await, Some(key("a")));
    }

    #[tokio::test]
    async fn everyone_hears_of_the_end() {
        let queue = std::sync::Arc::new(Queue::default());
        let takers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.take().await })
            })
            .collect();
        queue.close();
        for taker in takers {
            assert_eq!(taker.await.unwrap(), None);
        }
    }

    #[test]
    fn the_wait_is_bounded() {
        assert_eq!(backoff(1), BACKOFF_MIN);
        assert_eq!(backoff(40), BACKOFF_MAX);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }
}
