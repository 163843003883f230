//! The client's side of a connection, and the deadlines on it: for saying anything at all, for a whole head, for the
//! silence between two requests, and for taking what we write. hyper has none for the first, and one for the second
//! and third together.
//!
//! Of HTTP/1, hyper gets whole heads that are beyond doubt. In the place of one that is not, it gets a request of
//! ours, the last of the connection, which the service answers with what is wrong.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::Activity;
use super::framing::Framing;
use crate::config::Limits;

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest time that a client may take nothing of what we write.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// Stands for a head that was refused.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// Read from the client at once, in bytes.
const READ: usize = 4096;
/// How long, and how much, is read from a client that has its answer and goes on sending: closing at once would make
/// its system throw the answer away.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 1 << 20);

/// What the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/1.0.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// What the running timer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// Nothing: a request is under way.
    No,
    /// For the rest of a head.
    Head,
    /// For the next request.
    Idle,
}

/// The client's side of a connection. Reading fails once a deadline has passed.
#[derive(Debug)]
pub struct ClientIo {
    stream: TcpStream,
    /// May be handed on.
    ahead: Bytes,
    /// Of HTTP/1: not looked at yet.
    inbox: BytesMut,
    /// Of HTTP/1.
    framing: Option<Framing>,
    /// Whether [`REFUSED`] is the last that is handed on.
    refused: bool,
    protocol: Protocol,
    activity: Arc<Activity>,
    /// How many requests had begun when we last looked.
    begun: u64,
    /// Whether a part of a head has come.
    head_begun: bool,
    waiting: Waiting,
    timer: Pin<Box<Sleep>>,
    stall: Option<Pin<Box<Sleep>>>,
    /// Once we have said all: until when, and how many bytes more, is read.
    linger: Option<(Pin<Box<Sleep>>, usize)>,
    header_deadline: Duration,
    keep_alive: Duration,
}

impl ClientIo {
    /// Waits for the first bytes, at most for the header deadline, and tells the protocol by them.
    pub async fn guess(mut stream: TcpStream, limits: &Limits) -> io::Result<(Protocol, Self)> {
        let deadline = Instant::now() + limits.header_deadline;
        let mut ahead = BytesMut::with_capacity(1024);
        let protocol = loop {
            match tokio::time::timeout_at(deadline, stream.read_buf(&mut ahead)).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
            let seen = ahead.len().min(PREFACE.len());
            if ahead[..seen] != PREFACE[..seen] {
                break Protocol::Http1;
            }
            if seen == PREFACE.len() {
                break Protocol::Http2;
            }
        };
        let (ahead, inbox, framing) = match protocol {
            Protocol::Http1 => (Bytes::new(), ahead, Some(Framing::new(limits.max_header))),
            Protocol::Http2 => (ahead.freeze(), BytesMut::new(), None),
        };
        let io = Self {
            stream,
            ahead,
            inbox,
            framing,
            refused: false,
            protocol,
            activity: Arc::default(),
            begun: 0,
            head_begun: true,
            waiting: Waiting::Head,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            stall: None,
            linger: None,
            header_deadline: limits.header_deadline,
            keep_alive: limits.keep_alive,
        };
        Ok((protocol, io))
    }

    /// Where requests under way are counted.
    pub fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    /// Called when there is nothing to read: fails once the client has been silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.begun != self.activity.begun() {
            self.begun = self.activity.begun();
            self.head_begun = false;
            self.waiting = Waiting::No;
        }
        if self.activity.is_busy() {
            self.waiting = Waiting::No;
            return Poll::Pending;
        }
        // Frames of HTTP/2 come between requests too (pings, windows): there, only idleness counts.
        let head = self.head_begun && (self.protocol == Protocol::Http1 || self.begun == 0);
        let (waiting, time) =
            if head { (Waiting::Head, self.header_deadline) } else { (Waiting::Idle, self.keep_alive) };
        if self.waiting != waiting {
            self.waiting = waiting;
            self.timer.as_mut().reset(Instant::now() + time);
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn heard(&mut self) {
        if !self.activity.is_busy() {
            self.head_begun = true;
        }
    }

    /// Fails once the client has taken nothing for too long.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_STALL)));
        stall.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into())
    }

    fn or_stalled<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Pending => self.poll_stall(cx).map(Err),
            Poll::Ready(done) => {
                self.stall = None;
                Poll::Ready(done)
            }
        }
    }
}

impl ClientIo {
    /// Reads from the socket, under the deadlines.
    fn poll_socket(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => self.poll_silence(cx),
            Poll::Ready(outcome) => {
                if buf.filled().len() > before {
                    self.heard();
                }
                // A head that comes byte by byte must not outlive its deadline only because there is always a byte.
                if self.waiting == Waiting::Head && self.begun == self.activity.begun() {
                    let _ = self.timer.as_mut().poll(cx);
                    if self.timer.is_elapsed() {
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                }
                Poll::Ready(outcome)
            }
        }
    }

    /// Moves what may be handed on from the inbox; whether there is any.
    fn sort_inbox(&mut self) -> io::Result<bool> {
        let Some(framing) = &mut self.framing else { return Ok(false) };
        match framing.take(&mut self.inbox) {
            Ok(Some(taken)) => self.ahead = taken,
            Ok(None) => return Ok(false),
            Err(fault) if framing.is_between_messages() => {
                self.activity.refuse(framing.heads() + 1, fault);
                self.refused = true;
                self.inbox.clear();
                self.ahead = Bytes::from_static(REFUSED);
            }
            Err(fault) => return Err(io::Error::new(io::ErrorKind::InvalidData, fault)),
        }
        Ok(true)
    }

    /// Reads HTTP/1 from the socket: a body straight into `buf`, all else into the inbox. Whether there was anything.
    fn poll_more(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let plain = self.framing.as_ref().map_or(u64::MAX, Framing::plain);
        if plain > 0 {
            let room = usize::try_from(plain).unwrap_or(usize::MAX).min(buf.remaining());
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
            ready!(self.poll_socket(cx, &mut part))?;
            let count = part.filled().len();
            buf.advance(count);
            if let Some(framing) = &mut self.framing {
                framing.passed(count as u64);
            }
            return Poll::Ready(Ok(count > 0));
        }
        let mut space = [0; READ];
        let mut part = ReadBuf::new(&mut space);
        ready!(self.poll_socket(cx, &mut part))?;
        self.inbox.extend_from_slice(part.filled());
        Poll::Ready(Ok(!part.filled().is_empty()))
    }

    /// Whether the client may be sending what nobody will read.
    fn may_be_cut_short(&self) -> bool {
        let amid = self.framing.as_ref().is_some_and(|framing| !framing.is_between_messages());
        self.refused || amid || !self.inbox.is_empty()
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.ahead.is_empty() {
                let n = this.ahead.len().min(buf.remaining());
                buf.put_slice(&this.ahead[..n]);
                this.ahead.advance(n);
                return Poll::Ready(Ok(()));
            }
            if this.refused {
                return Poll::Pending;
            }
            if this.sort_inbox()? {
                continue;
            }
            let before = buf.filled().len();
            let more = ready!(this.poll_more(cx, buf))?;
            if !more || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.or_stalled(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.or_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.may_be_cut_short() {
                return Poll::Ready(Ok(()));
            }
        }
        let (time, bytes) = LINGER;
        let (timer, left) = this.linger.get_or_insert_with(|| (Box::pin(tokio::time::sleep(time)), bytes));
        let mut space = [0; READ];
        while *left > 0 && timer.as_mut().poll(cx).is_pending() {
            let mut part = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part)) {
                Ok(()) if !part.filled().is_empty() => *left = left.saturating_sub(part.filled().len()),
                // Gone, one way or the other.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
