//! Logs of real pods.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use eventflow_api::function::Phase;
use eventflow_api::http::Function;
use eventflow_e2e::caller::Caller;
use eventflow_e2e::eventually::eventually;
use eventflow_e2e::platform::Platform;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

fn running(function: &Function) -> bool {
    function.status.phase == Phase::Running && function.status.observed_generation > 0
}

fn chatty(name: &str, image: &str, more: Value) -> Value {
    let mut body = json!({"name": name, "image": image, "port": 8080, "env": {"LINES_PER_SECOND": "20"},
        "resources": {"cpuRequest": "20m", "memoryRequest": "16Mi", "cpuLimit": "500m", "memoryLimit": "64Mi"}});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

/// A stream of logs, read piece by piece.
struct Logs {
    body: Incoming,
    text: String,
}

impl Logs {
    async fn open(platform: &Platform, caller: &Caller, path: &str, headers: &[(&str, &str)]) -> (StatusCode, Self) {
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::get(format!("{}{path}", platform.base()))
            .header("authorization", format!("Bearer {}", caller.token()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = client.request(request.body(Full::default()).expect("a well-formed request"));
        let answer = tokio::time::timeout(Duration::from_secs(15), answer).await.expect("in time").expect("an answer");
        (answer.status(), Self { body: answer.into_body(), text: String::new() })
    }

    /// Reads on until the text is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> &str {
        let reading = async {
            while !wanted(&self.text) {
                let frame = self.body.frame().await.expect("the stream goes on").expect("the stream is whole");
                if let Ok(data) = frame.into_data() {
                    self.text.push_str(&String::from_utf8_lossy(&data));
                }
            }
        };
        let read = tokio::time::timeout(Duration::from_secs(60), reading).await;
        assert!(read.is_ok(), "{what}: not within 60 s; there is {}", self.text);
        &self.text
    }

    /// Reads to the end.
    async fn all(mut self) -> String {
        let reading = async {
            while let Some(frame) = self.body.frame().await {
                if let Ok(data) = frame.expect("the stream is whole").into_data() {
                    self.text.push_str(&String::from_utf8_lossy(&data));
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reading).await.expect("the stream ends");
        self.text
    }
}

/// The number that the example gave a line.
fn number(line: &str) -> Option<u64> {
    let digits = line.split_once("seq=").or_else(|| line.split_once("\"seq\":"))?.1;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn numbers(text: &str) -> Vec<u64> {
    text.lines().filter_map(number).collect()
}

/// The numbers of each pod's lines in a stream of events.
fn by_pod(text: &str) -> BTreeMap<String, Vec<u64>> {
    let mut pods: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let Ok(event) = serde_json::from_str::<Value>(data) else { continue };
        if let (Some(pod), Some(number)) = (event["pod"].as_str(), event["line"].as_str().and_then(number)) {
            pods.entry(pod.to_owned()).or_default().push(number);
        }
    }
    pods
}

fn contiguous(numbers: &[u64]) -> bool {
    numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

#[tokio::test]
async fn every_line_of_every_pod_comes_once() {
    let platform = Platform::shared();
    let alice = platform.sign_in("logs-alice").await;
    alice.create(chatty("talk", &platform.image("chatty:v1"), json!({}))).await;
    alice.function("talk", 90, "runs", running).await;

    // Follow from the first line, plain text.
    let (status, mut text) = Logs::open(platform, &alice, "/v1/functions/talk/logs?follow=true", &[]).await;
    assert_eq!(status, StatusCode::OK);
    let read = numbers(text.until("forty lines", |text| numbers(text).len() >= 40).await);
    assert!(read[0] == 1 && contiguous(&read), "{read:?}");

    // Follow as events; a pod that appears later joins.
    let events = [("accept", "text/event-stream")];
    let (status, mut stream) =
        Logs::open(platform, &alice, "/v1/functions/talk/logs?follow=true&tail=5", &events).await;
    assert_eq!(status, StatusCode::OK);
    stream.until("lines", |text| text.matches("event: log").count() >= 20).await;
    alice.patch("talk", json!({"replicas": 2})).await;
    let joined = |text: &str| by_pod(text).len() == 2 && by_pod(text).values().all(|lines| lines.len() >= 20);
    let pods = by_pod(stream.until("lines of both pods", joined).await);
    assert!(pods.values().all(|lines| contiguous(lines)), "{pods:?}");
    assert!(pods.values().any(|lines| lines[0] == 1), "the second from its first line: {pods:?}");

    // It goes on where it was left.
    let id = stream.text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().expect("an id").to_owned();
    let left = by_pod(&stream.text);
    drop(stream);
    let again = [("accept", "text/event-stream"), ("last-event-id", id.as_str())];
    let (_, mut stream) = Logs::open(platform, &alice, "/v1/functions/talk/logs?follow=true", &again).await;
    let pods = by_pod(stream.until("lines of both pods", joined).await);
    for (pod, lines) in &pods {
        assert!(contiguous(lines) && lines[0] <= left[pod][left[pod].len() - 1] + 1, "{pod}: {left:?} then {pods:?}");
    }

    // Once, with a tail, of one pod, with times.
    let pod = pods.keys().next().expect("a pod");
    let path = format!("/v1/functions/talk/logs?tail=3&timestamps=true&pod={pod}");
    let (_, once) = Logs::open(platform, &alice, &path, &[]).await;
    let once = once.all().await;
    assert_eq!(once.lines().count(), 3, "{once}");
    assert!(once.lines().all(|line| line.starts_with("20") && line.contains("Z ")), "{once}");
}

#[tokio::test]
async fn what_cannot_be_read_says_why() {
    let platform = Platform::shared();
    let alice = platform.sign_in("logs-careful").await;
    alice.create(chatty("talk", &platform.image("chatty:v1"), json!({}))).await;
    alice.create(chatty("crash", &platform.image("crash:v1"), json!({}))).await;
    alice.function("talk", 90, "runs", running).await;
    let bob = platform.sign_in("logs-bob").await;
    for (caller, path, status) in [
        (&bob, "/v1/functions/talk/logs", 404),
        (&alice, "/v1/functions/unknown/logs", 404),
        (&alice, "/v1/functions/talk/logs?pod=kube-apiserver", 404),
        (&alice, "/v1/functions/talk/logs?container=other", 404),
        (&alice, "/v1/functions/talk/logs?tail=x", 400),
        (&alice, "/v1/functions/talk/logs?previous=true&follow=true", 400),
    ] {
        assert_eq!(caller.call(Method::GET, path, None).await.status.as_u16(), status, "{path}");
    }
    // What a program said before it ended can be read after it was started again.
    alice.function("crash", 90, "has failed", |function| function.status.phase == Phase::Failed).await;
    eventually(60, "the last words", || async {
        let (_, words) = Logs::open(platform, &alice, "/v1/functions/crash/logs?previous=true", &[]).await;
        let words = words.all().await;
        if words.is_empty() { Err(words) } else { Ok(()) }
    })
    .await;
}
