//! What the policies make of a change of a function: between the parsing of what a caller wants and quota. What they
//! change goes on; what they have to say to the caller goes into the answer.

use std::sync::Arc;

use eventflow_api::function::FunctionSpec;
use eventflow_api::names::FunctionName;
use http::header::{CONTENT_TYPE, HeaderValue, WARNING};
use http_body_util::BodyExt;
use policy_engine::types::Operation;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::policy::{Proposal, Said};
use crate::routes::{Answer, json as answer_json};
use crate::store::FunctionRow;

/// Most bytes of a warning in a header.
const WARNING_MAX: usize = 500;

/// Judges a new function; `who` is the caller, and the call's id.
pub async fn create(
    app: &Arc<App>,
    who: (&Caller, &str),
    (name, spec): (&FunctionName, FunctionSpec),
    dry_run: bool,
) -> Result<(FunctionSpec, Said), ApiError> {
    app.policies.admit(app, who, Proposal { operation: Operation::Create, name, spec: &spec, old: None, dry_run }).await
}

/// Judges a new spec of a function whose row was not read yet. Of one that is not there nothing is judged: whoever
/// stores it finds out.
pub async fn replace(
    app: &Arc<App>,
    who: (&Caller, &str),
    (name, spec): (&FunctionName, FunctionSpec),
    dry_run: bool,
) -> Result<(FunctionSpec, Said), ApiError> {
    if app.policies.judges_changes()
        && let Some(row) = app.store.function_get(&who.0.tenant, name).await?
    {
        return update(app, who, (&row, spec), dry_run).await;
    }
    Ok((spec, Said::default()))
}

/// Judges a new spec of this row.
pub async fn update(
    app: &Arc<App>,
    who: (&Caller, &str),
    (row, spec): (&FunctionRow, FunctionSpec),
    dry_run: bool,
) -> Result<(FunctionSpec, Said), ApiError> {
    let (name, old) = (&row.name, Some(&row.spec));
    app.policies.admit(app, who, Proposal { operation: Operation::Update, name, spec: &spec, old, dry_run }).await
}

/// Judges the end of a function. Of one that is not there nothing is judged.
pub async fn delete(
    app: &Arc<App>,
    who: (&Caller, &str),
    name: &FunctionName,
    dry_run: bool,
) -> Result<Said, ApiError> {
    if app.policies.judges_changes()
        && let Some(row) = app.store.function_get(&who.0.tenant, name).await?
    {
        let proposal = Proposal { operation: Operation::Delete, name, spec: &row.spec, old: None, dry_run };
        return Ok(app.policies.admit(app, who, proposal).await?.1);
    }
    Ok(Said::default())
}

/// Judges a run of a function.
pub async fn invoke(app: &Arc<App>, who: (&Caller, &str), row: &FunctionRow) -> Result<Said, ApiError> {
    let (name, spec) = (&row.name, &row.spec);
    let proposal = Proposal { operation: Operation::Invoke, name, spec, old: None, dry_run: false };
    Ok(app.policies.admit(app, who, proposal).await?.1)
}

impl Said {
    /// Adds what the policies have to say to an answer, as Kubernetes does.
    ///
    /// # Errors
    /// Those of the answer.
    pub fn tell(&self, answer: Answer) -> Answer {
        let mut response = answer?;
        for warning in &self.warnings {
            let text: String = warning.chars().take(WARNING_MAX).collect();
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
                response.headers_mut().append(WARNING, value);
            }
        }
        Ok(response)
    }

    /// Adds to the answer to a dry run who judged it, and what they have to say.
    ///
    /// # Errors
    /// Those of the answer.
    pub async fn foretell(&self, answer: Answer) -> Answer {
        let response = self.tell(answer)?;
        let (mut parts, body) = response.into_parts();
        let bytes = body.collect().await.map_err(|error| ApiError::internal(error.to_string()))?.to_bytes();
        let mut document: Value = serde_json::from_slice(&bytes).map_err(|e| ApiError::internal(e.to_string()))?;
        document["policies"] = json!(self.trace);
        document["warnings"] = json!(self.warnings);
        let (fresh, body) = answer_json(parts.status, &document)?.into_parts();
        if let Some(media_type) = fresh.headers.get(CONTENT_TYPE) {
            parts.headers.insert(CONTENT_TYPE, media_type.clone());
        }
        Ok(http::Response::from_parts(parts, body))
    }
}
