//! The verdict in the answers to writes and to dry runs, beside the real controller.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{TestApp, eventually};

/// Room for 1 CPU, and plenty of all else.
fn one_cpu() -> Value {
    json!({"cpuRequests": "1", "memoryRequests": "100Gi", "cpuLimits": "100", "memoryLimits": "100Gi"})
}

fn asking(name: &str, replicas: u32, cpu: &str) -> Value {
    json!({"name": name, "image": "a:1", "replicas": replicas, "resources": {"cpuRequest": cpu}})
}

#[tokio::test]
async fn what_fits_is_admitted_and_what_does_not_waits_with_the_numbers() {
    let app = TestApp::start().await;
    let (token, _) = app.tenant_with(one_cpu()).await;
    let first = app.post(&token, "/v1/functions", asking("first", 2, "400m")).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let expected = json!({"verdict": "admitted", "reserved": {"cpuRequests": "800m", "memoryRequests": "256Mi",
        "cpuLimits": "1", "memoryLimits": "1Gi", "pods": "2", "functions": "1"}});
    assert_eq!(first.json()["admission"], expected);

    let second = app.post(&token, "/v1/functions", asking("second", 1, "300m")).await;
    assert_eq!((second.status, second.header("location")), (StatusCode::ACCEPTED, "/v1/functions/second"));
    let second = second.json();
    assert_eq!((&second["sync"], &second["status"]["phase"]), (&json!("applied"), &json!("Queued")), "{second}");
    let admission = &second["admission"];
    assert_eq!((&admission["verdict"], &admission["position"]), (&json!("queued"), &json!(1)), "{admission}");
    let missing = json!([{"dimension": "cpuRequests", "requested": "300m", "available": "200m", "missing": "100m"}]);
    assert_eq!(admission["shortfall"], missing);
    assert_eq!(admission["holders"][0]["name"], "first");
    let third = app.post(&token, "/v1/functions", asking("third", 1, "250m")).await.json();
    // Of two made in the same second, chance says who is first.
    assert!([json!(1), json!(2)].contains(&third["admission"]["position"]), "{third}");

    // What is written is an update of itself, and gets the same verdict.
    let again = app.call(Method::PUT, "/v1/functions/second", &token, second.clone(), &[]).await;
    assert_eq!((again.status, &again.json()["admission"]["verdict"]), (StatusCode::ACCEPTED, &json!("queued")));
    let larger = app.call(Method::PATCH, "/v1/functions/first", &token, json!({"replicas": 1}), &[]).await;
    assert_eq!(larger.status, StatusCode::OK, "{larger:?}");
    app.call(Method::DELETE, "/v1/functions/first", &token, Value::Null, &[]).await;
    eventually("who waits is admitted when another goes", async || {
        let explained = app.post(&token, "/v1/functions/second:explain", Value::Null).await.json();
        explained["admission"]["verdict"] == "admitted"
    })
    .await;
}

#[tokio::test]
async fn what_can_never_fit_is_refused_and_leaves_nothing() {
    let app = TestApp::start().await;
    let (token, _) = app.tenant_with(one_cpu()).await;
    let create = async |key: &str, replicas| {
        let headers = [("idempotency-key", key)];
        app.call(Method::POST, "/v1/functions", &token, asking("f", replicas, "400m"), &headers).await
    };
    let refused = create("a", 5).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "quota-exceeds-tier"));
    let admission = refused.json()["admission"].clone();
    let over = json!([{"dimension": "cpuRequests", "requested": "2", "available": "1", "missing": "1"}]);
    assert_eq!((&admission["verdict"], &admission["over"]), (&json!("exceeds"), &over));
    assert_eq!(admission["smallestChange"], json!({"change": "replicas", "replicas": 2}));
    assert!(refused.json()["detail"].as_str().unwrap().contains("2 replicas would fit"), "{refused:?}");
    assert_eq!(app.get(&token, "/v1/functions/f").await.problem(), "not-found");
    let audit = app.get(&token, "/v1/audit").await.json();
    assert!(!audit.to_string().contains("function.create"), "{audit}");
    assert_eq!(create("b", 2).await.status, StatusCode::CREATED, "the name is free");

    // An update that can never fit: what ran keeps running, and nothing is stored.
    for (method, body) in [(Method::PATCH, json!({"replicas": 3})), (Method::PUT, asking("f", 3, "400m"))] {
        let refused = app.call(method, "/v1/functions/f", &token, body, &[]).await;
        assert_eq!(refused.problem(), "quota-exceeds-tier");
    }
    let kept = app.get(&token, "/v1/functions/f").await.json();
    assert_eq!((&kept["generation"], &kept["replicas"]), (&json!(1), &json!(2)), "{kept}");
}

#[tokio::test]
async fn a_repeated_key_repeats_the_answer_though_it_would_be_refused_now() {
    let app = TestApp::start().await;
    let (token, id) = app.tenant_with(one_cpu()).await;
    let operator = app.operator().await;
    let create = async || {
        let headers = [("idempotency-key", "k")];
        app.call(Method::POST, "/v1/functions", &token, asking("f", 2, "400m"), &headers).await
    };
    let first = create().await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let path = format!("/v1/tenants/{id}");
    for change in [json!({"quota": {"cpuRequests": "500m"}}), json!({"suspended": true})] {
        let changed = app.call(Method::PATCH, &path, &operator, change, &[]).await;
        assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
        let again = create().await;
        assert_eq!((again.status, &again.body), (first.status, &first.body), "{again:?}");
        assert_eq!(again.header("idempotency-replayed"), "true");
        assert_eq!(again.header("etag"), first.header("etag"));
    }
}

#[tokio::test]
async fn a_dry_run_tells_the_verdict_and_changes_nothing() {
    let app = TestApp::start().await;
    let (token, _) = app.tenant_with(one_cpu()).await;
    app.post(&token, "/v1/functions", asking("first", 2, "400m")).await;
    let dry = async |method: Method, path: &str, body| {
        app.call(method, &format!("{path}?dry_run=true"), &token, body, &[]).await
    };
    let ledger = app.get(&token, "/v1/quota").await.json();
    let fits = dry(Method::POST, "/v1/functions", asking("f", 1, "200m")).await;
    assert_eq!((fits.status, &fits.json()["admission"]["verdict"]), (StatusCode::OK, &json!("admitted")), "{fits:?}");
    let waits = dry(Method::POST, "/v1/functions", asking("f", 1, "300m")).await;
    assert_eq!((waits.status, &waits.json()["admission"]["position"]), (StatusCode::OK, &json!(1)), "{waits:?}");
    assert_eq!(waits.json()["admission"]["holders"][0]["name"], "first");
    let never = dry(Method::POST, "/v1/functions", asking("f", 5, "400m")).await;
    assert_eq!(never.problem(), "quota-exceeds-tier");
    for (method, replicas, verdict) in [(Method::PATCH, 1, "admitted"), (Method::PUT, 2, "admitted")] {
        let reply = dry(method, "/v1/functions/first", asking("first", replicas, "400m")).await;
        assert_eq!(reply.json()["admission"]["verdict"], verdict, "{reply:?}");
    }
    let grows = dry(Method::PATCH, "/v1/functions/first", json!({"resources": {"cpuRequest": "500m"}})).await;
    assert_eq!(grows.json()["admission"]["verdict"], "admitted", "{grows:?}");
    let grows = dry(Method::PATCH, "/v1/functions/first", json!({"replicas": 3})).await;
    assert_eq!(grows.problem(), "quota-exceeds-tier");
    assert_eq!(app.get(&token, "/v1/functions/f").await.problem(), "not-found");
    assert_eq!(app.get(&token, "/v1/quota").await.json()["functions"], ledger["functions"]);
}

#[tokio::test]
async fn a_tiers_limits_are_refused_by_field() {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    let body = json!({"name": "a", "image": "a:1", "replicas": 21, "timeoutSeconds": 3601});
    let reply = app.post(&token, "/v1/functions", body).await;
    assert_eq!(reply.problem(), "invalid-fields");
    let fields: Vec<_> = reply.json()["violations"].as_array().unwrap().iter().map(|v| v["field"].clone()).collect();
    assert_eq!(fields, ["replicas", "timeoutSeconds"], "{reply:?}");
    assert!(reply.json()["violations"][0]["message"].as_str().unwrap().contains("at most 20 in the tier pro"));
}

#[tokio::test]
async fn why_is_told_in_one_answer() {
    let app = TestApp::start().await;
    let (token, _) = app.tenant_with(one_cpu()).await;
    app.post(&token, "/v1/functions", asking("first", 2, "400m")).await;
    app.post(&token, "/v1/functions", asking("second", 1, "300m")).await;
    let explained = app.post(&token, "/v1/functions/second:explain", Value::Null).await;
    assert_eq!(explained.status, StatusCode::OK, "{explained:?}");
    let explained = explained.json();
    let summary = explained["summary"].as_str().unwrap();
    assert!(summary.contains("number 1 in the queue") && summary.contains("held by first"), "{summary}");
    assert_eq!((&explained["phase"], &explained["admission"]["position"]), (&json!("Queued"), &json!(1)));
    assert!(explained["conditions"].as_array().unwrap().iter().any(|c| c["reason"] == "WaitingForQuota"));
    eventually("the cluster's events are told", async || {
        let explained = app.post(&token, "/v1/functions/first:explain", Value::Null).await.json();
        let events = explained["events"].as_array().unwrap().clone();
        assert!(events.iter().all(|event| !event["object"].as_str().unwrap().contains("second")), "{explained}");
        events.iter().any(|event| event["object"] == "Deployment/fn-first")
    })
    .await;
    assert_eq!(app.post(&token, "/v1/functions/none:explain", Value::Null).await.problem(), "not-found");
}
