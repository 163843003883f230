//! Calls of functions with real pods.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use eventflow_api::function::Phase;
use eventflow_api::http::Function;
use eventflow_e2e::eventually::eventually;
use eventflow_e2e::platform::Platform;
use http::{Method, StatusCode};
use serde_json::{Value, json};

fn running(function: &Function) -> bool {
    function.status.phase == Phase::Running && function.status.observed_generation > 0
}

fn named(name: &str, image: &str, more: Value) -> Value {
    let mut body = json!({"name": name, "image": image, "port": 8080,
        "resources": {"cpuRequest": "20m", "memoryRequest": "16Mi", "cpuLimit": "500m", "memoryLimit": "64Mi"}});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

#[tokio::test]
async fn a_function_answers_through_the_gateway() {
    let platform = Platform::shared();
    let alice = platform.sign_in("invoke-alice").await;
    alice.create(named("hello", &platform.image("hello:v1"), json!({}))).await;
    alice.create(named("crash", &platform.image("crash:v1"), json!({}))).await;
    alice.function("hello", 90, "runs", running).await;
    let answer = alice.call(Method::PUT, "/v1/functions/hello/http/some/path?x=1", Some(json!({"hello": "pod"}))).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!((&answer.json["method"], &answer.json["path"]), (&json!("PUT"), &json!("/some/path")));
    assert_eq!((&answer.json["query"], &answer.json["body"]), (&json!("x=1"), &json!("{\"hello\":\"pod\"}")));
    let headers = &answer.json["headers"];
    assert_eq!(headers["x-eventflow-tenant"], "invoke-alice", "{headers}");
    assert_eq!(headers["x-eventflow-function"], "hello");
    assert_eq!(headers["authorization"], Value::Null);

    // What cannot run says why it cannot be called.
    alice.function("crash", 90, "has failed", |function| function.status.phase == Phase::Failed).await;
    let answer = alice.call(Method::GET, "/v1/functions/crash/http/", None).await;
    assert_eq!((answer.status, &answer.json["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("function-not-ready")));
    assert_eq!(answer.headers["x-eventflow-error"], "function-not-ready");
    let bob = platform.sign_in("invoke-bob").await;
    assert_eq!(bob.call(Method::GET, "/v1/functions/hello/http/", None).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_roll_out_under_load_fails_no_request() {
    let platform = Platform::shared();
    let alice = Arc::new(platform.sign_in("invoke-rollout").await);
    alice.create(named("app", &platform.image("hello:v1"), json!({"replicas": 2, "env": {"GREETING": "0"}}))).await;
    alice.function("app", 90, "runs", |f| running(f) && f.status.ready_replicas == 2).await;
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (alice, stop, calls) = (Arc::clone(&alice), Arc::clone(&stop), Arc::clone(&calls));
        callers.spawn(async move {
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let answer = alice.call(Method::POST, "/v1/functions/app/http/", Some(json!({"x": 1}))).await;
                calls.fetch_add(1, Ordering::Relaxed);
                if answer.status != StatusCode::OK {
                    failed.push(answer);
                }
            }
            failed
        });
    }
    for round in ["1", "2"] {
        alice.patch("app", json!({"env": {"GREETING": round}})).await;
        eventually(120, "every pod is a new one", || async {
            for _ in 0..8 {
                let answer = alice.call(Method::GET, "/v1/functions/app/http/", None).await;
                if answer.json["environment"]["GREETING"] != round {
                    return Err(answer);
                }
            }
            Ok(())
        })
        .await;
        alice.function("app", 60, "runs the new round", |f| running(f) && f.status.ready_replicas == 2).await;
    }
    stop.store(true, Ordering::Relaxed);
    let failed: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    let calls = calls.load(Ordering::Relaxed);
    println!("{calls} calls during two roll-outs, {} failed", failed.len());
    assert!(failed.is_empty(), "{} of {calls} failed, the first: {:?}", failed.len(), failed[0]);
}
