//! Runs of functions as Jobs: `POST /v1/functions/{name}:invoke`, and `/v1/invocations`. A start is judged as a change of
//! a function is (policies, then quota), stored in one transaction, carried to the cluster, and answered with the
//! controller's verdict; with `?wait=` also with the result, if that comes in time.

use std::sync::Arc;

use eventflow_api::http::invocations::{InvocationList, parse_invoke};
use eventflow_api::invocation::InvocationSpec;
use eventflow_api::problem::ProblemCode;
use eventflow_api::violation::{Violation, ViolationCode};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use uuid::Uuid;

use super::call::{Call, JSON};
use super::functions::policy;
use super::{Answer, json};
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::store::{FunctionRow, InvocationRow, NewInvocation, StoreError};

/// Documents of runs.
mod document;
/// The way of a new run from the store to its answer.
mod start;
/// Whether a run may be had.
mod verdict;
/// Waiting for results, by a bounded number of callers.
mod waits;

pub use waits::Waits;

use start::Start;

/// `POST /v1/functions/{name}:invoke`: 200 once it is durable and admitted, 202 while it waits for quota. With
/// `?wait=30s` the answer waits for the result, and holds it if it comes in time.
///
/// # Errors
/// Faults of the request, no such function, a refusal of policies or of quota, a failing store.
pub async fn invoke(app: Arc<App>, caller: Caller, mut call: Call) -> Answer {
    let name = call.function_name()?;
    let wait = waits::read(&call)?;
    let (body, bytes) = read(&app, &mut call).await?;
    let key = call.idempotency_key(&bytes)?;
    let spec = parse_invoke(&name, body).map_err(refused_fields)?;
    let function = app.store.function_get(&caller.tenant, &name).await?.ok_or(StoreError::NotFound)?;
    let start = Start { app: &app, caller: &caller, key: key.as_ref(), wait, origin: call.origin(&caller) };
    begin(start, call.request_id(), &function, (spec, None)).await
}

/// `POST /v1/invocations/{id}:retry`: starts a run like one that is over, as [`invoke`] does.
///
/// # Errors
/// No such run, one that is not over, a function that is gone, and those of [`invoke`].
pub async fn retry(app: Arc<App>, caller: Caller, mut call: Call) -> Answer {
    let id = id(&call)?;
    let wait = waits::read(&call)?;
    let bytes = tokio::time::timeout(app.limits.body_deadline, call.bytes()).await.map_err(|_| late())??;
    let key = call.idempotency_key(&bytes)?;
    let row = app.store.invocation_get_whole(&caller.tenant, id).await?.ok_or(StoreError::NotFound)?;
    if row.record.is_none() {
        let detail = "The run is not over. Cancel it, or wait for its end, and retry it then.";
        return Err(ApiError::new(ProblemCode::InvocationUnfinished, detail));
    }
    let function = app.store.function_get(&caller.tenant, &row.function).await?;
    let function = function.filter(|function| function.id == row.function_id).ok_or(StoreError::NotFound)?;
    let start = Start { app: &app, caller: &caller, key: key.as_ref(), wait, origin: call.origin(&caller) };
    begin(start, call.request_id(), &function, (row.spec, Some(row.id))).await
}

/// Judges a new run, stores it and answers.
async fn begin(
    start: Start<'_>,
    request_id: &str,
    function: &FunctionRow,
    (spec, retry_of): (InvocationSpec, Option<Uuid>),
) -> Answer {
    let Start { app, caller, key, .. } = start;
    let said = match policy::invoke(app, (caller, request_id), function).await {
        Ok(said) => said,
        Err(refused) => return start.refuse(function, refused).await,
    };
    if let Err(refused) = verdict::check(app, caller, function, &spec).await {
        return start.refuse(function, refused).await;
    }
    let new = NewInvocation { function_id: function.id, spec, retry_of };
    let written = app.store.invocation_create(&caller.tenant, new, &start.origin, key).await?;
    said.tell(start.answer(function, written).await)
}

/// `GET /v1/functions/{name}/invocations`: newest first; `limit`, `cursor`.
///
/// # Errors
/// A query that cannot be read, a foreign cursor, no such function, a failing store.
pub async fn list(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    let name = call.function_name()?;
    let mut query = call.query()?;
    let (limit, cursor) = (query.limit()?, query.text("cursor"));
    query.finish()?;
    let function = app.store.function_get(&caller.tenant, &name).await?.ok_or(StoreError::NotFound)?;
    let page = app.store.invocation_list(&caller.tenant, function.id, cursor.as_deref(), limit).await?;
    let brief = |row: InvocationRow| {
        let mut document = document::of(&app, &row);
        // Of many, only what they came to: each may be large.
        (document.log_tail, document.result) = (None, None);
        document
    };
    let invocations = page.items.into_iter().map(brief).collect();
    json(StatusCode::OK, &InvocationList { invocations, next_cursor: page.next_cursor })
}

/// `GET /v1/invocations/{id}`
///
/// # Errors
/// No such run, a failing store.
pub async fn get(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    call.query()?.finish()?;
    let row = row(&app, &caller, id(&call)?).await?;
    json(StatusCode::OK, &document::of(&app, &row))
}

/// `POST /v1/invocations/{id}:cancel`: 202 once it is durable that the run is not wanted. Asking again changes nothing.
///
/// # Errors
/// No such run, one that is over, a failing store.
pub async fn cancel(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    call.query()?.finish()?;
    let id = id(&call)?;
    if app.cluster.invocation_is_over(caller.tenant.id(), id) {
        // Its record may not be made yet.
        row(&app, &caller, id).await?;
        return Err(StoreError::Over.into());
    }
    let written = app.store.invocation_cancel(&caller.tenant, id, &call.origin(&caller), None).await?;
    app.cluster.invocation_apply(&written.row).await;
    json(StatusCode::ACCEPTED, &document::of(&app, &written.row))
}

/// The run of that id.
///
/// # Errors
/// When the tenant has none.
pub async fn row(app: &App, caller: &Caller, id: Uuid) -> Result<InvocationRow, ApiError> {
    let row = app.store.invocation_get(&caller.tenant, id).await?;
    row.ok_or_else(|| StoreError::NotFound.into())
}

/// The id in the path. What is no id is the id of no run.
///
/// # Errors
/// "Not found" then.
pub fn id(call: &Call) -> Result<Uuid, ApiError> {
    let id = Uuid::try_parse(call.word()).ok().filter(|id| id.to_string() == call.word());
    id.ok_or_else(|| StoreError::NotFound.into())
}

/// The body, which may be absent. Its time is bounded here, since streams have no deadline of their own.
async fn read(app: &App, call: &mut Call) -> Result<(Option<serde_json::Value>, bytes::Bytes), ApiError> {
    let work = async {
        if call.headers().contains_key(CONTENT_TYPE) {
            let (body, bytes) = call.json(&JSON).await?;
            return Ok((Some(body), bytes));
        }
        let bytes = call.bytes().await?;
        if bytes.is_empty() {
            return Ok((None, bytes));
        }
        let detail = format!("Send the body as {}.", JSON.join(" or "));
        Err(ApiError::new(ProblemCode::UnsupportedMediaType, detail))
    };
    tokio::time::timeout(app.limits.body_deadline, work).await.map_err(|_| late())?
}

fn late() -> ApiError {
    ApiError::new(ProblemCode::RequestTimeout, "The body took too long to arrive. Send it again, faster.")
}

/// An input that is too large is a body that is too large.
fn refused_fields(violations: Vec<Violation>) -> ApiError {
    let too_large = |v: &&Violation| v.field == "input" && v.code == ViolationCode::Range;
    match violations.iter().find(too_large) {
        Some(fault) => ApiError::new(ProblemCode::BodyTooLarge, format!("The field \"input\" {}.", fault.message)),
        None => ApiError::invalid(violations),
    }
}
