//! Memory and processor time of a process, from `/proc`.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

/// The kernel's clock ticks a second in `/proc/PID/stat`; 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// What a process has used until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in kB (1,024 bytes).
    pub resident_kb: u64,
    /// Most resident memory since it started, in kB.
    pub peak_kb: u64,
    /// Processor time since it started, in user and kernel mode.
    pub processor: Duration,
}

impl Usage {
    /// Reads that of process `pid`.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        Self::parse(&read("status")?, &read("stat")?).with_context(|| format!("/proc/{pid} reads strangely"))
    }

    /// The part of one core that was used in the `time` since `before`.
    #[must_use]
    pub fn share_of_core(&self, before: Self, time: Duration) -> f64 {
        self.processor.saturating_sub(before.processor).as_secs_f64() / time.as_secs_f64()
    }

    fn parse(status: &str, stat: &str) -> Option<Self> {
        let kb = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
        };
        // The command, in parentheses, may hold anything; user and system time are the 12th and 13th after it.
        let mut ticks = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
        let ticks = ticks.next()?? + ticks.next()??;
        let processor = Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND);
        Some(Self { resident_kb: kb("VmRSS")?, peak_kb: kb("VmHWM")?, processor })
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |kb: u64| kb as f64 * 1024.0 / 1e6;
        write!(f, "{:.1} MB (peak {:.1} MB)", megabytes(self.resident_kb), megabytes(self.peak_kb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_command_names_do_not_confuse() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 8 0 100";
        let usage = Usage::parse("Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n", stat).unwrap();
        let expected = Usage { resident_kb: 1000, peak_kb: 2000, processor: Duration::from_secs(3) };
        assert_eq!(usage, expected);
        assert_eq!(usage.to_string(), "1.0 MB (peak 2.0 MB)");
        assert_eq!(Usage::parse("", stat), None);
    }

    #[test]
    fn shares_are_of_one_core() {
        let usage = |ms| Usage { resident_kb: 1, peak_kb: 1, processor: Duration::from_millis(ms) };
        assert!((usage(3_000).share_of_core(usage(1_000), Duration::from_secs(20)) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_kb > 0 && usage.peak_kb >= usage.resident_kb);
        assert!(Usage::of(u32::MAX).is_err());
    }
}
