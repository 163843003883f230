//! Policies for whoever goes past the API, against the real API server. A program of its own: the webhooks are the
//! cluster's, so no other test may run beside it.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should fail")]

#[path = "policies/bed.rs"]
mod bed;
mod common;

use std::process::{Command, Stdio};
use std::sync::Arc;

use bed::Operator;
use common::{TestApp, eventually};
use devcluster::TestCluster;
use eventflow_api::function::Function;
use gateway::webhook::{self, FailurePolicy, WebhookConfig};
use http::StatusCode;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::DeleteParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use std::io::Write;
use tokio::net::TcpListener;

const NAME: &str = "eventflow-policies";

/// What kubectl says about this object: whether it succeeded, and its words.
fn kubectl(args: &[&str], object: &Value) -> (bool, String) {
    let cluster = TestCluster::attach().unwrap();
    let mut child = Command::new("kubectl")
        .args(["--kubeconfig", cluster.kubeconfig_path().to_str().unwrap()])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

async fn unregister(client: &Client) {
    let params = DeleteParams::default();
    let _ = Api::<MutatingWebhookConfiguration>::all(client.clone()).delete(NAME, &params).await;
    let _ = Api::<ValidatingWebhookConfiguration>::all(client.clone()).delete(NAME, &params).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_meets_the_same_policies() {
    let app = TestApp::start().await;
    let operator = Operator::of(&app).await;
    let tenant = app.tenant().await;
    let namespace = app.get(&tenant, "/v1/me").await.json()["namespace"].as_str().unwrap().to_owned();
    operator.enforce("replica-limit", json!({"max": 3})).await;
    operator.enforce("resource-bounds", json!({"everyone": {"defaults": {"cpuRequest": "50m"}}})).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap();
    let config = WebhookConfig { listen, target: listen.into(), failure_policy: FailurePolicy::Fail };
    let served = tokio::spawn(webhook::run(Arc::clone(&app.app), app.kube.clone(), listener, config));
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(app.kube.clone());
    eventually("the webhooks are registered", async || configurations.get_opt(NAME).await.unwrap().is_some()).await;

    let object = |name: &str, replicas: i32| {
        json!({"apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Function",
            "metadata": {"name": name, "namespace": namespace}, "spec": {"image": "i:1", "replicas": replicas}})
    };
    let outcome = checks(&app, &tenant, &namespace, object).await;
    unregister(&app.kube).await;
    served.abort();
    outcome.unwrap();
}

/// All of it, as one outcome, so that the cluster is left without webhooks whatever happens.
async fn checks(
    app: &TestApp,
    tenant: &str,
    namespace: &str,
    object: impl Fn(&str, i32) -> Value,
) -> Result<(), String> {
    let so = |ok: bool, what: &str| if ok { Ok(()) } else { Err(what.to_owned()) };
    // The API server takes a moment to act on what it was told.
    let mut refused = (true, String::new());
    for _ in 0..100 {
        refused = kubectl(&["apply", "-f", "-", "--dry-run=server"], &object("greedy", 4));
        if !refused.0 && refused.1.contains("policies.eventflow.io") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    so(!refused.0 && refused.1.contains("The policy replica-limit refuses this"), &refused.1)?;
    let refused = kubectl(&["apply", "-f", "-"], &object("greedy", 4));
    so(!refused.0 && refused.1.contains("The policy replica-limit refuses this"), &refused.1)?;

    let made = kubectl(&["apply", "-f", "-"], &object("modest", 2));
    so(made.0, &made.1)?;
    let api: Api<Function> = Api::namespaced(app.kube.clone(), namespace);
    let stored = api.get("modest").await.map_err(|error| error.to_string())?;
    so(stored.spec.resources.cpu_request.as_deref() == Some("50m"), &format!("not changed: {:?}", stored.spec))?;
    let grown = kubectl(&["apply", "-f", "-"], &object("modest", 9));
    so(!grown.0, &grown.1)?;

    // What comes by the API was judged there, and the gateway's own write of it is not judged again.
    let reply = app.post(tenant, "/v1/functions", json!({"name": "ours", "image": "i:1", "replicas": 3})).await;
    so(reply.status == StatusCode::CREATED, &format!("{reply:?}"))?;
    let log = app.app.store.policy_decisions("replica-limit", None, None).await.map_err(|error| error.to_string())?;
    so(log.items.iter().all(|decision| decision.function.as_deref() != Some("ours")), &format!("{log:?}"))?;

    let gone = kubectl(&["delete", "-f", "-"], &object("modest", 2));
    so(gone.0, &gone.1)
}
