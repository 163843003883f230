//! The accept loop, and one task per connection: HTTP/1.1 or HTTP/2 without TLS, each under its deadlines and sizes,
//! and a drain that ends. Knows nothing of routes; TLS ends in front of the gateway.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::config::Limits;
use crate::routes::Body;

/// Where each message of an HTTP/1 stream begins and ends, told strictly.
mod framing;
/// The client's side of a connection, and the deadlines on it.
mod client;
/// Counting the requests under way on a connection.
mod activity;

use activity::{Activity, Tracked};
pub use activity::{Handover, Peer};
use client::{ClientIo, Protocol};
pub use framing::Fault;

/// Least time between two tries to accept while the system has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Window of one HTTP/2 stream, in bytes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Window of one HTTP/2 connection, in bytes.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams that a peer may open and reset before it is cut off (Rapid Reset, CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
/// Streams that a peer may make us reset before it is cut off (RUSTSEC-2024-0003).
const LOCAL_RESETS_MAX: usize = 1024;
/// Between two HTTP/2 pings, and longest wait for the answer to one.
const PING: Duration = Duration::from_secs(20);

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every connection ended by itself.
    Clean,
    /// Some were cut.
    Cut(usize),
}

/// Serves until the first of `signals` resolves, then stops accepting and lets requests under way end, for at most
/// `limits.drain_timeout`; the second of `signals` ends that at once.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    signals: (impl Future<Output = ()>, impl Future<Output = ()>),
) -> Drained
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let (mut stop, abort) = (pin!(signals.0), signals.1);
    let mut connections = JoinSet::new();
    let draining = CancellationToken::new();
    let places = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        let (stream, place) = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let service = service.clone();
        let draining = draining.clone();
        connections.spawn(async move {
            let _place = place;
            let peer = stream.peer_addr().ok().map(|address| Peer(address.ip().to_canonical()));
            let guess = async {
                tokio::select! {
                    guessed = ClientIo::guess(stream, &limits) => guessed.ok(),
                    () = draining.cancelled() => None,
                }
            };
            // A client that says nothing has nothing to lose.
            let Some((protocol, io)) = guess.await else { return };
            let activity = io.activity();
            let service = TowerToHyperService::new(Tracked::new(service, Arc::clone(&activity), peer));
            let outcome = match protocol {
                Protocol::Http1 => {
                    let connection = pin!(http1(&limits).serve_connection(TokioIo::new(io), service).with_upgrades());
                    until_drained(connection, &draining, |connection| connection.graceful_shutdown()).await
                }
                Protocol::Http2 => {
                    let connection = pin!(http2(&limits).serve_connection(TokioIo::new(io), service));
                    until_drained(connection, &draining, |connection| connection.graceful_shutdown()).await
                }
            };
            if let Err(error) = outcome {
                tracing::debug!(error = crate::error::chain(&error), "A connection ended early.");
            }
            // A web socket lives on in the connection's place.
            if let Some(tunnel) = activity.tunnel() {
                tunnel.await;
            }
        });
    }
    drop(listener);
    draining.cancel();
    drain(connections, limits.drain_timeout, abort).await
}

/// Runs a connection to its end; once the drain begins, it ends as soon as no request is under way.
async fn until_drained<C>(
    mut connection: Pin<&mut C>,
    draining: &CancellationToken,
    end: impl FnOnce(Pin<&mut C>),
) -> C::Output
where
    C: Future,
{
    tokio::select! {
        outcome = connection.as_mut() => return outcome,
        () = draining.cancelled() => end(connection.as_mut()),
    }
    connection.await
}

/// Lets connections end by themselves, as long as there is time.
async fn drain(mut connections: JoinSet<()>, timeout: Duration, abort: impl Future<Output = ()>) -> Drained {
    let ended = async { while connections.join_next().await.is_some() {} };
    let clean = tokio::select! {
        () = ended => true,
        () = tokio::time::sleep(timeout) => false,
        () = abort => false,
    };
    if clean {
        return Drained::Clean;
    }
    while connections.try_join_next().is_some() {}
    let left = connections.len();
    connections.shutdown().await;
    if left == 0 { Drained::Clean } else { Drained::Cut(left) }
}

/// The next connection, once there is a place for it; until then it waits in the system's queue.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let place = loop {
        // The semaphore is never closed; were it, waiting for ever is what a closed door means.
        match Arc::clone(places).acquire_owned().await {
            Ok(place) => break place,
            Err(_) => std::future::pending::<()>().await,
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are written whole; waiting to fill packets only delays them.
                let _ = stream.set_nodelay(true);
                return (stream, place);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(error = error.to_string(), "A connection could not be accepted.");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Deadlines are [`ClientIo`]'s, since hyper's own does not tell an idle connection from a slow head.
fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_header_size(limits.max_header);
    builder
}

fn http2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_header).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}
