//! `/v1/tenants`, for operators.

use devcluster::{Proxy, TestCluster};
use eventflow_api::tenant::Tenant;
use http::{Method, StatusCode};
use kube::Api;
use serde_json::{Value, json};

use crate::common::{Reply, TestApp, eventually};

fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::new_v4().simple())
}

async fn audit(app: &TestApp, operator: &str, query: &str) -> Vec<Value> {
    let page = app.get(operator, &format!("/v1/audit?{query}")).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    page.json()["entries"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_tenant_is_made_for_an_owner_who_then_finds_it() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let user = unique("owner");
    let issuer = app.get(&operator, "/v1/me").await.json()["issuer"].clone();
    let id = unique("team");
    let body = json!({"id": id, "owner": {"issuer": issuer, "subject": user}, "tier": "free", "displayName": "Team",
        "quota": {"pods": 3}});
    let made = app.post(&operator, "/v1/tenants", body.clone()).await;
    assert_eq!(
        (made.status, made.header("location")),
        (StatusCode::CREATED, format!("/v1/tenants/{id}").as_str()),
        "{made:?}"
    );
    assert_eq!((&made.json()["tier"], &made.json()["quota"]["pods"]), (&json!("free"), &json!(3)));
    assert_eq!(app.post(&operator, "/v1/tenants", body).await.problem(), "already-exists");
    let theirs = json!({"id": unique("other"), "owner": {"issuer": issuer, "subject": user}});
    assert_eq!(app.post(&operator, "/v1/tenants", theirs).await.problem(), "already-exists");

    let token = app.token_of(&user, &[]).await.json()["token"].as_str().unwrap().to_owned();
    let me = app.get(&token, "/v1/me").await.json();
    assert_eq!((me["tenant"].as_str(), me["tier"].as_str()), (Some(id.as_str()), Some("free")), "{me}");
    app.set_up(&format!("tenant-{id}")).await;
    let created = app.post(&token, "/v1/functions", json!({"name": "a", "image": "a:1"})).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let entries = audit(&app, &operator, &format!("tenant={id}")).await;
    assert_eq!(entries[0]["action"], "function.create");
    let all = audit(&app, &operator, "tenant=*").await;
    assert!(all.iter().any(|e| e["action"] == "tenant.create" && e["target"] == id.as_str()), "{all:?}");
}

#[tokio::test]
async fn a_change_is_checked_written_down_and_takes_effect() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let (token, id) = app.tenant_with(json!({"pods": 7})).await;
    let path = format!("/v1/tenants/{id}");
    let patch =
        async |body: Value, headers: &[(&str, &str)]| app.call(Method::PATCH, &path, &operator, body, headers).await;
    let read = app.get(&operator, &path).await;
    let tag = read.header("etag").to_owned();
    let moved = patch(json!({"tier": "free", "quota": {"pods": null}}), &[("if-match", &tag)]).await;
    assert_eq!((moved.status, &moved.json()["tier"]), (StatusCode::OK, &json!("free")), "{moved:?}");
    assert_eq!(moved.json().get("quota"), None);
    assert_eq!(patch(json!({"tier": "pro"}), &[("if-match", &tag)]).await.problem(), "precondition-failed");
    let quota = app.get(&token, "/v1/quota").await.json();
    assert_eq!((&quota["tier"], &quota["hard"]["pods"]), (&json!("free"), &json!("10")));

    let faults =
        patch(json!({"tier": "", "quota": {"cpuLimits": "x", "gpus": 1}, "owner": null, "colour": 1}), &[]).await;
    assert_eq!(faults.problem(), "invalid-fields");
    let faults = faults.json()["violations"].as_array().unwrap().len();
    assert!(faults >= 3, "{faults}");
    let unknown = patch(json!({"tier": "none-such"}), &[]).await;
    assert_eq!(
        (unknown.problem().as_str(), &unknown.json()["violations"][0]["field"]),
        ("invalid-fields", &json!("tier"))
    );
    assert_eq!(app.get(&operator, "/v1/tenants/none-such").await.problem(), "not-found");

    let entries = audit(&app, &operator, &format!("tenant={id}")).await;
    // The controller may have been quicker once or twice, which is written down and tried again.
    let failed: Vec<_> = entries.iter().filter(|e| e["action"] == "tenant.update.failed").collect();
    let made = |e: &&Value| e["action"] == "tenant.update" && failed.iter().all(|f| f["detail"]["entry"] != e["id"]);
    let updates: Vec<_> = entries.iter().filter(made).collect();
    assert_eq!(updates.len(), 2, "refused ones leave no entry: {entries:?}");
    assert_eq!(updates[0]["detail"]["tier"], json!({"from": "pro", "to": "free"}));
    let object: Tenant = Api::<Tenant>::all(app.kube.clone()).get(&id).await.unwrap();
    let signed = object.metadata.annotations.unwrap()["eventflow.io/audit"].clone();
    assert_eq!(updates[0]["id"].to_string(), signed, "the object names its newest entry");
    let own = app.get(&token, "/v1/audit").await.json();
    assert!(
        own["entries"].as_array().unwrap().iter().any(|e| e["action"] == "tenant.update"),
        "the tenant sees it too"
    );
}

#[tokio::test]
async fn a_suspended_tenant_reads_and_deletes_only() {
    let app = TestApp::start().await;
    let (operator, token) = (app.operator().await, app.tenant().await);
    let me = app.get(&token, "/v1/me").await.json();
    let path = format!("/v1/tenants/{}", me["tenant"].as_str().unwrap());
    for name in ["kept", "gone"] {
        let made = app.post(&token, "/v1/functions", json!({"name": name, "image": "a:1"})).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
    let suspend =
        async |suspended: bool| app.call(Method::PATCH, &path, &operator, json!({"suspended": suspended}), &[]).await;
    assert_eq!(suspend(true).await.status, StatusCode::OK);
    let refused = async |method, path: &str, body| -> Reply { app.call(method, path, &token, body, &[]).await };
    for (method, path, body) in [
        (Method::POST, "/v1/functions", json!({"name": "new", "image": "a:1"})),
        (Method::POST, "/v1/functions?dry_run=true", json!({"name": "new", "image": "a:1"})),
        (Method::PUT, "/v1/functions/kept", json!({"image": "a:2"})),
        (Method::PATCH, "/v1/functions/kept", json!({"replicas": 2})),
    ] {
        let reply = refused(method, path, body).await;
        assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::FORBIDDEN, "tenant-suspended"), "{path}");
    }
    assert_eq!(app.get(&token, "/v1/functions/kept").await.status, StatusCode::OK);
    assert_eq!(app.get(&token, "/v1/quota").await.json()["suspended"], true);
    let explained = app.post(&token, "/v1/functions/kept:explain", Value::Null).await.json();
    assert!(explained["summary"].as_str().unwrap().contains("suspended"), "{explained}");
    assert_eq!(refused(Method::DELETE, "/v1/functions/gone", Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(suspend(false).await.status, StatusCode::OK);
    let made = app.post(&token, "/v1/functions", json!({"name": "new", "image": "a:1"})).await;
    assert!(made.status.is_success(), "{made:?}");
}

#[tokio::test]
async fn lists_page_and_filter() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let stem = unique("list");
    for n in 0..3 {
        let body = json!({"id": format!("{stem}-{n}"), "tier": if n == 1 { "free" } else { "enterprise" }});
        let made = app.post(&operator, "/v1/tenants", body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
    let ids = |reply: &Reply| -> Vec<String> {
        reply.json()["tenants"].as_array().unwrap().iter().map(|t| t["id"].as_str().unwrap().to_owned()).collect()
    };
    let page = app.get(&operator, &format!("/v1/tenants?limit=2&cursor={stem}")).await;
    assert_eq!(ids(&page), [format!("{stem}-0"), format!("{stem}-1")]);
    let next = page.json()["next_cursor"].as_str().unwrap().to_owned();
    let page = app.get(&operator, &format!("/v1/tenants?limit=1&cursor={next}&tier=enterprise")).await;
    assert_eq!(ids(&page), [format!("{stem}-2")]);
    assert_eq!(app.get(&operator, "/v1/tenants?colour=red").await.problem(), "malformed-request");
}

#[tokio::test]
async fn without_the_store_or_the_cluster_nothing_is_half_done() {
    let cluster = TestCluster::attach().unwrap();
    let api_server = Proxy::start(&cluster.api_server_address().unwrap()).unwrap();
    let database = Proxy::start(cluster.database_address()).unwrap();
    let app = TestApp::start_behind(&api_server, &database).await;
    let (operator, id) = (app.operator().await, unique("half"));
    let body = json!({"id": id, "tier": "free"});
    let tenants = Api::<Tenant>::all(app.kube.clone());
    eventually("the tiers are seen", async || app.get(&operator, "/v1/tiers/free").await.status == StatusCode::OK)
        .await;

    database.cut();
    let reply = app.post(&operator, "/v1/tenants", body.clone()).await;
    assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable"));
    assert!(tenants.get_opt(&id).await.unwrap().is_none(), "what cannot be written down is not done");
    database.restore();

    api_server.cut();
    let reply = app.post(&operator, "/v1/tenants", body.clone()).await;
    assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "cluster-unavailable"));
    api_server.restore();
    let entries = audit(&app, &operator, "tenant=*").await;
    let about: Vec<_> = entries.iter().filter(|e| e["target"] == id.as_str()).collect();
    assert_eq!(about[0]["action"], "tenant.create.failed", "{entries:?}");
    assert_eq!(about[0]["detail"]["entry"], about[1]["id"]);
    eventually("the same call succeeds once both are back", async || {
        app.post(&operator, "/v1/tenants", body.clone()).await.status == StatusCode::CREATED
    })
    .await;
    assert_eq!(tenants.get(&id).await.unwrap().spec.tier, "free");

    // Left by a gateway that died between object and row: the same call completes it.
    let left = unique("left");
    let spec = json!({"apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Tenant", "metadata": {"name": left},
        "spec": {"tier": "free"}});
    tenants.create(&Default::default(), &serde_json::from_value(spec).unwrap()).await.unwrap();
    let reply = app.post(&operator, "/v1/tenants", json!({"id": left, "tier": "free"})).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{reply:?}");
    let reply = app.post(&operator, "/v1/tenants", json!({"id": left, "tier": "free"})).await;
    assert_eq!(reply.problem(), "already-exists");
}
