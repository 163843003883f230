//! The accept loop: a thread per connection, bounded, requests one after the other on each, and an end that cuts
//! no request short.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::http::{Answer, BODY_MAX, Request, RequestError};
use crate::json::Json;
use crate::{ending, settings};

/// Most connections at once; one more is answered 503 and closed.
pub const CONNECTIONS_MAX: usize = 512;
/// How long a connection may be silent between or within requests.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long requests under way may take to end after SIGTERM.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Serves HTTP on `PORT` until SIGTERM or SIGINT, then goes on for `DRAIN_MS` (500 by default: a cluster takes a
/// moment to stop sending) and ends with exit code 0 once no request is under way. `GET /healthz` is answered here.
pub fn run(handle: impl Fn(&Request, Answer<'_>) -> io::Result<()> + Send + Sync + 'static) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, settings::port()))?;
    let load = Arc::new(Load::default());
    let ending = Arc::clone(&load);
    ending::then(move || {
        ending.stopping.store(true, Ordering::Release);
        std::thread::sleep(Duration::from_millis(settings::value("DRAIN_MS", 500)));
        ending.wait_idle(DRAIN_MAX);
        std::process::exit(0);
    })?;
    println!("listening on port {}", settings::port());
    serve(&listener, &load, &Arc::new(handle))
}

/// What is going on: connections, requests, and whether the end was asked for.
#[derive(Default)]
struct Load {
    stopping: AtomicBool,
    connections: AtomicUsize,
    requests: Mutex<usize>,
    request_ended: Condvar,
}

impl Load {
    fn count(&self, step: impl FnOnce(&mut usize)) {
        step(&mut self.requests.lock().unwrap_or_else(PoisonError::into_inner));
        self.request_ended.notify_all();
    }

    fn wait_idle(&self, longest: Duration) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.request_ended.wait_timeout_while(requests, longest, |n| *n > 0));
    }
}

/// Counts itself off when dropped, however the connection or request ends.
struct Counted<F: Fn()>(F);

impl<F: Fn()> Drop for Counted<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn serve<H>(listener: &TcpListener, load: &Arc<Load>, handle: &Arc<H>) -> io::Result<()>
where
    H: Fn(&Request, Answer<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // The caller went away before it was accepted, or descriptors ran out for a moment.
            Err(e) => {
                eprintln!("accept: {e}");
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
        };
        if load.connections.load(Ordering::Acquire) >= CONNECTIONS_MAX {
            // Nobody needs to hear that the refusal could not be sent.
            drop(Answer::refusal(&mut stream).json(503, "{\"error\":\"too many connections\"}"));
            continue;
        }
        load.connections.fetch_add(1, Ordering::AcqRel);
        let (load, handle) = (Arc::clone(load), Arc::clone(handle));
        std::thread::Builder::new().stack_size(256 * 1024).spawn(move || {
            let _counted = Counted(|| {
                load.connections.fetch_sub(1, Ordering::AcqRel);
            });
            // A connection that breaks is the caller's business, not ours.
            drop(converse(&stream, &load, handle.as_ref()));
        })?;
    }
}

fn converse(
    stream: &TcpStream,
    load: &Load,
    handle: &impl Fn(&Request, Answer<'_>) -> io::Result<()>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let (mut reader, mut writer) = (BufReader::new(stream), BufWriter::new(stream));
    loop {
        let mut request = match Request::read_head(&mut reader) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(e) => return refuse(stream, &e),
        };
        load.count(|n| *n += 1);
        let _counted = Counted(|| load.count(|n| *n -= 1));
        if request.expects_continue() {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            writer.flush()?;
        }
        if let Err(e) = request.read_body(&mut reader) {
            return refuse(stream, &e);
        }
        let close = !request.keep_alive || load.stopping.load(Ordering::Acquire);
        let answer = Answer::new(&mut writer, &request, close);
        if request.path == "/healthz" {
            answer.json(200, "{\"status\":\"ok\"}")?
        } else {
            handle(&request, answer)?
        }
        if close {
            return Ok(());
        }
    }
}

/// Says why and closes, but first takes in what the caller is still sending (up to [`BODY_MAX`], for a second at a
/// time): closing over unread data resets the connection, and the caller would lose the answer.
fn refuse(mut stream: &TcpStream, error: &RequestError) -> io::Result<()> {
    let Some(status) = error.status() else { return Ok(()) };
    let body = Json::object([("error", Json::text(error.to_string()))]);
    Answer::refusal(&mut stream).json(status, &body.to_string())?;
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    io::copy(&mut stream.take(BODY_MAX as u64), &mut io::sink()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> (std::net::SocketAddr, Arc<Load>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, load) = (listener.local_addr().unwrap(), Arc::new(Load::default()));
        let theirs = Arc::clone(&load);
        std::thread::spawn(move || {
            let echo = |r: &Request, a: Answer<'_>| a.json(200, &format!("{:?}", String::from_utf8_lossy(&r.body)));
            serve(&listener, &theirs, &Arc::new(echo))
        });
        (address, load)
    }

    fn all(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn one_connection_carries_several_requests() {
        let (address, _) = start();
        let answers = all(
            address,
            "GET /healthz HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nhi\
             POST / HTTP/1.1\r\nconnection: close\r\n\r\n",
        );
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
        assert_eq!(answers.matches("HTTP/1.1 100 Continue").count(), 1, "{answers}");
        assert!(answers.contains("\"hi\""), "{answers}");
    }

    #[test]
    fn nonsense_is_answered_and_closed() {
        let (address, _) = start();
        assert!(all(address, "nonsense\r\n\r\nGET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400"));
        assert!(all(address, "POST / HTTP/1.1\r\ncontent-length: 9999999\r\n\r\n").starts_with("HTTP/1.1 413"));
        let long = format!("POST / HTTP/1.1\r\ncontent-length: 2000000\r\n\r\n{}", "x".repeat(BODY_MAX));
        assert!(all(address, &long).starts_with("HTTP/1.1 413"));
    }

    #[test]
    fn connections_are_bounded_and_the_end_closes_them() {
        let (address, load) = start();
        load.connections.store(CONNECTIONS_MAX, Ordering::Release);
        assert!(all(address, "").starts_with("HTTP/1.1 503"));
        load.connections.store(0, Ordering::Release);
        load.stopping.store(true, Ordering::Release);
        assert!(all(address, "GET / HTTP/1.1\r\n\r\n").contains("connection: close"));
        load.wait_idle(Duration::from_secs(60));
        assert_eq!(*load.requests.lock().unwrap(), 0);
    }
}
