//! A web socket: bytes both ways, until one side ends it or neither says anything for too long. What they mean is
//! nobody's business here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::exchange::Exchange;
use super::metrics::Outcome;
use super::places::Ticket;
use super::pods::{Connection, Load};

/// What stays taken while the tunnel stands.
pub(super) struct Held {
    pub(super) exchange: Arc<Exchange>,
    pub(super) connection: Connection,
    pub(super) load: Load,
    pub(super) ticket: Ticket,
}

/// Joins the caller's connection to the pod's, once both have changed their protocol.
pub(super) async fn run(caller: OnUpgrade, pod: OnUpgrade, held: Held) {
    let Held { exchange, connection, load, mut ticket } = held;
    // The protocol changes within moments of the answer; whoever breaks off before has left.
    let (Ok(caller), Ok(pod)) = tokio::join!(caller, pod) else { return };
    let (mut caller, mut pod) = (heard(caller, &exchange), heard(pod, &exchange));
    exchange.hear();
    ticket.outcome = tokio::select! {
        outcome = tokio::io::copy_bidirectional(&mut caller, &mut pod) => match outcome {
            Ok(_) => Outcome::Answered,
            Err(_) => Outcome::Cut,
        },
        () = exchange.silent() => Outcome::Cut,
    };
    ticket.bytes_out = pod.read;
    drop((connection, load));
}

fn heard(io: Upgraded, exchange: &Arc<Exchange>) -> Heard {
    Heard { io: TokioIo::new(io), exchange: Arc::clone(exchange), read: 0 }
}

/// One end, from which each byte counts against the silence.
struct Heard {
    io: TokioIo<Upgraded>,
    exchange: Arc<Exchange>,
    /// Bytes that came from it.
    read: u64,
}

impl AsyncRead for Heard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.read += (buf.filled().len() - before) as u64;
        if read.is_ready() {
            self.exchange.hear();
        }
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
