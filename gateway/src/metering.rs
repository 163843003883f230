//! What calls of functions come to: added up in memory where they end, and written once a second, so that no call waits
//! for the database. While it is away the sums grow by hours and functions, not by calls; a crash loses what ended
//! within the last second, and the calls under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventflow_api::names::{FunctionName, TenantId};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::chain;
use crate::store::{CallSum, Store};

/// Between two batches.
const PAUSE: Duration = Duration::from_secs(1);
/// Most sums in a batch.
const BATCH: usize = 2_000;
/// Most sums that are held.
const SUMS_MAX: usize = 200_000;
/// Longest wait for the last batch when the gateway stops.
const LAST: Duration = Duration::from_secs(3);
const HOUR: i64 = 3_600;

/// What one call came to.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// How it ended.
    pub outcome: &'static str,
    /// From the end of the request's head to the end of the answer.
    pub time: Duration,
    /// Of the answer's body, as the function sent it.
    pub bytes_out: u64,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    tenant: TenantId,
    function: FunctionName,
    hour: i64,
    outcome: &'static str,
}

#[derive(Debug, Default)]
struct Sum {
    calls: u64,
    run_us: u64,
    bytes_out: u64,
}

/// Adds up what calls come to.
#[derive(Debug, Default)]
pub struct Meter {
    sums: Mutex<HashMap<Key, Sum>>,
    /// Calls for which there was no room.
    lost: AtomicU64,
}

impl Meter {
    /// Adds a call that ended now.
    pub fn count(&self, tenant: &TenantId, function: &FunctionName, call: Call) {
        self.count_at(tenant, function, call, Timestamp::now());
    }

    fn count_at(&self, tenant: &TenantId, function: &FunctionName, call: Call, at: Timestamp) {
        let hour = at.as_second().div_euclid(HOUR) * HOUR;
        let key = Key { tenant: tenant.clone(), function: function.clone(), hour, outcome: call.outcome };
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.len() >= SUMS_MAX && !sums.contains_key(&key) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let sum = sums.entry(key).or_default();
        sum.calls += 1;
        sum.run_us += u64::try_from(call.time.as_micros()).unwrap_or(u64::MAX >> 1);
        sum.bytes_out += call.bytes_out;
    }

    /// Takes some of the sums out.
    fn take(&self) -> Vec<CallSum> {
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = if sums.len() <= BATCH {
            std::mem::take(&mut *sums)
        } else {
            // The closure says yes to all, and no more are drawn than are wanted.
            sums.extract_if(|_, _| true).take(BATCH).collect()
        };
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let row = |(key, sum): (Key, Sum)| CallSum {
            tenant: key.tenant.to_string(),
            function: key.function.to_string(),
            hour: key.hour,
            outcome: key.outcome,
            calls: number(sum.calls),
            run_us: number(sum.run_us),
            bytes_out: number(sum.bytes_out),
        };
        taken.into_iter().map(row).collect()
    }
}

/// Writes the sums down until it is told to stop, and then once more.
pub async fn run(meter: Arc<Meter>, store: Store, shutdown: CancellationToken) {
    let mut writer = Writer { meter, store, id: Uuid::new_v4(), number: 0, pending: Vec::new() };
    while shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
        writer.write().await;
    }
    if tokio::time::timeout(LAST, writer.write()).await.is_err() {
        tracing::warn!("The last calls could not be written down.");
    }
}

struct Writer {
    meter: Arc<Meter>,
    store: Store,
    /// Names this run of the gateway.
    id: Uuid,
    /// Of the batch that is pending, or was written last.
    number: i64,
    /// What may have been written, or not: it goes again as it is until an answer says that it is there.
    pending: Vec<CallSum>,
}

impl Writer {
    async fn write(&mut self) {
        let lost = self.meter.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::error!(calls = lost, "Calls could not be counted: the database has been away for too long.");
        }
        loop {
            if self.pending.is_empty() {
                self.pending = self.meter.take();
                self.number += 1;
            }
            if self.pending.is_empty() {
                return;
            }
            if let Err(error) = self.store.usage_add(self.id, self.number, &self.pending).await {
                tracing::warn!(error = chain(&error), "Usage cannot be written down now, and is kept.");
                return;
            }
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(outcome: &'static str, micros: u64) -> Call {
        Call { outcome, time: Duration::from_micros(micros), bytes_out: 10 }
    }

    #[test]
    fn calls_are_added_up_by_hour_function_and_outcome() {
        let meter = Meter::default();
        let (tenant, function) = ("t".parse().unwrap(), "f".parse().unwrap());
        for (at, outcome) in
            [("10:00:00", "answered"), ("10:59:59", "answered"), ("10:30:00", "cut"), ("11:00:00", "cut")]
        {
            meter.count_at(&tenant, &function, call(outcome, 1_500), format!("2026-01-31T{at}Z").parse().unwrap());
        }
        let mut sums = meter.take();
        sums.sort_by_key(|sum| (sum.hour, sum.outcome));
        let seen: Vec<_> = sums.iter().map(|s| (s.outcome, s.calls, s.run_us, s.bytes_out)).collect();
        assert_eq!(seen, [("answered", 2, 3_000, 20), ("cut", 1, 1_500, 10), ("cut", 1, 1_500, 10)]);
        assert_eq!(sums[2].hour - sums[0].hour, HOUR);
        assert!(meter.take().is_empty());
    }

    #[test]
    fn batches_and_memory_are_bounded() {
        let meter = Meter::default();
        let tenant = "t".parse().unwrap();
        for n in 0..SUMS_MAX + 5 {
            meter.count_at(&tenant, &format!("f{n}").parse().unwrap(), call("answered", 1), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(meter.lost.load(Ordering::Relaxed), 5);
        assert_eq!(meter.take().len(), BATCH);
        assert_eq!(meter.sums.lock().unwrap().len(), SUMS_MAX - BATCH);
    }
}
