//! From a request to the handler that the `table` names for it, and what handlers answer with.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tower::Service;

use crate::app::App;
use crate::error::ApiError;
use crate::forward::FunctionHost;
use crate::policy;

/// The table.
pub mod table;
/// What a handler gets: the request's parts, read strictly.
pub mod call;
/// The query of a request, read strictly.
pub mod query;
/// Entity tags and preconditions.
pub mod etag;
/// Liveness and readiness.
pub mod health;
/// `POST /auth/token`: the development issuer.
pub mod token;
/// `GET /v1/me`.
pub mod me;
/// `/v1/functions`.
pub mod functions;
/// Calls of functions.
pub mod invoke;
/// Runs of functions: `:invoke` and `/v1/invocations`.
pub mod invocations;
/// `GET /v1/functions/{name}/logs`.
pub mod logs;
/// `GET /v1/events`.
pub mod events;
/// Answers that go on.
mod stream;
/// `GET /v1/audit`.
pub mod audit;
/// `/v1/policies` and `/v1/policy-groups`.
pub mod policies;
/// `GET /v1/quota`.
pub mod quota;
/// `GET /v1/usage`.
pub mod usage;
/// What operators change, and the writing down of it.
pub mod operators;
/// `/v1/tenants`.
pub mod tenants;
/// `/v1/tiers`.
pub mod tiers;

use call::Call;
pub use table::{Access, HOST_ROUTE, Lane, ROUTES, Route};

/// Any failure of a body or of a layer.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The one type of body, of requests and of responses.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// What a handler answers.
pub type Answer = Result<Response<Body>, ApiError>;

/// Where a request goes.
#[derive(Clone)]
pub enum Matched {
    /// To this route, with the segments that its `{words}` stand for.
    Route(&'static Route, Vec<String>),
    /// The path exists, with these methods.
    Methods(&'static str, String),
    /// Nowhere.
    Nothing,
}

impl Matched {
    /// Where a request of this method and path goes. Paths are compared as they are: nothing is decoded, folded or
    /// normalised, so that no two ways of writing a path lead to the same thing.
    #[must_use]
    pub fn of(method: &Method, path: &str) -> Self {
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let mut methods = Vec::new();
        let mut pattern = "";
        for route in ROUTES.iter() {
            let Some(params) = params(route.pattern, path) else { continue };
            let Some(has) = &route.method else { return Self::Route(route, params) };
            if has == wanted {
                return Self::Route(route, params);
            }
            pattern = route.pattern;
            methods.push(has.as_str());
            if has == Method::GET {
                methods.push("HEAD");
            }
        }
        if methods.is_empty() {
            return Self::Nothing;
        }
        methods.push("OPTIONS");
        Self::Methods(pattern, methods.join(", "))
    }

    /// To a function's own host name.
    #[must_use]
    pub fn host(host: FunctionHost) -> Self {
        Self::Route(&HOST_ROUTE, vec![host.function, host.tenant])
    }

    /// The pattern, for the metrics.
    #[must_use]
    pub fn pattern_label(&self) -> &'static str {
        match self {
            Self::Route(route, _) => route.pattern,
            Self::Methods(pattern, _) => pattern,
            Self::Nothing => "none",
        }
    }

    /// The method, for the metrics.
    #[must_use]
    pub fn method_label(&self, method: &Method) -> &'static str {
        match self {
            Self::Route(..) => method_label(method),
            Self::Methods(..) | Self::Nothing => "other",
        }
    }

    /// Under which limits the request runs.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Route(route, _) => route.lane,
            Self::Methods(..) | Self::Nothing => Lane::Call,
        }
    }
}

/// The method as a label: one of those we know.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The segments that stand in the place of the pattern's words, if the path fits.
fn params(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut params = Vec::new();
    let (pattern, rest) = match pattern.split_once("/{path..}") {
        Some((pattern, _)) => {
            let end = path.match_indices('/').map(|(at, _)| at).nth(pattern.matches('/').count());
            let (path, rest) = path.split_at(end.unwrap_or(path.len()));
            (pattern, Some((path, rest)))
        }
        None => (pattern, None),
    };
    let (mut pattern, mut path) = (pattern.split('/'), rest.map_or(path, |(path, _)| path).split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => {
                params.extend(rest.map(|(_, rest)| rest.to_owned()));
                return Some(params);
            }
            (Some(word), Some(segment)) if word.starts_with('{') => {
                // `{name}:verb` stands for a segment that ends so; a name alone has no colon.
                let verb = word.split_once('}')?.1;
                let name = segment.strip_suffix(verb)?;
                // A segment is as it was sent. Names have no characters that need an escape, and no name has dots.
                if name.is_empty() || name.contains(['%', ':']) || matches!(name, "." | "..") {
                    return None;
                }
                params.push(name.to_owned());
            }
            (Some(word), Some(segment)) if word == segment => {}
            _ => return None,
        }
    }
}

/// Leads requests to their handlers: the innermost service of the stack.
#[derive(Clone, Copy)]
pub struct Router {
    max_body: usize,
}

impl Router {
    /// A router whose handlers read bodies of at most `max_body` bytes.
    #[must_use]
    pub fn new(max_body: usize) -> Self {
        Self { max_body }
    }
}

impl<B> Service<Request<B>> for Router
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let max_body = self.max_body;
        Box::pin(async move { Ok(route(request, max_body).await) })
    }
}

async fn route<B>(mut request: Request<B>, max_body: usize) -> Answer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let extensions = request.extensions_mut();
    let (Some(app), Some(matched)) = (extensions.remove::<Arc<App>>(), extensions.remove::<Matched>()) else {
        return Err(ApiError::internal("the router is used without its stack"));
    };
    let (route, params) = match matched {
        Matched::Route(route, params) => (route, params),
        Matched::Methods(_, allow) if request.method() == Method::OPTIONS => return options(&allow),
        Matched::Methods(_, allow) => return Err(ApiError::method_not_allowed(allow)),
        Matched::Nothing => return Err(ApiError::no_such_route()),
    };
    let mut call = Call::new(request, params, max_body);
    match &route.access {
        Access::Public(handler) => handler(app, call).await,
        Access::Operator(handler) => {
            let operator = app.auth.operator(call.headers())?;
            handler(app, operator, call).await
        }
        Access::Tenant(right, handler) => {
            let right = *right;
            let caller = app.auth.caller(call.headers(), right, &app.store, &app.cluster).await?;
            tracing::Span::current().record("tenant.id", caller.tenant.id().as_str());
            if !caller.may(right) {
                let detail = "None of your roles includes this. Ask an owner of the tenant for another role.";
                return Err(ApiError::new(eventflow_api::problem::ProblemCode::Forbidden, detail));
            }
            let action = policy::action(route);
            let under_way = policy::is_invocation(&action).then(|| app.policies.enter(caller.tenant.id()));
            let permit = app.policies.check(&app, (&caller).into(), &call, &action)?;
            call.set_permit(permit.clone());
            // Of an invocation it shortens the function's own time-out.
            let timeout = permit.timeout().filter(|_| under_way.is_none());
            let mut response = in_time(timeout, handler(app, caller, call)).await?;
            permit.write_headers(response.headers_mut());
            Ok(match under_way {
                Some(under_way) => response.map(|body| held(body, under_way)),
                None => response,
            })
        }
    }
}

/// The answer, if it comes before a policy's time-out.
async fn in_time(timeout: Option<Duration>, answer: impl Future<Output = Answer>) -> Answer {
    let Some(timeout) = timeout else { return answer.await };
    tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
        let detail = format!(
            "The request took longer than a policy lets it: {} ms. A write may have happened.",
            timeout.as_millis()
        );
        Err(ApiError::new(eventflow_api::problem::ProblemCode::Timeout, detail))
    })
}

fn options(allow: &str) -> Answer {
    let mut response = Response::new(full(Vec::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let allow = HeaderValue::from_str(allow).map_err(|error| ApiError::internal(error.to_string()))?;
    response.headers_mut().insert(http::header::ALLOW, allow);
    Ok(response)
}

/// A body that is all there.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that keeps something until it is sent or given up.
fn held(body: Body, kept: impl Send + 'static) -> Body {
    let mut kept = Some(kept);
    body.map_frame(move |frame| {
        // Nothing is done with it: it goes with the body that this closure belongs to.
        let _: &mut Option<_> = &mut kept;
        frame
    })
    .boxed_unsync()
}

/// An answer of JSON, not to be kept by caches since it is one caller's own.
///
/// # Errors
/// When the value cannot be written, which is a fault of ours.
pub fn json<T: serde::Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(json_bytes(status, body))
}

/// An answer of JSON that is already written.
#[must_use]
pub fn json_bytes(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(method: &str, path: &str) -> &'static str {
        match Matched::of(&method.parse().unwrap(), path) {
            Matched::Route(route, _) => route.pattern,
            Matched::Methods(..) => "405",
            Matched::Nothing => "404",
        }
    }

    #[test]
    fn paths_are_taken_literally() {
        assert_eq!(pattern("GET", "/v1/functions"), "/v1/functions");
        assert_eq!(pattern("HEAD", "/v1/functions/a"), "/v1/functions/{name}");
        let strange = [
            "/v1/functions/",
            "//v1/functions",
            "/v1//functions",
            "/V1/functions",
            "/v1/functions/a/",
            "/v1/functions/..",
            "/v1/functions/%61",
            "/v1/functions/a%2fb",
            "/v1/%66unctions",
            "/v1/./functions",
            "/v1/functions/../me",
            "",
            "/",
            "*",
            "/v1/functions/a/b",
        ];
        for path in strange {
            assert_eq!(pattern("GET", path), "404", "{path}");
        }
    }

    #[test]
    fn other_methods_are_told_which_there_are() {
        let Matched::Methods(pattern, allow) = Matched::of(&Method::POST, "/v1/functions/a") else { panic!() };
        assert_eq!((pattern, allow.as_str()), ("/v1/functions/{name}", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"));
    }

    #[test]
    fn a_verb_is_part_of_the_last_segment() {
        assert_eq!(params("/v1/functions/{name}:explain", "/v1/functions/a:explain"), Some(vec!["a".to_owned()]));
        for path in ["/v1/functions/a", "/v1/functions/:explain", "/v1/functions/a:b:explain", "/v1/functions/a:invoke"]
        {
            assert_eq!(params("/v1/functions/{name}:explain", path), None, "{path}");
        }
        assert_eq!(params("/v1/functions/{name}", "/v1/functions/a:explain"), None);
    }

    #[test]
    fn what_follows_belongs_to_the_function() {
        let rest = |path: &str| {
            let Matched::Route(_, params) = Matched::of(&Method::DELETE, path) else { return None };
            params.get(1).cloned()
        };
        assert_eq!(rest("/v1/functions/a/http").as_deref(), Some(""));
        assert_eq!(rest("/v1/functions/a/http/").as_deref(), Some("/"));
        assert_eq!(rest("/v1/functions/a/http/x//y/../%2f/").as_deref(), Some("/x//y/../%2f/"));
        for path in ["/v1/functions/a/https", "/v1/functions//http/x", "/v1/functions/../http/x", "/v1/functions/a"] {
            assert_eq!(rest(path), None, "{path}");
        }
        assert_eq!(pattern("PURGE", "/v1/functions/a/http/x"), "/v1/functions/{name}/http/{path..}");
    }

    #[test]
    fn no_route_is_there_twice() {
        let mut seen = std::collections::HashSet::new();
        assert!(ROUTES.iter().all(|route| seen.insert((route.method.clone(), route.pattern))));
    }
}
