//! Counters and histograms of policies. Labels are bounded: policies and revisions that are bound now, verdicts and
//! failures of closed sets; when a revision is not bound any more, its series go.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventflow_api::policy::Binding;
use policy_engine::Fallback;
use policy_engine::set::Step;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::role_word;

/// Bounds of the time buckets, in microseconds: from a fresh instance to an admission policy's deadline.
const TIME_BUCKETS: [f64; 14] = [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 1e5, 5e5];
/// Digits of a digest in a label.
const SHORT: usize = 12;
const VERDICTS: [&str; 5] = ["allow", "change", "deny", "rate-limited", "failed"];
const ROLES: [&str; 3] = ["active", "canary", "shadow"];
const FAILURES: [&str; 7] =
    ["timed-out", "out-of-memory", "trapped", "host-calls", "invalid", "view-too-large", "busy"];

/// What a decision is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DecisionLabels {
    /// The policy.
    pub policy: String,
    /// The first digits of the revision's digest.
    pub revision: String,
    /// `active`, `canary` or `shadow`.
    pub role: &'static str,
    /// `allow`, `change`, `deny`, `rate-limited` or `failed`.
    pub verdict: &'static str,
}

/// What a policy's time and its differences are counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RevisionLabels {
    /// The policy.
    pub policy: String,
    /// The first digits of the revision's digest.
    pub revision: String,
}

/// What a failure is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FailureLabels {
    /// The policy.
    pub policy: String,
    /// What it did.
    pub kind: &'static str,
}

/// What this machine lacks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FallbackLabels {
    /// `no-pagemap-scan`, `small-pool` or `no-pool`.
    pub kind: &'static str,
}

/// Counters and histograms of policies. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PolicyMetrics {
    /// Decisions.
    pub decisions: Family<DecisionLabels, Counter>,
    /// Time of a decision, in microseconds.
    pub time: Family<RevisionLabels, Histogram>,
    /// Failures: traps, time-outs, invalid answers.
    pub failures: Family<FailureLabels, Counter>,
    /// Decisions of shadows that differ from what was enforced.
    pub differences: Family<RevisionLabels, Counter>,
    /// Revisions that the platform took back by itself.
    pub rollbacks: Counter,
    /// The set of policies that runs here.
    pub set_revision: Gauge,
    /// Decisions that the log had no room for.
    pub unlogged: Counter,
    /// What this machine lacks; decisions are slower for it.
    fallbacks: Family<FallbackLabels, Gauge>,
    known: Arc<Mutex<HashSet<(String, String)>>>,
}

impl PolicyMetrics {
    pub(super) fn new(fallbacks: &[Fallback]) -> Self {
        let family = Family::<FallbackLabels, Gauge>::default();
        for fallback in fallbacks {
            family.get_or_create(&FallbackLabels { kind: fallback.as_str() }).set(1);
        }
        Self {
            decisions: Family::default(),
            time: Family::new_with_constructor(|| Histogram::new(TIME_BUCKETS)),
            failures: Family::default(),
            differences: Family::default(),
            rollbacks: Counter::default(),
            set_revision: Gauge::default(),
            unlogged: Counter::default(),
            fallbacks: family,
            known: Arc::default(),
        }
    }

    /// Adds all of them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("eventflow_policy_decisions", "Decisions of policies", self.decisions.clone());
        registry.register("eventflow_policy_decision_microseconds", "Time of one decision", self.time.clone());
        registry.register("eventflow_policy_failures", "Policies that did not decide", self.failures.clone());
        registry.register(
            "eventflow_policy_shadow_differences",
            "Decisions of shadows that differ from what was enforced",
            self.differences.clone(),
        );
        registry.register("eventflow_policy_rollbacks", "Revisions taken back by the platform", self.rollbacks.clone());
        registry.register(
            "eventflow_policy_set_revision",
            "The set of policies in force here",
            self.set_revision.clone(),
        );
        registry.register("eventflow_policy_unlogged", "Decisions the log had no room for", self.unlogged.clone());
        registry.register("eventflow_policy_engine_fallback", "What this machine lacks", self.fallbacks.clone());
    }

    pub(super) fn count(&self, step: &Step) {
        let (policy, revision) = (step.policy.to_string(), short(&step.digest.to_string()));
        let labels = RevisionLabels { policy: policy.clone(), revision: revision.clone() };
        self.time.get_or_create(&labels).observe(micros(step.elapsed) as f64);
        if step.difference.is_some() {
            self.differences.get_or_create(&labels).inc();
        }
        if let Some(failure) = &step.failure {
            self.failures.get_or_create(&FailureLabels { policy: policy.clone(), kind: failure.kind() }).inc();
        }
        let labels = DecisionLabels { policy, revision, role: role_word(step.role), verdict: step.verdict };
        self.decisions.get_or_create(&labels).inc();
    }

    /// Lets the series of revisions go that are not bound any more.
    pub(super) fn keep(&self, bindings: &[Binding]) {
        let mut bound = HashSet::new();
        for binding in bindings {
            let digests = binding.active_digest.iter().chain(binding.trial.as_ref().map(|trial| &trial.digest));
            bound.extend(digests.map(|digest| (binding.policy.clone(), short(digest))));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (policy, revision) in known.difference(&bound) {
            let labels = RevisionLabels { policy: policy.clone(), revision: revision.clone() };
            self.time.remove(&labels);
            self.differences.remove(&labels);
            for (role, verdict) in ROLES.into_iter().flat_map(|role| VERDICTS.map(|verdict| (role, verdict))) {
                let labels = DecisionLabels { policy: policy.clone(), revision: revision.clone(), role, verdict };
                self.decisions.remove(&labels);
            }
            if !bound.iter().any(|(name, _)| name == policy) {
                FAILURES.iter().for_each(|kind| {
                    self.failures.remove(&FailureLabels { policy: policy.clone(), kind });
                });
            }
        }
        *known = bound;
    }
}

fn short(digest: &str) -> String {
    digest.chars().take(SHORT).collect()
}

/// As whole microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
