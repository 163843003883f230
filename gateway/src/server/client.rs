//! The client's side of a connection, and the deadlines on it: for saying anything at all, for a whole head, for the
//! silence between two requests, and for taking what we write. hyper has none for the first, and one for the second
//! and third together.

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
use crate::config::Limits;

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest time that a client may take nothing of what we write.
const WRITE_STALL: Duration = Duration::from_secs(30);

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
    /// Read while guessing the protocol, and not yet handed on.
    ahead: Bytes,
    protocol: Protocol,
    activity: Arc<Activity>,
    /// How many requests had begun when we last looked.
    begun: u64,
    /// Whether a part of a head has come.
    head_begun: bool,
    waiting: Waiting,
    timer: Pin<Box<Sleep>>,
    stall: Option<Pin<Box<Sleep>>>,
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
        let io = Self {
            stream,
            ahead: ahead.freeze(),
            protocol,
            activity: Arc::default(),
            begun: 0,
            head_begun: true,
            waiting: Waiting::Head,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            stall: None,
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

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let n = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..n]);
            self.ahead.advance(n);
            return Poll::Ready(Ok(()));
        }
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
