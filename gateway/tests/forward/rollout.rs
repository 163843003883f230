use serde_json::json;
use tokio::time::timeout;

use crate::bed::{Bed, Pod};
use crate::common::{PATIENCE, eventually};

#[tokio::test]
async fn a_pod_that_takes_no_connection_costs_no_request() {
    let bed = Bed::start().await;
    let (dead, alive) = (Pod::silent().await, Pod::echo().await);
    bed.function("hello", json!({}), &[&dead, &alive]).await;
    dead.kill();
    eventually("the dead pod takes no connection", async || {
        tokio::net::TcpStream::connect(dead.address).await.is_err()
    })
    .await;
    for _ in 0..20 {
        assert_eq!(bed.app.get(&bed.token, &bed.path("hello", "/")).await.status.as_u16(), 200);
    }
    assert!(bed.app.app.forward.metrics.retries.get() >= 1);
    assert_eq!(dead.heads(), [""; 0]);
}

#[tokio::test]
async fn a_request_waits_a_moment_for_the_pod_that_follows() {
    let bed = Bed::start().await;
    let (old, new) = (Pod::silent().await, Pod::echo().await);
    bed.function("hello", json!({}), &[&old]).await;
    old.kill();
    eventually("the old pod takes no connection", async || tokio::net::TcpStream::connect(old.address).await.is_err())
        .await;
    let path = bed.path("hello", "/");
    let (reply, ()) = tokio::join!(bed.app.get(&bed.token, &path), bed.endpoint("hello", new.address, true));
    assert_eq!(reply.status.as_u16(), 200, "{reply:?}");
    // And where nobody follows, it says so.
    let bed = Bed { ..bed };
    bed.function("gone", json!({}), &[&old]).await;
    let reply = bed.app.get(&bed.token, &bed.path("gone", "/")).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (502, "function-failed"));
    bed.function("nowhere", json!({}), &[]).await;
    let reply = bed.app.get(&bed.token, &bed.path("nowhere", "/")).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (503, "function-not-ready"));
}

#[tokio::test]
async fn a_pod_killed_in_the_middle_of_a_request_has_it_alone() {
    let bed = Bed::start().await;
    let (first, second) = (Pod::silent().await, Pod::silent().await);
    bed.function("hello", json!({}), &[&first, &second]).await;
    let head = "POST /v1/functions/hello/http/ HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\ncontent-length: 0\n\n";
    let mut caller = bed.raw(head, b"").await;
    eventually("a pod has it", async || first.heads().len() + second.heads().len() == 1).await;
    let (busy, free) = if first.heads().is_empty() { (&second, &first) } else { (&first, &second) };
    busy.kill();
    let answer = timeout(PATIENCE, caller.head()).await.unwrap();
    assert!(answer.starts_with("http/1.1 502") && answer.contains("x-eventflow-error: function-failed"), "{answer}");
    assert_eq!(free.heads(), [""; 0]);
}

#[tokio::test]
async fn load_goes_to_who_has_less() {
    let bed = Bed::start().await;
    let (busy, free) = (Pod::silent().await, Pod::echo().await);
    bed.function("hello", json!({}), &[&busy]).await;
    let head = "GET /v1/functions/hello/http/ HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\n\n";
    let _caller = bed.raw(head, b"").await;
    eventually("a pod has it", async || busy.heads().len() == 1).await;
    bed.endpoint("hello", free.address, true).await;
    for _ in 0..10 {
        assert_eq!(bed.app.get(&bed.token, &bed.path("hello", "/")).await.status.as_u16(), 200);
    }
    assert_eq!(busy.connections(), 1);
}

#[tokio::test]
async fn a_pod_that_ends_gets_nothing_new_and_keeps_what_it_has() {
    let bed = Bed::start().await;
    let (old, new) = (Pod::scripted(slow).await, Pod::echo().await);
    bed.function("hello", json!({}), &[&old]).await;
    let head = "GET /v1/functions/hello/http/ HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\n\n";
    let mut caller = bed.raw(head, b"").await;
    eventually("the pod has it", async || old.heads().len() == 1).await;
    bed.endpoint("hello", new.address, true).await;
    bed.endpoint("hello", old.address, false).await;
    assert_eq!(bed.app.get(&bed.token, &bed.path("hello", "/")).await.json()["target"], "/");
    old.heads.lock().unwrap().push("now".to_owned());
    assert!(timeout(PATIENCE, caller.head()).await.unwrap().starts_with("http/1.1 204"));
    assert_eq!(old.connections(), 1);
}

/// Answers once the test says so.
async fn slow(mut wire: crate::bed::Wire, heads: std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    let head = wire.head().await;
    heads.lock().unwrap().push(head);
    while heads.lock().unwrap().len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    wire.write(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    wire.rest().await;
}
