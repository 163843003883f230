//! The invoke path: from a caller's request to a pod of the function and back, streamed both ways. Asks neither the
//! database nor the API server: who may call, how much, and where pods are comes from memory.
//!
//! A request goes to another pod only while not a byte of it was sent. Every answer of ours says so by
//! `X-EventFlow-Error`; every other answer is the function's.

use std::sync::Arc;
use std::time::Duration;

use eventflow_api::condition::{ConditionStatus, ConditionType, find};
use eventflow_api::function::{Function, Phase};
use eventflow_api::names::{FunctionName, TenantId};
use http::header::{CONNECTION, EXPECT, HOST, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use crate::app::App;
use crate::cluster::Allowance;
use crate::metering::Meter;
use crate::policy::Permit;
use crate::routes::{Answer, Body, full};
use crate::server::Handover;

/// A function's own host name.
pub mod host;
/// The fields of a message that is handed on.
pub mod headers;
/// How many invocations may be under way.
mod places;
/// The pods that functions answer at, and the connections to them.
pub mod pods;
/// The two bodies of an invocation.
mod exchange;
/// A web socket.
mod tunnel;
/// What is counted.
pub mod metrics;
/// Why a call was not answered by the function.
mod failure;

pub use failure::ForwardError;
pub use host::FunctionHost;

use exchange::{Download, Exchange, Upload, UploadFault};
use headers::Passage;
use metrics::{InvocationMetrics, Outcome};
use places::{Places, Ticket};
use pods::{ConnectError, Connection, Load};
use tunnel::Held;

/// Most pods that one request is offered to.
const TRIES_MAX: usize = 5;
/// What an `Expect` asks for: leave to send the body.
const LEAVE: &[u8] = b"100-continue";
/// How long a request waits for a pod when none takes it: the time in which news of a roll-out arrive.
const NEWS_DEADLINE: Duration = Duration::from_secs(2);

/// What invocations share.
#[derive(Debug)]
pub struct Forward {
    domain: Option<String>,
    places: Arc<Places>,
    /// What calls come to.
    pub meter: Arc<Meter>,
    /// What is counted.
    pub metrics: InvocationMetrics,
}

/// What is called.
#[derive(Debug)]
pub struct Target {
    /// Whose function.
    pub tenant: TenantId,
    /// Which.
    pub name: FunctionName,
    /// How the call came.
    pub form: Form,
}

/// How a call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// At the API's host, at a path of which so many bytes are ours.
    Path(usize),
    /// At the function's own host, with a token of ours or without.
    Host {
        /// Whether the `Authorization` was for us.
        token: bool,
    },
}

impl Forward {
    /// Functions have host names below `domain`, if any, and at most `max_invocations` are under way.
    #[must_use]
    pub fn new(domain: Option<String>, max_invocations: usize) -> Self {
        let metrics = InvocationMetrics::default();
        let meter = Arc::new(Meter::default());
        let places = Arc::new(Places::new(max_invocations, metrics.clone(), Arc::clone(&meter)));
        Self { domain, places, meter, metrics }
    }

    /// The function whose own host name the request is for, if it is for one.
    #[must_use]
    pub fn host_of<B>(&self, request: &Request<B>) -> Option<FunctionHost> {
        FunctionHost::of(request, self.domain.as_deref()?)
    }
}

/// Hands the request on to a pod of the function, and its answer back.
///
/// # Errors
/// See [`ForwardError`].
pub async fn call(app: &App, target: &Target, (request_id, permit): (&str, &Permit), request: Request<Body>) -> Answer {
    let function = app.cluster.function(&target.tenant, &target.name).ok_or(ForwardError::NotFound)?;
    if function.spec.port.is_none() {
        return Err(ForwardError::NotHttp.into());
    }
    let allowance = app.cluster.allowance(&target.tenant);
    if allowance.suspended {
        return Err(ForwardError::TenantSuspended.into());
    }
    let whose = (&target.tenant, &target.name);
    let mut ticket = app.forward.places.enter(whose, allowance.concurrent_invocations, permit.priority())?;
    let invocation = Invocation { app, target, request_id, permit, function, allowance };
    match invocation.pass(request).await {
        Ok(passed) => Ok(passed.answer(ticket, target.form)),
        Err(error) => {
            ticket.outcome = error.outcome();
            Err(error.into())
        }
    }
}

/// One invocation that may be.
struct Invocation<'a> {
    app: &'a App,
    target: &'a Target,
    request_id: &'a str,
    /// What the policies change about it.
    permit: &'a Permit,
    function: Arc<Function>,
    allowance: Allowance,
}

/// What came back from a pod.
struct Passed {
    response: Response<Incoming>,
    exchange: Arc<Exchange>,
    connection: Connection,
    load: Load,
    web_socket: Option<WebSocket>,
}

/// The caller's end of a web socket to be.
struct WebSocket {
    upgrade: OnUpgrade,
    handover: Handover,
}

impl WebSocket {
    fn of(request: &mut Request<Body>) -> Option<Self> {
        if request.version() != Version::HTTP_11 || !headers::wants_web_socket(request.headers()) {
            return None;
        }
        let handover = request.extensions().get::<Handover>()?.clone();
        Some(Self { upgrade: hyper::upgrade::on(request), handover })
    }
}

/// Why one pod gave no answer.
enum Missed {
    /// Not a byte was sent: another pod may have the request.
    Unsent(Box<Request<Upload>>, ConnectError),
    /// The pod may have seen the request.
    Lost(ForwardError),
}

impl Invocation<'_> {
    async fn pass(&self, mut request: Request<Body>) -> Result<Passed, ForwardError> {
        let limit = self.allowance.max_request_bytes;
        if http_body::Body::size_hint(request.body()).lower() > limit {
            return Err(ForwardError::BodyTooLarge { limit });
        }
        let seconds = self.function.spec.timeout_seconds.clamp(1, i64::from(self.allowance.max_timeout_seconds));
        let waiting = request.headers().get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(LEAVE));
        let timeout = Duration::from_secs(seconds.unsigned_abs());
        let exchange = Exchange::begin(self.permit.timeout().map_or(timeout, |shorter| shorter.min(timeout)), waiting);
        let web_socket = WebSocket::of(&mut request);
        let mut request = self.outgoing(request, &exchange)?;
        if waiting {
            let exchange = Arc::clone(&exchange);
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    exchange.open();
                }
            });
        }
        let (response, connection, load) = self.dispatch(Box::new(request), &exchange).await?;
        exchange.answered();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && web_socket.is_none() {
            return Err(ForwardError::Broke("it changed the protocol unasked".into()));
        }
        Ok(Passed { response, exchange, connection, load, web_socket })
    }

    /// The request as the pod gets it.
    fn outgoing(&self, request: Request<Body>, exchange: &Arc<Exchange>) -> Result<Request<Upload>, ForwardError> {
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        let passage = Passage {
            tenant: self.target.tenant.as_str(),
            function: self.target.name.as_str(),
            request_id: self.request_id,
            shared_host: matches!(self.target.form, Form::Path(_)),
            authorized_here: self.target.form != Form::Host { token: false },
        };
        headers::to_pod(&mut headers, &passage).map_err(|error| ForwardError::Headers(error.into()))?;
        // Last, so that no `Connection` of the caller's takes off what a policy puts on.
        self.permit.change_headers(&mut headers);
        if !headers.contains_key(HOST) {
            let host = parts.uri.authority().map_or(passage.function, |authority| authority.as_str());
            let host = HeaderValue::from_str(host).map_err(|error| ForwardError::Headers(error.into()))?;
            headers.insert(HOST, host);
        }
        let upload = Upload::new(body, self.allowance.max_request_bytes, Arc::clone(exchange));
        let mut request = Request::new(upload);
        *request.uri_mut() = self.path(&parts.uri)?;
        *request.method_mut() = parts.method;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Path and query as the function sees them: as they were sent, without what is ours.
    fn path(&self, uri: &Uri) -> Result<Uri, ForwardError> {
        let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let path = match self.target.form {
            Form::Path(ours) => whole.get(ours..).unwrap_or_default(),
            Form::Host { .. } => whole,
        };
        let path = if path.starts_with('/') { path.parse() } else { format!("/{path}").parse() };
        path.map(|path: PathAndQuery| path.into()).map_err(|error| ForwardError::Headers(error.into()))
    }

    /// Offers the request to pods until one has it. Waits a moment for news where none takes it.
    async fn dispatch(
        &self,
        mut request: Box<Request<Upload>>,
        exchange: &Exchange,
    ) -> Result<(Response<Incoming>, Connection, Load), ForwardError> {
        let namespace = self.target.tenant.namespace();
        let pods = || self.app.cluster.pods().get(&namespace, self.target.name.as_str());
        let news_deadline = Instant::now() + NEWS_DEADLINE;
        let (mut tried, mut refusal) = (Vec::new(), None);
        while tried.len() < TRIES_MAX {
            let Some(load) = pods().and_then(|pods| pods.pick(&tried)) else {
                let mut changes = self.app.cluster.pods().changes();
                let other = || pods().is_some_and(|pods| pods.has_other_than(&tried));
                let news = async { while !other() && changes.changed().await.is_ok() {} };
                if self.rests() || tokio::time::timeout_at(news_deadline, news).await.is_err() {
                    break;
                }
                continue;
            };
            if !tried.is_empty() {
                self.app.forward.metrics.retries.inc();
            }
            match attempt(&load, request, exchange).await {
                Ok((response, connection)) => return Ok((response, connection, load)),
                Err(Missed::Lost(error)) => return Err(error),
                Err(Missed::Unsent(back, error)) => {
                    load.pod().shun();
                    tried.push(load.pod().address());
                    (request, refusal) = (back, Some(error));
                }
            }
        }
        Err(match refusal {
            Some(error) => ForwardError::Unreachable(Box::new(error)),
            None => ForwardError::NotReady(self.why_not_ready()),
        })
    }

    /// Whether no pod can be expected to come within a moment.
    fn rests(&self) -> bool {
        let phase = self.function.status.as_ref().map_or(Phase::Pending, |status| status.phase);
        let expected = matches!(phase, Phase::Pending | Phase::Running | Phase::Unknown);
        self.function.spec.suspend || self.function.spec.replicas == 0 || !expected
    }

    fn why_not_ready(&self) -> String {
        if self.function.spec.suspend {
            return "it is suspended; set \"suspend\" to false to have it run.".to_owned();
        }
        if self.function.spec.replicas == 0 {
            return "it has no replicas; set \"replicas\" to have it run.".to_owned();
        }
        let ready = self.function.status.as_ref().and_then(|status| find(&status.conditions, ConditionType::Ready));
        let reason = ready.filter(|ready| !ready.message.is_empty() && ready.status != ConditionStatus::True);
        reason.map_or_else(|| "it is on its way; try again in a moment.".to_owned(), |ready| ready.message.clone())
    }
}

/// Sends the request to this pod: on a kept connection that is still open, or on a new one.
async fn attempt(
    load: &Load,
    mut request: Box<Request<Upload>>,
    exchange: &Exchange,
) -> Result<(Response<Incoming>, Connection), Missed> {
    loop {
        let (mut connection, kept) = match load.pod().kept() {
            Some(connection) => (connection, true),
            None => match load.pod().connect().await {
                Ok(connection) => (connection, false),
                Err(error) => return Err(Missed::Unsent(request, error)),
            },
        };
        let sent = tokio::select! {
            biased;
            sent = connection.sender().try_send_request(*request) => sent,
            () = exchange.silent() => return Err(Missed::Lost(silent(exchange))),
        };
        let mut error = match sent {
            Ok(response) => return Ok((response, connection)),
            Err(error) => error,
        };
        match error.take_message() {
            Some(back) if kept => request = Box::new(back),
            Some(back) => {
                return Err(Missed::Unsent(Box::new(back), ConnectError::Handshake(error.into_error())));
            }
            None => return Err(Missed::Lost(lost(exchange, error.into_error()))),
        }
    }
}

/// Who was silent for too long.
fn silent(exchange: &Exchange) -> ForwardError {
    let seconds = exchange.silence().as_secs_f64();
    if exchange.waits_for_caller() { ForwardError::CallerSilent { seconds } } else { ForwardError::Silent { seconds } }
}

/// Whose fault it is that there is no answer.
fn lost(exchange: &Exchange, error: hyper::Error) -> ForwardError {
    match exchange.fault() {
        Some(UploadFault::TooLarge { limit }) => ForwardError::BodyTooLarge { limit },
        Some(UploadFault::Broke) => ForwardError::CallerBroke,
        None => ForwardError::Broke(error.into()),
    }
}

impl Passed {
    /// The answer to the caller, whose body holds the ticket until it is over.
    fn answer(self, mut ticket: Ticket, form: Form) -> Response<Body> {
        let Self { mut response, exchange, connection, load, web_socket } = self;
        headers::to_caller(response.headers_mut(), matches!(form, Form::Path(_)));
        let status = response.status();
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(WebSocket { upgrade, handover })) = (status, web_socket) {
            let pod = hyper::upgrade::on(&mut response);
            handover.to(tunnel::run(upgrade, pod, Held { exchange, connection, load, ticket }));
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            return response.map(|_| full(Vec::new()));
        }
        ticket.outcome = Outcome::Left;
        let whole = if status.is_server_error() { Outcome::FunctionError } else { Outcome::Answered };
        let (parts, body) = response.into_parts();
        let mut answer = Response::new(Download::new(body, exchange, (connection, load), ticket, whole).boxed_unsync());
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = parts.headers;
        answer
    }
}
