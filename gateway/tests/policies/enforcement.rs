use std::time::Instant;

use eventflow_api::tenant::Tenant;
use eventflow_api::tier::Tier;
use gateway::policy::PolicyConfig;
use http::{Method, StatusCode};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::bed::{Operator, component};
use crate::common::{TestApp, eventually};

#[tokio::test]
async fn changes_are_judged_changed_and_explained() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    operator.enforce("resource-bounds", json!({"everyone": {"defaults": {"cpuRequest": "50m"}}})).await;
    operator.enforce("image-allowlist", json!({"denied": ["docker.io/evil"]})).await;
    let tenant = app.tenant().await;

    let dry = app.post(&tenant, "/v1/functions?dry_run=true", json!({"name": "f", "image": "i:1"})).await;
    assert_eq!(dry.status, StatusCode::OK, "{dry:?}");
    let dry = dry.json();
    assert_eq!(dry["resources"]["cpuRequest"], "50m", "{dry}");
    let trace: Vec<_> = dry["policies"].as_array().unwrap().iter().map(|step| &step["verdict"]).collect();
    assert_eq!(trace, ["allow", "change"], "{dry}");

    let made = app.post(&tenant, "/v1/functions", json!({"name": "f", "image": "i:1"})).await;
    assert_eq!((made.status, &made.json()["resources"]["cpuRequest"]), (StatusCode::CREATED, &json!("50m")));
    for (method, body) in [(Method::PUT, json!({"image": "evil/x:1"})), (Method::PATCH, json!({"image": "evil/x:1"}))] {
        let reply = app.call(method.clone(), "/v1/functions/f", &tenant, body, &[]).await;
        assert_eq!(reply.problem(), "policy-denied", "{method} {reply:?}");
    }
    let mut log = Value::Null;
    eventually("refusals are in the decision log", async || {
        log = operator.get("/v1/policies/image-allowlist/decisions").await.json();
        log["decisions"].as_array().unwrap().len() >= 2
    })
    .await;
    let decision = &log["decisions"][0];
    assert_eq!((&decision["verdict"], &decision["action"]), (&json!("deny"), &json!("functions.update")), "{log}");
    // Deleting goes on.
    let gone = app.call(Method::DELETE, "/v1/functions/f", &tenant, Value::Null, &[]).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT, "{gone:?}");
    let metrics = String::from_utf8(app.admin("/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains("eventflow_policy_decisions_total{policy=\"image-allowlist\""), "{metrics}");
}

#[tokio::test]
async fn the_tiers_rate_is_exact() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    let tier = format!("exact-{}", uuid::Uuid::new_v4().simple());
    let object: Tier = serde_json::from_value(json!({"metadata": {"name": tier}, "spec": {
        "quota": {"cpuRequests": "1", "memoryRequests": "1Gi", "cpuLimits": "1", "memoryLimits": "1Gi", "pods": 1,
            "persistentVolumeClaims": 0, "functions": 1},
        "requestsPerSecond": 1, "burst": 25, "concurrentInvocations": 1, "maxReplicasPerFunction": 1,
        "maxTimeoutSeconds": 60}}))
    .unwrap();
    Api::<Tier>::all(app.kube.clone()).create(&PostParams::default(), &object).await.unwrap();
    let tenant = app.tenant().await;
    assert_eq!(app.post(&tenant, "/v1/functions?dry_run=true", json!({"name": "f", "image": "i"})).await.status, 200);
    let id = app.get(&tenant, "/v1/me").await.json()["tenant"].as_str().unwrap().to_owned();
    let patch = Patch::Merge(json!({"spec": {"tier": tier}}));
    Api::<Tenant>::all(app.kube.clone()).patch(&id, &PatchParams::default(), &patch).await.unwrap();
    eventually("the tenant's tier is known", async || app.get(&tenant, "/v1/me").await.json()["tier"] == tier).await;

    operator.enforce("tier-limits", json!({})).await;
    let started = Instant::now();
    let mut allowed = 0;
    let mut last = None;
    for _ in 0..200 {
        let reply = app.get(&tenant, "/v1/me").await;
        if reply.status == StatusCode::OK {
            allowed += 1;
            assert!(reply.header("ratelimit").starts_with("\"requests\";r="), "{reply:?}");
            assert_eq!(reply.header("ratelimit-policy"), "\"requests\";q=1;w=1");
        } else {
            last = Some(reply);
        }
    }
    let elapsed = started.elapsed().as_secs_f64();
    let last = last.expect("two hundred are more than the burst");
    assert_eq!((last.status, last.problem().as_str()), (StatusCode::TOO_MANY_REQUESTS, "too-many-requests"));
    assert_eq!((last.json()["limit"].as_str(), last.header("retry-after")), (Some("requests"), "1"), "{last:?}");
    assert_eq!(last.header("ratelimit"), "\"requests\";r=0;t=1", "{last:?}");
    // The burst, and one for every whole second; the last of them may have come just before or after an answer.
    let (least, most) = (25 + elapsed.floor() as u32, 25 + elapsed.floor() as u32 + 1);
    assert!((least.saturating_sub(1)..=most).contains(&allowed), "{allowed} in {elapsed} s");
    // Nobody else pays for it.
    let other = app.tenant().await;
    assert_eq!(app.get(&other, "/v1/me").await.status, StatusCode::OK);
}

#[tokio::test]
async fn shipped_policies_are_bound_once() {
    let folder = std::env::temp_dir().join(format!("shipped-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&folder).unwrap();
    for name in ["tier-limits", "replica-limit"] {
        std::fs::write(folder.join(format!("{name}.wasm")), component(name)).unwrap();
    }
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/policies/defaults.json"), folder.join("defaults.json"))
        .unwrap();
    let config = PolicyConfig { builtins: Some(folder.clone()), replica: "first".into(), ..PolicyConfig::default() };
    let app = TestApp::start_with_policies(config.clone()).await;
    let operator = Operator::of(&app).await;
    eventually("both are bound", async || {
        let list = operator.get("/v1/policies").await.json();
        let policies = list["policies"].as_array().unwrap();
        policies.len() == 2 && policies.iter().all(|policy| policy["bindings"][0]["active"] == 1)
    })
    .await;
    operator.settled().await;
    let (tenant, _) = app.tenant_but(json!({"tier": "free"})).await;
    let body = json!({"name": "f", "image": "i:1", "replicas": 7});
    assert_eq!(app.post(&tenant, "/v1/functions", body).await.problem(), "policy-denied");

    // What an operator took away stays away, also when the gateway starts again.
    assert_eq!(operator.delete("/v1/policies/replica-limit/bindings/replica-limit").await.status, StatusCode::OK);
    let again = app.another_with(PolicyConfig { replica: "second".into(), ..config }).await;
    let operator = Operator::of(&again).await;
    let list = operator.get("/v1/policies").await.json();
    assert_eq!(list["policies"][0]["bindings"], json!([]), "{list}");
    assert_eq!(list["policies"][0]["revisions"].as_array().unwrap().len(), 1);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn notes_and_time_outs_concern_calls_of_the_api_too() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    let tenant = app.tenant().await;
    operator.enforce("request-marks", json!({"notes": {"from": "{address}", "who": "{role}"}})).await;
    let made = app.post(&tenant, "/v1/functions", json!({"name": "f", "image": "i:1"})).await;
    assert!(made.status.is_success(), "{made:?}");
    let audit = app.get(&tenant, "/v1/audit").await.json();
    let entries = audit["entries"].as_array().unwrap();
    let created = entries.iter().find(|entry| entry["action"] == "function.create").unwrap();
    assert_eq!(created["detail"]["notes"], json!({"from": "127.0.0.1", "who": "developer"}), "{audit}");

    let settings = json!({"timeoutMs": 1, "actions": ["functions.create"]});
    operator.verb("request-marks", "activate", json!({"settings": settings})).await;
    operator.settled().await;
    let late = app.post(&tenant, "/v1/functions", json!({"name": "g", "image": "i:1"})).await;
    assert_eq!((late.status, late.problem().as_str()), (StatusCode::GATEWAY_TIMEOUT, "timeout"), "{late:?}");
    assert_eq!(app.get(&tenant, "/v1/me").await.status, StatusCode::OK);
}

#[tokio::test]
async fn labels_are_not_set_through_the_api() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    let tenant = app.tenant().await;
    operator.enforce("set-labels", json!({"labels": {"team": "a"}})).await;
    let refused = app.post(&tenant, "/v1/functions", json!({"name": "f", "image": "i:1"})).await;
    assert_eq!(refused.problem(), "policy-failed", "{refused:?}");
    let mut log = Value::Null;
    eventually("the operator is told why", async || {
        log = operator.get("/v1/policies/set-labels/decisions").await.json();
        log["decisions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|decision| decision.to_string().contains("functions made through the API have none of their own"))
    })
    .await;
    // Who binds it so gets the function as it was asked for, without the patch.
    let open = json!({"scope": {"kind": "everyone"}, "failure_mode": "open", "settings": {"labels": {"team": "a"}}});
    let bound = operator.put("/v1/policies/set-labels/bindings/set-labels", open).await;
    assert!(bound.status.is_success(), "{bound:?}");
    operator.settled().await;
    let made = app.post(&tenant, "/v1/functions", json!({"name": "f", "image": "i:1"})).await;
    assert!(made.status.is_success(), "{made:?} {log}");
}
