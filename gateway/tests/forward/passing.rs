use bytes::Bytes;
use http::{Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bed::{Bed, Pod, header};
use crate::common::PATIENCE;

#[tokio::test]
async fn a_request_and_its_answer_pass_as_they_are() {
    let (bed, pod) = (Bed::start().await, Pod::echo().await);
    bed.function("hello", json!({}), &[&pod]).await;
    let headers = [
        ("x-own", "1"),
        ("connection", "x-drop"),
        ("x-drop", "1"),
        ("x-eventflow-tenant", "other"),
        ("x_eventflow_function", "other"),
        ("cookie", "a=b"),
        ("x-request-id", "request-7"),
    ];
    let path = bed.path("hello", "/a//b/../%2F?x=1&y=%20");
    let reply = bed.app.call(Method::PATCH, &path, &bed.token, json!({"k": 1}), &headers).await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let echoed = reply.json();
    assert_eq!((&echoed["method"], &echoed["target"]), (&json!("PATCH"), &json!("/a//b/../%2F?x=1&y=%20")));
    assert_eq!(echoed["length"], 7);
    assert_eq!(header(&echoed, "x-own"), ["1"]);
    assert_eq!(header(&echoed, "x-eventflow-tenant"), [bed.tenant.as_str()]);
    assert_eq!(header(&echoed, "x-eventflow-function"), ["hello"]);
    assert_eq!(header(&echoed, "x-eventflow-request-id"), ["request-7"]);
    assert_eq!(header(&echoed, "traceparent").len(), 1);
    assert_eq!(header(&echoed, "via"), ["1.1 eventflow"]);
    for gone in ["authorization", "cookie", "connection", "x-drop", "x_eventflow_function"] {
        assert_eq!(header(&echoed, gone), [""; 0], "{gone}");
    }
    assert_eq!(reply.header("x-end"), "e");
    assert_eq!((reply.header("x-request-id"), reply.header("content-security-policy")), ("request-7", "sandbox"));
    for gone in ["x-hop", "keep-alive", "set-cookie", "x-eventflow-error"] {
        assert_eq!(reply.header(gone), "", "{gone}");
    }
    // The next one goes on the same connection.
    assert_eq!(bed.app.get(&bed.token, &bed.path("hello", "")).await.json()["target"], "/");
    assert_eq!(bed.app.get(&bed.token, &bed.path("hello", "?q")).await.json()["target"], "/?q");
    assert_eq!(pod.connections(), 1);
    assert_eq!(bed.counted("answered").await, 3);
}

#[tokio::test]
async fn every_method_passes() {
    let (bed, pod) = (Bed::start().await, Pod::echo().await);
    bed.function("hello", json!({}), &[&pod]).await;
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PURGE"] {
        let method: Method = method.parse().unwrap();
        let reply = bed.app.call(method.clone(), &bed.path("hello", "/x"), &bed.token, Value::Null, &[]).await;
        assert_eq!(reply.json()["method"], method.as_str());
    }
    let reply = bed.app.call(Method::HEAD, &bed.path("hello", "/x"), &bed.token, Value::Null, &[]).await;
    assert_eq!((reply.status, reply.body.len()), (StatusCode::OK, 0));
    assert_ne!(reply.header("content-length"), "0");
}

#[tokio::test]
async fn http2_passes() {
    let (bed, pod) = (Bed::start().await, Pod::echo().await);
    bed.function("hello", json!({}), &[&pod]).await;
    let io = TokioIo::new(TcpStream::connect(bed.app.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let body = Bytes::from(vec![b'x'; 300_000]);
    let request = Request::post(format!("http://{}{}", bed.app.address, bed.path("hello", "/two?x")))
        .version(Version::HTTP_2)
        .header("authorization", format!("Bearer {}", bed.token))
        .body(Full::new(body))
        .unwrap();
    let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let echoed: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&echoed["target"], &echoed["length"], &echoed["version"]),
        (&json!("/two?x"), &json!(300_000), &json!("HTTP/1.1"))
    );
    assert_eq!(header(&echoed, "host"), [bed.app.address.to_string()]);
}

#[tokio::test]
async fn both_ways_are_streamed() {
    // Answers the head at once, then each byte of the request's body twice.
    let pod = Pod::scripted(|mut wire, _| async move {
        wire.head().await;
        wire.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for _ in 0..3 {
            // One chunk: its length, the byte, the ends of lines.
            let chunk = wire.read(6).await;
            wire.write(format!("2\r\n{0}{0}\r\n", &chunk[3..4]).as_bytes()).await;
        }
        wire.write(b"0\r\n\r\n").await;
    })
    .await;
    let bed = Bed::start().await;
    bed.function("hello", json!({}), &[&pod]).await;
    let head =
        "POST /v1/functions/hello/http/ HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\ntransfer-encoding: chunked\n\n";
    let mut caller = bed.raw(head, b"").await;
    let answer = caller.head().await;
    assert!(answer.starts_with("http/1.1 200"), "the answer comes before the body is sent: {answer}");
    for byte in ["a", "b", "c"] {
        caller.write(format!("1\r\n{byte}\r\n").as_bytes()).await;
        assert_eq!(caller.read(7).await, format!("2\r\n{byte}{byte}\r\n"));
    }
    assert_eq!(caller.read(5).await, "0\r\n\r\n");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let pod = Pod::scripted(|mut wire, heads| async move {
        let head = wire.head().await;
        let body = wire.read("1\r\nx\r\n0\r\nx-sum: 9\r\n\r\n".len()).await;
        heads.lock().unwrap().extend([head, body]);
        let answer =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n1\r\ny\r\n0\r\nx-sum: 7\r\n\r\n";
        wire.write(answer.as_bytes()).await;
        wire.rest().await;
    })
    .await;
    let bed = Bed::start().await;
    bed.function("hello", json!({}), &[&pod]).await;
    let head = "POST /v1/functions/hello/http/ HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\nconnection: te, close\nte: trailers\ntrailer: x-sum\ntransfer-encoding: chunked\n\n";
    let mut caller = bed.raw(head, b"1\r\nx\r\n0\r\nx-sum: 9\r\n\r\n").await;
    let answer = timeout(PATIENCE, caller.rest()).await.unwrap();
    assert!(answer.ends_with("1\r\ny\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
    let heads = pod.heads();
    assert!(heads[0].contains("te: trailers") && heads[0].contains("trailer: x-sum"), "{heads:?}");
    assert_eq!(heads[1], "1\r\nx\r\n0\r\nx-sum: 9\r\n\r\n");
}

const EXPECTING: &str = "POST /v1/functions/hello/http/ HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\ncontent-length: 4\nexpect: 100-continue\n\n";

#[tokio::test]
async fn the_function_gives_leave_to_send_the_body() {
    let pod = Pod::scripted(|mut wire, heads| async move {
        let head = wire.head().await;
        wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        let body = wire.read(4).await;
        heads.lock().unwrap().extend([head, body]);
        wire.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let bed = Bed::start().await;
    bed.function("hello", json!({}), &[&pod]).await;
    let mut caller = bed.raw(EXPECTING, b"").await;
    assert!(timeout(PATIENCE, caller.head()).await.unwrap().starts_with("http/1.1 100"));
    caller.write(b"body").await;
    assert!(timeout(PATIENCE, caller.head()).await.unwrap().starts_with("http/1.1 200"));
    let heads = pod.heads();
    assert!(heads[0].contains("expect: 100-continue"), "{heads:?}");
    assert_eq!(heads[1], "body");
}

#[tokio::test]
async fn a_function_that_does_not_want_the_body_says_so_before_it_is_sent() {
    let pod = Pod::saying("HTTP/1.1 417 No\r\ncontent-length: 2\r\n\r\nno").await;
    let bed = Bed::start().await;
    bed.function("hello", json!({}), &[&pod]).await;
    let mut caller = bed.raw(EXPECTING, b"").await;
    let head = timeout(PATIENCE, caller.head()).await.unwrap();
    assert!(head.starts_with("http/1.1 417"), "{head}");
    assert_eq!(caller.read(2).await, "no");
}
