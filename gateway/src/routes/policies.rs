//! `/v1/policies`: what operators may judge with. Every answer is the policy as it is then, and every write takes the
//! version that was read.

use std::sync::Arc;

use eventflow_api::http::AuditList;
use eventflow_api::names::FunctionName;
use eventflow_api::policy::{
    BindingList, DecisionList, Policy, PolicyList, Revision, RevisionList, RevisionRef, ShadowReport, Uploaded,
};
use eventflow_api::problem::ProblemCode;
use eventflow_api::violation::{Violation, ViolationCode};
use http::header::{ETAG, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use policy_engine::limits::MODULE_BYTES;
use serde::de::DeserializeOwned;

use super::call::Call;
use super::{Answer, etag, full, json};
use crate::app::App;
use crate::auth::Operator;
use crate::error::ApiError;
use crate::policy::Refusal;
use crate::store::{Origin, PolicyChange, StoreError};

/// `:shadow`, `:canary`, `:activate`, `:rollback`, and bindings.
mod rollout;
/// `:evaluate`.
mod evaluate;
/// `/v1/policy-groups`.
mod groups;

pub use evaluate::evaluate;
pub use groups::{delete as delete_group, list as list_groups, put as put_group};
pub use rollout::{activate, bind, canary, rollback, shadow, unbind};

/// Media types of a module.
const WASM: [&str; 1] = ["application/wasm"];
/// Media types of a document.
const JSON: [&str; 1] = ["application/json"];

/// `GET /v1/policies`: all of them, and which replica runs what.
///
/// # Errors
/// A failing store.
pub async fn list(app: Arc<App>, _: Operator, call: Call) -> Answer {
    call.query()?.finish()?;
    let policies = app.store.policy_list().await?;
    let set_revision = app.store.policy_set_revision().await?;
    let replicas = app.store.replica_list().await?;
    json(StatusCode::OK, &PolicyList { policies, set_revision, replicas })
}

/// `POST /v1/policies`: makes a revision of the uploaded module, or says that it is there. Nothing that runs changes.
///
/// # Errors
/// Everything that is wrong with the module, at once; a failing store.
pub async fn upload(app: Arc<App>, operator: Operator, mut call: Call) -> Answer {
    call.query()?.finish()?;
    let bytes = call.upload(&WASM, MODULE_BYTES).await?;
    let new = app.policies.intake().accept(bytes.into()).await.map_err(refused)?;
    let policy = new.policy.clone();
    let origin = call.origin_of(operator.identity());
    let (revision, created) = app.store.policy_upload(new, &origin).await?;
    app.policies.hurry();
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let location = HeaderValue::from_str(&format!("/v1/policies/{policy}"));
    let mut response = json(status, &Uploaded { policy, revision, created })?;
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// `GET /v1/policies/{name}`.
///
/// # Errors
/// No such policy, a failing store.
pub async fn get(app: Arc<App>, _: Operator, call: Call) -> Answer {
    call.query()?.finish()?;
    document(&app.store.policy_get(call.param(0)).await?)
}

/// `DELETE /v1/policies/{name}`: with all revisions; it must not be bound.
///
/// # Errors
/// No such policy, one that is bound, a failed precondition, a failing store.
pub async fn delete(app: Arc<App>, operator: Operator, call: Call) -> Answer {
    call.query()?.finish()?;
    Errand::of(&operator, &call)?.run(&app, PolicyChange::Delete).await?;
    let mut response = Response::new(full(Vec::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// `GET /v1/policies/{name}/revisions`.
///
/// # Errors
/// No such policy, a failing store.
pub async fn revisions(app: Arc<App>, _: Operator, call: Call) -> Answer {
    call.query()?.finish()?;
    let Policy { revisions, .. } = app.store.policy_get(call.param(0)).await?;
    json(StatusCode::OK, &RevisionList { revisions })
}

/// `GET /v1/policies/{name}/bindings`.
///
/// # Errors
/// No such policy, a failing store.
pub async fn bindings(app: Arc<App>, _: Operator, call: Call) -> Answer {
    call.query()?.finish()?;
    let Policy { bindings, .. } = app.store.policy_get(call.param(0)).await?;
    json(StatusCode::OK, &BindingList { bindings })
}

/// `GET /v1/policies/{name}/shadow`: how many decisions would have been others, with examples.
///
/// # Errors
/// No such policy, a failing store.
pub async fn shadow_report(app: Arc<App>, _: Operator, call: Call) -> Answer {
    call.query()?.finish()?;
    let policy = app.store.policy_get(call.param(0)).await?;
    json(StatusCode::OK, &ShadowReport { trials: app.store.policy_trial_reports(&policy.name).await? })
}

/// `GET /v1/policies/{name}/decisions`: the decision log, newest first.
///
/// # Errors
/// No such policy, a cursor that is none, a failing store.
pub async fn decisions(app: Arc<App>, _: Operator, call: Call) -> Answer {
    let mut query = call.query()?;
    let (limit, cursor) = (query.limit()?, query.text("cursor"));
    query.finish()?;
    let policy = app.store.policy_get(call.param(0)).await?;
    let page = app.store.policy_decisions(&policy.name, cursor.as_deref(), limit).await?;
    json(StatusCode::OK, &DecisionList { decisions: page.items, next_cursor: page.next_cursor })
}

/// `GET /v1/policies/{name}/history`: who did what to it, newest first; also of one that is deleted.
///
/// # Errors
/// A cursor that is none, a failing store.
pub async fn history(app: Arc<App>, _: Operator, call: Call) -> Answer {
    let mut query = call.query()?;
    let (limit, cursor) = (query.limit()?, query.text("cursor"));
    query.finish()?;
    let page = app.store.policy_audit_list(call.param(0), cursor.as_deref(), limit).await?;
    json(StatusCode::OK, &AuditList { entries: page.items, next_cursor: page.next_cursor })
}

/// Whose policy is to be changed, by whom.
struct Errand {
    policy: String,
    /// The version that was read, of `If-Match`.
    version: Option<i64>,
    origin: Origin,
}

impl Errand {
    fn of(operator: &Operator, call: &Call) -> Result<Self, ApiError> {
        let policy = call.param(0).to_owned();
        Ok(Self { version: if_match(call, &policy)?, policy, origin: call.origin_of(operator.identity()) })
    }

    /// Changes the policy, if it is still that version.
    async fn run(self, app: &App, change: PolicyChange) -> Result<Policy, ApiError> {
        let policy = app.store.policy_change(&self.policy, self.version, change, &self.origin).await?;
        app.policies.hurry();
        Ok(policy)
    }
}

/// The version that the caller read.
fn if_match(call: &Call, name: &str) -> Result<Option<i64>, ApiError> {
    let Some(tags) = etag::listed(call.headers())? else { return Ok(None) };
    let version = |tag: &String| -> Option<i64> {
        let (of, version) = tag.strip_prefix('"')?.strip_suffix('"')?.rsplit_once('.')?;
        (of == name).then(|| version.parse().ok())?
    };
    match tags.as_slice() {
        [star] if star == "*" => Ok(None),
        // One that was never ours matches no version.
        [tag] => Ok(Some(version(tag).unwrap_or(-1))),
        _ => Err(ApiError::malformed("The header if-match must have one entity tag here.")),
    }
}

/// 200 with the policy and its tag.
fn document(policy: &Policy) -> Answer {
    let mut response = json(StatusCode::OK, policy)?;
    let tag = HeaderValue::from_str(&format!("\"{}.{}\"", policy.name, policy.version));
    response.headers_mut().insert(ETAG, tag.map_err(|error| ApiError::internal(error.to_string()))?);
    Ok(response)
}

/// The body as one of the API's types.
async fn body<T: DeserializeOwned>(call: &mut Call) -> Result<T, ApiError> {
    let (value, _) = call.json(&JSON).await?;
    serde_json::from_value(value).map_err(|error| {
        // Such a text names a field and what was expected; it never has a value but one of a closed set.
        ApiError::malformed(format!("The body does not fit: {error}."))
    })
}

/// Everything that is wrong with a module or with settings.
fn refused(refusal: Refusal) -> ApiError {
    if refusal.busy {
        let detail = "Too many modules are being worked on. Try again in a moment.";
        return ApiError::new(ProblemCode::Overloaded, detail);
    }
    let violations: Vec<Violation> = refusal
        .problems
        .iter()
        .map(|problem| Violation::new(problem.code, ViolationCode::Conflict, &problem.message))
        .collect();
    ApiError::refused(violations)
}

/// The revision meant.
fn revision<'a>(policy: &'a Policy, wanted: Option<&RevisionRef>) -> Result<&'a Revision, ApiError> {
    let found = match wanted {
        None => policy.revisions.first(),
        Some(RevisionRef::Number(number)) => policy.revisions.iter().find(|revision| revision.number == *number),
        Some(RevisionRef::Digest(digest)) if digest.len() < 8 => {
            return Err(ApiError::malformed(
                "A revision is named by its number, or by at least 8 digits of its digest.",
            ));
        }
        Some(RevisionRef::Digest(digest)) => {
            let mut matching = policy.revisions.iter().filter(|revision| revision.digest.starts_with(digest));
            let first = matching.next();
            if matching.next().is_some() {
                return Err(ApiError::malformed("More than one revision's digest begins like this."));
            }
            first
        }
    };
    found.ok_or_else(|| StoreError::NotFound.into())
}

/// A name of the path that is to become one of ours.
fn label(name: &str) -> Result<&str, ApiError> {
    // The grammar is that of functions' names.
    match name.parse::<FunctionName>() {
        Ok(_) => Ok(name),
        Err(_) => Err(ApiError::malformed("A name is lower-case letters, digits and inner hyphens, at most 60.")),
    }
}
