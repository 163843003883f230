//! `POST /v1/functions/{name}:explain`: why a function is in the state it is in, from the store, the ledger, its
//! conditions and what the cluster reported, in one answer.

use std::sync::Arc;

use eventflow_api::admission::Admission;
use eventflow_api::condition::{ConditionType, find};
use eventflow_api::function::FunctionStatus;
use eventflow_api::http::Sync;
use eventflow_api::http::quota::Explanation;
use http::StatusCode;

use crate::app::App;
use crate::auth::Caller;
use crate::error::chain;
use crate::routes::call::Call;
use crate::routes::{Answer, json};
use crate::store::FunctionRow;

/// Most events that are told.
const EVENTS: usize = 20;

/// What there is to say of a function. One bounded call to the API server, for events; without it the answer says so.
///
/// # Errors
/// No such function, a failing store.
pub async fn explain(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    call.query()?.finish()?;
    let row = super::row(&app, &caller, &call.function_name()?).await?;
    let status = app.cluster.function_status(&caller.tenant, &row.name, &row.id);
    let status = status.unwrap_or_default();
    let (admission, sentence) = admission(&app, &caller, &row);
    let summary = summary(&app, &caller, &row, &status, sentence);
    let (events, events_missing) = match app.cluster.function_events(&caller.tenant, &row.name, EVENTS).await {
        Ok(found) => (found.events, found.more.then(|| "there are more; only the newest are told".to_owned())),
        Err(error) => {
            tracing::warn!(error = chain(&error), "The events of a function cannot be read.");
            (Vec::new(), Some("the cluster cannot be asked for events now".to_owned()))
        }
    };
    let explanation = Explanation {
        generation: row.generation,
        phase: status.phase,
        summary,
        sync: if row.is_synced() { Sync::Applied } else { Sync::Pending },
        admission,
        conditions: status.conditions,
        events,
        events_missing,
        name: row.name,
    };
    json(StatusCode::OK, &explanation)
}

/// The verdict as of now, and in words if the quota is in the way.
fn admission(app: &App, caller: &Caller, row: &FunctionRow) -> (Admission, Option<String>) {
    let view = match app.cluster.quota(caller.tenant.id()) {
        Ok(view) => view,
        Err(why) => return (Admission::Undecided { why }, None),
    };
    match view.verdict(&row.name) {
        None => (Admission::Undecided { why: "the cluster does not hold it yet".to_owned() }, None),
        Some(verdict) => {
            let told = view.tell(&verdict);
            let in_the_way = matches!(told, Admission::Queued { .. } | Admission::Exceeds { .. });
            let sentence = in_the_way.then(|| view.sentence(&verdict));
            (told, sentence)
        }
    }
}

/// The one thing to know: the first on the way from the caller to a running pod that stands in it.
fn summary(
    app: &App,
    caller: &Caller,
    row: &FunctionRow,
    status: &FunctionStatus,
    admission: Option<String>,
) -> String {
    if !row.is_synced() {
        return "stored, and not applied to the cluster yet; that is tried until it succeeds".to_owned();
    }
    if app.cluster.tenant(caller.tenant.id()).is_some_and(|tenant| tenant.spec.suspended) {
        return "the tenant is suspended: no pods run until an operator resumes it".to_owned();
    }
    if let Some(sentence) = admission {
        return sentence;
    }
    match find(&status.conditions, ConditionType::Ready) {
        Some(ready) => format!("{}: {}", ready.reason, ready.message),
        None => "the controller has not looked at it yet".to_owned(),
    }
}
