//! Whether a function may be had, and what is told of it. What can be known beforehand is refused before anything is
//! stored, so that nobody has to clean up what can never run; the rest is the controller's to decide, and is waited
//! for.

use std::time::{Duration, Instant};

use eventflow_api::admission::Admission;
use eventflow_api::function::{FunctionSpec, ValidSpec};
use eventflow_api::names::FunctionName;
use eventflow_api::problem::ProblemCode;
use eventflow_api::tier::TierSpec;
use eventflow_api::violation::{Violation, ViolationCode};
use quota::demand::Demand;
use quota::limits::{Excess, excesses};
use quota::verdict::Verdict;

use crate::app::App;
use crate::auth::{Caller, Tenant};
use crate::error::ApiError;
use crate::metrics::{AdmissionLabels, VerdictLabels};
use crate::store::FunctionRow;

/// Longest wait for the controller's verdict.
const VERDICT_WAIT: Duration = Duration::from_secs(2);

/// Refuses what the tenant may not have at all: anything while it is suspended, what its tier does not allow, and what
/// can never fit its quota. What the caches cannot tell is left to the controller.
///
/// # Errors
/// The refusal.
pub async fn check(app: &App, caller: &Caller, name: &FunctionName, spec: &FunctionSpec) -> Result<(), ApiError> {
    let spec = spec.parse().map_err(ApiError::invalid)?;
    let Some(tenant) = app.cluster.tenant_soon(caller.tenant.id()).await else { return Ok(()) };
    if tenant.spec.suspended {
        let detail = "The tenant is suspended: it can be read, and functions can be deleted. Ask an operator.";
        return Err(ApiError::new(ProblemCode::TenantSuspended, detail));
    }
    let Ok((tier, hard)) = app.cluster.limits(&tenant) else { return Ok(()) };
    let violations = over_tier(&tenant.spec.tier, &tier.spec, &spec);
    if !violations.is_empty() {
        return Err(ApiError::invalid(violations));
    }
    let Ok(steady) = Demand::of_function(&spec).steady() else {
        let message = "ask for more than can be counted; ask for less";
        return Err(ApiError::invalid(vec![Violation::new("resources", ViolationCode::Range, message)]));
    };
    if steady.fits_within(&hard) {
        return Ok(());
    }
    // What is held already may be kept, also if the quota was lowered below it.
    let Ok(view) = app.cluster.quota(caller.tenant.id()) else { return Ok(()) };
    match view.foresee(name, &spec) {
        Ok(verdict @ Verdict::Exceeds { .. }) => {
            count(app, "exceeds", "write");
            Err(ApiError::exceeds(&view.sentence(&verdict), view.tell(&verdict)))
        }
        _ => Ok(()),
    }
}

/// What a tier allows each function.
fn over_tier(name: &str, tier: &TierSpec, spec: &ValidSpec) -> Vec<Violation> {
    let violation = |excess: Excess| {
        let message = format!("must be at most {} in the tier {name}", excess.limit);
        Violation::new(excess.field, ViolationCode::Range, message)
    };
    excesses(spec, tier).into_iter().map(violation).collect()
}

/// The verdict that a write would get now.
pub fn foresee(app: &App, tenant: &Tenant, name: &FunctionName, spec: &FunctionSpec) -> Admission {
    let told = || -> Result<Admission, String> {
        let view = app.cluster.quota(tenant.id())?;
        let spec = spec.parse().map_err(|_| "its spec makes no sense")?;
        let verdict = view.foresee(name, &spec).map_err(|error| error.to_string())?;
        Ok(view.tell(&verdict))
    };
    let admission = told().unwrap_or_else(|why| Admission::Undecided { why });
    count(app, admission.label(), "dry-run");
    admission
}

/// The controller's verdict on a row, waited for if the cluster holds it.
pub async fn wait(app: &App, row: &FunctionRow) -> Admission {
    let started = Instant::now();
    let admission = if row.is_synced() {
        app.cluster.admission(row, VERDICT_WAIT).await
    } else {
        let why = "stored, and not applied to the cluster yet; that is tried until it succeeds".to_owned();
        Admission::Undecided { why }
    };
    count(app, admission.label(), "write");
    let waited = app.metrics.verdict_wait.get_or_create(&VerdictLabels { verdict: admission.label() });
    waited.observe(started.elapsed().as_secs_f64());
    admission
}

fn count(app: &App, verdict: &'static str, asked: &'static str) {
    app.metrics.admissions.get_or_create(&AdmissionLabels { verdict, asked }).inc();
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventflow_api::http::parse_create;
    use serde_json::json;

    #[test]
    fn a_tiers_limits_are_told_by_field() {
        let tier: TierSpec = serde_json::from_value(json!({"quota": {"cpuRequests": "2", "memoryRequests": "4Gi",
            "cpuLimits": "4", "memoryLimits": "8Gi", "pods": 10, "persistentVolumeClaims": 2, "functions": 5},
            "requestsPerSecond": 1, "burst": 1, "concurrentInvocations": 1, "maxReplicasPerFunction": 3,
            "maxTimeoutSeconds": 300}))
        .unwrap();
        let over = |replicas, timeout| {
            let body = json!({"name": "a", "image": "a:1", "replicas": replicas, "timeoutSeconds": timeout});
            let (_, _, spec) = parse_create(body).unwrap();
            over_tier("free", &tier, &spec).into_iter().map(|v| v.field).collect::<Vec<_>>()
        };
        assert!(over(3, 300).is_empty());
        assert_eq!(over(4, 301), ["replicas", "timeoutSeconds"]);
    }
}
