use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bed::{Operator, another_revision, component};
use crate::common::{TestApp, eventually};

fn words(list: &Value, field: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_policy_lives_from_upload_to_deletion() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    let module = component("replica-limit");
    let first = operator.upload(module.clone()).await;
    assert_eq!(
        (first.status, first.header("location")),
        (StatusCode::CREATED, "/v1/policies/replica-limit"),
        "{first:?}"
    );
    let uploaded = first.json();
    assert_eq!((&uploaded["policy"], &uploaded["revision"]["number"]), (&json!("replica-limit"), &json!(1)));
    assert!(uploaded["revision"]["smoke"]["cases"].as_u64().unwrap() > 3, "its own cases ran: {uploaded}");
    let again = operator.upload(module.clone()).await;
    assert_eq!((again.status, &again.json()["created"]), (StatusCode::OK, &json!(false)));
    let second = operator.upload(another_revision(&module, 2)).await;
    assert_eq!(second.json()["revision"]["number"], 2, "{second:?}");

    // Nothing was in force so far.
    let tenant = app.tenant().await;
    let body = json!({"name": "f", "image": "i:1", "replicas": 4});
    assert_eq!(app.post(&tenant, "/v1/functions", body).await.status, StatusCode::CREATED);

    let active = operator.verb("replica-limit", "activate", json!({"revision": 1, "settings": {"max": 3}})).await;
    assert_eq!((&active["bindings"][0]["active"], &active["bindings"][0]["order"]), (&json!(1), &json!(100)));
    let digest = second.json()["revision"]["digest"].as_str().unwrap()[..12].to_owned();
    let tried = operator.verb("replica-limit", "shadow", json!({"revision": digest, "settings": {"max": 9}})).await;
    assert_eq!(tried["bindings"][0]["trial"]["revision"], 2, "{tried}");
    operator.settled().await;

    let refused = app.post(&tenant, "/v1/functions", json!({"name": "g", "image": "i:1", "replicas": 4})).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::FORBIDDEN, "policy-denied"), "{refused:?}");
    let problem = refused.json();
    assert_eq!((&problem["policy"], &problem["reason"]), (&json!("replica-limit"), &json!("too-many-replicas")));
    let mut report = Value::Null;
    eventually("the shadow's difference is told", async || {
        report = operator.get("/v1/policies/replica-limit/shadow").await.json();
        report["trials"][0]["differed"] == 1 && report["trials"][0]["examples"].as_array().unwrap().len() == 1
    })
    .await;
    assert_eq!(report["trials"][0]["examples"][0]["would_be"], "allow", "{report}");

    let canary = operator.verb("replica-limit", "canary", json!({"percent": 12.34, "tenants": ["x"]})).await;
    assert_eq!(canary["bindings"][0]["trial"]["percent"], 12.34);
    let active = operator.verb("replica-limit", "activate", json!({})).await;
    assert_eq!((&active["bindings"][0]["active"], &active["bindings"][0]["settings"]), (&json!(2), &json!({"max": 9})));
    let back = operator.verb("replica-limit", "rollback", json!({})).await;
    assert_eq!((&back["bindings"][0]["active"], &back["bindings"][0]["settings"]), (&json!(1), &json!({"max": 3})));
    let nothing = operator.post("/v1/policies/replica-limit:rollback", json!({})).await;
    assert_eq!((nothing.status, nothing.problem().as_str()), (StatusCode::CONFLICT, "policy-state"));

    let bound = operator.delete("/v1/policies/replica-limit").await;
    assert_eq!(bound.problem(), "policy-state");
    assert_eq!(operator.delete("/v1/policies/replica-limit/bindings/replica-limit").await.status, StatusCode::OK);
    assert_eq!(operator.delete("/v1/policies/replica-limit").await.status, StatusCode::NO_CONTENT);
    assert_eq!(operator.get("/v1/policies/replica-limit").await.problem(), "not-found");
    all_of_it_is_in_the_history(&operator).await;
}

async fn all_of_it_is_in_the_history(operator: &Operator<'_>) {
    let history = operator.get("/v1/policies/replica-limit/history").await.json();
    let actions = words(&history["entries"], "action");
    let expected = [
        "policy.delete",
        "policy.unbind",
        "policy.rollback",
        "policy.activate",
        "policy.canary",
        "policy.shadow",
        "policy.activate",
        "policy.upload",
        "policy.upload",
    ];
    assert_eq!(actions, expected);
    assert!(words(&history["entries"], "actor").iter().all(|actor| actor == "olga"));
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    let core = operator.upload(b"\0asm\x01\0\0\0".to_vec()).await;
    assert_eq!(
        (core.status, core.problem().as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, "policy-refused"),
        "{core:?}"
    );
    assert!(core.json()["violations"][0]["message"].as_str().unwrap().contains("component"), "{core:?}");
    assert_eq!(operator.upload(b"nonsense".to_vec()).await.problem(), "policy-refused");
    let text = app.post(&operator.token, "/v1/policies", json!({})).await;
    assert_eq!(text.problem(), "unsupported-media-type");
    assert_eq!(operator.get("/v1/policies").await.json()["set_revision"], 0);

    assert!(operator.upload(component("replica-limit")).await.status.is_success());
    let path = "/v1/policies/replica-limit";
    for (verb, body, code) in [
        ("activate", json!({"settings": {"max": "many"}}), "policy-refused"),
        ("activate", json!({"settings": {"mux": 1}}), "policy-refused"),
        ("activate", json!({"revision": 7}), "not-found"),
        ("activate", json!({"percent": 5}), "malformed-request"),
        ("shadow", json!({"binding": "none"}), "not-found"),
        ("canary", json!({}), "malformed-request"),
        ("canary", json!({"percent": 101}), "malformed-request"),
        ("activate", json!({"revison": 1}), "malformed-request"),
    ] {
        let reply = operator.post(&format!("{path}:{verb}"), body.clone()).await;
        assert_eq!(reply.problem(), code, "{verb} {body}: {reply:?}");
    }
    let wrong_world = operator.put(&format!("{path}/bindings/b"), json!({"world": "request"})).await;
    assert_eq!(wrong_world.problem(), "policy-state", "{wrong_world:?}");
    assert_eq!(operator.get(path).await.json()["bindings"], json!([]));
}

#[tokio::test]
async fn of_two_operators_the_slower_one_is_told() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    assert!(operator.upload(component("replica-limit")).await.status.is_success());
    let read = operator.get("/v1/policies/replica-limit").await;
    let tag = read.header("etag").to_owned();
    let activate = async |tag: &str| {
        let condition = [("if-match", tag)];
        app.call(Method::POST, "/v1/policies/replica-limit:activate", &operator.token, json!({}), &condition).await
    };
    let first = activate(&tag).await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    assert_eq!(activate(&tag).await.problem(), "precondition-failed");
    assert_eq!(activate("\"other.1\"").await.problem(), "precondition-failed");
    assert_eq!(activate(first.header("etag")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_operator_asks_before_acting() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    assert!(operator.upload(component("replica-limit")).await.status.is_success());
    let tenant = app.tenant().await;
    let body = json!({"name": "f", "image": "i:1", "replicas": 4, "env": {"PASSWORD": "hunter22"}});
    assert_eq!(app.post(&tenant, "/v1/functions", body).await.status, StatusCode::CREATED);
    let me = app.get(&tenant, "/v1/me").await.json();
    let evaluate = async |body: Value| operator.post("/v1/policies/replica-limit:evaluate", body).await;

    let made_up = evaluate(json!({"settings": {"max": 3}, "admission": {"object": {"spec": {"replicas": 2}}}})).await;
    assert_eq!((made_up.status, &made_up.json()["verdict"]), (StatusCode::OK, &json!("allow")), "{made_up:?}");
    let stored = json!({"settings": {"max": 3}, "function": {"tenant": me["tenant"], "name": "f"}});
    let stored = evaluate(stored).await.json();
    assert_eq!(stored["verdict"]["deny"]["code"], "too-many-replicas", "{stored}");
    assert!(stored["memory_bytes"].as_u64().unwrap() > 0);
    assert_eq!(evaluate(json!({})).await.problem(), "malformed-request");
    assert_eq!(evaluate(json!({"settings": {"max": -1}, "admission": {}})).await.problem(), "policy-refused");
    let missing = json!({"function": {"tenant": me["tenant"], "name": "nothing"}});
    assert_eq!(evaluate(missing).await.problem(), "not-found");

    assert!(operator.upload(component("resource-bounds")).await.status.is_success());
    let settings = json!({"everyone": {"defaults": {"cpuRequest": "50m"}}});
    let ask = json!({"settings": settings, "admission": {"object": {"spec": {"image": "i:1"}}}});
    let changed = operator.post("/v1/policies/resource-bounds:evaluate", ask).await.json();
    assert!(changed["changes"][0]["path"].as_str().unwrap().starts_with("/spec/resources"), "{changed}");
}

#[tokio::test]
async fn groups_join_bindings() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    assert!(operator.upload(component("replica-limit")).await.status.is_success());
    let group = json!({"world": "admission", "kind": "any", "order": 5});
    assert_eq!(operator.put("/v1/policy-groups/either", group).await.status, StatusCode::OK);
    for (binding, max) in [("strict", 1), ("lax", 5)] {
        let body = json!({"group": "either", "settings": {"max": max}});
        let reply = operator.put(&format!("/v1/policies/replica-limit/bindings/{binding}"), body).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    }
    let lonely = operator.put("/v1/policies/replica-limit/bindings/x", json!({"group": "none"})).await;
    assert_eq!(lonely.problem(), "policy-state", "{lonely:?}");
    operator.verb("replica-limit", "activate", json!({})).await;
    operator.settled().await;
    let tenant = app.tenant().await;
    let create = async |name: &str, replicas: u32| {
        app.post(&tenant, "/v1/functions", json!({"name": name, "image": "i:1", "replicas": replicas})).await.status
    };
    assert_eq!([create("a", 5).await, create("b", 6).await], [StatusCode::CREATED, StatusCode::FORBIDDEN]);
    assert_eq!(operator.get("/v1/policy-groups").await.json()["groups"][0]["members"], json!(["lax", "strict"]));
    assert_eq!(operator.delete("/v1/policy-groups/either").await.problem(), "policy-state");
}
