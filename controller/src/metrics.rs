//! Counters and gauges. Labels are bounded: kinds and phases, never a name.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use eventflow_api::function::Phase;
use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::world::{Key, World};

/// Quota in figures.
pub mod quota;

use quota::QuotaGauges;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    phase: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Told {
    verdict: String,
}

/// Buckets of the wait for quota, in seconds: at once, or until something goes.
const WAITED: [f64; 9] = [0.0, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 86_400.0];

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Kind, Counter<u64, AtomicU64>>,
    errors: Family<Kind, Counter<u64, AtomicU64>>,
    durations: Family<Kind, Histogram, fn() -> Histogram>,
    phases: Family<InPhase, Gauge>,
    watch_errors: Family<Kind, Counter<u64, AtomicU64>>,
    admissions: Family<Told, Counter<u64, AtomicU64>>,
    waited: Histogram,
    conflicts: Counter<u64, AtomicU64>,
    quota: QuotaGauges,
    queue: Gauge,
    leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.000_1, 4.0, 10));
        let mut metrics = Self {
            registry: Registry::default(),
            reconciles: Family::default(),
            errors: Family::default(),
            durations: Family::new_with_constructor(histogram),
            phases: Family::default(),
            watch_errors: Family::default(),
            admissions: Family::default(),
            waited: Histogram::new(WAITED),
            conflicts: Counter::default(),
            quota: QuotaGauges::default(),
            queue: Gauge::default(),
            leader: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("eventflow_reconcile", "Objects brought in order", self.reconciles.clone());
        r.register("eventflow_reconcile_errors", "Reconciles that failed", self.errors.clone());
        r.register("eventflow_reconcile_duration_seconds", "Duration of a reconcile", self.durations.clone());
        r.register("eventflow_functions_phase", "Functions by phase", self.phases.clone());
        r.register("eventflow_watch_errors", "Interruptions of watches", self.watch_errors.clone());
        r.register("eventflow_admissions", "Verdicts on functions", self.admissions.clone());
        let waited = "Time that what was admitted had waited for quota";
        r.register("eventflow_admission_wait_seconds", waited, self.waited.clone());
        r.register("eventflow_ledger_conflicts", "Swaps of a ledger that others had written", self.conflicts.clone());
        self.quota.register(r);
        r.register("eventflow_queue_depth", "Objects that wait to be brought in order", self.queue.clone());
        r.register("eventflow_leader", "1 while this controller works", self.leader.clone());
    }

    /// A reconcile ended.
    pub fn reconciled(&self, key: &Key, took: Duration, failed: bool) {
        let kind = match key {
            Key::Tenant(_) => "tenant",
            Key::Function(_) => "function",
            Key::Invocation(_) => "invocation",
            Key::Admission(_) => "admission",
        };
        let kind = Kind { kind: kind.to_owned() };
        self.reconciles.get_or_create(&kind).inc();
        self.durations.get_or_create(&kind).observe(took.as_secs_f64());
        if failed {
            self.errors.get_or_create(&kind).inc();
        }
    }

    /// A watch was interrupted.
    pub fn watch_failed(&self, kind: &str) {
        self.watch_errors.get_or_create(&Kind { kind: kind.to_lowercase() }).inc();
    }

    /// A verdict was given; one that admits, after so long a wait.
    pub fn admission(&self, verdict: &'static str, waited: Option<Duration>) {
        self.admissions.get_or_create(&Told { verdict: verdict.to_owned() }).inc();
        if let Some(waited) = waited {
            self.waited.observe(waited.as_secs_f64());
        }
    }

    /// A swap of a ledger failed, since others had written it.
    pub fn ledger_conflict(&self) {
        self.conflicts.inc();
    }

    /// This controller works, or does not.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Everything, in OpenMetrics text.
    ///
    /// # Errors
    /// If a value cannot be written, which prometheus-client never does for these types.
    pub fn text(&self, world: &World) -> Result<String, std::fmt::Error> {
        use Phase::{Failed, Idle, Pending, Queued, Running, Suspended, Unknown};
        let functions = world.tables().functions.find(|_| true);
        for phase in [Pending, Queued, Running, Idle, Suspended, Failed, Unknown] {
            let count = functions.iter().filter(|(_, seen)| seen.view.status.phase == phase).count();
            let label = InPhase { phase: format!("{phase:?}") };
            self.phases.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.quota.observe(&world.tables(), Timestamp::now());
        self.queue.set(i64::try_from(world.queue.len()).unwrap_or(i64::MAX));
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}
