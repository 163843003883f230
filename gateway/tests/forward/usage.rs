use devcluster::{Proxy, TestCluster};
use gateway::store::CallSum;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bed::{Bed, Pod};
use crate::common::{TestApp, eventually, limits};

async fn calls(app: &TestApp, token: &str) -> i64 {
    let report = app.get(token, "/v1/usage").await;
    assert_eq!(report.status, StatusCode::OK, "{report:?}");
    report.json()["steps"].as_array().unwrap().iter().map(|step| step["calls"].as_i64().unwrap()).sum()
}

#[tokio::test]
async fn calls_of_two_replicas_are_told_together_and_to_their_tenant_alone() {
    let (bed, pod) = (Bed::start().await, Pod::echo().await);
    bed.function("hello", json!({}), &[&pod]).await;
    bed.function("idle", json!({"replicas": 0}), &[]).await;
    let other = bed.app.another().await;
    // Each development issuer has a key of its own.
    let their_token = other.token_of(&bed.tenant, &[]).await.json()["token"].as_str().unwrap().to_owned();
    let (tenant, function) = (bed.tenant.parse().unwrap(), "hello".parse().unwrap());
    eventually("the other replica knows the pod", async || {
        other.app.cluster.function(&tenant, &function).is_some()
            && other.get(&their_token, &bed.path("hello", "/")).await.status == StatusCode::OK
    })
    .await;
    let before = calls(&bed.app, &bed.token).await;
    eventually("what went before is written", async || calls(&bed.app, &bed.token).await > before.max(0)).await;
    let so_far = async || {
        let report = bed.app.get(&bed.token, "/v1/usage?by=function").await.json();
        let steps = report["steps"].as_array().unwrap().clone();
        let of = |name: &str, outcome: &str| -> i64 {
            let steps = steps.iter().filter(|step| step["function"] == name);
            steps.filter_map(|step| step["outcomes"][outcome].as_i64()).sum()
        };
        (of("hello", "answered"), of("idle", "not_ready"))
    };
    let (answered, not_ready) = so_far().await;
    for (app, token) in [(&bed.app, &bed.token), (&other, &their_token)] {
        for _ in 0..5 {
            let reply = app.get(token, &bed.path("hello", "/")).await;
            assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        }
    }
    assert_eq!(bed.app.get(&bed.token, &bed.path("idle", "/")).await.problem(), "function-not-ready");
    eventually("all of it is told", async || so_far().await == (answered + 10, not_ready + 1)).await;
    let report = other.get(&their_token, "/v1/usage?from=2h&step=3h").await.json();
    assert!(report["steps"][0]["bytesOut"].as_i64().unwrap() > 0, "{report}");
    assert!(report["steps"][0]["runSeconds"].as_f64().unwrap() > 0.0, "{report}");

    let csv = [("accept", "text/csv")];
    let reply = bed.app.call(Method::GET, "/v1/usage?by=function", &bed.token, Value::Null, &csv).await;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    assert!(reply.header("content-type").starts_with("text/csv") && text.contains(",hello,"), "{text}");
    let foreigner = bed.app.tenant().await;
    assert_eq!(calls(&bed.app, &foreigner).await, 0);
    for bad in ["step=1m", "from=1d&to=2d", "by=tenant", "from=2000d"] {
        assert_eq!(bed.app.get(&bed.token, &format!("/v1/usage?{bad}")).await.problem(), "malformed-request", "{bad}");
    }
}

#[tokio::test]
async fn a_batch_that_is_sent_again_counts_once() {
    let app = TestApp::start().await;
    let token = app.tenant().await;
    let tenant = app.get(&token, "/v1/me").await.json()["tenant"].as_str().unwrap().to_owned();
    let hour = jiff::Timestamp::now().as_second() / 3_600 * 3_600;
    let sum = CallSum { tenant, function: "f".into(), hour, outcome: "answered", calls: 3, run_us: 7, bytes_out: 9 };
    let (one, two) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    for (writer, number) in [(one, 1), (one, 1), (two, 1), (one, 2), (one, 2), (one, 1)] {
        app.app.store.usage_add(writer, number, std::slice::from_ref(&sum)).await.unwrap();
    }
    assert_eq!(calls(&app, &token).await, 9);
}

#[tokio::test]
async fn counting_catches_up_after_the_database_was_away() {
    let cluster = TestCluster::attach().unwrap();
    let database = Proxy::start(cluster.database_address()).unwrap();
    let at = database.address().to_string();
    let app = TestApp::start_through(limits(), Some(&at), None).await;
    let (bed, pod) = (Bed::of(app).await, Pod::echo().await);
    bed.function("hello", json!({}), &[&pod]).await;
    for _ in 0..5 {
        assert_eq!(bed.app.get(&bed.token, &bed.path("hello", "/")).await.status, StatusCode::OK);
    }
    database.cut();
    eventually("the database is away", async || bed.app.get(&bed.token, "/v1/audit").await.status.as_u16() == 503)
        .await;
    for _ in 0..20 {
        let reply = bed.app.get(&bed.token, &bed.path("hello", "/")).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    }
    database.restore();
    eventually("the database is back", async || bed.app.get(&bed.token, "/v1/audit").await.status == StatusCode::OK)
        .await;
    eventually("nothing is missing", async || calls(&bed.app, &bed.token).await >= 25).await;
    assert_eq!(calls(&bed.app, &bed.token).await, 25, "and nothing was counted twice");
}
