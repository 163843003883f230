//! `GET /v1/functions/{name}/events`.

use http::StatusCode;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::common::TestApp;

async fn report(app: &TestApp, namespace: &str, number: usize, kind: &str, object: &str) {
    let event = json!({
        "metadata": {"name": format!("event-{number}")},
        "involvedObject": {"kind": kind, "name": object, "namespace": namespace},
        "type": "Warning", "reason": "BackOff", "message": format!("number {number}"), "count": 3,
        "lastTimestamp": format!("2026-01-01T10:00:{number:02}Z"),
    });
    let api: Api<Event> = Api::namespaced(app.kube.clone(), namespace);
    api.create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
}

#[tokio::test]
async fn tells_what_the_cluster_reported_newest_first() {
    let app = TestApp::start().await;
    let (alice, bob) = (app.tenant().await, app.tenant().await);
    for token in [&alice, &bob] {
        app.post(token, "/v1/functions", json!({"name": "web", "image": "a:1", "suspend": true})).await;
    }
    let namespace = async |token: &str| app.get(token, "/v1/me").await.json()["namespace"].as_str().unwrap().to_owned();
    let (hers, his) = (namespace(&alice).await, namespace(&bob).await);
    let made = [("Function", "web"), ("Pod", "fn-web-5d4f-x2v9p"), ("ReplicaSet", "fn-web-5d4f"), ("Pod", "other")];
    for (number, (kind, object)) in made.iter().enumerate() {
        report(&app, &hers, number, kind, object).await;
    }
    report(&app, &his, 9, "Pod", "fn-web-secret").await;

    let ours = |events: &Value| -> Vec<String> {
        let events = events["events"].as_array().unwrap().iter();
        let ours = events.filter(|event| event["reason"] == "BackOff");
        ours.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    };
    let told = app.get(&alice, "/v1/functions/web/events").await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    let told = told.json();
    assert_eq!(ours(&told), ["number 2", "number 1", "number 0"], "{told}");
    assert_eq!(told["more"], false);
    let few = app.get(&alice, "/v1/functions/web/events?limit=1").await.json();
    assert_eq!((few["events"].as_array().unwrap().len(), &few["more"]), (1, &json!(true)), "{few}");
    assert_eq!(ours(&app.get(&bob, "/v1/functions/web/events").await.json()), ["number 9"]);
    assert_eq!(app.get(&alice, "/v1/functions/unknown/events").await.problem(), "not-found");
    for query in ["limit=0", "limit=1001", "colour=red"] {
        let reply = app.get(&alice, &format!("/v1/functions/web/events?{query}")).await;
        assert_eq!(reply.problem(), "malformed-request", "{query}");
    }
}
