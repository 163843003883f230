use serde_json::json;
use tokio::time::timeout;

use crate::bed::{Bed, Pod};
use crate::common::{PATIENCE, eventually};

const UPGRADE: &str = "GET /v1/functions/hello/http/chat HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\nconnection: keep-alive, Upgrade\nupgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\n\n";

/// Agrees to speak web socket, then sends back whatever comes.
async fn echoing() -> Pod {
    Pod::scripted(|mut wire, heads| async move {
        let head = wire.head().await;
            heads.lock().unwrap().push(head);
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        wire.write(answer.as_bytes()).await;
        let mut stream = wire.0.into_inner();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        heads.lock().unwrap().push("gone".to_owned());
    })
    .await
}

#[tokio::test]
async fn a_web_socket_passes_both_ways() {
    let (bed, pod) = (Bed::start().await, echoing().await);
    bed.function("hello", json!({}), &[&pod]).await;
    let mut caller = bed.raw(UPGRADE, b"").await;
    let answer = timeout(PATIENCE, caller.head()).await.unwrap();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    for message in ["one", "another"] {
        caller.write(message.as_bytes()).await;
        assert_eq!(timeout(PATIENCE, caller.read(message.len())).await.unwrap(), message);
    }
    assert!(pod.heads()[0].contains("connection: upgrade") && pod.heads()[0].contains("upgrade: websocket"));
    assert_eq!(bed.app.app.forward.metrics.under_way.get(), 1);
    drop(caller);
    eventually("the pod is told", async || pod.heads().len() == 2).await;
    eventually("the place is free", async || bed.app.app.forward.metrics.under_way.get() == 0).await;
    assert_eq!(bed.counted("answered").await, 1);
}

#[tokio::test]
async fn a_silent_web_socket_ends() {
    let (bed, pod) = (Bed::start().await, echoing().await);
    bed.function("hello", json!({"timeoutSeconds": 1}), &[&pod]).await;
    let mut caller = bed.raw(UPGRADE, b"").await;
    assert!(timeout(PATIENCE, caller.head()).await.unwrap().starts_with("http/1.1 101"));
    assert_eq!(timeout(PATIENCE, caller.rest()).await.unwrap(), "");
    eventually("the pod is told", async || pod.heads().len() == 2).await;
    eventually("it is counted", async || bed.counted("cut").await == 1).await;
}

#[tokio::test]
async fn a_refusal_to_speak_web_socket_is_an_answer() {
    let bed = Bed::start().await;
    let pod = Pod::saying("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno").await;
    bed.function("hello", json!({}), &[&pod]).await;
    let mut caller = bed.raw(UPGRADE, b"").await;
    assert!(timeout(PATIENCE, caller.head()).await.unwrap().starts_with("http/1.1 400"));
    assert_eq!(caller.read(2).await, "no");
}

#[tokio::test]
async fn nobody_changes_the_protocol_unasked() {
    let bed = Bed::start().await;
    let pod =
        Pod::saying("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    bed.function("hello", json!({}), &[&pod]).await;
    let reply = bed.app.get(&bed.token, &bed.path("hello", "/")).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (502, "function-failed"));
}

#[tokio::test]
async fn a_web_socket_is_cut_at_the_end_of_the_drain() {
    let limits =
        gateway::config::Limits { drain_timeout: std::time::Duration::from_millis(300), ..crate::common::limits() };
    let (mut bed, pod) = (Bed::of(crate::common::TestApp::start_with(limits).await).await, echoing().await);
    bed.function("hello", json!({}), &[&pod]).await;
    let mut caller = bed.raw(UPGRADE, b"").await;
    assert!(timeout(PATIENCE, caller.head()).await.unwrap().starts_with("http/1.1 101"));
    let drained = timeout(PATIENCE, bed.app.stop()).await.unwrap().unwrap();
    assert_eq!(drained, gateway::server::Drained::Cut(1));
    assert_eq!(timeout(PATIENCE, caller.rest()).await.unwrap(), "");
    eventually("the pod is told", async || pod.heads().len() == 2).await;
}
