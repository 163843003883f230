//! Latencies as they were measured, one by one; percentiles are exact, by nearest rank, never from buckets.

use std::fmt;
use std::time::Duration;

/// A set of latencies.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// Adds all of `other`.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest sample that at least `percent` % of the samples do not exceed; `None` without samples.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied()
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        self.0.iter().max().copied()
    }

    /// `p50 / p99 / max`, as they go into a table.
    #[must_use]
    pub fn spread(&self) -> String {
        [self.percentile(50.0), self.percentile(99.0), self.max()].map(time).join(" / ")
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spread())
    }
}

/// A time with three digits that mean something: `640 µs`, `12.3 ms`, `1.46 s`; a dash for none.
#[must_use]
pub fn time(time: Option<Duration>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    let (value, unit) = match time.as_secs_f64() {
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// So many in that time, a second.
#[must_use]
pub fn rate(count: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(values: impl IntoIterator<Item = u64>) -> Samples {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let hundred = milliseconds((1..=100).rev());
        let percentile = |p| hundred.percentile(p).unwrap().as_millis();
        assert_eq!([0.0, 1.0, 50.0, 99.0, 99.5, 100.0].map(percentile), [1, 1, 50, 99, 100, 100]);
        assert_eq!(milliseconds([7]).percentile(50.0), Some(Duration::from_millis(7)));
        assert_eq!(milliseconds([1, 9]).percentile(50.0), Some(Duration::from_millis(1)));
        assert_eq!(milliseconds([]).percentile(50.0), None);
    }

    #[test]
    fn a_spread_shows_the_units_of_each() {
        let samples: Samples = [640, 640, 2_500_000].map(Duration::from_micros).into_iter().collect();
        assert_eq!(samples.spread(), "640 µs / 2.50 s / 2.50 s");
        assert_eq!(time(Some(Duration::from_micros(12_340))), "12.3 ms");
        assert_eq!(time(Some(Duration::from_millis(123))), "123 ms");
        assert_eq!(Samples::default().spread(), "- / - / -");
    }

    #[test]
    fn a_rate_is_per_second() {
        assert!((rate(30, Duration::from_millis(1500)) - 20.0).abs() < 1e-9);
        assert!(rate(5, Duration::ZERO).abs() < f64::EPSILON);
    }
}
