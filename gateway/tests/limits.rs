//! Hostile and slow clients, on raw sockets: each loses its own connection and nothing else.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should fail")]

mod common;

use std::time::Duration;

use common::{PATIENCE, TestApp, limits};
use gateway::config::Limits;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Deadlines short enough to wait for.
fn short() -> Limits {
    Limits {
        header_deadline: Duration::from_millis(500),
        body_deadline: Duration::from_millis(500),
        keep_alive: Duration::from_millis(1500),
        ..limits()
    }
}

/// Sends `text`, then reads until the server closes.
async fn exchange(app: &TestApp, text: &[u8]) -> String {
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    // The server may answer and close before all of it is sent.
    let _ = stream.write_all(text).await;
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The last answer is a whole problem document of this code.
fn assert_problem(answer: &str, code: &str) {
    let (head, body) = answer.rsplit_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/problem+json") && head.contains("x-request-id: "), "{answer}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["code"], code, "{answer}");
}

/// The status of each answer; one answer may follow the other on the same line.
fn statuses(answer: &str) -> Vec<&str> {
    let starts = answer.match_indices("HTTP/1.").filter_map(|(at, _)| answer.get(at + 9..at + 12));
    starts.filter(|status| status.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

#[tokio::test]
async fn silent_and_slow_heads_are_cut() {
    let app = TestApp::start_with(short()).await;
    for said in [&b""[..], b"G", b"PRI * HTTP/2.0\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: "] {
        assert_eq!(exchange(&app, said).await, "", "{}", String::from_utf8_lossy(said));
    }
    // One byte at a time, each well within the deadline: the whole head still is not.
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let started = Instant::now();
    let mut closed = false;
    for byte in std::iter::repeat_n(b'a', 1000) {
        if stream.write_all(&[byte]).await.is_err() {
            closed = true;
            break;
        }
        let mut buf = [0; 1];
        match timeout(Duration::from_millis(50), stream.read(&mut buf)).await {
            Ok(Ok(0) | Err(_)) => {
                closed = true;
                break;
            }
            Ok(Ok(_)) => panic!("nothing to answer"),
            Err(_) => assert!(started.elapsed() < PATIENCE, "a slow head is never cut"),
        }
    }
    assert!(closed);
}

#[tokio::test]
async fn an_idle_connection_lives_longer_than_a_head_may_take() {
    let app = TestApp::start_with(short()).await;
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut buf = [0; 4096];
    for round in 0..2 {
        if round > 0 {
            // Silence beyond the header deadline, within the keep-alive.
            let silence = timeout(Duration::from_millis(800), stream.read(&mut buf)).await;
            assert!(silence.is_err(), "closed too early: {silence:?}");
        }
        stream.write_all(request).await.unwrap();
        let n = timeout(PATIENCE, stream.read(&mut buf)).await.unwrap().unwrap();
        assert!(buf[..n].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buf[..n]));
    }
    assert_eq!(read_to_end(&mut stream).await, "", "idle for too long, it is closed without a word");
}

#[tokio::test]
async fn a_slow_body_is_answered_408() {
    let app = TestApp::start_with(short()).await;
    let head = "POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let answer = exchange(&app, head.as_bytes()).await;
    assert_eq!(statuses(&answer), ["408"], "{answer}");
    assert!(answer.contains("request-timeout"), "{answer}");
}

#[tokio::test]
async fn a_huge_head_is_answered_431_and_a_huge_body_413() {
    let app = TestApp::start().await;
    let large = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n", "a".repeat(20 << 10));
    let endless = "a".repeat(1 << 20);
    let many: String = (0..200).map(|i| format!("X-{i}: a\r\n")).collect();
    for head in [large, endless, format!("GET / HTTP/1.1\r\n{many}\r\n")] {
        let answer = exchange(&app, head.as_bytes()).await;
        assert_eq!(statuses(&answer), ["431"], "{answer}");
        assert_problem(&answer, "headers-too-large");
    }
    let post = "POST /auth/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let announced = format!("{post}Content-Length: 2000000\r\nExpect: 100-continue\r\n\r\n");
    let answer = exchange(&app, announced.as_bytes()).await;
    assert_eq!(statuses(&answer), ["413"], "refused before it is sent: {answer}");
    let mut chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..80 {
        chunked.extend_from_slice(format!("4000\r\n{}\r\n", "a".repeat(0x4000)).as_bytes());
    }
    let answer = exchange(&app, &chunked).await;
    assert!(answer.is_empty() || statuses(&answer) == ["413"], "{answer}");
}

/// One request after the other in the same bytes, of which the second must never be answered.
#[tokio::test]
async fn doubtful_framing_is_answered_400_and_ends_the_connection() {
    let app = TestApp::start().await;
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let post = "POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    for (what, text) in [
        ("CL and TE", format!("{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("TE and CL", format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n")),
        ("HTTP/1.0 with TE", "POST /auth/token HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("two lengths", format!("{post}Content-Length: 0\r\nContent-Length: 40\r\n\r\n")),
        ("the same length twice", format!("{post}Content-Length: 0\r\nContent-Length: 0\r\n\r\n")),
        ("signed length", format!("{post}Content-Length: +0\r\n\r\n")),
        ("unknown coding", format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        ("folded header", "GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n".to_owned()),
        ("space before colon", "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length : 0\r\n\r\n".to_owned()),
        ("bare CR", "GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n".to_owned()),
        ("bare LF", "GET /healthz HTTP/1.1\nHost: x\n\n".to_owned()),
        ("bare LF at the end", "GET /healthz HTTP/1.1\r\nHost: x\r\n\n".to_owned()),
        ("no Host", "GET /healthz HTTP/1.1\r\n\r\n".to_owned()),
        ("two Hosts", "GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned()),
        ("no HTTP at all", "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned()),
        ("a TLS greeting", "\u{16}\u{3}\u{1}\u{2}\0\n".to_owned()),
        ("a malformed chunk", format!("{chunked}1\r\n{{}}\r\n0\r\n\r\n")),
        ("a chunk that ends with LF", format!("{chunked}2\n{{}}\r\n0\r\n\r\n")),
    ] {
        let answer = exchange(&app, format!("{text}{smuggled}").as_bytes()).await;
        assert_eq!(statuses(&answer), ["400"], "{what}: {answer}");
        assert_problem(&answer, "malformed-request");
    }
}

#[tokio::test]
async fn requests_before_a_doubtful_one_are_answered() {
    let app = TestApp::start().await;
    let good = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let body = "POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nGET /";
    let bad = "GET /healthz HTTP/1.1\nHost: x\r\n\r\n";
    let answer = exchange(&app, [good, body, good, bad, good].concat().as_bytes()).await;
    assert_eq!(statuses(&answer), ["200", "415", "200", "400"], "{answer}");
}

#[tokio::test]
async fn a_refused_upgrade_ends_the_connection() {
    let app = TestApp::start().await;
    let upgrade = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = exchange(&app, format!("{upgrade}GET /healthz HTTP/1.1\nHost: x\r\n\r\n").as_bytes()).await;
    assert_eq!(statuses(&answer), ["200"], "{answer}");
}

#[tokio::test]
async fn http2_has_its_limits() {
    let app = TestApp::start().await;
    let connect = async || {
        let stream = TcpStream::connect(app.address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        sender
    };
    let request = |header: String| {
        let uri = format!("http://{}/healthz", app.address);
        let body = http_body_util::Empty::<bytes::Bytes>::new();
        http::Request::get(uri).header("x-a", header).body(body).unwrap()
    };
    let mut sender = connect().await;
    let answers = (0..300).map(|_| sender.send_request(request(String::new())));
    for answer in futures::future::join_all(answers).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap();
    }
    let refused = connect().await.send_request(request("a".repeat(40 << 10))).await;
    assert!(refused.is_err() || refused.unwrap().status() == 431);
}

#[tokio::test]
async fn over_the_limit_requests_are_shed_at_once() {
    let app = TestApp::start_with(Limits { max_requests: 1, ..limits() }).await;
    // One request whose body never ends holds the only place.
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let head = "POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    common::eventually("the place is taken", async || app.get("", "/healthz").await.status == 503).await;
    let reply = app.get("", "/healthz").await;
    assert_eq!((reply.problem().as_str(), reply.header("retry-after")), ("overloaded", "1"));
    drop(stream);
    common::eventually("the place is free again", async || app.get("", "/healthz").await.status == 200).await;
}

#[tokio::test]
async fn connections_over_the_cap_wait_and_are_served_later() {
    let app = TestApp::start_with(Limits { max_connections: 2, ..limits() }).await;
    let held = [TcpStream::connect(app.address).await.unwrap(), TcpStream::connect(app.address).await.unwrap()];
    let mut waiting = TcpStream::connect(app.address).await.unwrap();
    waiting.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    drop(held);
    assert_eq!(statuses(&read_to_end(&mut waiting).await), ["200"]);
}
