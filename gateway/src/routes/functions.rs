//! `/v1/functions`: parse, verdict, store, answer. What can never fit the tenant's quota is refused before anything is
//! stored. A write is one transaction of the store, and then a try to carry it to the cluster, and a short wait for the
//! controller's verdict; while either is missing, or the verdict is to wait, the answer says so (202).

use std::sync::Arc;

use eventflow_api::function::FunctionSpec;
use eventflow_api::http::{merge_patch, parse_create, parse_replace};
use eventflow_api::names::FunctionName;
use http::StatusCode;
use http::header::ETAG;
use serde_json::Value;

use super::call::{Call, JSON, MERGE_PATCH};
use super::etag::{self, Precondition};
use super::{Answer, full};
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::store::{Answer as Written, Change, FunctionRow, StoreError};

/// Documents of functions, and the answers that hold them.
mod document;
/// Lists of functions.
mod listing;
/// What the policies make of a change, and of a run.
pub(super) mod policy;
/// Whether a function may be had, and what is told of it.
mod verdict;
/// Why a function is in the state it is in.
mod explain;

use document::Write;
pub use explain::explain;
pub use listing::list;

/// How often a patch without a precondition is tried anew when somebody else was quicker.
const PATCH_TRIES: usize = 5;

/// `POST /v1/functions`: 201 with `Location` once all of it is admitted, 202 while it waits. With `dry_run=true`: 200
/// with what would be and the verdict, and nothing is done.
///
/// # Errors
/// Faults of the request, a taken name, a failing store.
pub async fn create(app: Arc<App>, caller: Caller, mut call: Call) -> Answer {
    let dry_run = dry_run(&call)?;
    let (body, bytes) = call.json(&JSON).await?;
    let key = call.idempotency_key(&bytes)?;
    let (name, spec, _) = parse_create(body).map_err(ApiError::invalid)?;
    let write = Write { app: &app, caller: &caller, key: key.as_ref(), done: StatusCode::CREATED };
    let judged = policy::create(&app, (&caller, call.request_id()), (&name, spec), dry_run).await;
    let (spec, said) = match judged {
        Ok(judged) => judged,
        Err(refused) => return write.refuse(refused).await,
    };
    if let Err(refused) = verdict::check(&app, &caller, &name, &spec).await {
        return write.refuse(refused).await;
    }
    if dry_run {
        return match app.store.function_get(&caller.tenant, &name).await? {
            Some(_) => Err(StoreError::AlreadyExists.into()),
            None => said.foretell(document::would_be(&app, &caller, document::unborn(&caller, name, spec))).await,
        };
    }
    let origin = call.origin(&caller);
    let written = app.store.function_create(&caller.tenant, &name, &spec, &origin, key.as_ref()).await?;
    said.tell(write.answer(written).await)
}

/// `GET /v1/functions/{name}`: 200, or 304 if `If-None-Match` lists the present tag.
///
/// # Errors
/// No such function, a failing store.
pub async fn get(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    call.query()?.finish()?;
    let row = row(&app, &caller, &call.function_name()?).await?;
    let mut response = document::response(StatusCode::OK, &document::of(&app, &caller, row))?;
    let tag = response.headers().get(ETAG).cloned();
    if let Some(tag) = tag
        && etag::is_unchanged(call.headers(), &tag)?
    {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(http::header::CONTENT_TYPE);
        return Ok(response.map(|_| full(Vec::new())));
    }
    Ok(response)
}

/// `PUT /v1/functions/{name}`: replaces the spec; 200 once all of it is admitted, 202 while it waits and what ran runs
/// on.
///
/// # Errors
/// Faults of the request, no such function, a failed precondition, a failing store.
pub async fn replace(app: Arc<App>, caller: Caller, mut call: Call) -> Answer {
    let name = call.function_name()?;
    let dry_run = dry_run(&call)?;
    let (body, bytes) = call.json(&JSON).await?;
    let key = call.idempotency_key(&bytes)?;
    let precondition = etag::if_match(call.headers())?;
    let (spec, _) = parse_replace(&name, body).map_err(ApiError::invalid)?;
    let write = Write { app: &app, caller: &caller, key: key.as_ref(), done: StatusCode::OK };
    let judged = policy::replace(&app, (&caller, call.request_id()), (&name, spec), dry_run).await;
    let (spec, said) = match judged {
        Ok(judged) => judged,
        Err(refused) => return write.refuse(refused).await,
    };
    if let Err(refused) = verdict::check(&app, &caller, &name, &spec).await {
        return write.refuse(refused).await;
    }
    if dry_run {
        let row = row(&app, &caller, &name).await?;
        check(&precondition, &row)?;
        return said.foretell(document::would_be(&app, &caller, changed(row, spec))).await;
    }
    let if_generation = match &precondition {
        Precondition::None => None,
        // Of one version the store itself makes sure; of several, the present one must be among them.
        Precondition::Versions(versions) => match versions.as_slice() {
            [one] => Some(*one),
            _ => Some(check(&precondition, &row(&app, &caller, &name).await?)?),
        },
    };
    let change = Change { spec, if_generation };
    let written =
        app.store.function_replace(&caller.tenant, &name, change, &call.origin(&caller), key.as_ref()).await?;
    said.tell(write.answer(written).await)
}

/// `PATCH /v1/functions/{name}`: a JSON merge patch (RFC 7396) of the document; otherwise as a replacement. Without
/// `If-Match` it is tried anew if somebody else was quicker.
///
/// # Errors
/// Faults of the request or of what it would make, no such function, a failed precondition, a failing store.
pub async fn patch(app: Arc<App>, caller: Caller, mut call: Call) -> Answer {
    let name = call.function_name()?;
    let dry_run = dry_run(&call)?;
    let (patch, bytes) = call.json(&MERGE_PATCH).await?;
    let key = call.idempotency_key(&bytes)?;
    let precondition = etag::if_match(call.headers())?;
    if !patch.is_object() {
        return Err(ApiError::malformed("A patch of a function is a JSON object."));
    }
    let origin = call.origin(&caller);
    let write = Write { app: &app, caller: &caller, key: key.as_ref(), done: StatusCode::OK };
    let mut tries = 0;
    loop {
        tries += 1;
        let row = row(&app, &caller, &name).await?;
        check(&precondition, &row)?;
        let spec = patched(&row, patch.clone())?;
        let judged = policy::update(&app, (&caller, call.request_id()), (&row, spec), dry_run).await;
        let (spec, said) = match judged {
            Ok(judged) => judged,
            Err(refused) => return write.refuse(refused).await,
        };
        if let Err(refused) = verdict::check(&app, &caller, &name, &spec).await {
            return write.refuse(refused).await;
        }
        if dry_run {
            return said.foretell(document::would_be(&app, &caller, changed(row, spec))).await;
        }
        let change = Change { spec, if_generation: Some((row.id, row.generation)) };
        match app.store.function_replace(&caller.tenant, &name, change, &origin, key.as_ref()).await {
            Ok(written) => return said.tell(write.answer(written).await),
            Err(StoreError::StaleGeneration) if precondition == Precondition::None && tries < PATCH_TRIES => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// `DELETE /v1/functions/{name}`: 204 once the deletion is durable. The name is free at once; what runs is taken down
/// meanwhile, also if the cluster is away now.
///
/// # Errors
/// No such function, a failed precondition, a failing store.
pub async fn delete(app: Arc<App>, caller: Caller, mut call: Call) -> Answer {
    let name = call.function_name()?;
    let dry_run = dry_run(&call)?;
    let body = call.bytes().await?;
    let key = call.idempotency_key(&body)?;
    let precondition = etag::if_match(call.headers())?;
    let said = policy::delete(&app, (&caller, call.request_id()), &name, dry_run).await?;
    if dry_run {
        let row = row(&app, &caller, &name).await?;
        check(&precondition, &row)?;
        return said.foretell(super::json(StatusCode::OK, &document::of(&app, &caller, row))).await;
    }
    let if_generation = match &precondition {
        Precondition::None => None,
        Precondition::Versions(_) => Some(check(&precondition, &row(&app, &caller, &name).await?)?),
    };
    let origin = call.origin(&caller);
    let written = app.store.function_delete(&caller.tenant, &name, if_generation, &origin, key.as_ref()).await?;
    let write = Write { app: &app, caller: &caller, key: key.as_ref(), done: StatusCode::NO_CONTENT };
    if !matches!(written.answer, Written::Replay { .. }) {
        app.cluster.function_remove(&written.row).await;
        write.remember(StatusCode::NO_CONTENT, &[]).await;
    }
    let mut response = http::Response::new(full(Vec::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    said.tell(Ok(response))
}

/// Reads the one query parameter of a write.
fn dry_run(call: &Call) -> Result<bool, ApiError> {
    let mut query = call.query()?;
    let dry_run = query.flag("dry_run")?;
    query.finish()?;
    Ok(dry_run)
}

async fn row(app: &App, caller: &Caller, name: &FunctionName) -> Result<FunctionRow, ApiError> {
    let row = app.store.function_get(&caller.tenant, name).await?;
    row.ok_or_else(|| StoreError::NotFound.into())
}

/// The version of the row, if the precondition allows it.
fn check(precondition: &Precondition, row: &FunctionRow) -> Result<(uuid::Uuid, i64), ApiError> {
    let version = (row.id, row.generation);
    match precondition {
        Precondition::Versions(versions) if !versions.contains(&version) => Err(etag::failed()),
        _ => Ok(version),
    }
}

/// The spec that the patch makes of the row's.
fn patched(row: &FunctionRow, patch: Value) -> Result<FunctionSpec, ApiError> {
    let mut document = serde_json::to_value(&row.spec).map_err(|error| ApiError::internal(error.to_string()))?;
    merge_patch(&mut document, patch);
    let (spec, _) = parse_replace(&row.name, document).map_err(ApiError::invalid)?;
    Ok(spec)
}

/// The row as a change of its spec would leave it.
fn changed(mut row: FunctionRow, spec: FunctionSpec) -> FunctionRow {
    if row.spec != spec {
        row.generation += 1;
        row.updated_at = jiff::Timestamp::now();
        row.spec = spec;
    }
    row
}
