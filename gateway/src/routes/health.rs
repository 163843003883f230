//! Liveness and readiness: every check by name, and nothing about why one fails, since anybody may ask.

use std::sync::Arc;

use eventflow_api::policy::LoadProblem;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::{Answer, json as answer};
use crate::app::App;

/// `GET /healthz`: the process answers. Nothing else is asked, so that an outage of the database restarts nobody.
///
/// # Errors
/// Never.
pub async fn live(_: Arc<App>, _: Call) -> Answer {
    answer(StatusCode::OK, &json!({"status": "ok"}))
}

/// `GET /readyz`: 200 if calls can be served, otherwise 503.
///
/// # Errors
/// Never.
pub async fn ready(app: Arc<App>, _: Call) -> Answer {
    let checks = app.readiness().await;
    let ready = checks.iter().all(|check| check.ok);
    let word = |ok| Value::from(if ok { "ok" } else { "failing" });
    let named: Map<String, Value> = checks.iter().map(|check| (check.name.to_owned(), word(check.ok))).collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // A policy that cannot be put in force refuses what it would have judged; the rest is served.
    let problem = |problem: &LoadProblem| json!({"binding": problem.binding, "policy": problem.policy});
    let problems: Vec<Value> = app.policies.problems().iter().map(problem).collect();
    let mut body = json!({"status": if ready { "ready" } else { "not-ready" }, "checks": named});
    if !problems.is_empty() {
        body["policies"] = Value::from(problems);
    }
    answer(status, &body)
}
