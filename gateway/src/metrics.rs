//! Counters and histograms of the HTTP side. Labels are bounded: methods we know, patterns of the route table,
//! statuses; never a path, never a caller's text.

use std::sync::atomic::AtomicU64;

use http::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Bounds of the duration buckets, in seconds: from a cached read to a call that ran into its deadline.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0];

/// What a finished request is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// A method of the route table, or `other`.
    pub method: &'static str,
    /// A pattern of the route table, or `none`.
    pub route: &'static str,
    /// The HTTP status.
    pub status: u16,
}

/// What a request's duration is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// A method of the route table, or `other`.
    pub method: &'static str,
    /// A pattern of the route table, or `none`.
    pub route: &'static str,
}

/// What a refused call is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProblemLabels {
    /// A problem code.
    pub code: &'static str,
}

/// What an answered admission is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AdmissionLabels {
    /// `admitted`, `queued`, `exceeds` or `undecided`.
    pub verdict: &'static str,
    /// `write` or `dry-run`.
    pub asked: &'static str,
}

/// What the wait for a verdict is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerdictLabels {
    /// `admitted`, `queued`, `exceeds` or `undecided`.
    pub verdict: &'static str,
}

/// What quota is summed under. There are as many values as tiers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QuotaLabels {
    /// The tier's name.
    pub tier: String,
    /// `hard`, `reserved` or `used`.
    pub kind: &'static str,
}

/// Whether a database connection is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionLabels {
    /// `used` or `idle`.
    pub state: &'static str,
}

/// What a request of ours to the API server is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClusterLabels {
    /// `read` for gets and lists, `watch`, or `write`.
    pub kind: &'static str,
}

impl ClusterLabels {
    /// Of a request with this method and query.
    #[must_use]
    pub fn of(method: &Method, query: Option<&str>) -> Self {
        let watches = query.is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
        let kind = match *method {
            Method::GET if watches => "watch",
            Method::GET => "read",
            _ => "write",
        };
        Self { kind }
    }
}

/// Counters and histograms of the HTTP side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Requests answered.
    pub requests: Family<RequestLabels, Counter>,
    /// Time from the head of a request to the head of its answer, in seconds.
    pub duration: Family<RouteLabels, Histogram>,
    /// Problems answered, by code.
    pub problems: Family<ProblemLabels, Counter>,
    /// Admissions answered.
    pub admissions: Family<AdmissionLabels, Counter>,
    /// Time that writes waited for the controller's verdict, in seconds.
    pub verdict_wait: Family<VerdictLabels, Histogram>,
    /// Requests under way.
    pub in_flight: Gauge,
    /// Requests of ours to the API server.
    pub cluster_requests: Family<ClusterLabels, Counter>,
    /// Function objects in the watch cache; set at each scrape, as those below.
    pub functions: Gauge,
    /// CPU requests, in cores, over all namespaces of a tier.
    pub quota_cpu: Family<QuotaLabels, Gauge<f64, AtomicU64>>,
    /// Memory requests, in bytes, over all namespaces of a tier.
    pub quota_memory: Family<QuotaLabels, Gauge<f64, AtomicU64>>,
    /// Database connections for callers, by state.
    pub connections: Family<ConnectionLabels, Gauge>,
    /// Rows that the cluster does not hold yet; -1 while the database cannot say.
    pub pending: Gauge,
    /// Age of the oldest of these rows, in seconds.
    pub pending_age: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            problems: Family::default(),
            admissions: Family::default(),
            verdict_wait: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            quota_cpu: Family::default(),
            quota_memory: Family::default(),
            in_flight: Gauge::default(),
            cluster_requests: Family::default(),
            functions: Gauge::default(),
            connections: Family::default(),
            pending: Gauge::default(),
            pending_age: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Adds all of them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("eventflow_api_requests", "Requests answered", self.requests.clone());
        registry.register(
            "eventflow_api_request_duration_seconds",
            "Time from the head of a request to the head of its answer",
            self.duration.clone(),
        );
        registry.register("eventflow_api_problems", "Problems answered, by code", self.problems.clone());
        registry.register("eventflow_api_requests_in_flight", "Requests under way", self.in_flight.clone());
        registry.register(
            "eventflow_cluster_requests",
            "Requests to the API server, by kind",
            self.cluster_requests.clone(),
        );
        registry.register("eventflow_functions_total", "Function objects in the cluster", self.functions.clone());
        registry.register(
            "eventflow_admission_answers",
            "Verdicts of quota admission answered to writes and dry runs",
            self.admissions.clone(),
        );
        registry.register(
            "eventflow_admission_verdict_wait_seconds",
            "Time that writes waited for the controller's verdict",
            self.verdict_wait.clone(),
        );
        registry.register(
            "eventflow_namespace_quota_cpu",
            "CPU requests in cores: hard, reserved and used, over the namespaces of a tier",
            self.quota_cpu.clone(),
        );
        registry.register(
            "eventflow_namespace_quota_memory",
            "Memory requests in bytes: hard, reserved and used, over the namespaces of a tier",
            self.quota_memory.clone(),
        );
        registry.register("eventflow_store_connections", "Database connections for callers", self.connections.clone());
        registry.register(
            "eventflow_projector_pending",
            "Rows that the cluster does not hold yet, -1 while the database cannot say",
            self.pending.clone(),
        );
        registry.register(
            "eventflow_projector_lag_seconds",
            "Age of the oldest row that the cluster does not hold yet",
            self.pending_age.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_are_no_reads() {
        let kind = |method, query| ClusterLabels::of(&method, query).kind;
        assert_eq!(kind(Method::GET, None), "read");
        assert_eq!(kind(Method::GET, Some("&limit=500")), "read");
        assert_eq!(kind(Method::GET, Some("&watch=true&timeoutSeconds=290")), "watch");
        assert_eq!(kind(Method::PATCH, Some("&fieldManager=watch=true")), "write");
    }
}
