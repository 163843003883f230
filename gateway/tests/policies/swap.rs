use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use serde_json::json;

use crate::bed::{Operator, another_revision, component};
use crate::common::{TestApp, eventually};

/// Activations and roll-backs while a load runs.
const SWAPS: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_fails_while_policies_are_swapped() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    let tenant = app.tenant().await;
    // One revision counts and says so in the answer, the other exempts everybody and says nothing.
    let module = component("tier-limits");
    assert!(operator.upload(module.clone()).await.status.is_success());
    assert!(operator.upload(another_revision(&module, 2)).await.status.is_success());
    let silent = json!({"revision": 1, "settings": {"exemptRoles": ["developer"]}});
    let costly = json!({"revision": 2, "settings": {"costs": {"me.get": 1}}});
    operator.verb("tier-limits", "activate", silent).await;
    operator.settled().await;

    let stop = AtomicBool::new(false);
    let load = async {
        let mut shapes: HashMap<String, Vec<bool>> = HashMap::new();
        let mut answered = 0;
        while !stop.load(Ordering::Relaxed) {
            let reply = app.get(&tenant, "/v1/me").await;
            // Over the rate is an answer of a policy too; anything else would be a failure.
            assert!(matches!(reply.status, StatusCode::OK | StatusCode::TOO_MANY_REQUESTS), "{reply:?}");
            answered += 1;
            if reply.status == StatusCode::OK {
                let shape = reply.headers.contains_key("ratelimit");
                shapes.entry(reply.header("eventflow-policy-revision").to_owned()).or_default().push(shape);
            }
        }
        (answered, shapes)
    };
    let swaps = async {
        for i in 0..SWAPS / 2 {
            operator.verb("tier-limits", "activate", costly.clone()).await;
            if i % 10 == 0 {
                operator.settled().await;
            }
            operator.verb("tier-limits", "rollback", json!({})).await;
        }
        operator.settled().await;
        stop.store(true, Ordering::Relaxed);
    };
    let ((answered, shapes), ()) = tokio::join!(load, swaps);
    assert!(answered > 50, "the load ran: {answered}");
    assert!(shapes.len() > 3, "several sets were met: {}", shapes.len());
    for (set, shapes) in &shapes {
        assert!(shapes.iter().all(|shape| *shape == shapes[0]), "one set gave two kinds of verdict: {set}");
    }
    let policy = operator.get("/v1/policies/tier-limits").await.json();
    assert_eq!(policy["bindings"][0]["active"], 1);
}

#[tokio::test]
async fn a_canary_gets_its_share() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    let (tenant, chosen) = (app.tenant().await, app.tenant().await);
    let id = app.get(&chosen, "/v1/me").await.json()["tenant"].as_str().unwrap().to_owned();
    operator.enforce("tier-limits", json!({"exemptRoles": ["developer"]})).await;
    // The canary exempts nobody who calls, and is told by the limit in the answer, reached or not.
    let canary = json!({"percent": 20, "tenants": [id], "settings": {"exemptRoles": ["nobody"]}});
    operator.verb("tier-limits", "canary", canary).await;
    operator.settled().await;
    let by_canary = async |token: &str| {
        let reply = app.get(token, "/v1/me").await;
        reply.status == StatusCode::TOO_MANY_REQUESTS || reply.headers.contains_key("ratelimit")
    };
    let mut judged = 0;
    for _ in 0..1000 {
        judged += i32::from(by_canary(&tenant).await);
    }
    // 200 are expected, with a deviation of 12.6; five of them are a chance of one in a million.
    assert!((137..=263).contains(&judged), "{judged} of 1000");
    for _ in 0..10 {
        assert!(by_canary(&chosen).await, "a named tenant is always judged by the canary");
    }
}

#[tokio::test]
async fn replicas_converge_and_share_the_limits() {
    let app = TestApp::start().await;
    let other = app.another().await;
    let operator = Operator::of(&app).await;
    eventually("both know of each other", async || {
        app.app.policies.replicas() == 2 && other.app.policies.replicas() == 2
    })
    .await;
    operator.enforce("tier-limits", json!({})).await;
    let wanted = operator.get("/v1/policies").await.json()["set_revision"].as_i64();
    eventually("the other replica runs it", async || other.app.policies.running() == wanted).await;
    let tenant = other.tenant().await;
    assert!(other.get(&tenant, "/v1/me").await.headers.contains_key("ratelimit"));
    eventually("operators see what runs where", async || {
        let list = operator.get("/v1/policies").await.json();
        let replicas = list["replicas"].as_array().unwrap().clone();
        replicas.len() == 2 && replicas.iter().all(|replica| replica["set_revision"] == list["set_revision"])
    })
    .await;
    drop(other);
    eventually("who leaves is not counted", async || app.app.policies.replicas() == 1).await;
}
