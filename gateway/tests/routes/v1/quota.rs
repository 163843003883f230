//! `GET /v1/quota`.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{TestApp, eventually};

#[tokio::test]
async fn tells_hard_reserved_used_and_who_waits() {
    let app = TestApp::start().await;
    let quota = json!({"cpuRequests": "1", "memoryRequests": "100Gi", "cpuLimits": "100", "memoryLimits": "100Gi"});
    let (token, id) = app.tenant_with(quota).await;
    for (name, cpu) in [("first", "800m"), ("second", "300m")] {
        let body = json!({"name": name, "image": "a:1", "resources": {"cpuRequest": cpu}});
        app.post(&token, "/v1/functions", body).await;
    }
    let report = app.get(&token, "/v1/quota").await;
    assert_eq!(report.status, StatusCode::OK, "{report:?}");
    let report = report.json();
    assert_eq!((&report["tier"], &report["overQuota"]), (&json!("pro"), &json!(false)));
    assert_eq!((&report["hard"]["cpuRequests"], &report["hard"]["pods"]), (&json!("1"), &json!("50")));
    assert_eq!((&report["reserved"]["cpuRequests"], &report["reserved"]["pods"]), (&json!("800m"), &json!("1")));
    assert_eq!(report["queued"][0]["name"], "second");
    assert_eq!(report["queued"][0]["shortfall"][0]["missing"], "100m");
    let shares = &report["functions"];
    assert_eq!((&shares[0]["name"], &shares[0]["verdict"]), (&json!("first"), &json!("admitted")));
    assert_eq!((&shares[1]["wanted"]["cpuRequests"], &shares[1]["reserved"]), (&json!("300m"), &json!({})));
    eventually("the pod is charged", async || {
        app.get(&token, "/v1/quota").await.json()["used"]["cpuRequests"] == "800m"
    })
    .await;

    // Lowered below what is held: nobody is evicted, and the answer says so.
    let lower = json!({"quota": {"cpuRequests": "500m"}});
    app.call(Method::PATCH, &format!("/v1/tenants/{id}"), &app.operator().await, lower, &[]).await;
    let report = app.get(&token, "/v1/quota").await.json();
    assert_eq!((&report["overQuota"], &report["hard"]["cpuRequests"]), (&json!(true), &json!("500m")), "{report}");
    assert_eq!(report["reserved"]["cpuRequests"], "800m");
    let same = app.call(Method::PATCH, "/v1/functions/first", &token, json!({"env": {"A": "b"}}), &[]).await;
    assert_eq!(same.status, StatusCode::OK, "what is held may be kept: {same:?}");
    app.call(Method::DELETE, "/v1/functions/first", &token, Value::Null, &[]).await;
    eventually("what goes is given back", async || {
        let report = app.get(&token, "/v1/quota").await.json();
        report["reserved"]["cpuRequests"] == "300m" && report["leaving"] == json!([])
    })
    .await;
}
