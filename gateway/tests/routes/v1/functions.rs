//! `POST /v1/functions`.

use devcluster::{Proxy, TestCluster};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{TestApp, eventually};

#[tokio::test]
async fn a_function_is_created_and_read() {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    let body = json!({"name": "hello", "image": "registry.example/hello:1", "command": ["/hello"], "args": ["-v"],
        "env": {"GREETING": "hi"}, "replicas": 2, "port": 8080, "resources": {"cpuRequest": "50m"}, "timeoutSeconds": 5,
        "suspend": false});
    let created = app.post(&token, "/v1/functions", body.clone()).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    assert_eq!(created.header("location"), "/v1/functions/hello");
    let read = app.get(&token, "/v1/functions/hello").await;
    assert_eq!(read.status, StatusCode::OK);
    assert_eq!(created.json()["admission"]["verdict"], "admitted", "{created:?}");
    let document = read.json();
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(document[field], *value, "{field}");
    }
    assert_eq!((&document["generation"], &document["sync"]), (&json!(1), &json!("applied")));
    assert_eq!(document["status"]["phase"], "Pending");
}

#[tokio::test]
async fn without_the_cluster_it_is_kept_and_pending() {
    let cluster = TestCluster::attach().unwrap();
    let api_server = Proxy::start(&cluster.api_server_address().unwrap()).unwrap();
    let database = Proxy::start(cluster.database_address()).unwrap();
    let app = TestApp::start_behind(&api_server, &database).await;
    let token = app.tenant().await;
    api_server.cut();
    let created = app.post(&token, "/v1/functions", json!({"name": "a", "image": "a:1"})).await;
    assert_eq!((created.status, &created.json()["sync"]), (StatusCode::ACCEPTED, &json!("pending")), "{created:?}");
    assert_eq!(created.json()["admission"]["verdict"], "undecided");
    let explained = app.post(&token, "/v1/functions/a:explain", Value::Null).await.json();
    assert!(explained["summary"].as_str().unwrap().starts_with("stored, and not applied"), "{explained}");
    assert!(explained["eventsMissing"].is_string(), "{explained}");
    api_server.restore();
    eventually("it is applied once the cluster is back", async || {
        app.get(&token, "/v1/functions/a").await.json()["sync"] == "applied"
    })
    .await;
}

#[tokio::test]
async fn every_fault_is_listed_at_once() {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    let body = json!({"name": "A_B", "image": "Not An Image", "replicas": 101, "port": 0, "env": {"1X": "y", "OK": 1},
        "colour": "red", "resources": {"cpuRequest": "lots"}});
    let reply = app.post(&token, "/v1/functions", body).await;
    assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid-fields"));
    let reply = reply.json();
    let mut fields: Vec<&str> =
        reply["violations"].as_array().unwrap().iter().map(|v| v["field"].as_str().unwrap()).collect();
    fields.sort_unstable();
    let all = ["colour", "env.1X", "env.OK", "image", "name", "port", "replicas", "resources.cpuRequest"];
    assert_eq!(fields, all);
}

#[tokio::test]
async fn a_taken_name_is_a_conflict_and_another_tenants_is_not() {
    let app = TestApp::start().await;
    let (token, other) = (app.tenant().await, app.tenant().await);
    let body = json!({"name": "a", "image": "a:1"});
    assert_eq!(app.post(&token, "/v1/functions", body.clone()).await.status, StatusCode::CREATED);
    assert_eq!(app.post(&token, "/v1/functions", body.clone()).await.problem(), "already-exists");
    assert_eq!(app.post(&other, "/v1/functions", body).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_repeated_key_repeats_the_answer() {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    let key = [("idempotency-key", "k-1")];
    let create = async |body| app.call(Method::POST, "/v1/functions", &token, body, &key).await;
    let body = json!({"name": "a", "image": "a:1"});
    let first = create(body.clone()).await;
    let second = create(body).await;
    assert_eq!(first.status, StatusCode::CREATED);
    assert_eq!((second.status, &second.body), (first.status, &first.body));
    assert_eq!(second.header("etag"), first.header("etag"));
    assert_eq!(second.header("location"), first.header("location"));
    assert_eq!((first.header("idempotency-replayed"), second.header("idempotency-replayed")), ("", "true"));
    assert_eq!(create(json!({"name": "b", "image": "a:1"})).await.problem(), "idempotency-mismatch");
    let other = app.tenant().await;
    let theirs = app.call(Method::POST, "/v1/functions", &other, json!({"name": "b", "image": "a:1"}), &key).await;
    assert_eq!(theirs.status, StatusCode::CREATED, "keys of tenants are apart");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    let body = json!({"name": "a", "image": "a:1"});
    let reply = app.post(&token, "/v1/functions?dry_run=true", body.clone()).await;
    assert_eq!((reply.status, &reply.json()["name"]), (StatusCode::OK, &json!("a")), "{reply:?}");
    assert_eq!(app.get(&token, "/v1/functions/a").await.problem(), "not-found");
    let reply = app.post(&token, "/v1/functions?dry_run=true", json!({"name": "a"})).await;
    assert_eq!(reply.problem(), "invalid-fields");
    app.post(&token, "/v1/functions", body.clone()).await;
    assert_eq!(app.post(&token, "/v1/functions?dry_run=true", body.clone()).await.problem(), "already-exists");
    assert_eq!(app.post(&token, "/v1/functions?dry_run=yes", body.clone()).await.problem(), "malformed-request");
    assert_eq!(app.post(&token, "/v1/functions?dryrun=true", body).await.problem(), "malformed-request");
}

#[tokio::test]
async fn the_body_is_strict_json() {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    let send = async |body: &'static [u8], content_type: &str| {
        let request = http::Request::post(format!("http://{}/v1/functions", app.address))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", content_type)
            .body(http_body_util::Full::new(bytes::Bytes::from_static(body)))
            .unwrap();
        app.send(request).await.problem()
    };
    assert_eq!(send(b"", "application/json").await, "malformed-request");
    assert_eq!(send(b"{", "application/json").await, "malformed-request");
    assert_eq!(send(b"\xff", "application/json").await, "malformed-request");
    assert_eq!(send(br#"{"name":"a","name":"b","image":"a"}"#, "application/json").await, "malformed-request");
    assert_eq!(send(b"[]", "application/json").await, "invalid-fields");
    assert_eq!(send(b"{}", "text/plain").await, "unsupported-media-type");
    static LARGE: [u8; (1 << 20) + 1] = [b' '; (1 << 20) + 1];
    assert_eq!(send(&LARGE, "application/json").await, "body-too-large");
}
