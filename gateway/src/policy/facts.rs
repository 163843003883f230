//! What a policy is told about a tenant, from the watch caches: no call to the API server, none to the database.

use std::sync::Arc;

use eventflow_api::admission::Dimension;
use eventflow_api::function::Function;
use eventflow_api::names::TenantId;
use eventflow_api::tenant::DEFAULT_TIER;
use policy_engine::host::{FactsSource, TenantFacts};
use policy_engine::types::{Amounts, FunctionSummary, TenantView, TierLimits};
use quota::demand::Demand;
use quota::vector::Vector;

use crate::app::App;

/// Rates and ceilings of a tenant whose tier is not there: those of the smallest tier that is shipped.
const NO_TIER: TierLimits = TierLimits {
    requests_per_second: 20,
    burst: 40,
    concurrent_invocations: 10,
    max_replicas_per_function: 3,
    max_timeout_seconds: 300,
};

pub(super) fn tenant(app: &App, id: &TenantId) -> TenantView {
    let object = app.cluster.tenant(id);
    let tier = object.as_ref().map_or(DEFAULT_TIER, |tenant| tenant.spec.tier.as_str());
    let limits = app.cluster.tier(tier).map_or(NO_TIER, |tier| TierLimits {
        requests_per_second: tier.spec.requests_per_second,
        burst: tier.spec.burst,
        concurrent_invocations: tier.spec.concurrent_invocations,
        max_replicas_per_function: tier.spec.max_replicas_per_function,
        max_timeout_seconds: tier.spec.max_timeout_seconds,
    });
    TenantView { id: id.to_string(), tier: tier.to_owned(), limits }
}

/// What the tenant's functions use, and may use at most.
pub(super) fn amounts(app: &App, id: &TenantId) -> (Amounts, Amounts) {
    let functions = app.cluster.functions_of(id);
    let used = functions.iter().fold(Vector::ZERO, |sum, function| {
        let one = function.spec.parse().ok().and_then(|spec| Demand::of_function(&spec).steady().ok());
        one.and_then(|one| sum.checked_add(&one).ok()).unwrap_or(sum)
    });
    let object = app.cluster.tenant(id);
    let tier = app.cluster.tier(object.as_ref().map_or(DEFAULT_TIER, |tenant| tenant.spec.tier.as_str()));
    let hard = tier.and_then(|tier| {
        let own = object.as_ref().and_then(|tenant| tenant.spec.quota.as_ref());
        Vector::hard(&tier.spec.quota, own).ok()
    });
    (told(&used), hard.as_ref().map_or(Amounts::NONE, told))
}

/// The tenant's facts, looked up only if a policy asks.
pub(super) fn source(app: &Arc<App>, id: &TenantId) -> FactsSource {
    let (app, id) = (Arc::clone(app), id.clone());
    Arc::new(move || {
        let (used, hard) = amounts(&app, &id);
        let mut functions: Vec<_> = app.cluster.functions_of(&id).iter().map(|function| summary(function)).collect();
        functions.sort_by(|a, b| a.name.cmp(&b.name));
        TenantFacts { used, hard, functions }
    })
}

fn summary(function: &Function) -> FunctionSummary {
    let phase = function.status.as_ref().map(|status| status.phase).unwrap_or_default();
    FunctionSummary {
        name: function.metadata.name.clone().unwrap_or_default(),
        image: function.spec.image.clone(),
        replicas: u32::try_from(function.spec.replicas).unwrap_or(0),
        phase: format!("{phase:?}"),
    }
}

fn told(vector: &Vector) -> Amounts {
    Amounts {
        cpu_requests_milli: vector.get(Dimension::CpuRequests),
        memory_requests_bytes: vector.get(Dimension::MemoryRequests),
        cpu_limits_milli: vector.get(Dimension::CpuLimits),
        memory_limits_bytes: vector.get(Dimension::MemoryLimits),
        pods: vector.get(Dimension::Pods),
        functions: vector.get(Dimension::Functions),
    }
}
