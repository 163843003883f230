//! Answers that go on for as long as somebody reads.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::{Body, full};

/// Between two signs of life in a stream of events.
pub(super) const PING: Duration = Duration::from_secs(15);
/// A sign of life.
pub(super) const PING_EVENT: &str = "event: ping\ndata: {}\n\n";
/// About how much is put together into one write.
pub(super) const CHUNK: usize = 16 * 1024;
/// Server-sent events.
pub(super) const EVENTS: &str = "text/event-stream";
/// Asks proxies in between not to hold anything back.
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Answers with the texts as they come, or with the head alone.
pub(super) fn answer(
    head: bool,
    content_type: &'static str,
    texts: impl Stream<Item = String> + Send + 'static,
) -> Response<Body> {
    let response = if head {
        Response::new(full(Vec::new()))
    } else {
        let frames = texts.map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
        Response::new(StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync())
    };
    with_headers(response, content_type)
}

/// The answer with the fields of one that goes on.
pub(super) fn with_headers(mut response: Response<Body>, content_type: &'static str) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(NO_BUFFERING, HeaderValue::from_static("no"));
    response
}
