use http::{Method, StatusCode};
use serde_json::Value;

use crate::common::TestApp;

#[tokio::test]
async fn readiness_names_each_check_and_fails_in_a_drain() {
    let app = TestApp::start().await;
    let reply = app.get("", "/readyz").await;
    let mut names: Vec<String> = reply.json()["checks"].as_object().unwrap().keys().cloned().collect();
    names.sort();
    let all = [
        "database",
        "endpoints",
        "functions",
        "invocations",
        "ledgers",
        "policies",
        "quotas",
        "serving",
        "tenants",
        "tiers",
    ];
    assert_eq!(names, all);
    app.app.start_draining();
    let reply = app.get("", "/readyz").await;
    assert_eq!(
        (reply.status, &reply.json()["checks"]["serving"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"failing".into())
    );
    assert_eq!(app.get("", "/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn methods_and_paths_are_exact() {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    let reply = app.call(Method::DELETE, "/v1/functions", &token, Value::Null, &[]).await;
    assert_eq!((reply.status, reply.problem()), (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed".to_owned()));
    assert_eq!(reply.header("allow"), "POST, GET, HEAD, OPTIONS");
    let reply = app.call(Method::OPTIONS, "/v1/functions/x", "", Value::Null, &[]).await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (StatusCode::NO_CONTENT, "GET, HEAD, PUT, PATCH, DELETE, OPTIONS")
    );
    for path in ["/", "/v1/functions/", "/v1/functions/%2e%2e", "/metrics", "/v1/nothing"] {
        assert_eq!(app.get(&token, path).await.problem(), "no-such-route", "{path}");
    }
    let head = app.call(Method::HEAD, "/v1/functions", &token, Value::Null, &[]).await;
    let get = app.get(&token, "/v1/functions").await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.header("content-length"), get.body.len().to_string());
}

#[tokio::test]
async fn a_well_formed_request_id_is_taken_over() {
    let app = TestApp::start().await;
    let reply = app.call(Method::GET, "/v1/me", "", Value::Null, &[("x-request-id", "my-id.1")]).await;
    assert_eq!((reply.problem(), reply.header("x-request-id")), ("unauthenticated".to_owned(), "my-id.1"));
    let reply = app.call(Method::GET, "/v1/me", "", Value::Null, &[("x-request-id", "my id")]).await;
    assert_ne!(reply.header("x-request-id"), "my id");
}

#[tokio::test]
async fn metrics_are_on_the_admin_port_with_bounded_labels() {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    app.post(&token, "/v1/functions", serde_json::json!({"name": "a", "image": "a:1"})).await;
    app.get(&token, "/v1/functions/some-secret-name").await;
    let metrics = app.admin("/metrics").await;
    assert_eq!(metrics.status, StatusCode::OK);
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in [
        "eventflow_api_requests_total{method=\"POST\",route=\"/v1/functions\",status=\"201\"} 1",
        "eventflow_api_requests_total{method=\"GET\",route=\"/v1/functions/{name}\",status=\"404\"} 1",
        "eventflow_api_request_duration_seconds_count{method=\"POST\",route=\"/v1/functions\"} 1",
        "eventflow_api_problems_total{code=\"not-found\"} 1",
        "eventflow_admission_answers_total{verdict=\"admitted\",asked=\"write\"} 1",
        "eventflow_admission_verdict_wait_seconds_count{verdict=\"admitted\"} 1",
        "eventflow_projector_pending 0",
        "eventflow_store_connections{state=\"used\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    for start in [
        "eventflow_functions_total ",
        "eventflow_namespace_quota_cpu{tier=\"pro\",kind=\"hard\"} ",
        "eventflow_namespace_quota_cpu{tier=\"pro\",kind=\"reserved\"} ",
        "eventflow_namespace_quota_memory{tier=\"free\",kind=\"used\"} ",
    ] {
        assert!(text.lines().any(|l| l.starts_with(start)), "{start} is missing in\n{text}");
    }
    assert!(!text.contains("some-secret-name"), "{text}");
    assert_eq!(app.admin("/readyz").await.status, StatusCode::OK);
    assert_eq!(app.admin("/v1/me").await.status, StatusCode::NOT_FOUND);
}
