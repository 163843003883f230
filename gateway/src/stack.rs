//! The tower layers around the routes, outermost first, each with its reason. All of them are here, so that their
//! order can be read.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use eventflow_api::problem::ProblemCode;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use http::header::HeaderName;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_http::timeout::RequestBodyDeadlineLayer;
use tracing::Instrument;

use crate::app::App;
use crate::error::ApiError;
use crate::metrics::{ProblemLabels, RequestLabels, RouteLabels};
use crate::routes::{Answer, Body, BoxError, Lane, Matched, Router};

/// Names a call in the logs, in the audit log and in problem documents.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken over from a caller, in bytes.
const REQUEST_ID_MAX: usize = 128;

/// The name of a call. Well-formed by construction: 1 to 128 letters, digits and `-_.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's, if it is well-formed; otherwise a new one.
    fn of(request_id: Option<&HeaderValue>) -> Self {
        let given = request_id.and_then(|value| value.to_str().ok()).filter(|id| {
            let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            (1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(word)
        });
        Self(given.map_or_else(|| uuid::Uuid::now_v7().to_string().into(), Into::into))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The API, with everything around it.
pub fn stack<B>(
    app: Arc<App>,
) -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let limits = app.limits;
    ServiceBuilder::new()
        // Id, span, panic catch, log line, metrics: outermost, so that every answer has them, whoever gave it, and
        // so that a panic anywhere below costs one request. What a layer below refuses becomes a problem here.
        .layer(tower::layer::layer_fn(move |inner| Observed { inner, app: Arc::clone(&app) }))
        // Streams go their own way here: they may live for hours, so they must take no place from calls.
        .layer(tower::layer::layer_fn(move |calls| Lanes { calls, streams: Router::new(limits.max_body) }))
        // Over the limit a request is refused at once: a queue would only make everybody late.
        .load_shed()
        // One limit for all connections, so that memory has a bound.
        .layer(GlobalConcurrencyLimitLayer::new(limits.max_requests))
        // From here on every request ends, whatever it waits for.
        .timeout(limits.request_deadline)
        // A total deadline for the body: an idle timer alone would let a byte a second pass.
        .layer(RequestBodyDeadlineLayer::new(limits.body_deadline))
        // The routes; authentication is theirs, since each says what it needs. They bound the body's size where they
        // read it, so that a refusal does not depend on how the length was announced.
        .service(Router::new(limits.max_body))
}

/// See [`stack`].
#[derive(Clone)]
struct Lanes<S> {
    calls: S,
    streams: Router,
}

impl<S, B> Service<Request<B>> for Lanes<S>
where
    S: Service<Request<B>, Response = Answer, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // To ask the calls' lane would be to take a place in it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match request.extensions().get::<Matched>().map(Matched::lane) {
            Some(Lane::Stream) => Box::pin(self.streams.call(request).map_err(|never| match never {})),
            _ => Box::pin(self.calls.clone().oneshot(request)),
        }
    }
}

/// The answer to what a layer refused.
fn refusal(error: BoxError) -> ApiError {
    if error.is::<Overloaded>() {
        ApiError::new(ProblemCode::Overloaded, "The gateway is overloaded. Try again in a moment.")
    } else if error.is::<Elapsed>() {
        ApiError::new(ProblemCode::Timeout, "The request took too long. Try again; a write may have happened.")
    } else {
        ApiError::internal(error.to_string())
    }
}

/// See [`stack`].
#[derive(Clone)]
struct Observed<S> {
    inner: S,
    app: Arc<App>,
}

impl<S, B> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Answer, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Shedding load is always ready, and a refusal when called.
        self.inner.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let started = Instant::now();
        let app = Arc::clone(&self.app);
        let id = RequestId::of(request.headers().get(&REQUEST_ID));
        // Set by the connection in the place of a request that it could not let through.
        let refused = request.extensions_mut().remove::<ApiError>();
        let matched = match (&refused, app.forward.host_of(&request)) {
            (Some(_), _) => Matched::Nothing,
            (None, Some(host)) => Matched::host(host),
            (None, None) => Matched::of(request.method(), request.uri().path()),
        };
        let labels = RouteLabels { method: matched.method_label(request.method()), route: matched.pattern_label() };
        let is_head = request.method() == Method::HEAD;
        let span = tracing::info_span!(
            "request",
            request.id = id.as_str(),
            request.method = labels.method,
            request.route = labels.route,
            tenant.id = tracing::field::Empty,
        );
        request.extensions_mut().insert(id.clone());
        request.extensions_mut().insert(matched);
        request.extensions_mut().insert(Arc::clone(&app));
        app.metrics.in_flight.inc();
        let in_flight = InFlight(Arc::clone(&app));
        // Calling may panic as well as waiting may.
        let inner = match refused {
            None => Ok(span.in_scope(|| std::panic::catch_unwind(AssertUnwindSafe(|| self.inner.call(request))))),
            Some(error) => Err(error),
        };
        let answer = async move {
            let _in_flight = in_flight;
            let outcome = match inner {
                Ok(Ok(answer)) => AssertUnwindSafe(answer).catch_unwind().await,
                Ok(Err(panic)) => Err(panic),
                Err(refused) => Ok(Ok(Err(refused))),
            };
            let answer = match outcome {
                Ok(Ok(answer)) => answer,
                Ok(Err(refused)) => Err(refusal(refused)),
                Err(panic) => Err(ApiError::internal(format!("panic: {}", panic_text(panic.as_ref())))),
            };
            let mut response = finish(&app, answer, &id, &labels, started);
            if is_head {
                response = without_body(response);
            }
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
}

/// A request under way, counted until it is answered or given up.
struct InFlight(Arc<App>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.metrics.in_flight.dec();
    }
}

/// Writes the answer out, with its id, its log line and its counts.
fn finish(app: &App, answer: Answer, id: &RequestId, labels: &RouteLabels, started: Instant) -> Response<Body> {
    let (mut response, error) = match answer {
        Ok(response) => (response, None),
        Err(error) => (error.response(id.as_str()), Some(error)),
    };
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    let duration = started.elapsed();
    app.metrics.duration.get_or_create(labels).observe(duration.as_secs_f64());
    let counted = RequestLabels { method: labels.method, route: labels.route, status };
    app.metrics.requests.get_or_create(&counted).inc();
    let duration_us = duration.as_micros() as u64;
    match error {
        None => tracing::info!(status, duration_us, "A request was answered."),
        Some(error) => {
            let code = error.code().as_str();
            app.metrics.problems.get_or_create(&ProblemLabels { code }).inc();
            let reason = error.reason().unwrap_or_default();
            if status >= 500 {
                tracing::error!(status, duration_us, problem.code = code, reason, "A request failed.");
            } else {
                tracing::info!(status, duration_us, problem.code = code, reason, "A request was refused.");
            }
        }
    }
    response
}

/// The head of the answer to a GET, for HEAD: the same fields, the length included.
fn without_body(mut response: Response<Body>) -> Response<Body> {
    if let Some(length) = http_body::Body::size_hint(response.body()).exact() {
        response.headers_mut().entry(http::header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    response.map(|_| http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("of unknown kind")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_request_ids_are_taken_over() {
        let of = |text: &[u8]| RequestId::of(HeaderValue::from_bytes(text).ok().as_ref());
        assert_eq!(of(b"abc-1_2.X").as_str(), "abc-1_2.X");
        let long = [b'a'; 129];
        for bad in [&b""[..], b"a b", b"a\"b", b"\xc3\xa4", b"<x>", &long] {
            assert!(uuid::Uuid::parse_str(of(bad).as_str()).is_ok());
        }
    }
}
