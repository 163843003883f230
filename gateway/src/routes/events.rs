//! `GET /v1/functions/{name}/events`: what the cluster reported of a function. `GET /v1/events`: what happens to the
//! tenant's functions and quota, as it happens.

use std::sync::Arc;

use eventflow_api::http::events::FunctionEvents;
use futures::stream;
use http::header::HeaderName;
use http::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::stream::{CHUNK, EVENTS, PING, answer};
use super::{Answer, json};
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::live::Reader;
use crate::live::reader::Begin;
use crate::store::StoreError;
use crate::streams::OpenStream;

/// Where a stream is to go on.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How many events are told when the caller does not say.
const EVENTS_DEFAULT: u32 = 100;

/// What the cluster reported of the function and of what was made for it, newest first; `limit` of them.
///
/// # Errors
/// No such function, an unknown parameter, a failing store, an API server that does not answer.
pub async fn of_function(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    let mut query = call.query()?;
    let limit = query.limit()?.unwrap_or(EVENTS_DEFAULT);
    query.finish()?;
    let name = call.function_name()?;
    if app.store.function_get(&caller.tenant, &name).await?.is_none() {
        return Err(StoreError::NotFound.into());
    }
    let found = app.cluster.function_events(&caller.tenant, &name, limit as usize).await?;
    json(StatusCode::OK, &FunctionEvents { events: found.events, more: found.more })
}

/// Server-sent events: how each function and the quota stand (`function`, `quota`, then `synced`), then every change
/// (also `function-deleted`), and `ping`. After `Last-Event-ID` it goes on, or says `reset` and begins anew.
///
/// # Errors
/// A malformed `Last-Event-ID`, an unknown parameter, too many streams.
pub async fn live(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    call.query()?.finish()?;
    let hub = app.cluster.live();
    let begin = match call.headers().get(&LAST_EVENT_ID) {
        None => Begin::Fresh,
        Some(id) => {
            let number = id.to_str().ok().and_then(|id| hub.number(id).ok());
            let number = number.ok_or_else(|| ApiError::malformed("Last-Event-ID is none that this stream gave."))?;
            number.map_or(Begin::Elsewhere, Begin::After)
        }
    };
    let open = app.event_streams.open(caller.tenant.id())?;
    let (cluster, id) = (app.cluster.clone(), caller.tenant.id().clone());
    let reader = Reader::new(hub, id.namespace(), begin, move || cluster.standing(&id));
    let live = Live { reader, draining: app.draining(), _open: open };
    let texts = stream::unfold(live, |mut live| async move { Some((live.next().await?, live)) });
    Ok(answer(call.method() == Method::HEAD, EVENTS, texts))
}

/// An open stream.
struct Live {
    reader: Reader,
    draining: CancellationToken,
    _open: OpenStream,
}

impl Live {
    /// What to write next; `None` once the gateway drains: the reader goes on elsewhere.
    async fn next(&mut self) -> Option<String> {
        let text = tokio::select! {
            biased;
            () = self.draining.cancelled() => return None,
            text = timeout_at(Instant::now() + PING, self.reader.next(CHUNK)) => text,
        };
        Some(text.unwrap_or_else(|_| self.reader.ping()))
    }
}
