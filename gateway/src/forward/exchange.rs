//! The two bodies of one invocation, as they pass through: never held, counted, and cut when nobody says anything any
//! more. Knows nothing of pods or tenants beyond what it gives back at the end.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::metrics::Outcome;
use super::places::Ticket;
use super::pods::{Connection, Load};
use crate::routes::{Body, BoxError};

/// How long a caller that waits for leave to send its body is kept waiting by a function that does not give it.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// The body may pass.
const OPEN: u8 = 0;
/// The caller waits for leave to send the body.
const WAITING: u8 = 1;
/// The function answered without wanting the body.
const SHUT: u8 = 2;

/// Why the caller's body did not come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadFault {
    /// It is longer than it may be.
    TooLarge {
        /// The most it may be, in bytes.
        limit: u64,
    },
    /// The caller broke off.
    Broke,
}

/// What the two directions of an exchange know of each other.
#[derive(Debug)]
pub(super) struct Exchange {
    start: Instant,
    silence: Duration,
    /// When a byte last passed, either way, in milliseconds since the start.
    heard: AtomicU64,
    gate: AtomicU8,
    gate_waker: AtomicWaker,
    uploaded: AtomicBool,
    fault: OnceLock<UploadFault>,
}

impl Exchange {
    /// Begins one in which no silence may be longer than `silence`; with `waiting`, the caller sends its body only
    /// after leave.
    pub(super) fn begin(silence: Duration, waiting: bool) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            silence,
            heard: AtomicU64::new(0),
            gate: AtomicU8::new(if waiting { WAITING } else { OPEN }),
            gate_waker: AtomicWaker::new(),
            uploaded: AtomicBool::new(false),
            fault: OnceLock::new(),
        })
    }

    pub(super) fn silence(&self) -> Duration {
        self.silence
    }

    /// A byte passed.
    pub(super) fn hear(&self) {
        self.heard.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long the silence may go on from now; `None` once it has been too long.
    fn rest(&self) -> Option<Duration> {
        let quiet = self.start.elapsed().saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)));
        self.silence.checked_sub(quiet).filter(|rest| !rest.is_zero())
    }

    /// Resolves when the silence has been too long.
    pub(super) async fn silent(&self) {
        while let Some(rest) = self.rest() {
            tokio::time::sleep(rest).await;
        }
    }

    /// Lets the body pass.
    pub(super) fn open(&self) {
        self.turn_gate(OPEN);
    }

    /// The function has answered: who still waits for leave is not given it any more.
    pub(super) fn answered(&self) {
        self.turn_gate(SHUT);
        self.hear();
    }

    fn turn_gate(&self, to: u8) {
        // Only the first word counts.
        let _ = self.gate.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire);
        self.gate_waker.wake();
    }

    /// Whether the caller's body is on its way and not over.
    pub(super) fn waits_for_caller(&self) -> bool {
        self.gate.load(Ordering::Acquire) == OPEN && !self.uploaded.load(Ordering::Acquire)
    }

    pub(super) fn fault(&self) -> Option<UploadFault> {
        self.fault.get().copied()
    }

    fn set_fault(&self, fault: UploadFault) {
        // Only the first counts.
        let _ = self.fault.set(fault);
    }
}

/// The caller's body on its way to the pod.
#[derive(Debug)]
pub(super) struct Upload {
    body: Body,
    limit: u64,
    left: u64,
    exchange: Arc<Exchange>,
    leave: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    /// The body, of which at most `limit` bytes may pass.
    pub(super) fn new(body: Body, limit: u64, exchange: Arc<Exchange>) -> Self {
        let upload = Self { body, limit, left: limit, exchange, leave: None };
        upload.note_end();
        upload
    }

    fn note_end(&self) {
        if http_body::Body::is_end_stream(&self.body) {
            self.exchange.uploaded.store(true, Ordering::Release);
        }
    }

    /// Waits for leave to let the body pass.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.exchange.gate_waker.register(cx.waker());
        match self.exchange.gate.load(Ordering::Acquire) {
            OPEN => Poll::Ready(()),
            // The connection is not used again, so nobody waits for what does not come.
            SHUT => Poll::Pending,
            _ => {
                let leave = self.leave.get_or_insert_with(|| Box::pin(tokio::time::sleep(LEAVE_MAX)));
                ready!(leave.as_mut().poll(cx));
                self.exchange.open();
                Poll::Ready(())
            }
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.exchange.gate.load(Ordering::Acquire) != OPEN {
            ready!(self.poll_leave(cx));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.exchange.hear();
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                match self.left.checked_sub(length) {
                    Some(left) => {
                        self.left = left;
                        self.note_end();
                        Some(Ok(frame))
                    }
                    None => {
                        self.exchange.set_fault(UploadFault::TooLarge { limit: self.limit });
                        Some(Err("the body is too large".into()))
                    }
                }
            }
            Some(Err(error)) => {
                self.exchange.set_fault(UploadFault::Broke);
                Some(Err(error))
            }
            None => {
                self.exchange.uploaded.store(true, Ordering::Release);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The pod's answer on its way to the caller. Holds the invocation's places until it is over.
pub(super) struct Download {
    body: Incoming,
    exchange: Arc<Exchange>,
    timer: Option<Pin<Box<Sleep>>>,
    connection: Option<Connection>,
    load: Load,
    ticket: Ticket,
    /// How it is counted if the answer comes through whole.
    whole: Outcome,
}

impl Download {
    pub(super) fn new(
        body: Incoming,
        exchange: Arc<Exchange>,
        (connection, load): (Connection, Load),
        ticket: Ticket,
        whole: Outcome,
    ) -> Self {
        Self { body, exchange, timer: None, connection: Some(connection), load, ticket, whole }
    }

    /// The answer is over as it should be.
    fn finish(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        self.ticket.outcome = self.whole;
        // Where the caller's body is still under way, the connection ends here, and with it the body.
        if self.exchange.uploaded.load(Ordering::Acquire) {
            self.load.pod().keep(connection);
        }
    }

    fn cut(&mut self) {
        self.ticket.outcome = Outcome::Cut;
        self.connection = None;
    }

    /// Resolves when the silence has been too long.
    fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(rest) = self.exchange.rest() {
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(rest)));
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
        }
        Poll::Ready(())
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(self.poll_silent(cx));
            self.cut();
            return Poll::Ready(Some(Err("the function said nothing more".into())));
        };
        self.exchange.hear();
        match &frame {
            Some(Ok(frame)) => self.ticket.bytes_out += frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) => self.cut(),
            None => self.finish(),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Whoever knows the length does not ask for the end.
        if http_body::Body::is_end_stream(&self.body) {
            self.finish();
        }
    }
}
