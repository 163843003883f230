//! `/v1/tiers`, for operators: what a tenant may use. A change takes effect at once, and evicts nobody.

use std::sync::Arc;

use eventflow_api::http::tiers::{Tier, TierList, is_tier_name, parse_tier};
use eventflow_api::tier::{Tier as TierObject, TierSpec};
use eventflow_api::violation::{Violation, ViolationCode};
use http::StatusCode;
use kube::ResourceExt;

use super::call::{Call, JSON};
use super::etag::{self, Precondition};
use super::operators::{self, Change, TRIES};
use super::{Answer, json};
use crate::app::App;
use crate::auth::Operator;
use crate::cluster::ObjectError;
use crate::error::ApiError;
use crate::store::{Origin, StoreError};

/// `GET /v1/tiers`: all of them, from the watch cache.
///
/// # Errors
/// An unknown query parameter.
pub async fn list(app: Arc<App>, _: Operator, call: Call) -> Answer {
    call.query()?.finish()?;
    let tiers = app.cluster.tiers().iter().map(|tier| document(&app, tier)).collect();
    json(StatusCode::OK, &TierList { tiers })
}

/// `GET /v1/tiers/{name}`, from the watch cache.
///
/// # Errors
/// No such tier.
pub async fn get(app: Arc<App>, _: Operator, call: Call) -> Answer {
    call.query()?.finish()?;
    let tier = app.cluster.tier(call.word()).ok_or(StoreError::NotFound)?;
    operators::response(StatusCode::OK, &tier.metadata, &document(&app, &tier))
}

/// `PUT /v1/tiers/{name}`: 201 if it is new, 200 if it replaces one.
///
/// # Errors
/// Faults of the request; a failed precondition; 503 when the store or the cluster is away.
pub async fn put(app: Arc<App>, operator: Operator, mut call: Call) -> Answer {
    call.query()?.finish()?;
    let name = call.word().to_owned();
    let (body, _) = call.json(&JSON).await?;
    if !is_tier_name(&name) {
        let message =
            "must consist of lower-case letters, digits, '-' and '.', and start and end with a letter or digit";
        return Err(ApiError::invalid(vec![Violation::new("name", ViolationCode::Format, message)]));
    }
    let spec = parse_tier(&name, body).map_err(ApiError::invalid)?;
    let precondition = etag::if_match(call.headers())?;
    let origin = call.origin_of(operator.identity());
    let (of, to) = (Arc::clone(&app), name.clone());
    let change = async move { change(&of, &to, &spec, &precondition, &origin).await };
    let (status, tier) = operators::to_its_end(change).await?;
    operators::response(status, &tier.metadata, &document(&app, &tier))
}

async fn change(
    app: &Arc<App>,
    name: &str,
    spec: &TierSpec,
    precondition: &Precondition,
    origin: &Origin,
) -> Result<(StatusCode, TierObject), ApiError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let old = match app.cluster.tier_read(name).await {
            Ok(old) => Some(old),
            Err(ObjectError::Missing) => None,
            Err(error) => return Err(error.into()),
        };
        let (action, status) = match &old {
            Some(_) => ("tier.update", StatusCode::OK),
            None => ("tier.create", StatusCode::CREATED),
        };
        let mut tier = old.clone().unwrap_or_else(|| TierObject::new(name, spec.clone()));
        operators::check(precondition, &tier.metadata)?;
        if old.is_some() && tier.spec == *spec {
            return Ok((status, tier));
        }
        let change = Change { app, tenant: None, action, target: name, origin };
        let entry = change.begin(operators::changes(&old.as_ref().map(|old| &old.spec), spec)).await?;
        operators::sign(&mut tier.metadata, entry);
        tier.spec = spec.clone();
        let written = match old {
            Some(_) => app.cluster.tier_replace(&tier).await,
            None => app.cluster.tier_create(&tier).await,
        };
        // Whether the precondition still holds is asked anew.
        let again = matches!(written, Err(ObjectError::Conflict | ObjectError::Exists | ObjectError::Missing));
        let outcome = change.end(entry, written.map_err(ApiError::from)).await;
        if !again || tries == TRIES {
            return outcome.map(|tier| (status, tier));
        }
    }
}

fn document(app: &App, tier: &TierObject) -> Tier {
    let name = tier.name_any();
    Tier {
        generation: tier.metadata.generation.unwrap_or_default(),
        tenants: app.cluster.tenants_of(&name),
        spec: tier.spec.clone(),
        name,
    }
}
