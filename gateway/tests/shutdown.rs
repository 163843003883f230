//! The drain: requests under way end, new ones are not taken, and nothing holds it up for ever.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should fail")]

mod common;

use std::time::Duration;

use common::{PATIENCE, TestApp, eventually, limits};
use gateway::config::Limits;
use gateway::server::Drained;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const BODY: &str = r#"{"user_id":"drain"}"#;

/// A request that has sent its head and half of its body.
async fn half_sent(app: &TestApp) -> TcpStream {
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let head = format!(
        "POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        BODY.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&BODY.as_bytes()[..5]).await.unwrap();
    eventually("the request is under way", async || app.app.metrics.in_flight.get() == 1).await;
    stream
}

#[tokio::test]
async fn a_request_in_the_middle_of_its_body_is_answered() {
    let mut app = TestApp::start().await;
    let mut stream = half_sent(&app).await;
    let mut silent = TcpStream::connect(app.address).await.unwrap();
    let drained = app.stop();
    eventually("no new connection is taken", async || TcpStream::connect(app.address).await.is_err()).await;
    assert_eq!(
        timeout(PATIENCE, silent.read(&mut [0; 1])).await.unwrap().unwrap_or(0),
        0,
        "who says nothing is let go"
    );
    stream.write_all(&BODY.as_bytes()[5..]).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(timeout(PATIENCE, drained).await.unwrap().unwrap(), Drained::Clean);
}

#[tokio::test]
async fn what_does_not_end_is_cut() {
    let mut app = TestApp::start_with(Limits { drain_timeout: Duration::from_millis(300), ..limits() }).await;
    let mut stream = half_sent(&app).await;
    let drained = app.stop();
    assert_eq!(timeout(PATIENCE, drained).await.unwrap().unwrap(), Drained::Cut(1));
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"");
}
