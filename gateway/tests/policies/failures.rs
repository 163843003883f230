use http::StatusCode;
use serde_json::json;
use tokio_postgres::NoTls;

use crate::bed::{Operator, component};
use crate::common::{TestApp, eventually};
use secrecy::ExposeSecret;

#[tokio::test]
async fn a_failing_policy_costs_its_own_scope_and_is_rolled_back() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    let id = app.get(&tenant, "/v1/me").await.json()["tenant"].as_str().unwrap().to_owned();
    assert!(operator.upload(component("misbehave")).await.status.is_success());
    let scope = json!({"scope": {"kind": "tenant", "name": id}, "settings": {"how": "behave"}});
    assert_eq!(operator.put("/v1/policies/misbehave/bindings/trap", scope).await.status, StatusCode::OK);
    operator.verb("misbehave", "activate", json!({})).await;
    // No request was judged yet, so nothing shows that these settings are bad.
    operator.verb("misbehave", "activate", json!({"settings": {"how": "panic"}})).await;
    operator.settled().await;

    let failed = app.get(&tenant, "/v1/me").await;
    assert_eq!((failed.status, failed.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "policy-failed"));
    let problem = failed.json();
    assert_eq!(problem["policy"], "trap");
    assert!(!problem.to_string().contains("as asked"), "the guest's words are not ours: {problem}");
    assert_eq!(app.get(&other, "/v1/me").await.status, StatusCode::OK);
    // Operators are never locked out.
    assert_eq!(operator.get("/v1/policies").await.status, StatusCode::OK);

    eventually("it is rolled back by itself", async || app.get(&tenant, "/v1/me").await.status == StatusCode::OK).await;
    let policy = operator.get("/v1/policies/misbehave").await.json();
    assert_eq!(policy["bindings"][0]["settings"], json!({"how": "behave"}), "{policy}");
    assert_eq!(policy["revisions"][0]["status"], "rolled-back", "{policy}");
    let history = operator.get("/v1/policies/misbehave/history").await.json();
    assert_eq!(history["entries"][0]["action"], "policy.auto-rollback", "{history}");
    let metrics = String::from_utf8(app.admin("/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains("eventflow_policy_rollbacks_total 1"), "{metrics}");
}

#[tokio::test]
async fn a_revision_that_fails_on_the_last_requests_is_refused() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    let tenant = app.tenant().await;
    operator.enforce("misbehave", json!({"how": "behave"})).await;
    for _ in 0..20 {
        assert_eq!(app.get(&tenant, "/v1/me").await.status, StatusCode::OK);
    }
    for how in ["panic", "loop", "memory", "output"] {
        let reply =
            operator.post("/v1/policies/misbehave:canary", json!({"percent": 1, "settings": {"how": how}})).await;
        assert_eq!(reply.problem(), "policy-refused", "{how}: {reply:?}");
        assert!(reply.json()["violations"][0]["message"].as_str().unwrap().contains("last"), "{reply:?}");
    }
    assert_eq!(app.get(&tenant, "/v1/me").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_policy_that_cannot_be_loaded_holds_up_nothing_else() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    let id = app.get(&tenant, "/v1/me").await.json()["tenant"].as_str().unwrap().to_owned();
    operator.enforce("tier-limits", json!({})).await;
    let (sql, connection) = tokio_postgres::connect(app.database.expose_secret(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let broken = format!(
        "SET row_security = off; INSERT INTO policies (name) VALUES ('broken');
         INSERT INTO policy_revisions (policy, number, digest, module, manifest, findings, source, uploaded_by)
         SELECT 'broken', 1, encode(sha256('x'), 'hex'), 'x', '{{\"worlds\": [\"request\"], \"capabilities\": [],
             \"failure_mode\": \"closed\"}}', '{{\"cases\": 0, \"p50_us\": 0, \"p99_us\": 0, \"memory_bytes\": 0}}', 'upload', 'x';
         INSERT INTO policy_bindings (name, policy, world, scope, scope_name, ord, failure_mode, settings)
         VALUES ('broken', 'broken', 'request', 'tenant', '{id}', 1, 'closed', '{{}}');
         INSERT INTO policy_history (binding, policy, revision, settings) VALUES ('broken', 'broken', 1, '{{}}');
         UPDATE policy_bindings SET active = 1, state_id = (SELECT max(id) FROM policy_history) WHERE name = 'broken';
         UPDATE policy_set SET revision = revision + 1"
    );
    sql.batch_execute(&broken).await.unwrap();
    operator.settled().await;
    let second = app.another().await;
    for replica in [&app, &second] {
        let reply = app.get(&tenant, "/v1/me").await;
        assert_eq!((reply.problem().as_str(), &reply.json()["policy"]), ("policy-failed", &json!("broken")));
        assert_eq!(app.get(&other, "/v1/me").await.status, StatusCode::OK);
        let ready = replica.get("", "/readyz").await;
        assert_eq!(ready.status, StatusCode::OK, "{ready:?}");
        assert_eq!(ready.json()["policies"][0]["binding"], "broken", "readiness names it: {ready:?}");
    }
    let list = operator.get("/v1/policies").await.json();
    let problems: Vec<_> = list["replicas"].as_array().unwrap().iter().map(|r| &r["problems"][0]["policy"]).collect();
    assert_eq!(problems, ["broken", "broken"], "{list}");
}
