//! `GET /v1/events`.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::common::{PATIENCE, TestApp};

/// A stream, read event by event.
struct Stream {
    body: hyper::body::Incoming,
    text: String,
}

/// One event: its kind, its id and its data.
type Event = (String, Option<String>, Value);

impl Stream {
    async fn open(app: &TestApp, token: &str, last: Option<&str>) -> Result<Self, StatusCode> {
        let mut request = Request::get(format!("http://{}/v1/events", app.address))
            .header("authorization", format!("Bearer {token}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request.body(Full::<bytes::Bytes>::default()).unwrap()).await.unwrap();
        if response.status() != StatusCode::OK {
            return Err(response.status());
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Ok(Self { body: response.into_body(), text: String::new() })
    }

    /// The next event that is no ping; none at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
                };
                let event = field("event").map(|kind| (kind, field("id"), field("data")));
                self.text = rest.to_owned();
                if let Some((kind, id, Some(data))) = event.filter(|(kind, ..)| kind != "ping") {
                    return Some((kind, id, serde_json::from_str(&data).unwrap()));
                }
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("a sign of life")?;
            self.text.push_str(std::str::from_utf8(&frame.ok()?.into_data().unwrap()).unwrap());
        }
    }

    /// Reads on until there is one like that; all that were read.
    async fn until(&mut self, so: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut read = Vec::new();
        loop {
            read.push(self.next().await.expect("an event"));
            if so(&read[read.len() - 1]) {
                return read;
            }
        }
    }
}

fn is(event: &Event, kind: &str, name: &str) -> bool {
    event.0 == kind && event.2["name"] == name
}

#[tokio::test]
async fn tells_how_things_stand_then_every_change_and_goes_on() {
    let app = TestApp::start().await;
    let (alice, bob) = (app.tenant().await, app.tenant().await);
    let make = async |token: &str, name: &str| {
        let reply = app.post(token, "/v1/functions", json!({"name": name, "image": "a:1"})).await;
        assert!(reply.status.is_success(), "{reply:?}");
    };
    make(&alice, "first").await;
    let mut stream = Stream::open(&app, &alice, None).await.unwrap();
    let read = stream.until(|event| event.0 == "synced").await;
    assert!(read.iter().all(|(kind, id, _)| kind == "synced" || id.is_none()), "{read:?}");
    make(&bob, "secret").await;
    make(&alice, "second").await;
    let mut read = stream.until(|event| is(event, "function", "second")).await;
    let (_, id, data) = read.last().unwrap().clone();
    assert_eq!((&data["generation"], data["conditions"].is_array()), (&json!(1), true), "{data}");
    read.extend(stream.until(|(kind, _, data)| kind == "quota" && data["reserved"]["pods"] == "2").await);
    app.call(Method::DELETE, "/v1/functions/first", &alice, Value::Null, &[]).await;
    read.extend(stream.until(|event| is(event, "function-deleted", "first")).await);
    assert!(read.iter().all(|event| event.0 != "reset" && event.2["name"] != "secret"), "{read:?}");

    // Whoever comes back hears what happened meanwhile, and nothing twice.
    let mut again = Stream::open(&app, &alice, id.as_deref()).await.unwrap();
    let missed = again.until(|event| is(event, "function-deleted", "first")).await;
    let from = read.iter().position(|event| event.1 == id).unwrap();
    assert_eq!(missed, read[from + 1..]);

    // Another replica counts for itself, and says so.
    let other = app.another().await;
    let me = app.get(&alice, "/v1/me").await.json();
    let her_token = other.token_of(me["tenant"].as_str().unwrap(), &[]).await.json();
    let mut elsewhere = Stream::open(&other, her_token["token"].as_str().unwrap(), id.as_deref()).await.unwrap();
    assert_eq!(elsewhere.next().await.unwrap().0, "reset");
    let read = elsewhere.until(|event| event.0 == "synced").await;
    assert!(read.iter().any(|event| is(event, "function", "second")), "{read:?}");
    assert!(read.iter().all(|event| event.2["name"] != "first" && event.2["name"] != "secret"), "{read:?}");
}

#[tokio::test]
async fn streams_are_bounded_and_end_in_a_drain() {
    let mut app = TestApp::start().await;
    let (alice, bob) = (app.tenant().await, app.tenant().await);
    for (path, headers) in [("/v1/events?x=y", None), ("/v1/events", Some(("last-event-id", "seven")))] {
        let reply = app.call(Method::GET, path, &alice, Value::Null, headers.as_slice()).await;
        assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::BAD_REQUEST, "malformed-request"), "{path}");
    }
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Stream::open(&app, &alice, None).await.unwrap());
    }
    assert_eq!(Stream::open(&app, &alice, None).await.err(), Some(StatusCode::TOO_MANY_REQUESTS));
    let mut other = Stream::open(&app, &bob, None).await.unwrap();
    other.until(|event| event.0 == "synced").await;
    streams.pop();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while Stream::open(&app, &alice, None).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "a place comes free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let served = app.stop();
    while other.next().await.is_some() {}
    drop(streams);
    tokio::time::timeout(PATIENCE, served).await.expect("the drain ends").unwrap();
}
