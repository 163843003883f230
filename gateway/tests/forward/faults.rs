use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::bed::{Bed, Pod};
use crate::common::{PATIENCE, TestApp, eventually, limits};

async fn outcome(bed: &Bed, function: &str) -> (u16, String) {
    let reply = bed.app.get(&bed.token, &bed.path(function, "/")).await;
    assert_eq!(reply.header("x-eventflow-error"), reply.problem());
    (reply.status.as_u16(), reply.problem())
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn what_cannot_be_called_says_why() {
    let (bed, pod) = (Bed::start().await, Pod::echo().await);
    bed.function("hello", json!({}), &[&pod]).await;
    bed.function("portless", json!({"port": null}), &[]).await;
    bed.function("stopped", json!({"suspend": true}), &[]).await;
    assert_eq!(outcome(&bed, "unknown").await, is(404, "not-found"));
    assert_eq!(outcome(&bed, "No.Name").await, is(404, "not-found"));
    assert_eq!(outcome(&bed, "portless").await, is(409, "function-not-http"));
    assert_eq!(outcome(&bed, "stopped").await, is(503, "function-not-ready"));
    assert_eq!(bed.counted("not_ready").await, 1);
    let stranger = bed.app.tenant().await;
    let reply = bed.app.get(&stranger, &bed.path("hello", "/")).await;
    assert_eq!((reply.status.as_u16(), reply.problem()), is(404, "not-found"));
    let viewer = bed.app.token_of(&bed.tenant, &["viewer"]).await.json()["token"].as_str().unwrap().to_owned();
    let reply = bed.app.get(&viewer, &bed.path("hello", "/")).await;
    assert_eq!((reply.status.as_u16(), reply.problem()), is(403, "forbidden"));
    assert_eq!(pod.connections(), 0);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let (bed, pod) = (Bed::small().await, Pod::echo().await);
    bed.function("hello", json!({}), &[&pod]).await;
    let head = "POST /v1/functions/hello/http/ HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\nconnection: close\n";
    let mut announced = bed.raw(&format!("{head}content-length: 1048577\n\n"), b"").await;
    let answer = timeout(PATIENCE, announced.rest()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body-too-large"), "{answer}");
    assert_eq!(pod.connections(), 0);

    let mut chunk = b"10000\r\n".to_vec();
    chunk.extend([b'x'; 0x10000]);
    chunk.extend(b"\r\n");
    let mut streamed = bed.raw(&format!("{head}transfer-encoding: chunked\n\n"), b"").await;
    for _ in 0..17 {
        streamed.write(&chunk).await;
    }
    let answer = timeout(PATIENCE, streamed.head()).await.unwrap();
    assert!(answer.starts_with("http/1.1 413") && answer.contains("x-eventflow-error: body-too-large"), "{answer}");
    assert_eq!(bed.counted("caller_fault").await, 2);
}

#[tokio::test]
async fn a_tenant_has_so_many_invocations_and_others_have_theirs() {
    let (bed, pod) = (Bed::small().await, Pod::silent().await);
    bed.function("hello", json!({}), &[&pod]).await;
    let head = "GET /v1/functions/hello/http/ HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\n\n";
    let mut callers = Vec::new();
    for _ in 0..10 {
        callers.push(bed.raw(head, b"").await);
    }
    eventually("ten are under way", async || pod.heads().len() == 10).await;
    let reply = bed.app.get(&bed.token, &bed.path("hello", "/")).await;
    assert_eq!((reply.status.as_u16(), reply.problem()), is(429, "too-many-requests"));
    assert!(reply.json()["detail"].as_str().unwrap().contains("concurrentInvocations"), "{reply:?}");
    assert_eq!(reply.header("retry-after"), "1");
    // The API is not held up, and neither is another tenant.
    assert_eq!(bed.app.get(&bed.token, "/v1/functions").await.status, StatusCode::OK);
    let other = Pod::echo().await;
    let neighbour = bed.app.tenant().await;
    let tenant = bed.app.get(&neighbour, "/v1/me").await.json()["tenant"].as_str().unwrap().to_owned();
    let bed = Bed { token: neighbour, tenant, ..bed };
    bed.function("hello", json!({}), &[&other]).await;
    assert_eq!(bed.app.get(&bed.token, &bed.path("hello", "/")).await.status, StatusCode::OK);
    drop(callers);
    eventually("their places are free", async || bed.app.app.forward.metrics.under_way.get() == 0).await;
    assert_eq!(bed.counted("left").await, 10);
    eventually("the pod is told", async || pod.heads().iter().filter(|head| *head == "gone").count() == 10).await;
}

#[tokio::test]
async fn the_gateway_has_so_many_places() {
    let limits = gateway::config::Limits { max_invocations: 1, max_requests: 1, ..limits() };
    let (bed, pod) = (Bed::of(TestApp::start_with(limits).await).await, Pod::silent().await);
    bed.function("hello", json!({}), &[&pod]).await;
    let head = "GET /v1/functions/hello/http/ HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\n\n";
    let _caller = bed.raw(head, b"").await;
    eventually("it is under way", async || pod.heads().len() == 1).await;
    assert_eq!(outcome(&bed, "hello").await, is(503, "overloaded"));
    // An invocation takes no place from the API's calls.
    assert_eq!(bed.app.get(&bed.token, "/v1/functions").await.status, StatusCode::OK);
}

#[tokio::test]
async fn functions_that_misbehave_fail_for_their_callers_alone() {
    let bed = Bed::start().await;
    let silent = Pod::silent().await;
    bed.function("silent", json!({"timeoutSeconds": 1}), &[&silent]).await;
    assert_eq!(outcome(&bed, "silent").await, is(504, "function-timeout"));
    eventually("the pod is told", async || silent.heads().len() == 2).await;

    let mut large = b"HTTP/1.1 200 OK\r\nx-large: ".to_vec();
    large.extend(std::iter::repeat_n(b'a', 1 << 20));
    large.extend(b"\r\ncontent-length: 0\r\n\r\n");
    let many = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x: y\r\n".repeat(200));
    let bad: [(&str, Vec<u8>); 6] = [
        ("closing", Vec::new()),
        ("large", large),
        ("many", many.into_bytes()),
        ("nonsense", b"hello\r\n\r\n".to_vec()),
        ("half", b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()),
        ("both", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n".to_vec()),
    ];
    for (name, answer) in bad {
        let pod = Pod::saying(answer).await;
        bed.function(name, json!({}), &[&pod]).await;
        assert_eq!(outcome(&bed, name).await, is(502, "function-failed"), "{name}");
        assert_eq!(pod.connections(), 1, "a request that was sent is sent once: {name}");
    }
    assert_eq!(bed.counted("function_failed").await, 6);
    assert_eq!(bed.counted("function_timeout").await, 1);
}

#[tokio::test]
async fn a_failure_of_the_function_is_its_own() {
    let bed = Bed::start().await;
    let pod = Pod::saying("HTTP/1.1 500 Oops\r\ncontent-length: 4\r\nx-eventflow-error: internal\r\n\r\noops").await;
    bed.function("hello", json!({}), &[&pod]).await;
    let reply = bed.app.get(&bed.token, &bed.path("hello", "/")).await;
    assert_eq!((reply.status.as_u16(), reply.body.as_ref()), (500, &b"oops"[..]));
    assert_eq!(reply.header("x-eventflow-error"), "");
    assert_eq!(bed.counted("function_error").await, 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_cut_and_one_that_never_ends_goes_on() {
    let bed = Bed::start().await;
    let pod = Pod::saying("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    bed.function("half", json!({}), &[&pod]).await;
    let head = "GET /v1/functions/half/http/ HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\n\n";
    let mut caller = bed.raw(head, b"").await;
    assert!(timeout(PATIENCE, caller.head()).await.unwrap().starts_with("http/1.1 200"));
    assert_eq!(timeout(PATIENCE, caller.rest()).await.unwrap(), "half");
    eventually("it is counted", async || bed.counted("cut").await == 1).await;

    // Each word within the time-out, all of them far beyond it, for as long as somebody listens.
    let pod = Pod::scripted(|mut wire, heads| async move {
        wire.head().await;
        wire.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        use tokio::io::AsyncWriteExt;
        while wire.0.get_mut().write_all(b"4\r\nword\r\n").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        heads.lock().unwrap().push("gone".to_owned());
    })
    .await;
    bed.function("endless", json!({"timeoutSeconds": 1}), &[&pod]).await;
    let mut caller = bed.raw(&head.replace("half", "endless"), b"").await;
    caller.head().await;
    for _ in 0..25 {
        assert_eq!(timeout(PATIENCE, caller.read(9)).await.unwrap(), "4\r\nword\r\n");
    }
    drop(caller);
    eventually("the pod is told", async || pod.heads() == ["gone"]).await;
    eventually("the place is free", async || bed.app.app.forward.metrics.under_way.get() == 0).await;

    // And one that stops in the middle is cut.
    let pod = Pod::scripted(|mut wire, _| async move {
        wire.head().await;
        wire.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        wire.rest().await;
    })
    .await;
    bed.function("stuck", json!({"timeoutSeconds": 1}), &[&pod]).await;
    let mut caller = bed.raw(&head.replace("half", "stuck"), b"").await;
    caller.head().await;
    assert_eq!(timeout(PATIENCE, caller.rest()).await.unwrap(), "half");
}

#[tokio::test]
async fn a_caller_that_stops_sending_is_at_fault_itself() {
    let (bed, pod) = (Bed::start().await, Pod::echo().await);
    bed.function("hello", json!({"timeoutSeconds": 1}), &[&pod]).await;
    let head = "POST /v1/functions/hello/http/ HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\ncontent-length: 10\n\n";
    let mut caller = bed.raw(head, b"half").await;
    let answer = timeout(PATIENCE, caller.head()).await.unwrap();
    assert!(answer.starts_with("http/1.1 408"), "{answer}");
    let reply = bed.app.call(Method::GET, "/v1/functions", &bed.token, Value::Null, &[]).await;
    assert_eq!(reply.status, StatusCode::OK);
}
