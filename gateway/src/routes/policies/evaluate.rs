//! `POST /v1/policies/{name}:evaluate`: what a revision says about a made-up request, or about a function as it is
//! stored. Nothing is changed, and no counter is drawn from.

use std::sync::Arc;

use eventflow_api::names::{FunctionName, TenantId};
use eventflow_api::policy::{Evaluate, Policy, StoredFunction};
use eventflow_policy_fixture::Fixture;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{body, refused, revision};
use crate::app::App;
use crate::auth::Operator;
use crate::error::ApiError;
use crate::policy::{Question, function_object};
use crate::routes::call::Call;
use crate::routes::{Answer, json as answer};
use crate::store::StoreError;

/// See the module.
///
/// # Errors
/// Faults of the body, settings that are refused, no such policy, revision or function, a failing store.
pub async fn evaluate(app: Arc<App>, _: Operator, mut call: Call) -> Answer {
    call.query()?.finish()?;
    let wanted: Evaluate = body(&mut call).await?;
    let policy = app.store.policy_get(call.param(0)).await?;
    let picked = revision(&policy, wanted.revision.as_ref())?;
    let settings = settings(&policy, &wanted)?;
    let question = question(&app, wanted).await?;
    let evaluation = app.policies.intake().evaluate(&policy.name, picked, settings, question).await?;
    answer(StatusCode::OK, &evaluation.map_err(refused)?)
}

fn settings(policy: &Policy, wanted: &Evaluate) -> Result<Value, ApiError> {
    if let Some(settings) = &wanted.settings {
        return Ok(settings.clone());
    }
    let Some(name) = &wanted.binding else { return Ok(Value::Object(Map::new())) };
    let binding = policy.bindings.iter().find(|binding| binding.name == *name);
    Ok(binding.ok_or(StoreError::NotFound)?.settings.clone())
}

async fn question(app: &App, wanted: Evaluate) -> Result<Question, ApiError> {
    match (wanted.request, wanted.admission, wanted.function) {
        (Some(request), None, None) => made_up(Some(request), None),
        (None, Some(admission), None) => made_up(None, Some(admission)),
        (None, None, Some(function)) => stored(app, function).await,
        _ => Err(ApiError::malformed("Give one of \"request\", \"admission\" and \"function\".")),
    }
}

/// A view laid over the default one, as a policy's own test cases are.
fn made_up(request: Option<Value>, admission: Option<Value>) -> Result<Question, ApiError> {
    let case = Fixture { name: String::new(), settings: Value::Null, request, admission, expect: Value::Null };
    let unreadable = |error: serde_json::Error| ApiError::malformed(format!("The view does not fit: {error}."));
    if let Some(view) = case.request_view() {
        return Ok(Question::Request(serde_json::from_value(view).map_err(unreadable)?));
    }
    let view = case.admission_view().unwrap_or_default();
    Ok(Question::Admission(serde_json::from_value(view).map_err(unreadable)?))
}

async fn stored(app: &App, wanted: StoredFunction) -> Result<Question, ApiError> {
    let missing = || ApiError::from(StoreError::NotFound);
    let tenant: TenantId = wanted.tenant.parse().map_err(|_| missing())?;
    let name: FunctionName = wanted.name.parse().map_err(|_| missing())?;
    let rows = app.store.live_rows(&[(tenant.clone(), name.to_string())]).await?;
    let row = rows.into_iter().next().ok_or_else(missing)?;
    let object = function_object(&tenant, &name, &row.spec);
    let operation = wanted.operation.as_deref().unwrap_or("create");
    if !["create", "update", "delete", "invoke"].contains(&operation) {
        return Err(ApiError::malformed("The field \"operation\" is create, update, delete or invoke."));
    }
    let old = if operation == "update" { object.clone() } else { Value::Null };
    let (view, (used, hard)) = app.policies.about(app, &tenant);
    let over =
        json!({"tenant": view, "operation": operation, "object": object, "old": old, "used": used, "hard": hard});
    made_up(None, Some(over))
}
