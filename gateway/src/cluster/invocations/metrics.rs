//! What is counted of runs. Labels are closed sets: never a tenant or a function.

use eventflow_api::invocation::RunReason;
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::store::Record;

/// Bounds of the buckets, in seconds: to the second, as Kubernetes tells times, up to a day.
const BUCKETS: [f64; 12] = [0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0];

/// What a run that is over is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    /// Why it ended.
    reason: &'static str,
}

/// What is counted of runs.
#[derive(Debug)]
pub(in crate::cluster) struct RunMetrics {
    over: Family<Labels, Counter>,
    queued: Histogram,
    started: Histogram,
    ran: Histogram,
}

impl Default for RunMetrics {
    fn default() -> Self {
        let histogram = || Histogram::new(BUCKETS);
        Self { over: Family::default(), queued: histogram(), started: histogram(), ran: histogram() }
    }
}

impl RunMetrics {
    /// Adds all of them to `registry`.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("eventflow_runs", "Job runs that ended, by reason", self.over.clone());
        registry.register("eventflow_run_queue_seconds", "Time that job runs waited for quota", self.queued.clone());
        let started = "Time from a job run's admission to the start of its program";
        registry.register("eventflow_run_start_seconds", started, self.started.clone());
        registry.register("eventflow_run_seconds", "Time that programs of job runs took", self.ran.clone());
    }

    /// A run that was asked for at `created` ended so.
    pub(super) fn ended(&self, created: Timestamp, record: &Record) {
        let reason = record.reason.map_or("Unknown", RunReason::as_str);
        self.over.get_or_create(&Labels { reason }).inc();
        let observe = |histogram: &Histogram, from: Option<Timestamp>, to: Option<Timestamp>| {
            if let (Some(from), Some(to)) = (from, to) {
                histogram.observe(to.duration_since(from).as_secs_f64().max(0.0));
            }
        };
        observe(&self.queued, Some(created), record.admitted_at);
        observe(&self.started, record.admitted_at, record.started_at);
        observe(&self.ran, record.started_at, Some(record.finished_at));
    }
}
