//! The same policies for whoever goes past the API: kubectl and GitOps. The API server asks this gateway over TLS before
//! it stores a Function, first what is to be changed (mutating), then whether the result may stand (validating).
//!
//! The certificate authority is this replica's own: its key never leaves the process, and the API server trusts those
//! of all live replicas.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::app::App;

/// This replica's certificate authority and certificate.
mod certificate;
/// What the API server is told about its webhooks.
mod registration;
/// One question of the API server.
mod review;

pub use certificate::CertificateError;
pub use registration::{FailurePolicy, Target};

use registration::Registered;

/// Largest question: an object may have 1.5 MiB, and comes twice.
const BODY_MAX: usize = 4 << 20;
/// Longest time for a handshake, and for a question to arrive.
const ARRIVAL: Duration = Duration::from_secs(5);
/// Longest silence on a connection: the API server keeps few of them, and for long.
const IDLE: Duration = Duration::from_secs(120);
/// Connections at once.
const CONNECTIONS: usize = 256;
/// Path of the question what is to be changed.
const MUTATE: &str = "/admission/mutate";
/// Path of the question whether it may stand.
const VALIDATE: &str = "/admission/validate";

/// Where the API server finds the webhooks, and what it does when it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// How the API server reaches it.
    pub target: Target,
    /// What becomes of changes while no gateway answers.
    pub failure_policy: FailurePolicy,
}

/// Serves the webhooks and keeps them registered, until the task is dropped.
///
/// # Errors
/// When no certificate can be made.
pub async fn run(
    app: Arc<App>,
    client: Client,
    listener: TcpListener,
    config: WebhookConfig,
) -> Result<(), CertificateError> {
    let host = config.target.host();
    let made = certificate::make(&host)?;
    app.policies.announce_webhook_ca(made.ca_pem.clone());
    let tls = Arc::new(ArcSwap::from(Arc::clone(&made.server)));
    let registered = Arc::new(Registered::default());
    tokio::join!(
        serve((Arc::clone(&app), Arc::clone(&registered)), listener, Arc::clone(&tls)),
        registration::keep(&app, client, &config, &registered),
        certificate::rotate(&app, &host, (made, &tls), &registered),
    );
    Ok(())
}

async fn serve((app, registered): (Arc<App>, Arc<Registered>), listener: TcpListener, tls: Arc<ArcSwap<ServerConfig>>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = error.to_string(), "A connection to the webhooks could not be accepted.");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (app, registered) = (Arc::clone(&app), Arc::clone(&registered));
        let acceptor = TlsAcceptor::from(tls.load_full());
        tokio::spawn(async move {
            let _place = place;
            let Ok(Ok(stream)) = tokio::time::timeout(ARRIVAL, acceptor.accept(stream)).await else { return };
            let service = service_fn(move |request| answer(Arc::clone(&app), registered.username(), request));
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(IDLE);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(error = crate::error::chain(&error), "A connection to the webhooks ended early.");
            }
        });
    }
}

async fn answer(
    app: Arc<App>,
    us: Option<String>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let stage = match (request.method(), request.uri().path()) {
        (&Method::POST, MUTATE) => review::Stage::Mutate,
        (&Method::POST, VALIDATE) => review::Stage::Validate,
        _ => return Ok(bare(StatusCode::NOT_FOUND)),
    };
    let body = tokio::time::timeout(ARRIVAL, Limited::new(request.into_body(), BODY_MAX).collect()).await;
    let Ok(Ok(body)) = body else { return Ok(bare(StatusCode::PAYLOAD_TOO_LARGE)) };
    let Some(answer) = review::review(&app, us.as_deref(), stage, &body.to_bytes()).await else {
        return Ok(bare(StatusCode::BAD_REQUEST));
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    Ok(response)
}

fn bare(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
