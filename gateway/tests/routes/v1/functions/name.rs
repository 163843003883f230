//! `GET`, `PUT`, `PATCH`, `DELETE /v1/functions/{name}`.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Reply, TestApp, eventually};

struct Fixture {
    app: TestApp,
    token: String,
    created: Reply,
}

/// A tenant with the function `a`.
async fn fixture() -> Fixture {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    let created = app.post(&token, "/v1/functions", json!({"name": "a", "image": "a:1", "env": {"K": "v"}})).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    Fixture { app, token, created }
}

impl Fixture {
    async fn send(&self, method: Method, body: Value, headers: &[(&str, &str)]) -> Reply {
        self.app.call(method, "/v1/functions/a", &self.token, body, headers).await
    }
}

#[tokio::test]
async fn put_replaces_everything() {
    let f = fixture().await;
    let reply = f.send(Method::PUT, json!({"image": "a:2", "replicas": 3}), &[]).await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let document = reply.json();
    assert_eq!((&document["generation"], &document["image"]), (&json!(2), &json!("a:2")));
    assert_eq!(document.get("env"), None);
    // What was read is a valid replacement, and changes nothing.
    let again = f.send(Method::PUT, document, &[]).await;
    assert_eq!((again.status, &again.json()["generation"]), (StatusCode::OK, &json!(2)));
    assert_eq!(f.send(Method::PUT, json!({"name": "b", "image": "a:1"}), &[]).await.problem(), "invalid-fields");
    assert_eq!(
        f.app.call(Method::PUT, "/v1/functions/b", &f.token, json!({"image": "a:1"}), &[]).await.problem(),
        "not-found"
    );
}

#[tokio::test]
async fn patch_changes_what_it_names() {
    let f = fixture().await;
    let merge = [("content-type", "application/merge-patch+json")];
    let reply = f.send(Method::PATCH, json!({"replicas": 2, "env": {"K": null, "L": "w"}}), &merge).await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let document = reply.json();
    assert_eq!((&document["image"], &document["env"]), (&json!("a:1"), &json!({"L": "w"})));
    assert_eq!(f.send(Method::PATCH, json!({"replicas": -1}), &merge).await.problem(), "invalid-fields");
    assert_eq!(f.send(Method::PATCH, json!([]), &merge).await.problem(), "malformed-request");
    let json_patch = [("content-type", "application/json-patch+json")];
    assert_eq!(f.send(Method::PATCH, json!({}), &json_patch).await.problem(), "unsupported-media-type");
}

#[tokio::test]
async fn patches_at_once_are_all_kept() {
    let f = fixture().await;
    let patches = (0..4).map(|i| {
        let env = format!("V{i}");
        let f = &f;
        async move { f.send(Method::PATCH, json!({"env": {env: "x"}}), &[]).await }
    });
    for reply in futures::future::join_all(patches).await {
        assert!(reply.status.is_success(), "{reply:?}");
    }
    let document = f.app.get(&f.token, "/v1/functions/a").await.json();
    assert_eq!(document["env"], json!({"K": "v", "V0": "x", "V1": "x", "V2": "x", "V3": "x"}));
}

#[tokio::test]
async fn a_stale_version_is_not_written_over() {
    let f = fixture().await;
    let old = f.created.header("etag");
    let new = f.send(Method::PATCH, json!({"replicas": 2}), &[("if-match", old)]).await;
    assert_eq!(new.status, StatusCode::OK, "{new:?}");
    let body = json!({"image": "a:3"});
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let reply = f.send(method.clone(), body.clone(), &[("if-match", old)]).await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (StatusCode::PRECONDITION_FAILED, "precondition-failed"),
            "{method}"
        );
    }
    for (condition, status) in [
        ("*", StatusCode::OK),
        ("\"x\"", StatusCode::PRECONDITION_FAILED),
        ("W/\"x\"", StatusCode::PRECONDITION_FAILED),
        ("x", StatusCode::BAD_REQUEST),
    ] {
        let reply = f.send(Method::PATCH, json!({}), &[("if-match", condition)]).await;
        assert_eq!(reply.status, status, "{condition}");
    }
    let list = format!("{old}, {}", new.header("etag"));
    assert_eq!(f.send(Method::PUT, body, &[("if-match", &list)]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_unchanged_document_is_not_sent_again() {
    let f = fixture().await;
    let mut tag = String::new();
    eventually("the status is settled and the document unchanged", async || {
        tag = f.app.get(&f.token, "/v1/functions/a").await.header("etag").to_owned();
        let reply = f.send(Method::GET, Value::Null, &[("if-none-match", &tag)]).await;
        assert!(reply.status == StatusCode::OK || reply.body.is_empty(), "{reply:?}");
        reply.status == StatusCode::NOT_MODIFIED
    })
    .await;
    f.send(Method::PATCH, json!({"replicas": 2}), &[]).await;
    assert_eq!(f.send(Method::GET, Value::Null, &[("if-none-match", &tag)]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_deleted_name_is_free_at_once() {
    let f = fixture().await;
    let key = [("idempotency-key", "d")];
    assert_eq!(f.send(Method::DELETE, Value::Null, &key).await.status, StatusCode::NO_CONTENT);
    assert_eq!(f.send(Method::DELETE, Value::Null, &key).await.status, StatusCode::NO_CONTENT, "the same call again");
    assert_eq!(f.send(Method::DELETE, Value::Null, &[]).await.problem(), "not-found");
    assert_eq!(f.send(Method::GET, Value::Null, &[]).await.problem(), "not-found");
    let again = f.app.post(&f.token, "/v1/functions", json!({"name": "a", "image": "a:1"})).await;
    assert!(matches!(again.status, StatusCode::CREATED | StatusCode::ACCEPTED), "{again:?}");
    assert_ne!(again.json()["id"], f.created.json()["id"]);
}

#[tokio::test]
async fn dry_runs_change_nothing() {
    let f = fixture().await;
    for (method, body) in [
        (Method::PUT, json!({"image": "a:2"})),
        (Method::PATCH, json!({"image": "a:2"})),
        (Method::DELETE, Value::Null),
    ] {
        let path = "/v1/functions/a?dry_run=true";
        let reply = f.app.call(method.clone(), path, &f.token, body, &[]).await;
        assert_eq!(reply.status, StatusCode::OK, "{method} {reply:?}");
        let stale = [("if-match", "\"x\"")];
        let reply = f.app.call(method.clone(), path, &f.token, json!({"image": "a:2"}), &stale).await;
        assert_eq!(reply.problem(), "precondition-failed", "{method}");
    }
    let document = f.app.get(&f.token, "/v1/functions/a").await.json();
    assert_eq!((&document["generation"], &document["image"]), (&json!(1), &json!("a:1")));
}

#[tokio::test]
async fn names_that_can_be_none_are_not_found() {
    let f = fixture().await;
    let long = "x".repeat(61);
    for name in ["A", "a_b", "a.b", "-a", &long] {
        let reply = f.app.get(&f.token, &format!("/v1/functions/{name}")).await;
        assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::NOT_FOUND, "not-found"), "{name}");
    }
}
