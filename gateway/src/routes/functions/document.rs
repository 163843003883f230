//! Documents of functions, and the answers that hold them: the row is the store's, the status the watch cache's.

use eventflow_api::admission::Admission;
use eventflow_api::function::FunctionSpec;
use eventflow_api::http::{Function, Sync};
use eventflow_api::names::FunctionName;
use http::header::{ETAG, HeaderName, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use super::verdict;
use crate::app::App;
use crate::auth::Caller;
use crate::cluster::Applied;
use crate::error::ApiError;
use crate::routes::{Answer, Body, etag, json_bytes};
use crate::store::{self, FunctionRow, IdempotencyKey, StoreError, Written};

/// Set on an answer that was given before, under the same `Idempotency-Key`.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A write that the store has accepted.
pub struct Write<'a> {
    /// The program.
    pub app: &'a App,
    /// Who wrote.
    pub caller: &'a Caller,
    /// The caller's idempotency key.
    pub key: Option<&'a IdempotencyKey>,
    /// The status if all of it is admitted.
    pub done: StatusCode,
}

impl Write<'_> {
    /// Answers a call that is refused now: as it was answered before, if it was done under the same key.
    pub async fn refuse(&self, refused: ApiError) -> Answer {
        let Some(key) = self.key else { return Err(refused) };
        match self.app.store.function_replay(&self.caller.tenant, key).await {
            Ok(Some(written)) => self.answer(written).await,
            Err(clash @ (StoreError::IdempotencyMismatch | StoreError::IdempotencyInFlight)) => Err(clash.into()),
            // Refusing does nothing, so it is safe when nobody can say what was.
            Ok(None) | Err(_) => Err(refused),
        }
    }

    /// Carries the row to the cluster, waits for the verdict, answers, and remembers the answer.
    pub async fn answer(&self, written: Written) -> Answer {
        let mut row = match written.answer {
            store::Answer::Replay { status, body } => return self.replay(status, body),
            store::Answer::Fresh | store::Answer::Resumed => written.row,
        };
        if !row.is_synced() {
            match self.app.cluster.function_apply(&row).await {
                Applied::Yes => row.synced_generation = row.generation,
                Applied::Pending(reason) => {
                    tracing::info!(function.name = %row.name, reason, "A function waits to be applied.");
                }
            }
        }
        let admission = verdict::wait(self.app, &row).await;
        let admitted = matches!(admission, Admission::Admitted { .. });
        let status = if row.is_synced() && admitted { self.done } else { StatusCode::ACCEPTED };
        let document = Function { admission: Some(admission), ..of(self.app, self.caller, row) };
        let body = serde_json::to_vec(&document).map_err(|error| ApiError::internal(error.to_string()))?;
        self.remember(status, &body).await;
        self.with_location(response_of_bytes(status, body)?, document.name.as_str())
    }

    /// Keeps the answer for whoever repeats the call. Best effort: without it a repetition shows the row as it is.
    pub async fn remember(&self, status: StatusCode, body: &[u8]) {
        let Some(key) = self.key else { return };
        if let Err(error) = self.app.store.idempotency_finish(&self.caller.tenant, key, status.as_u16(), body).await {
            tracing::warn!(error = crate::error::chain(&error), "The answer of an idempotency key was not kept.");
        }
    }

    fn replay(&self, status: u16, body: Vec<u8>) -> Answer {
        let status = StatusCode::from_u16(status).map_err(|error| ApiError::internal(error.to_string()))?;
        let name = field(&body, "name").unwrap_or_default();
        let mut response = self.with_location(response_of_bytes(status, body)?, &name)?;
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }

    fn with_location(&self, mut response: Response<Body>, name: &str) -> Answer {
        if self.done == StatusCode::CREATED {
            let location = HeaderValue::from_str(&format!("/v1/functions/{name}"));
            let location = location.map_err(|error| ApiError::internal(error.to_string()))?;
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }
}

/// The document of a row.
pub fn of(app: &App, caller: &Caller, row: FunctionRow) -> Function {
    let status = app.cluster.function_status(&caller.tenant, &row.name, &row.id);
    let sync = if row.is_synced() { Sync::Applied } else { Sync::Pending };
    Function {
        id: row.id.to_string(),
        namespace: caller.tenant.namespace().to_owned(),
        generation: row.generation,
        sync,
        created_at: row.created_at.to_string(),
        updated_at: row.updated_at.to_string(),
        name: row.name,
        spec: row.spec,
        status: status.unwrap_or_default(),
        admission: None,
    }
}

/// The row that a create would make; its id is all zeros, since none is drawn.
pub fn unborn(caller: &Caller, name: FunctionName, spec: FunctionSpec) -> FunctionRow {
    let now = jiff::Timestamp::now();
    FunctionRow {
        id: Uuid::nil(),
        tenant: caller.tenant.id().clone(),
        name,
        spec,
        generation: 1,
        synced_generation: 0,
        object_uid: None,
        applied_rv: None,
        traceparent: None,
        created_at: now,
        updated_at: now,
        deleted_at: None,
    }
}

/// 200 with the document that a dry run leads to, and the verdict on it. It has no tag: there is nothing to compare
/// with later.
pub fn would_be(app: &App, caller: &Caller, row: FunctionRow) -> Answer {
    let admission = verdict::foresee(app, &caller.tenant, &row.name, &row.spec);
    crate::routes::json(StatusCode::OK, &Function { admission: Some(admission), ..of(app, caller, row) })
}

/// An answer that holds the document, with its tag.
pub fn response(status: StatusCode, document: &Function) -> Answer {
    let body = serde_json::to_vec(document).map_err(|error| ApiError::internal(error.to_string()))?;
    response_of_bytes(status, body)
}

/// The tag is made of what is sent, so a replayed answer has the tag it had; but for the verdict, which is told in the
/// answer to a write alone, so that what was written and what is read have one tag.
fn response_of_bytes(status: StatusCode, body: Vec<u8>) -> Answer {
    let document = serde_json::from_slice::<Function>(&body).ok();
    let tag = document.map(|document| Function { admission: None, ..document }).and_then(|document| {
        let bytes = serde_json::to_vec(&document).ok()?;
        Some(etag::of(&document.id.parse::<Uuid>().ok()?, document.generation, &bytes))
    });
    let mut response = json_bytes(status, body);
    if let Some(tag) = tag {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

fn field(body: &[u8], name: &str) -> Option<String> {
    serde_json::from_slice::<Value>(body).ok()?.get(name)?.as_str().map(str::to_owned)
}
