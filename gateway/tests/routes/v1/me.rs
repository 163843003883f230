use http::StatusCode;
use serde_json::json;

use crate::common::{TestApp, eventually};

#[tokio::test]
async fn says_who_is_calling() {
    let app = TestApp::start().await;
    let token = app.token_of("bob", &["viewer", "operator"]).await.json()["token"].as_str().unwrap().to_owned();
    let me = app.get(&token, "/v1/me").await;
    assert_eq!(me.status, StatusCode::OK);
    let me = me.json();
    assert_eq!((&me["tenant"], &me["namespace"]), (&json!("bob"), &json!("tenant-bob")));
    assert_eq!(me["roles"], json!(["viewer", "operator"]));
    eventually("the tenant's object is seen", async || app.get(&token, "/v1/me").await.json()["tier"] == "pro").await;
}

#[tokio::test]
async fn every_bad_token_gets_the_same_answer() {
    let app = TestApp::start().await;
    let good = app.tenant().await;
    let none = app.get("", "/v1/me").await;
    assert_eq!(none.header("www-authenticate"), "Bearer");
    let strip = |reply: &crate::common::Reply| {
        let mut body = reply.json();
        body["request_id"] = json!("");
        (reply.status, body)
    };
    for bad in ["x", "a.b.c", &good[..good.len() - 2], &format!("{good}x"), &"x".repeat(9000)] {
        let reply = app.get(bad, "/v1/me").await;
        assert_eq!(strip(&reply), strip(&none), "{bad}");
    }
}

#[tokio::test]
async fn a_role_without_the_right_is_forbidden() {
    let app = TestApp::start().await;
    for role in ["viewer", "operator"] {
        let token = app.token_of("carol", &[role]).await.json()["token"].as_str().unwrap().to_owned();
        assert_eq!(app.get(&token, "/v1/functions").await.status, StatusCode::OK, "{role}");
        let reply = app.post(&token, "/v1/functions", json!({"name": "a", "image": "a:1"})).await;
        assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::FORBIDDEN, "forbidden"), "{role}");
    }
}
