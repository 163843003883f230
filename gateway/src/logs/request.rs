//! What a caller asks for: `follow`, `tail`, `since`, `timestamps`, `previous`, `pod`, `container`, read strictly.

use std::time::Duration;

use http::HeaderMap;
use http::header::{ACCEPT, HeaderName};
use jiff::Timestamp;

use crate::error::ApiError;
use crate::routes::query::Query;

/// Where a stream of server-sent events is to go on.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Most lines of each pod that `tail` may ask for.
const TAIL_MAX: i64 = 100_000;
/// What is read again when a stream goes on: the lines of several pods come in about the order they were written in.
const REPEATED: Duration = Duration::from_secs(1);

/// In what form lines are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One line after the other.
    Text {
        /// Each after the time it was written at.
        timestamps: bool,
    },
    /// Server-sent events.
    Events,
}

/// What a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// Goes on with what is written from now on.
    pub follow: bool,
    /// Only so many of the last lines of each pod.
    pub tail: Option<i64>,
    /// Only what was written since.
    pub since: Option<Timestamp>,
    /// Of the container that ran before the present one.
    pub previous: bool,
    /// Of this pod alone.
    pub pod: Option<String>,
    /// Of this container.
    pub container: Option<String>,
    /// In what form.
    pub form: Form,
}

impl LogRequest {
    /// Reads the request.
    ///
    /// # Errors
    /// A parameter that is malformed or not known.
    pub fn read(mut query: Query, headers: &HeaderMap, now: Timestamp) -> Result<Self, ApiError> {
        let follow = query.flag("follow")?;
        let timestamps = query.flag("timestamps")?;
        let previous = query.flag("previous")?;
        let tail = query.text("tail").map(|text| tail(&text)).transpose()?;
        let since = query.text("since").map(|text| since(&text, now)).transpose()?;
        let (pod, container) = (query.text("pod"), query.text("container"));
        query.finish()?;
        if follow && previous {
            let detail = "\"previous\" reads what a container wrote before it ended; there is nothing to \"follow\".";
            return Err(ApiError::malformed(detail));
        }
        let events = headers
            .get_all(ACCEPT)
            .iter()
            .any(|value| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("text/event-stream")));
        let last = headers.get(LAST_EVENT_ID).filter(|_| events);
        let last: Option<Timestamp> = match last {
            Some(value) => {
                let id = value.to_str().ok().and_then(|id| id.parse().ok());
                Some(id.ok_or_else(|| ApiError::malformed("Last-Event-ID is none that this stream gave."))?)
            }
            None => None,
        };
        let (since, tail) = match last {
            Some(last) => (last.checked_sub(REPEATED).ok(), None),
            None => (since, tail),
        };
        let form = if events { Form::Events } else { Form::Text { timestamps } };
        Ok(Self { follow, tail, since, previous, pod, container, form })
    }
}

fn tail(text: &str) -> Result<i64, ApiError> {
    let lines = text.parse().ok().filter(|lines| (0..=TAIL_MAX).contains(lines) && !text.starts_with('+'));
    lines.ok_or_else(|| {
        ApiError::malformed(format!("The query parameter \"tail\" must be a number from 0 to {TAIL_MAX}."))
    })
}

/// A time, or how long ago.
fn since(text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago = humantime::parse_duration(text).ok().and_then(|ago| now.checked_sub(ago).ok());
    ago.ok_or_else(|| {
        let detail =
            "The query parameter \"since\" must be a time such as 2026-01-31T10:00:00Z, or how long ago, such as 10m.";
        ApiError::malformed(detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, headers: &[(&'static str, &'static str)]) -> Result<LogRequest, ApiError> {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        LogRequest::read(Query::parse(query).unwrap(), &headers.collect(), "2026-01-31T10:00:00Z".parse().unwrap())
    }

    #[test]
    fn requests_are_read_strictly() {
        let request = read("follow=true&tail=10&since=90s&timestamps=true&pod=p&container=c", &[]).unwrap();
        assert!(request.follow && !request.previous);
        assert_eq!(
            (request.tail, request.pod.as_deref(), request.container.as_deref()),
            (Some(10), Some("p"), Some("c"))
        );
        assert_eq!(request.since, Some("2026-01-31T09:58:30Z".parse().unwrap()));
        assert_eq!(request.form, Form::Text { timestamps: true });
        assert_eq!(
            read("since=2026-01-01T00:00:00Z", &[]).unwrap().since,
            Some("2026-01-01T00:00:00Z".parse().unwrap())
        );
        for bad in [
            "tail=-1",
            "tail=%2B1",
            "tail=x",
            "tail=100001",
            "since=soon",
            "follow=1",
            "colour=red",
            "follow=true&previous=true",
        ] {
            assert!(read(bad, &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn events_go_on_where_they_ended() {
        let accept = ("accept", "text/event-stream");
        let request = read("tail=5", &[accept, ("last-event-id", "2026-01-31T09:00:00.5Z")]).unwrap();
        assert_eq!(request.form, Form::Events);
        assert_eq!((request.tail, request.since), (None, Some("2026-01-31T08:59:59.5Z".parse().unwrap())));
        assert!(read("", &[accept, ("last-event-id", "7")]).is_err());
        assert!(read("", &[("last-event-id", "7")]).is_ok());
    }
}
