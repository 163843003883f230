use http::Method;
use serde_json::{Value, json};

use crate::common::TestApp;

#[tokio::test]
async fn tells_who_did_what_newest_first() {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    let headers = [("x-request-id", "first")];
    app.call(Method::POST, "/v1/functions", &token, json!({"name": "a", "image": "a:1"}), &headers).await;
    app.call(Method::PATCH, "/v1/functions/a", &token, json!({"replicas": 2}), &[]).await;
    app.call(Method::DELETE, "/v1/functions/a", &token, Value::Null, &[]).await;
    let entries = app.get(&token, "/v1/audit").await.json()["entries"].clone();
    let actions: Vec<&str> = entries.as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["function.delete", "function.update", "function.create"], "{entries}");
    assert_eq!((&entries[2]["request_id"], &entries[2]["target"]), (&json!("first"), &json!("a")));
    let page = app.get(&token, "/v1/audit?limit=2").await.json();
    let rest = app.get(&token, &format!("/v1/audit?cursor={}", page["next_cursor"].as_str().unwrap())).await.json();
    assert_eq!(rest["entries"][0]["action"], "function.create");
    assert_eq!(app.get(&token, "/v1/audit?cursor=x").await.problem(), "malformed-request");
    let other = app.tenant().await;
    assert_eq!(app.get(&other, "/v1/audit").await.json()["entries"], json!([]));
}
