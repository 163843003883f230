//! `/v1/tenants`, for operators: who owns things, in which tier, with how much, and whether at all. The Tenant object
//! is the truth; the store knows whose sign-in leads to which tenant.

use std::sync::Arc;

use eventflow_api::http::merge_patch;
use eventflow_api::http::tenants::{NewTenant, Tenant, TenantList, parse_change, parse_create};
use eventflow_api::names::{TenantClaim, TenantId};
use eventflow_api::problem::ProblemCode;
use eventflow_api::tenant::{Tenant as TenantObject, TenantSpec};
use eventflow_api::violation::{Violation, ViolationCode};
use http::StatusCode;
use http::header::{HeaderValue, LOCATION};
use kube::ResourceExt;
use serde_json::Value;

use super::call::{Call, JSON, MERGE_PATCH};
use super::etag::{self, Precondition};
use super::operators::{self, Change, TRIES};
use super::{Answer, json};
use crate::app::App;
use crate::auth::Operator;
use crate::cluster::ObjectError;
use crate::error::{ApiError, chain};
use crate::store::{Origin, StoreError};

/// Tenants of a page when nobody asks for another number.
const PAGE: usize = 100;

/// `GET /v1/tenants`: `limit`, `cursor`, `tier`. From the watch cache.
///
/// # Errors
/// A query that cannot be read.
pub async fn list(app: Arc<App>, _: Operator, call: Call) -> Answer {
    let mut query = call.query()?;
    let (limit, cursor, tier) = (query.limit()?, query.text("cursor"), query.text("tier"));
    query.finish()?;
    let size = limit.map_or(PAGE, |limit| limit as usize);
    let after = |tenant: &TenantObject| cursor.as_ref().is_none_or(|cursor| tenant.name_any() > *cursor);
    let of_tier = |tenant: &TenantObject| tier.as_ref().is_none_or(|tier| tenant.spec.tier == *tier);
    let wanted = app.cluster.tenants().into_iter().filter(|tenant| after(tenant) && of_tier(tenant));
    let mut tenants: Vec<Tenant> = wanted.filter_map(|tenant| document(&tenant)).take(size + 1).collect();
    let more = tenants.len() > size;
    tenants.truncate(size);
    let next_cursor = tenants.last().filter(|_| more).map(|tenant| tenant.id.to_string());
    json(StatusCode::OK, &TenantList { tenants, next_cursor })
}

/// `GET /v1/tenants/{id}`, from the watch cache.
///
/// # Errors
/// No such tenant.
pub async fn get(app: Arc<App>, _: Operator, call: Call) -> Answer {
    call.query()?.finish()?;
    let tenant = app.cluster.tenant(&call.tenant_id()?).ok_or(StoreError::NotFound)?;
    answer(StatusCode::OK, &tenant)
}

/// `POST /v1/tenants`: a tenant for an owner (the issuer and the claim of the tokens that lead to it), or one without
/// an owner, which goes to the first caller whose claim is its id. 201 with `Location`.
///
/// # Errors
/// Faults of the request; an id or an owner that is taken; 503 when the store or the cluster is away.
pub async fn create(app: Arc<App>, operator: Operator, mut call: Call) -> Answer {
    call.query()?.finish()?;
    let (body, _) = call.json(&JSON).await?;
    let new = parse_create(body).map_err(ApiError::invalid)?;
    let origin = call.origin_of(operator.identity());
    let tenant = operators::to_its_end(async move { make(&app, new, &origin).await }).await?;
    let mut response = answer(StatusCode::CREATED, &tenant)?;
    let location = HeaderValue::from_str(&format!("/v1/tenants/{}", tenant.name_any()));
    response.headers_mut().insert(LOCATION, location.map_err(|error| ApiError::internal(error.to_string()))?);
    Ok(response)
}

/// `PATCH /v1/tenants/{id}`: a JSON merge patch of tier, display name, quota and suspension. Tried anew if somebody else
/// was quicker and `If-Match` still allows it.
///
/// # Errors
/// Faults of the request or of what it would make; no such tenant; a failed precondition; 503 when the store or the
/// cluster is away.
pub async fn patch(app: Arc<App>, operator: Operator, mut call: Call) -> Answer {
    call.query()?.finish()?;
    let id = call.tenant_id()?;
    let (patch, _) = call.json(&MERGE_PATCH).await?;
    if !patch.is_object() {
        return Err(ApiError::malformed("A patch of a tenant is a JSON object."));
    }
    let precondition = etag::if_match(call.headers())?;
    let origin = call.origin_of(operator.identity());
    let change = async move { change(&app, &id, &patch, &precondition, &origin).await };
    answer(StatusCode::OK, &operators::to_its_end(change).await?)
}

async fn change(
    app: &Arc<App>,
    id: &TenantId,
    patch: &Value,
    precondition: &Precondition,
    origin: &Origin,
) -> Result<TenantObject, ApiError> {
    let change = Change { app, tenant: Some(id.as_str()), action: "tenant.update", target: id.as_str(), origin };
    let mut tries = 0;
    loop {
        tries += 1;
        let mut tenant = app.cluster.tenant_read(id).await?;
        operators::check(precondition, &tenant.metadata)?;
        let spec = patched(id, &tenant.spec, patch.clone())?;
        if spec == tenant.spec {
            return Ok(tenant);
        }
        tier_exists(app, &spec).await?;
        let entry = change.begin(operators::changes(&tenant.spec, &spec)).await?;
        operators::sign(&mut tenant.metadata, entry);
        tenant.spec = spec;
        let written = app.cluster.tenant_replace(&tenant).await;
        // Mostly the controller's status: whether the precondition still holds is asked anew.
        let again = matches!(written, Err(ObjectError::Conflict));
        let outcome = change.end(entry, written.map_err(ApiError::from)).await;
        if !again || tries == TRIES {
            return outcome;
        }
    }
}

fn patched(id: &TenantId, old: &TenantSpec, patch: Value) -> Result<TenantSpec, ApiError> {
    let mut document = serde_json::to_value(old).map_err(|error| ApiError::internal(error.to_string()))?;
    merge_patch(&mut document, patch);
    parse_change(id.as_str(), old, document).map_err(ApiError::invalid)
}

/// A tier that does not exist would stop the tenant from being set up.
async fn tier_exists(app: &App, spec: &TenantSpec) -> Result<(), ApiError> {
    if app.cluster.tier(&spec.tier).is_some() {
        return Ok(());
    }
    match app.cluster.tier_read(&spec.tier).await {
        Ok(_) => Ok(()),
        Err(ObjectError::Missing | ObjectError::Refused(_)) => {
            let message = format!("names no tier that exists; make {:?} first", spec.tier);
            Err(ApiError::invalid(vec![Violation::new("tier", ViolationCode::Conflict, message)]))
        }
        Err(error) => Err(error.into()),
    }
}

/// The object first, then the row: an object without a row is found again by whoever repeats the call, or signs in; a
/// row without its object would get one of the default tier at the owner's first call.
async fn make(app: &Arc<App>, new: NewTenant, origin: &Origin) -> Result<TenantObject, ApiError> {
    tier_exists(app, &new.spec).await?;
    let id = id_for(app, &new).await?;
    let owner = new.owner();
    let known = app.store.tenant_owner(&id).await?;
    let change = Change { app, tenant: Some(id.as_str()), action: "tenant.create", target: id.as_str(), origin };
    let entry = change.begin(serde_json::json!({ "spec": new.spec })).await?;
    let mut tenant = TenantObject::new(id.as_str(), new.spec.clone());
    operators::sign(&mut tenant.metadata, entry);
    let made = match app.cluster.tenant_create(&tenant).await {
        Ok(made) => make_known(app, &id, owner, made).await,
        Err(ObjectError::Exists) => complete(app, &id, &new, known.is_some()).await,
        Err(error) => Err(error.into()),
    };
    change.end(entry, made).await
}

/// Stores whose tenant it is, or takes back the object.
async fn make_known(
    app: &App,
    id: &TenantId,
    owner: Option<(&str, &TenantClaim)>,
    made: TenantObject,
) -> Result<TenantObject, ApiError> {
    match app.store.tenant_add(id, owner).await {
        Ok(()) => Ok(made),
        Err(error) => {
            if let Err(kept) = app.cluster.tenant_take_back(&made).await {
                let error = chain(&kept);
                tracing::error!(tenant.id = %id, error, "A tenant that is known to no one could not be taken back.");
            }
            Err(error.into())
        }
    }
}

/// There is an object of this id: one that an earlier attempt left, or somebody's.
async fn complete(app: &App, id: &TenantId, new: &NewTenant, known: bool) -> Result<TenantObject, ApiError> {
    let there = app.cluster.tenant_read(id).await?;
    if known || there.spec != new.spec {
        return Err(taken(format!("The id {id} is taken. Choose another, or change that tenant.")));
    }
    app.store.tenant_add(id, new.owner()).await?;
    Ok(there)
}

/// The id that the operator chose, or the first that the owner's claim can have, as at a first sign-in.
async fn id_for(app: &App, new: &NewTenant) -> Result<TenantId, ApiError> {
    let owner = new.owner();
    let theirs = match owner {
        Some((issuer, claim)) => app.store.tenant_of(issuer, claim).await?,
        None => None,
    };
    if let Some(theirs) = theirs {
        // Known without an object: the first sign-in met a cluster that was away.
        let fits = new.id.as_ref().is_none_or(|id| *id == theirs) && app.cluster.tenant(&theirs).is_none();
        return if fits {
            Ok(theirs)
        } else {
            Err(taken(format!("This owner's tenant is {theirs}. Change that one.")))
        };
    }
    let candidates = match (&new.id, owner) {
        (Some(id), _) => vec![id.clone()],
        (None, Some((issuer, claim))) => claim.candidate_ids(issuer),
        (None, None) => Vec::new(),
    };
    for id in candidates {
        let known = app.store.tenant_owner(&id).await?;
        let free_here = known.is_none_or(|owned_by| owned_by.is_none());
        let object = app.cluster.tenant(&id);
        let free_there = object.is_none_or(|there| there.spec.owner.is_none() || there.spec.owner == new.spec.owner);
        if free_here && free_there {
            return Ok(id);
        }
    }
    Err(taken("The id is taken by another owner. Choose another id.".to_owned()))
}

fn taken(detail: String) -> ApiError {
    ApiError::new(ProblemCode::AlreadyExists, detail)
}

fn answer(status: StatusCode, tenant: &TenantObject) -> Answer {
    let document = document(tenant).ok_or(StoreError::NotFound)?;
    operators::response(status, &tenant.metadata, &document)
}

fn document(tenant: &TenantObject) -> Option<Tenant> {
    let id: TenantId = tenant.name_any().parse().ok()?;
    let created = tenant.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
    Some(Tenant {
        namespace: id.namespace(),
        id,
        generation: tenant.metadata.generation.unwrap_or_default(),
        created_at: created.unwrap_or_default(),
        spec: tenant.spec.clone(),
        conditions: tenant.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default(),
    })
}
