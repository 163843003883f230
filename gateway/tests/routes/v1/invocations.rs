//! Runs: how they stand, how they ended, and their end by hand. The test plays the kubelet.

use eventflow_api::names::TenantId;
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::common::{TestApp, eventually};

struct Bed {
    app: TestApp,
    token: String,
    pods: Api<Pod>,
}

impl Bed {
    async fn start() -> Self {
        let app = TestApp::start().await;
        let token = app.tenant().await;
        let function = json!({"name": "f", "image": "a:1", "replicas": 0});
        assert_eq!(app.post(&token, "/v1/functions", function).await.status, StatusCode::CREATED);
        let me = app.get(&token, "/v1/me").await.json();
        let tenant: TenantId = me["tenant"].as_str().unwrap().parse().unwrap();
        let pods = Api::namespaced(app.kube.clone(), &tenant.namespace());
        Self { app, token, pods }
    }

    async fn invoke(&self, body: Value) -> String {
        let reply = self.app.post(&self.token, "/v1/functions/f:invoke", body).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        reply.json()["invocation_id"].as_str().unwrap().to_owned()
    }

    async fn read(&self, id: &str) -> Value {
        self.app.get(&self.token, &format!("/v1/invocations/{id}")).await.json()
    }

    async fn is(&self, id: &str, phase: &str) -> Value {
        eventually(&format!("the run is {phase}"), async || self.read(id).await["phase"] == phase).await;
        self.read(id).await
    }

    /// Plays the kubelet: the run's program ends so.
    async fn end(&self, id: &str, code: i32, message: &str) {
        let of = ListParams::default().labels(&format!("eventflow.io/invocation={id}"));
        eventually("the run has a pod", async || !self.pods.list(&of).await.unwrap().items.is_empty()).await;
        let pod = self.pods.list(&of).await.unwrap().items.pop().unwrap();
        let state = json!({"terminated": {"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
            "message": message, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:05Z"}});
        let container = json!([{"name": "function", "image": "a:1", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let patch = Patch::Merge(json!({"status": {"phase": phase, "containerStatuses": container}}));
        self.pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await.unwrap();
    }

    /// Whether the cluster still has anything of the run.
    async fn is_there(&self, id: &str) -> bool {
        let of = ListParams::default().labels(&format!("eventflow.io/invocation={id}"));
        !self.pods.list(&of).await.unwrap().items.is_empty()
    }
}

#[tokio::test]
async fn a_run_is_told_until_it_is_over_and_then_stays_as_it_was() {
    let bed = Bed::start().await;
    let id = bed.invoke(json!({"input": "x", "timeout_seconds": 9})).await;
    let run = bed.is(&id, "Starting").await;
    assert_eq!(
        (&run["function"], &run["timeoutSeconds"], &run["attempts"]),
        (&json!("f"), &json!(9), &run["attempts"])
    );
    bed.end(&id, 0, "{\"done\":true}").await;
    let run = bed.is(&id, "Succeeded").await;
    assert_eq!((&run["reason"], &run["exitCode"], &run["attempts"]), (&json!("Completed"), &json!(0), &json!(1)));
    assert_eq!((&run["result"], &run["finishedAt"]), (&json!({"done": true}), &json!("2026-01-01T00:00:05Z")));
    assert!(run["timing"]["queuedSeconds"].is_i64() && run["admittedAt"].is_string(), "{run}");
    eventually("nothing of it is left in the cluster", async || !bed.is_there(&id).await).await;
    assert_eq!(bed.read(&id).await, run);
    let logs = bed.app.get(&bed.token, &format!("/v1/invocations/{id}/logs")).await;
    assert_eq!((logs.status, logs.header("content-type")), (StatusCode::OK, "text/plain; charset=utf-8"));
    let cancel = bed.app.post(&bed.token, &format!("/v1/invocations/{id}:cancel"), Value::Null).await;
    assert_eq!((cancel.status, cancel.problem().as_str()), (StatusCode::CONFLICT, "invocation-finished"));
    let metrics = String::from_utf8(bed.app.admin("/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains("eventflow_runs_total{reason=\"Completed\"} 1"), "{metrics}");
}

#[tokio::test]
async fn waiting_gives_the_result_or_the_id() {
    let bed = Bed::start().await;
    let short = bed.app.post(&bed.token, "/v1/functions/f:invoke?wait=1s", Value::Null).await;
    assert_eq!(short.status, StatusCode::OK, "{short:?}");
    let (body, id) = (short.json(), short.json()["invocation_id"].as_str().unwrap().to_owned());
    assert_eq!((&body["invocation"]["id"], &body["invocation"]["result"]), (&json!(id), &Value::Null));

    let waiting = bed.app.post(&bed.token, "/v1/functions/f:invoke?wait=60s", Value::Null);
    let play = async {
        eventually("the second run is there", async || {
            let listed = bed.app.get(&bed.token, "/v1/functions/f/invocations").await.json();
            listed["invocations"].as_array().unwrap().len() == 2
        })
        .await;
        let listed = bed.app.get(&bed.token, "/v1/functions/f/invocations").await.json();
        let id = listed["invocations"][0]["id"].as_str().unwrap().to_owned();
        bed.end(&id, 3, "{\"why\":\"no\"}").await;
    };
    let (reply, ()) = tokio::join!(waiting, play);
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let run = &reply.json()["invocation"];
    assert_eq!((&run["phase"], &run["reason"], &run["exitCode"]), (&json!("Failed"), &json!("ExitCode"), &json!(3)));
    assert_eq!(run["result"], json!({"why": "no"}), "what a program says on failure is told too");
}

#[tokio::test]
async fn cancelled_runs_end_and_may_be_tried_again() {
    let bed = Bed::start().await;
    let id = bed.invoke(json!({"input": "again", "args": ["x"]})).await;
    let retry = async || bed.app.post(&bed.token, &format!("/v1/invocations/{id}:retry"), Value::Null).await;
    let early = retry().await;
    assert_eq!((early.status, early.problem().as_str()), (StatusCode::CONFLICT, "invocation-unfinished"));
    let cancel = bed.app.post(&bed.token, &format!("/v1/invocations/{id}:cancel"), Value::Null).await;
    assert_eq!((cancel.status, &cancel.json()["cancelRequested"]), (StatusCode::ACCEPTED, &json!(true)), "{cancel:?}");
    let run = bed.is(&id, "Cancelled").await;
    assert_eq!((&run["reason"], &run["cancelRequested"]), (&json!("Cancelled"), &json!(true)));
    let again = retry().await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
    let second = again.json()["invocation"].clone();
    assert_eq!(second["retryOf"], json!(id));
    assert_ne!(second["id"], json!(id));
    bed.end(second["id"].as_str().unwrap(), 0, "").await;
    bed.is(second["id"].as_str().unwrap(), "Succeeded").await;
    for strange in ["x", "00000000-0000-0000-0000-000000000000", &id.to_uppercase()] {
        for path in [strange.to_owned(), format!("{strange}/logs")] {
            assert_eq!(bed.app.get(&bed.token, &format!("/v1/invocations/{path}")).await.problem(), "not-found");
        }
    }
}
