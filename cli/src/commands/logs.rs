//! `logs`: the lines of all pods of a function. A followed stream that breaks off is taken up again where it was.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use clap::Args;
use eventflow_api::names::FunctionName;
use http::header::{ACCEPT, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use serde::Deserialize;

use crate::args::Format;
use crate::client::events::{Event, Events};
use crate::client::{CallError, Request};
use crate::error::CliError;
use crate::output::clean_log;
use crate::session::Session;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Events that are remembered, since the platform repeats the last second when a stream goes on.
const REMEMBERED: usize = 4096;
/// First wait before a stream is taken up again.
const AGAIN_FIRST: Duration = Duration::from_millis(500);
/// Longest wait before a stream is taken up again.
const AGAIN_LAST: Duration = Duration::from_secs(10);
/// A stream that is silent for so long is dead: the platform gives a sign of life every 15 s.
const SILENCE: Duration = Duration::from_secs(60);

/// Show what a function's pods write.
#[derive(Debug, Args)]
pub struct Logs {
    /// The function.
    name: FunctionName,
    /// Go on with what is written from now on.
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last lines of each pod.
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// Only what was written since: a time, or how long ago, such as 10m.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Each line after the time it was written at.
    #[arg(long)]
    timestamps: bool,
    /// Of the container that ran before the present one.
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
    /// Of this pod alone.
    #[arg(long)]
    pod: Option<String>,
}

/// One line, as the platform tells it.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    timestamp: String,
    #[serde(default)]
    pod: String,
    #[serde(default)]
    line: String,
}

/// How a stream ended.
enum Ended {
    /// As streams end.
    Whole,
    /// Under way.
    Broken(String),
}

impl Logs {
    /// Prints lines until there are no more, or for ever.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut printer = Printer { session, logs: &self, seen: Seen::default(), last: None };
        let mut wait = AGAIN_FIRST;
        loop {
            let begun_with = printer.last.clone();
            let reason = match printer.stream().await {
                Ok(Ended::Whole) if !self.follow => return Ok(()),
                Ok(Ended::Whole) => "the stream ended".to_owned(),
                Ok(Ended::Broken(reason)) => reason,
                // A first call that fails is an answer; later ones may pass.
                Err(CliError::Call(error)) if self.follow && printer.last.is_some() && error.is_passing() => {
                    error.to_string()
                }
                Err(error) => return Err(error),
            };
            if !self.follow {
                let url = session.client.url().clone();
                return Err(CallError::Broken { url, reason }.into());
            }
            wait = if printer.last == begun_with { (wait * 2).min(AGAIN_LAST) } else { AGAIN_FIRST };
            session.output.tell(&format!("--- {reason}; going on in {} ---", humantime::format_duration(wait)));
            tokio::time::sleep(wait).await;
        }
    }

    fn request(&self, last: Option<&str>) -> Request {
        let flag = |is: bool| is.then_some("true");
        let request = Request::get(&["v1", "functions", self.name.as_str()])
            .then("/logs")
            .maybe("follow", flag(self.follow))
            .maybe("previous", flag(self.previous))
            .maybe("tail", self.tail.map(|tail| tail.to_string()).as_deref())
            .maybe("since", self.since.as_deref())
            .maybe("pod", self.pod.as_deref())
            .header(ACCEPT, HeaderValue::from_static("text/event-stream, application/problem+json"));
        match last.and_then(|last| HeaderValue::from_str(last).ok()) {
            Some(last) => request.header(LAST_EVENT_ID, last),
            None => request,
        }
    }
}

struct Printer<'a> {
    session: &'a Session,
    logs: &'a Logs,
    seen: Seen,
    last: Option<String>,
}

/// The newest events, by hash.
#[derive(Default)]
struct Seen {
    hasher: RandomState,
    order: VecDeque<u64>,
    hashes: HashSet<u64>,
}

impl Seen {
    /// Remembers the event; false if it was there already.
    fn insert(&mut self, event: &Event) -> bool {
        let hash = self.hasher.hash_one((&event.id, &event.data));
        if !self.hashes.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        true
    }
}

impl Printer<'_> {
    async fn stream(&mut self) -> Result<Ended, CliError> {
        let response = self.session.client.open(&self.logs.request(self.last.as_deref()), None).await?;
        if !response.status().is_success() {
            return Err(self.session.client.failure(response).await.into());
        }
        let (mut body, mut events) = (response.into_body(), Events::default());
        loop {
            let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Ok(Ended::Broken(format!("the stream broke off: {error}"))),
                Ok(None) => return Ok(Ended::Whole),
                Err(_) => return Ok(Ended::Broken("the stream fell silent".to_owned())),
            };
            let Ok(data) = frame.into_data() else { continue };
            let text: String = events.take(&data).into_iter().filter_map(|event| self.take(event)).collect();
            self.session.output.print(&text)?;
        }
    }

    /// What to print of an event.
    fn take(&mut self, event: Event) -> Option<String> {
        match event.kind.as_str() {
            "log" => {}
            "gap" => {
                self.session.output.tell(&format!("--- lines are missing here: {} ---", clean_log(&event.data)));
                return None;
            }
            _ => return None,
        }
        // Only an event with an id can be told from a repeated one.
        if event.id.is_some() && self.logs.follow {
            if !self.seen.insert(&event) {
                return None;
            }
            self.last.clone_from(&event.id);
        }
        Some(render(self.session.format, &event.data, self.logs.timestamps, self.session.output.is_terminal()))
    }
}

fn render(format: Format, data: &str, timestamps: bool, terminal: bool) -> String {
    if format == Format::Json {
        return format!("{data}\n");
    }
    let Ok(line) = serde_json::from_str::<Line>(data) else { return format!("{}\n", clean_log(data)) };
    let text = if terminal { clean_log(&line.line) } else { line.line };
    let time = if timestamps { format!("{} ", clean_log(&line.timestamp)) } else { String::new() };
    let pod = if format == Format::Wide { format!("{} ", clean_log(&line.pod)) } else { String::new() };
    format!("{time}{pod}{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_line_is_known_for_a_while() {
        let event = |n: usize| Event { id: Some(n.to_string()), ..Event::default() };
        let mut seen = Seen::default();
        assert!(seen.insert(&event(0)) && !seen.insert(&event(0)));
        assert!((1..=REMEMBERED).all(|n| seen.insert(&event(n))));
        assert!(seen.insert(&event(0)), "bounded");
        assert_eq!((seen.order.len(), seen.hashes.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn lines_have_the_form_that_was_asked_for() {
        let data = r#"{"timestamp": "2026-01-01T00:00:00Z", "pod": "fn-a-1", "line": "a\u001b[31mb\u001b]0;c"}"#;
        assert_eq!(render(Format::Table, data, false, false), "a\u{1b}[31mb\u{1b}]0;c\n");
        assert_eq!(render(Format::Table, data, false, true), "a\u{1b}[31mb\\u{1b}]0;c\n");
        assert!(render(Format::Wide, data, true, false).starts_with("2026-01-01T00:00:00Z fn-a-1 a"));
        assert_eq!(render(Format::Json, data, true, true), format!("{data}\n"));
    }
}
