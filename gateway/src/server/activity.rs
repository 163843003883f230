//! Counting the requests under way on a connection: from the end of a request's head to the end of its answer's body.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tower::Service;

use super::framing::Fault;
use crate::error::ApiError;
use crate::routes::{Body, BoxError};

/// What a connection is doing. Shared by its two ends.
#[derive(Default)]
pub struct Activity {
    under_way: AtomicUsize,
    begun: AtomicU64,
    /// The number of the request that stands for a head that was refused, and why it was.
    refused: OnceLock<(u64, Fault)>,
    tunnel: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl std::fmt::Debug for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Activity").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}

/// A request's way to take its connection over, once it is answered by a change of protocol.
#[derive(Debug, Clone)]
pub struct Handover(Arc<Activity>);

impl Handover {
    /// Has `tunnel` run in the connection's place once the answer is written. The connection counts as busy until then
    /// and until the tunnel ends.
    pub fn to(&self, tunnel: impl Future<Output = ()> + Send + 'static) {
        let under_way = self.0.hold();
        let tunnel = async move {
            let _under_way = under_way;
            tunnel.await;
        };
        *self.0.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(tunnel));
    }
}

impl Activity {
    /// Whether a request is under way.
    pub fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// How many requests have begun so far.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// What takes the connection over, if anything.
    pub fn tunnel(&self) -> Option<BoxFuture<'static, ()>> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Says that the request of this number, counted from 1, stands for a head that was refused. Once.
    pub fn refuse(&self, number: u64, fault: Fault) {
        let _ = self.refused.set((number, fault));
    }

    /// Counts a request; with it, why it is refused.
    fn begin(self: &Arc<Self>) -> (UnderWay, Option<Fault>) {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let under_way = self.hold();
        let refused = self.refused.get().filter(|(refused, _)| *refused == number);
        (under_way, refused.map(|(_, fault)| *fault))
    }

    fn hold(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }
}

/// One request under way; over when this is dropped.
struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A service whose requests are counted.
#[derive(Clone)]
pub struct Tracked<S> {
    service: S,
    activity: Arc<Activity>,
    peer: Option<Peer>,
}

/// The address that a connection comes from: the last proxy's, if there are any before the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl<S> Tracked<S> {
    /// Counts the requests of `service` in `activity`, and tells it whom the connection comes from.
    pub fn new(service: S, activity: Arc<Activity>, peer: Option<Peer>) -> Self {
        Self { service, activity, peer }
    }
}

impl<S, B> Service<Request<B>> for Tracked<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (under_way, fault) = self.activity.begin();
        if let Some(fault) = fault {
            request.extensions_mut().insert(ApiError::from(fault));
        }
        request.extensions_mut().insert(Handover(Arc::clone(&self.activity)));
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        let wants_other = request.version() == Version::HTTP_11
            && (request.headers().contains_key(UPGRADE) || request.method() == Method::CONNECT);
        let answer = self.service.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            // What comes after a wish for another protocol was not looked at, see `framing`.
            if wants_other && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer.map(|body| TrackedBody { body, _under_way: under_way }.boxed_unsync()))
        })
    }
}

/// A body that keeps its request under way until it ends.
struct TrackedBody {
    body: Body,
    _under_way: UnderWay,
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
