//! `GET /v1/quota`: what the tenant may use, has reserved and really uses, who waits, and what each function holds. All
//! of it from the watch caches.

use std::sync::Arc;

use eventflow_api::admission::{Amounts, Dimension, Shortfall};
use eventflow_api::http::quota::{FunctionShare, QueuedFunction, QuotaReport};
use eventflow_api::problem::ProblemCode;
use http::StatusCode;
use quota::vector::Vector;

use super::call::Call;
use super::{Answer, json};
use crate::app::App;
use crate::auth::Caller;
use crate::cluster::{QuotaView, Standing};
use crate::error::ApiError;

/// The tenant's quota.
///
/// # Errors
/// An unknown query parameter; a tenant that is being set up or whose tier is missing.
pub async fn get(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    call.query()?.finish()?;
    // Whoever came for the first time just now has an object in a moment.
    app.cluster.tenant_soon(caller.tenant.id()).await;
    let view = app.cluster.quota(caller.tenant.id()).map_err(|why| {
        ApiError::new(ProblemCode::ClusterUnavailable, format!("The quota is not known now: {why}. Try again."))
    })?;
    json(StatusCode::OK, &report(&view))
}

fn report(view: &QuotaView) -> QuotaReport {
    let standings = view.standings();
    let mut queued: Vec<_> = standings.iter().filter_map(queued).collect();
    queued.sort_by_key(|function| function.position);
    QuotaReport {
        tier: view.tenant.spec.tier.clone(),
        suspended: view.tenant.spec.suspended,
        over_quota: view.is_over_quota(),
        hard: whole(view.hard()),
        reserved: whole(view.reserved()),
        used: view.used.as_ref().map(whole),
        queued,
        functions: standings.into_iter().map(share).collect(),
        leaving: view.leaving(),
    }
}

fn queued(standing: &Standing) -> Option<QueuedFunction> {
    let (position, shortfall) = standing.queued.as_ref()?;
    let told = |s: &quota::vector::Shortfall| Shortfall {
        dimension: s.dimension,
        requested: s.dimension.amount(s.requested),
        available: s.dimension.amount(s.available),
        missing: s.dimension.amount(s.missing),
    };
    Some(QueuedFunction {
        name: standing.name.clone(),
        position: *position,
        shortfall: shortfall.iter().map(told).collect(),
        since: standing.since.map(|since| since.to_string()),
    })
}

fn share(standing: Standing) -> FunctionShare {
    FunctionShare {
        name: standing.name,
        verdict: standing.label.to_owned(),
        wanted: standing.wanted.amounts(),
        reserved: standing.reserved.amounts(),
    }
}

/// Every dimension, those of zero too.
fn whole(vector: &Vector) -> Amounts {
    Dimension::ALL.into_iter().map(|dimension| (dimension, dimension.amount(vector.get(dimension)))).collect()
}
