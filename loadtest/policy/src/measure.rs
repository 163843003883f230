//! Timing and tables.

use std::time::{Duration, Instant};

/// Shortest-first times of one thing done many times.
pub struct Times(Vec<Duration>);

impl Times {
    /// Times `work`, `count` times, after a tenth as many that are not counted.
    pub fn of(count: usize, mut work: impl FnMut()) -> Self {
        (0..count / 10).for_each(|_| work());
        let times = (0..count).map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        });
        times.collect::<Vec<_>>().into()
    }

    /// The time that this share of them took at most.
    pub fn at(&self, share: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * share) as usize]
    }

    /// Prints a row: median, 99 of 100, mean.
    pub fn row(&self, what: &str) {
        let mean = self.0.iter().sum::<Duration>() / u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        println!("| {what} | {} | {} | {} |", micros(self.at(0.5)), micros(self.at(0.99)), micros(mean));
    }
}

impl From<Vec<Duration>> for Times {
    fn from(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }
}

/// A duration in microseconds.
pub fn micros(duration: Duration) -> String {
    format!("{:.2} µs", duration.as_nanos() as f64 / 1000.0)
}

/// Resident memory of this process, KiB, by its kinds: `VmRSS`, `RssAnon`, `RssFile`, `RssShmem`.
pub fn resident_kib(kind: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(kind));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
