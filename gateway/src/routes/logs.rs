//! `GET /v1/functions/{name}/logs` and `GET /v1/invocations/{id}/logs`

use std::sync::Arc;

use futures::stream;
use http::{Method, Response};
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::stream::{CHUNK, EVENTS, PING, PING_EVENT, answer, with_headers};
use super::{Answer, full, invocations};
use crate::app::App;
use crate::auth::Caller;
use crate::logs::feed::Item;
use crate::logs::line::{Line, render_gap};
use crate::logs::request::{Form, LogRequest};
use crate::logs::{Gathered, Subject, Writer, gather};

/// Answers with the lines of all of the function's pods.
///
/// # Errors
/// See [`crate::logs::LogError`].
pub async fn get(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    let of = Writer::Function(call.function_name()?);
    let request = LogRequest::read(call.query()?, call.headers(), Timestamp::now())?;
    let subject = Subject { tenant: caller.tenant.id().clone(), of };
    stream_of(&app, subject, request, call.method() == Method::HEAD).await
}

/// `GET /v1/invocations/{id}/logs`: as of a function while the run is under way, and ends with it; afterwards the last
/// lines that were kept.
///
/// # Errors
/// No such run; see [`crate::logs::LogError`].
pub async fn of_invocation(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    let request = LogRequest::read(call.query()?, call.headers(), Timestamp::now())?;
    let (id, head) = (invocations::id(&call)?, call.method() == Method::HEAD);
    let row = invocations::row(&app, &caller, id).await?;
    let Some(record) = row.record else {
        return stream_of(&app, Subject { tenant: row.tenant, of: Writer::Run(row.id) }, request, head).await;
    };
    let form = request.form;
    let pod: Arc<str> = row.id.to_string().into();
    let kept = record.log_tail.clone().unwrap_or_default();
    let lines = kept.lines().map(|text| Line { at: record.finished_at, pod: Arc::clone(&pod), text: text.to_owned() });
    let text: String = lines.map(|line| line.render(form)).collect();
    Ok(with_headers(Response::new(full(text)), content_type(form)))
}

async fn stream_of(app: &Arc<App>, subject: Subject, request: LogRequest, head: bool) -> Answer {
    let form = request.form;
    let open = app.log_streams.open(&subject.tenant)?;
    let gathered = gather(&app.cluster, &subject, request, open).await?;
    let reader = Reader { gathered, form, draining: app.draining(), begun: false };
    let texts = stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) });
    Ok(answer(head, content_type(form), texts))
}

fn content_type(form: Form) -> &'static str {
    match form {
        Form::Text { .. } => "text/plain; charset=utf-8",
        Form::Events => EVENTS,
    }
}

/// The reader's side of a feed.
struct Reader {
    gathered: Gathered,
    form: Form,
    draining: CancellationToken,
    begun: bool,
}

impl Reader {
    /// What to write next; `None` at the end, which a drain is too: the reader goes on elsewhere.
    async fn next(&mut self) -> Option<String> {
        if !std::mem::replace(&mut self.begun, true) && self.form == Form::Events {
            return Some("retry: 1000\n\n".to_owned());
        }
        let item = tokio::select! {
            biased;
            item = timeout_at(Instant::now() + PING, self.gathered.feed.next()) => item,
            () = self.draining.cancelled() => return None,
        };
        let mut text = match (item, self.form) {
            (Ok(item), _) => self.render(item)?,
            (Err(_), Form::Events) => PING_EVENT.to_owned(),
            (Err(_), Form::Text { .. }) => String::new(),
        };
        while text.len() < CHUNK {
            match self.gathered.feed.ready() {
                // It is asked for again.
                None | Some(Item::End) => break,
                Some(item) => text.push_str(&self.render(item).unwrap_or_default()),
            }
        }
        Some(text)
    }

    fn render(&self, item: Item) -> Option<String> {
        match item {
            Item::Line(line) => Some(line.render(self.form)),
            Item::Gap(lost) => Some(render_gap(lost, self.form)),
            Item::End => None,
        }
    }
}
