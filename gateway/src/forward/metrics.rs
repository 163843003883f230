//! What is counted of invocations. Labels are closed sets: never a tenant, a function or a path.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Bounds of the duration buckets, in seconds: from a call within a machine to a stream of an hour.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0, 3600.0];

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The function answered.
    Answered,
    /// The function answered that it failed (5xx).
    FunctionError,
    /// The function could not be reached, broke off before its answer, or answered what is no HTTP.
    FunctionFailed,
    /// The function said nothing for as long as its time-out.
    FunctionTimeout,
    /// The answer broke off, or stopped coming.
    Cut,
    /// No pod was ready.
    NotReady,
    /// Over a limit.
    Refused,
    /// The caller's own request was at fault.
    CallerFault,
    /// The caller left before the end.
    Left,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Answered,
        Self::FunctionError,
        Self::FunctionFailed,
        Self::FunctionTimeout,
        Self::Cut,
        Self::NotReady,
        Self::Refused,
        Self::CallerFault,
        Self::Left,
    ];

    /// As metrics and usage name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::FunctionError => "function_error",
            Self::FunctionFailed => "function_failed",
            Self::FunctionTimeout => "function_timeout",
            Self::Cut => "cut",
            Self::NotReady => "not_ready",
            Self::Refused => "refused",
            Self::CallerFault => "caller_fault",
            Self::Left => "left",
        }
    }
}

/// What an invocation is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// How it ended.
    pub outcome: &'static str,
}

/// What is counted of invocations. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InvocationMetrics {
    /// Invocations by outcome.
    pub invocations: Family<OutcomeLabels, Counter>,
    /// From the end of the request's head to the end of the answer, in seconds.
    pub duration: Histogram,
    /// Invocations under way.
    pub under_way: Gauge,
    /// Requests that were given to another pod since the first took no connection.
    pub retries: Counter,
}

impl Default for InvocationMetrics {
    fn default() -> Self {
        Self {
            invocations: Family::default(),
            duration: Histogram::new(DURATION_BUCKETS),
            under_way: Gauge::default(),
            retries: Counter::default(),
        }
    }
}

impl InvocationMetrics {
    /// Counts one that ended.
    pub fn count(&self, outcome: Outcome) {
        self.invocations.get_or_create(&OutcomeLabels { outcome: outcome.as_str() }).inc();
    }

    /// Adds all of them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("eventflow_invocations", "HTTP invocations, by outcome", self.invocations.clone());
        registry.register(
            "eventflow_invocation_duration_seconds",
            "Time from the head of a request to the end of its answer",
            self.duration.clone(),
        );
        registry.register("eventflow_invocations_under_way", "HTTP invocations under way", self.under_way.clone());
        registry.register(
            "eventflow_invocation_retries",
            "Requests given to another pod since the first took no connection",
            self.retries.clone(),
        );
    }
}
