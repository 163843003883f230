//! `GET /v1/functions`.

use http::StatusCode;
use serde_json::{Value, json};

use crate::common::TestApp;

fn names(list: &Value) -> Vec<String> {
    list["functions"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap().to_owned()).collect()
}

async fn tenant_with(app: &TestApp, functions: &[(&str, &str)]) -> String {
    let token = app.tenant().await;
    for (name, image) in functions {
        let reply = app.post(&token, "/v1/functions", json!({"name": name, "image": image})).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{reply:?}");
    }
    token
}

#[tokio::test]
async fn pages_neither_repeat_nor_skip() {
    let app = TestApp::start().await;
    let all = ["a", "b", "c", "d", "e"];
    let token = tenant_with(&app, &all.map(|name| (name, "x:1"))).await;
    for sort in ["name", "-name", "createdAt", "-createdAt", "updatedAt"] {
        let mut seen = Vec::new();
        let mut path = format!("/v1/functions?limit=2&sort={sort}");
        loop {
            let page = app.get(&token, &path).await.json();
            seen.extend(names(&page));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/v1/functions?limit=2&sort={sort}&cursor={cursor}");
        }
        let mut expected = all.map(str::to_owned);
        if sort.starts_with('-') {
            expected.reverse();
        }
        assert_eq!(seen, expected, "{sort}");
    }
}

#[tokio::test]
async fn filters_narrow_the_list() {
    let app = TestApp::start().await;
    let token = tenant_with(&app, &[("web-one", "a:1"), ("web-two", "b:1"), ("job", "a:2")]).await;
    let list = async |query: &str| names(&app.get(&token, &format!("/v1/functions?{query}")).await.json());
    assert_eq!(list("q=web").await, ["web-one", "web-two"]);
    assert_eq!(list("image=a%3A").await, ["job", "web-one"]);
    assert_eq!(list("q=web&image=b").await, ["web-two"]);
    assert_eq!(list("q=%25").await, [""; 0]);
    assert_eq!(list("phase=Pending").await.len(), 3);
    assert_eq!(list("phase=Running").await, [""; 0]);
}

#[tokio::test]
async fn a_query_that_cannot_be_meant_is_refused() {
    let app = TestApp::start().await;
    let token = tenant_with(&app, &[("a", "a:1"), ("b", "a:1")]).await;
    let page = app.get(&token, "/v1/functions?limit=1").await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let foreign = format!("cursor={cursor}&sort=-createdAt");
    for query in
        ["limit=0", "limit=1001", "sort=size", "phase=running", "colour=red", "q=a&q=b", "cursor=x", "q=%zz", &foreign]
    {
        assert_eq!(app.get(&token, &format!("/v1/functions?{query}")).await.problem(), "malformed-request", "{query}");
    }
}

#[tokio::test]
async fn a_list_holds_one_tenants_functions() {
    let app = TestApp::start().await;
    tenant_with(&app, &[("theirs", "a:1")]).await;
    let token = tenant_with(&app, &[("mine", "a:1")]).await;
    assert_eq!(names(&app.get(&token, "/v1/functions").await.json()), ["mine"]);
}
