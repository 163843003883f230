//! `/v1/tiers`, for operators.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::TestApp;

fn tier(cpu: &str) -> Value {
    json!({"quota": {"cpuRequests": cpu, "memoryRequests": "4Gi", "cpuLimits": "4", "memoryLimits": "8Gi", "pods": 10,
        "persistentVolumeClaims": 2, "functions": 5}, "requestsPerSecond": 20, "burst": 40,
        "concurrentInvocations": 10, "maxReplicasPerFunction": 3, "maxTimeoutSeconds": 300})
}

#[tokio::test]
async fn a_tier_is_made_read_and_replaced_and_takes_effect() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let name = format!("tier-{}", uuid::Uuid::new_v4().simple());
    let path = format!("/v1/tiers/{name}");
    let put =
        async |body: Value, headers: &[(&str, &str)]| app.call(Method::PUT, &path, &operator, body, headers).await;
    assert_eq!(put(tier("2"), &[("if-match", "\"x\"")]).await.problem(), "precondition-failed");
    assert_eq!(app.get(&operator, &path).await.problem(), "not-found");
    let made = put(tier("2"), &[]).await;
    assert_eq!((made.status, &made.json()["quota"]["cpuRequests"]), (StatusCode::CREATED, &json!("2")), "{made:?}");
    let read = app.get(&operator, &path).await;
    assert_eq!((read.status, read.header("etag")), (StatusCode::OK, made.header("etag")));
    let all = app.get(&operator, "/v1/tiers").await.json();
    let names: Vec<_> = all["tiers"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert!(["enterprise", "free", "pro", &name].iter().all(|name| names.contains(name)), "{names:?}");

    let (token, id) = app.tenant_with(json!({})).await;
    let moved = app.call(Method::PATCH, &format!("/v1/tenants/{id}"), &operator, json!({"tier": name}), &[]).await;
    assert_eq!(moved.status, StatusCode::OK, "{moved:?}");
    let body = json!({"name": "a", "image": "a:1", "resources": {"cpuRequest": "3"}});
    assert_eq!(app.post(&token, "/v1/functions", body.clone()).await.problem(), "quota-exceeds-tier");
    let raised = put(tier("3"), &[("if-match", made.header("etag"))]).await;
    assert_eq!((raised.status, &raised.json()["tenants"]), (StatusCode::OK, &json!(1)), "{raised:?}");
    assert_eq!(put(tier("9"), &[("if-match", made.header("etag"))]).await.problem(), "precondition-failed");
    let created = app.post(&token, "/v1/functions", body).await;
    assert!(created.status.is_success(), "it fits without a restart: {created:?}");

    let faults = put(json!({"quota": {"cpuRequests": "x"}, "burst": 0, "colour": "red"}), &[]).await;
    assert_eq!(faults.problem(), "invalid-fields");
    assert!(faults.json()["violations"].as_array().unwrap().len() > 8, "{faults:?}");
    assert_eq!(app.call(Method::PUT, "/v1/tiers/A_B", &operator, tier("1"), &[]).await.problem(), "invalid-fields");
    let page = app.get(&operator, "/v1/audit?tenant=*").await.json();
    let entries = page["entries"].as_array().unwrap().iter().filter(|e| e["target"] == name.as_str());
    let actions: Vec<_> = entries.map(|e| (e["action"].as_str().unwrap(), e.get("tenant"))).collect();
    assert_eq!(actions, [("tier.update", None), ("tier.create", None)], "{page}");
}
