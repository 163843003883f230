//! The way of a new run from the store to its answer: carried to the cluster, judged by the controller, waited for if the
//! caller wants that, and remembered under its idempotency key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventflow_api::admission::Admission;
use eventflow_api::http::invocations::{InvocationStarted, QUEUED, STARTED};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue, LOCATION};
use serde_json::Value;

use super::{document, waits};
use crate::app::App;
use crate::auth::Caller;
use crate::cluster::Applied;
use crate::error::ApiError;
use crate::metrics::{AdmissionLabels, VerdictLabels};
use crate::routes::{Answer, json_bytes};
use crate::store::{self, FunctionRow, IdempotencyKey, InvocationRow, Origin, StoreError, WrittenInvocation};

/// Longest wait for the controller's verdict.
const VERDICT_WAIT: Duration = Duration::from_secs(2);
/// Set on an answer that was given before, under the same `Idempotency-Key`.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A run that somebody asks for.
pub struct Start<'a> {
    /// The program.
    pub app: &'a Arc<App>,
    /// Who asks.
    pub caller: &'a Caller,
    /// The caller's idempotency key.
    pub key: Option<&'a IdempotencyKey>,
    /// How long to wait for the result.
    pub wait: Duration,
    /// Where the call comes from.
    pub origin: Origin,
}

impl Start<'_> {
    /// Answers a call that is refused now: as it was answered before, if it was done under the same key.
    pub async fn refuse(&self, function: &FunctionRow, refused: ApiError) -> Answer {
        let Some(key) = self.key else { return Err(refused) };
        match self.app.store.invocation_replay(&self.caller.tenant, key).await {
            Ok(Some(written)) => self.answer(function, written).await,
            Err(clash @ (StoreError::IdempotencyMismatch | StoreError::IdempotencyInFlight)) => Err(clash.into()),
            // Refusing does nothing, so it is safe when nobody can say what was.
            Ok(None) | Err(_) => Err(refused),
        }
    }

    /// Carries the row to the cluster, waits for the verdict and perhaps for the end, answers, and remembers the answer.
    pub async fn answer(&self, function: &FunctionRow, written: WrittenInvocation) -> Answer {
        let mut row = match written.answer {
            store::Answer::Replay { status, body } => return replay(status, body),
            store::Answer::Fresh | store::Answer::Resumed => written.row,
        };
        // Before anything can end.
        let recorded = self.app.cluster.invocations_recorded();
        if row.record.is_none() && !row.is_synced() {
            match self.app.cluster.invocation_apply(&row).await {
                Applied::Yes => row.synced_generation = row.generation,
                Applied::Pending(reason) => {
                    tracing::info!(invocation.id = %row.id, reason, "A run waits to be applied.");
                }
            }
        }
        let admission = self.verdict(function, &row).await;
        if !self.wait.is_zero() && row.record.is_none() {
            row = waits::until_over(self.app, self.caller, row, self.wait, recorded).await?;
        }
        let admitted = matches!(admission, Admission::Admitted { .. }) || row.record.is_some();
        let (status, message) = if admitted { (StatusCode::OK, STARTED) } else { (StatusCode::ACCEPTED, QUEUED) };
        let answer = InvocationStarted {
            message: message.to_owned(),
            invocation_id: row.id.to_string(),
            admission,
            invocation: document::of(self.app, &row),
        };
        let body = serde_json::to_vec(&answer).map_err(|error| ApiError::internal(error.to_string()))?;
        self.remember(status, &body).await;
        located(status, body, &answer.invocation_id)
    }

    /// The controller's verdict, waited for if the cluster holds the run.
    async fn verdict(&self, function: &FunctionRow, row: &InvocationRow) -> Admission {
        let started = Instant::now();
        let admission = match function.spec.parse() {
            Ok(spec) if row.is_synced() => {
                self.app.cluster.invocation_admission(row, &spec.resources, VERDICT_WAIT).await
            }
            _ => {
                let why = "stored, and not applied to the cluster yet; that is tried until it succeeds".to_owned();
                Admission::Undecided { why }
            }
        };
        let (metrics, verdict) = (&self.app.metrics, admission.label());
        metrics.admissions.get_or_create(&AdmissionLabels { verdict, asked: "invoke" }).inc();
        let waited = metrics.verdict_wait.get_or_create(&VerdictLabels { verdict });
        waited.observe(started.elapsed().as_secs_f64());
        admission
    }

    /// Keeps the answer for whoever repeats the call. Best effort: without it a repetition shows the run as it is.
    async fn remember(&self, status: StatusCode, body: &[u8]) {
        let Some(key) = self.key else { return };
        if let Err(error) = self.app.store.idempotency_finish(&self.caller.tenant, key, status.as_u16(), body).await {
            tracing::warn!(error = crate::error::chain(&error), "The answer of an idempotency key was not kept.");
        }
    }
}

fn replay(status: u16, body: Vec<u8>) -> Answer {
    let status = StatusCode::from_u16(status).map_err(|error| ApiError::internal(error.to_string()))?;
    let document: Value = serde_json::from_slice(&body).map_err(|error| ApiError::internal(error.to_string()))?;
    let id = document["invocation_id"].as_str().unwrap_or_default().to_owned();
    let mut response = located(status, body, &id)?;
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

fn located(status: StatusCode, body: Vec<u8>, id: &str) -> Answer {
    let location = HeaderValue::from_str(&format!("/v1/invocations/{id}"));
    let location = location.map_err(|error| ApiError::internal(error.to_string()))?;
    let mut response = json_bytes(status, body);
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}
