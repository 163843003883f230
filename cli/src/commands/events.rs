//! `events`: what the cluster reported of a function, and what happens to functions and the quota from now on. A stream
//! that breaks off is taken up again where it was.

use std::time::Duration;

use clap::Args;
use eventflow_api::names::FunctionName;
use http::header::{ACCEPT, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use jiff::Timestamp;

use crate::args::Format;
use crate::client::Request;
use crate::client::events::{Event, Events as Decoder};
use crate::error::CliError;
use crate::output::clean;
use crate::render;
use crate::session::Session;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// First wait before a stream is taken up again.
const AGAIN_FIRST: Duration = Duration::from_millis(500);
/// Longest wait before a stream is taken up again.
const AGAIN_LAST: Duration = Duration::from_secs(10);
/// A stream that is silent for so long is dead: the platform gives a sign of life every 15 s.
const SILENCE: Duration = Duration::from_secs(60);

/// Show what the cluster reported of a function, or follow what happens to all of them.
#[derive(Debug, Args)]
pub struct Events {
    /// The function; with --follow it may be left out, for all of them and the quota.
    #[arg(required_unless_present = "follow")]
    name: Option<FunctionName>,
    /// Tell how it stands, and go on with every change.
    #[arg(short, long)]
    follow: bool,
}

impl Events {
    /// Prints what was reported, or what happens, for ever.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        match (&self.name, self.follow) {
            (Some(name), false) => reported(session, name).await,
            (name, _) => Follower { session, only: name.as_ref(), last: None }.run().await,
        }
    }
}

async fn reported(session: &Session, name: &FunctionName) -> Result<(), CliError> {
    let request = Request::get(&["v1", "functions", name.as_str()]).then("/events");
    let document = session.client.call(&request).await?.json()?;
    session.output.document(session.format, &document, |format, style| match format {
        Format::Name => format!("{name}\n"),
        _ => render::events::reported(&document, style, Timestamp::now()),
    })
}

struct Follower<'a> {
    session: &'a Session,
    only: Option<&'a FunctionName>,
    last: Option<String>,
}

impl Follower<'_> {
    async fn run(mut self) -> Result<(), CliError> {
        let mut wait = AGAIN_FIRST;
        loop {
            let begun_with = self.last.clone();
            let reason = match self.stream().await {
                Ok(reason) => reason,
                // A first call that fails is an answer; later ones may pass.
                Err(CliError::Call(error)) if self.last.is_some() && error.is_passing() => error.to_string(),
                Err(error) => return Err(error),
            };
            wait = if self.last == begun_with { (wait * 2).min(AGAIN_LAST) } else { AGAIN_FIRST };
            self.session.output.tell(&format!("--- {reason}; going on in {} ---", humantime::format_duration(wait)));
            tokio::time::sleep(wait).await;
        }
    }

    /// Reads a stream to its end; gives why it ended.
    async fn stream(&mut self) -> Result<String, CliError> {
        let request = Request::get(&["v1", "events"])
            .header(ACCEPT, HeaderValue::from_static("text/event-stream, application/problem+json"));
        let request = match self.last.as_deref().and_then(|last| HeaderValue::from_str(last).ok()) {
            Some(last) => request.header(LAST_EVENT_ID, last),
            None => request,
        };
        let response = self.session.client.open(&request, None).await?;
        if !response.status().is_success() {
            return Err(self.session.client.failure(response).await.into());
        }
        let (mut body, mut decoder) = (response.into_body(), Decoder::default());
        loop {
            let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Ok(format!("the stream broke off: {error}")),
                Ok(None) => return Ok("the stream ended".to_owned()),
                Err(_) => return Ok("the stream fell silent".to_owned()),
            };
            let Ok(data) = frame.into_data() else { continue };
            let text: String = decoder.take(&data).into_iter().filter_map(|event| self.take(event)).collect();
            self.session.output.print(&text)?;
        }
    }

    /// What to print of an event.
    fn take(&mut self, event: Event) -> Option<String> {
        if event.id.is_some() {
            self.last.clone_from(&event.id);
        }
        if event.kind == "reset" {
            let why = serde_json::from_str::<serde_json::Value>(&event.data).unwrap_or_default();
            let why = why["reason"].as_str().unwrap_or("events are missing here").to_owned();
            self.session.output.tell(&format!("--- {}; this is how things stand now ---", clean(&why)));
            return None;
        }
        render::events::happening(self.session.format, &event, self.only.map(FunctionName::as_str), Timestamp::now())
    }
}
