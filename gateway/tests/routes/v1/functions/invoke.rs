//! Starting runs, beside the real controller; no kubelet runs them.

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::common::{TestApp, eventually};

/// A function without pods of its own, whose runs ask for 400m.
fn function() -> Value {
    json!({"name": "f", "image": "a:1", "replicas": 0, "resources": {"cpuRequest": "400m"}, "timeoutSeconds": 30})
}

fn one_cpu() -> Value {
    json!({"cpuRequests": "1", "memoryRequests": "100Gi", "cpuLimits": "100", "memoryLimits": "100Gi"})
}

#[tokio::test]
async fn what_fits_starts_and_the_rest_waits_with_the_numbers() {
    let app = TestApp::start().await;
    let (token, _) = app.tenant_with(one_cpu()).await;
    app.post(&token, "/v1/functions", function()).await;
    let mut started = Vec::new();
    for _ in 0..2 {
        let reply = app.post(&token, "/v1/functions/f:invoke", json!({"input": {"a": 1}, "retries": 1})).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        let body = reply.json();
        assert_eq!(
            (&body["message"], &body["admission"]["verdict"]),
            (&json!("Invocation Started"), &json!("admitted"))
        );
        let id = body["invocation_id"].as_str().unwrap().to_owned();
        assert_eq!(reply.header("location"), format!("/v1/invocations/{id}"));
        assert_eq!((&body["invocation"]["function"], &body["invocation"]["retries"]), (&json!("f"), &json!(1)));
        started.push(id);
    }
    let third = app.post(&token, "/v1/functions/f:invoke", Value::Null).await;
    assert_eq!(third.status, StatusCode::ACCEPTED, "{third:?}");
    let body = third.json();
    assert_eq!((&body["message"], &body["admission"]["verdict"]), (&json!("Invocation Queued"), &json!("queued")));
    let missing = json!([{"dimension": "cpuRequests", "requested": "400m", "available": "200m", "missing": "200m"}]);
    assert_eq!((&body["admission"]["shortfall"], &body["admission"]["position"]), (&missing, &json!(1)));
    assert_eq!(body["admission"]["holders"][0]["name"], "a run of f");
    assert_eq!(body["invocation"]["phase"], "Queued");

    // A run is no function, and its quota is no leftover of one.
    let quota = app.get(&token, "/v1/quota").await.json();
    assert_eq!(quota["functions"].as_array().unwrap().len(), 1, "{quota}");
    let listed = app.get(&token, "/v1/functions/f/invocations?limit=2").await.json();
    let ids: Vec<_> = listed["invocations"].as_array().unwrap().iter().map(|run| run["id"].clone()).collect();
    assert_eq!(ids, [body["invocation_id"].clone(), json!(started[1])]);
    let cursor = listed["next_cursor"].as_str().unwrap();
    let rest = app.get(&token, &format!("/v1/functions/f/invocations?cursor={cursor}")).await.json();
    assert_eq!((&rest["invocations"][0]["id"], &rest["next_cursor"]), (&json!(started[0]), &Value::Null));

    app.post(&token, &format!("/v1/invocations/{}:cancel", started[0]), Value::Null).await;
    let waiting = format!("/v1/invocations/{}", body["invocation_id"].as_str().unwrap());
    eventually("the next one starts", async || app.get(&token, &waiting).await.json()["phase"] == "Starting").await;
}

#[tokio::test]
async fn what_can_never_fit_is_refused_and_leaves_nothing() {
    let app = TestApp::start().await;
    let (token, id) = app.tenant_with(one_cpu()).await;
    let mut large = function();
    large["resources"]["cpuRequest"] = json!("2");
    large["resources"]["cpuLimit"] = json!("2");
    assert_eq!(app.post(&token, "/v1/functions", large).await.status, StatusCode::CREATED, "no pods, so it fits");
    let reply = app.post(&token, "/v1/functions/f:invoke", Value::Null).await;
    assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "quota-exceeds-tier"));
    let admission = &reply.json()["admission"];
    assert_eq!((&admission["verdict"], &admission["over"][0]["requested"]), (&json!("exceeds"), &json!("2")));
    let listed = app.get(&token, "/v1/functions/f/invocations").await.json();
    assert_eq!(listed["invocations"], json!([]));

    let suspended = json!({"suspended": true});
    app.call(Method::PATCH, &format!("/v1/tenants/{id}"), &app.operator().await, suspended, &[]).await;
    let reply = app.post(&token, "/v1/functions/f:invoke", Value::Null).await;
    assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::FORBIDDEN, "tenant-suspended"));
}

#[tokio::test]
async fn bad_input_is_refused_with_every_fault() {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    app.post(&token, "/v1/functions", function()).await;
    let invoke =
        async |query: &str, body: Value| app.post(&token, &format!("/v1/functions/f:invoke{query}"), body).await;
    let faults =
        invoke("", json!({"timeout_seconds": 0, "retries": 99, "env": {"EVENTFLOW_X": "y"}, "colour": 1})).await;
    assert_eq!((faults.status, faults.problem().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid-fields"));
    let fields: Vec<_> = faults.json()["violations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["field"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(fields, ["colour", "env.EVENTFLOW_X", "timeout_seconds", "retries"]);
    let text = invoke("", json!({"timeout_seconds": "30s"})).await;
    assert_eq!(text.json()["violations"][0]["code"], "type");
    let long = invoke("", json!({"timeout_seconds": 86_400})).await;
    assert_eq!(long.problem(), "invalid-fields", "over the tier's longest");
    let large = invoke("", json!({"input": "x".repeat(256 * 1024 + 1)})).await;
    assert_eq!((large.status, large.problem().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"));
    let most = invoke("", json!({"input": "x".repeat(256 * 1024)})).await;
    assert_eq!(most.status, StatusCode::OK, "{most:?}");
    for wait in ["?wait=soon", "?wait=6m", "?wait=-1s", "?wait=", "?colour=red", "?wait=1s&wait=2s"] {
        assert_eq!(invoke(wait, Value::Null).await.problem(), "malformed-request", "{wait}");
    }
    let unknown = app.post(&token, "/v1/functions/nobody:invoke", Value::Null).await;
    assert_eq!(unknown.problem(), "not-found");
    let raw = Request::post(format!("http://{}/v1/functions/f:invoke", app.address))
        .header("authorization", format!("Bearer {token}"))
        .body(Full::from("{}"))
        .unwrap();
    assert_eq!(app.send(raw).await.problem(), "unsupported-media-type");
    assert_eq!(invoke("", json!([])).await.problem(), "invalid-fields");
    let viewer = app.token_of(&format!("v-{}", uuid::Uuid::new_v4().simple()), &["viewer"]).await.json();
    let reply = app.post(viewer["token"].as_str().unwrap(), "/v1/functions/f:invoke", Value::Null).await;
    assert_eq!(reply.problem(), "forbidden");
}

#[tokio::test]
async fn a_key_stands_for_one_run() {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    app.post(&token, "/v1/functions", function()).await;
    let invoke = async |input: &str| {
        let body = json!({"input": input});
        app.call(Method::POST, "/v1/functions/f:invoke", &token, body, &[("idempotency-key", "k")]).await
    };
    let first = invoke("a").await;
    let again = invoke("a").await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!((again.header("idempotency-replayed"), again.header("location")), ("true", first.header("location")));
    assert_eq!(invoke("b").await.problem(), "idempotency-mismatch");
    let listed = app.get(&token, "/v1/functions/f/invocations").await.json();
    assert_eq!(listed["invocations"].as_array().unwrap().len(), 1);
}
