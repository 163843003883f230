use std::collections::HashSet;

use devcluster::{Proxy, TestCluster};
use http::StatusCode;
use serde_json::json;

use crate::common::TestApp;

#[tokio::test]
async fn a_token_of_the_development_issuer_is_accepted() {
    let app = TestApp::start().await;
    let body = json!({"user_id": "alice", "username": "Alice", "email": "a@example.org"});
    let reply = app.post("", "/auth/token", body).await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let reply = reply.json();
    assert_eq!((&reply["namespace"], &reply["username"]), (&"tenant-alice".into(), &"Alice".into()));
    let me = app.get(reply["token"].as_str().unwrap(), "/v1/me").await;
    assert_eq!(me.json()["email"], "a@example.org");
}

#[tokio::test]
async fn hostile_user_ids_never_share_a_namespace() {
    let app = TestApp::start().await;
    let long = "x".repeat(300);
    let hostile = [
        "system",
        "a_b",
        "a-b",
        "A_B",
        "a.b",
        "../x",
        "x",
        "ä",
        "a",
        "日本",
        "a b",
        "a/b",
        "tenant-a",
        "-a",
        "a-",
        "kube-system",
        "%2e%2e",
        "a\u{202e}b",
        &long,
        &long[..299],
    ];
    let mut seen = HashSet::new();
    for user in hostile {
        let reply = app.token_of(user, &[]).await;
        assert_eq!(reply.status, StatusCode::OK, "{user}: {reply:?}");
        let namespace = reply.json()["namespace"].as_str().unwrap().to_owned();
        assert!(namespace.starts_with("tenant-") && namespace.len() <= 63, "{namespace}");
        let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(namespace.bytes().all(label), "{namespace}");
        assert!(seen.insert(namespace.clone()), "{user} shares {namespace}");
        let again = app.token_of(user, &[]).await.json();
        assert_eq!(again["namespace"], namespace.as_str(), "{user}");
    }
    for user in ["", "a\u{0}b", "a\nb", &"x".repeat(1025)] {
        assert_eq!(app.token_of(user, &[]).await.problem(), "invalid-fields", "{user:?}");
    }
}

#[tokio::test]
async fn ten_first_calls_at_once_all_succeed() {
    let app = TestApp::start().await;
    let calls = (0..10).map(|_| app.token_of("new", &[]));
    for reply in futures::future::join_all(calls).await {
        assert_eq!((reply.status, &reply.json()["namespace"]), (StatusCode::OK, &"tenant-new".into()));
    }
}

#[tokio::test]
async fn the_body_is_read_strictly() {
    let app = TestApp::start().await;
    let bodies = [json!({"user_id": 1}), json!({}), json!([]), json!({"user_id": "a", "admin": true})];
    for body in bodies {
        assert_eq!(app.post("", "/auth/token", body.clone()).await.problem(), "malformed-request", "{body}");
    }
    let reply = app.post("", "/auth/token", json!({"user_id": "a", "roles": ["root"]})).await;
    assert_eq!(reply.problem(), "malformed-request");
}

#[tokio::test]
async fn a_tenant_that_came_while_the_cluster_was_away_is_set_up_all_the_same() {
    let cluster = TestCluster::attach().unwrap();
    let api_server = Proxy::start(&cluster.api_server_address().unwrap()).unwrap();
    let database = Proxy::start(cluster.database_address()).unwrap();
    let app = TestApp::start_behind(&api_server, &database).await;
    api_server.cut();
    let reply = app.token_of(&format!("t-{}", uuid::Uuid::new_v4().simple()), &[]).await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let reply = reply.json();
    // It only reads, and reads never wait for the cluster.
    let me = app.get(reply["token"].as_str().unwrap(), "/v1/me").await;
    assert_eq!(me.status, StatusCode::OK, "{me:?}");
    api_server.restore();
    app.set_up(reply["namespace"].as_str().unwrap()).await;
}
