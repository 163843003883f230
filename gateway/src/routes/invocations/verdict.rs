//! Whether a run may be had: what can be known beforehand is refused before anything is stored. What the caches cannot
//! tell is left to the controller.

use eventflow_api::invocation::InvocationSpec;
use eventflow_api::problem::ProblemCode;
use eventflow_api::violation::{Violation, ViolationCode};
use quota::demand::Demand;
use quota::verdict::Verdict;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::metrics::AdmissionLabels;
use crate::store::FunctionRow;

/// Refuses what the tenant may not have at all: anything while it is suspended, a longer time-out than its tier allows,
/// and a pod that can never fit its quota.
///
/// # Errors
/// The refusal.
pub async fn check(app: &App, caller: &Caller, function: &FunctionRow, run: &InvocationSpec) -> Result<(), ApiError> {
    let spec = function.spec.parse().map_err(ApiError::invalid)?;
    let Some(tenant) = app.cluster.tenant_soon(caller.tenant.id()).await else { return Ok(()) };
    if tenant.spec.suspended {
        let detail = "The tenant is suspended: nothing of it runs until it is resumed. Ask an operator.";
        return Err(ApiError::new(ProblemCode::TenantSuspended, detail));
    }
    let Ok((tier, hard)) = app.cluster.limits(&tenant) else { return Ok(()) };
    let limit = tier.spec.max_timeout_seconds;
    if run.timeout_seconds.is_some_and(|asked| asked > i64::from(limit)) {
        let message = format!("must be at most {limit} in the tier {}", tenant.spec.tier);
        return Err(ApiError::invalid(vec![Violation::new("timeout_seconds", ViolationCode::Range, message)]));
    }
    let fits = Demand::of_run(&spec.resources, 1).steady().is_ok_and(|steady| steady.fits_within(&hard));
    if fits {
        return Ok(());
    }
    let Ok(view) = app.cluster.quota(caller.tenant.id()) else { return Ok(()) };
    match view.foresee_run(&function.name, &spec.resources) {
        Ok(verdict @ Verdict::Exceeds { .. }) => {
            app.metrics.admissions.get_or_create(&AdmissionLabels { verdict: "exceeds", asked: "invoke" }).inc();
            Err(ApiError::exceeds(&view.sentence(&verdict), view.tell(&verdict)))
        }
        _ => Ok(()),
    }
}
