//! A closed loop: each worker calls again as soon as its last call was answered. Latencies of a closed loop say what
//! so many callers see; a slow answer also delays the next call, so they say nothing about calls that come unasked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::samples::{Samples, rate};

/// How much load, and when it ends: after so many calls or so long, whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Callers at once.
    pub workers: usize,
    /// Calls of all workers together.
    pub calls: usize,
    /// No call starts later than this.
    pub time: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// From the start to the last answer.
    pub elapsed: Duration,
    /// Of the calls that were answered, whatever the answer.
    pub latencies: Samples,
    /// How often each answer came, failures by their text.
    pub answers: BTreeMap<String, usize>,
}

impl Outcome {
    /// Answered calls a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        rate(self.latencies.len(), self.elapsed)
    }

    /// `201 x 97, 202 x 3`.
    #[must_use]
    pub fn answers(&self) -> String {
        self.answers.iter().map(|(answer, count)| format!("{answer} x {count}")).collect::<Vec<_>>().join(", ")
    }

    fn add(&mut self, other: Self) {
        self.latencies.append(other.latencies);
        for (answer, count) in other.answers {
            *self.answers.entry(answer).or_default() += count;
        }
    }
}

impl Load {
    /// Runs `call(worker, number)` in a closed loop; numbers count from 0 over all workers, and each is given once.
    /// A call gives the name under which its answer is counted.
    ///
    /// # Errors
    /// When a worker panicked.
    pub async fn run<F, C>(self, call: F) -> Result<Outcome>
    where
        F: Fn(usize, usize) -> C + Clone + Send + 'static,
        C: Future<Output = Result<String>> + Send + 'static,
    {
        let (next, start) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let mut workers = JoinSet::new();
        for worker in 0..self.workers {
            workers.spawn(self.work(worker, start, next.clone(), call.clone()));
        }
        let mut outcome = Outcome::default();
        while let Some(done) = workers.join_next().await {
            outcome.add(done?);
        }
        outcome.elapsed = start.elapsed();
        Ok(outcome)
    }

    async fn work<F, C>(self, worker: usize, start: Instant, next: Arc<AtomicUsize>, call: F) -> Outcome
    where
        F: Fn(usize, usize) -> C,
        C: Future<Output = Result<String>>,
    {
        let mut outcome = Outcome::default();
        while start.elapsed() < self.time {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.calls {
                break;
            }
            let asked = Instant::now();
            let answer = match call(worker, number).await {
                Ok(answer) => {
                    outcome.latencies.push(asked.elapsed());
                    answer
                }
                Err(error) => {
                    // Without this a caller whose calls fail at once would only measure that.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    format!("{error:#}").chars().take(120).collect()
                }
            };
            *outcome.answers.entry(answer).or_default() += 1;
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn every_call_is_made_once_and_counted() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let load = Load { workers: 4, calls: 50, time: Duration::from_secs(60) };
        let outcome = load.run({
            let seen = seen.clone();
            move |worker, number| {
                let seen = seen.clone();
                async move {
                    assert!(worker < 4);
                    seen.lock().unwrap().push(number);
                    if number == 7 { anyhow::bail!("refused") } else { Ok((200 + number % 2).to_string()) }
                }
            }
        });
        let outcome = outcome.await.unwrap();
        let mut seen = seen.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        assert_eq!(outcome.latencies.len(), 49);
        assert_eq!(outcome.answers(), "200 x 25, 201 x 24, refused x 1");
    }

    #[tokio::test]
    async fn time_ends_it() {
        let load = Load { workers: 2, calls: usize::MAX, time: Duration::from_millis(20) };
        let outcome = load.run(|_, _| async {
            tokio::task::yield_now().await;
            Ok("ok".to_owned())
        });
        assert!(outcome.await.unwrap().answers["ok"] > 0);
    }
}
