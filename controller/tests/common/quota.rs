//! What tests of quota share: a controller at work, tenants with little room, what the ledger says.

use std::sync::OnceLock;

use eventflow_api::condition::Reason;
use eventflow_api::function::Function;
use eventflow_api::ledger::QuotaLedger;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client};
use quota::ledger::Ledger;
use quota::packed;
use serde_json::{Value, json};

use super::{client, install, reason, tenant, until};

/// A connection to a cluster in which a controller works.
pub async fn cluster() -> Client {
    static CONTROLLER: OnceLock<()> = OnceLock::new();
    CONTROLLER.get_or_init(|| {
        let (started, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let client = client().await;
                install(&client).await;
                started.send(()).unwrap();
                // Of a later epoch than any controller before it.
                let config = super::config(
                    "quota-tests",
                    &["--lease-duration", "4s", "--lease-renew-deadline", "3s", "--lease-retry-period", "500ms"],
                );
                controller::run::run(config, client, std::future::pending()).await.unwrap();
            });
        });
        wait.recv().unwrap();
    });
    client().await
}

pub fn api<K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(
    client: &Client,
    namespace: &str,
) -> Api<K> {
    Api::namespaced(client.clone(), namespace)
}

/// A tenant with room for 1 CPU, and ten times what is needed of everything else.
pub async fn one_cpu(client: &Client) -> (String, String) {
    let quota = json!({"cpuRequests": "1", "memoryRequests": "100Gi", "cpuLimits": "100", "memoryLimits": "100Gi"});
    tenant(client, json!({"quota": quota})).await
}

pub fn asking(replicas: u32, cpu: &str) -> Value {
    json!({"image": "a:1", "replicas": replicas, "resources": {"cpuRequest": cpu}})
}

pub async fn ledger(client: &Client, namespace: &str) -> Ledger {
    let ledgers = api::<QuotaLedger>(client, namespace);
    let found = until(&ledgers, "ledger", "there is a ledger", |_| true).await;
    packed::decode(&found.spec.packed).unwrap()
}

pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().unwrap().replicas.unwrap()
}

pub async fn is_told(functions: &Api<Function>, name: &str, expected: Reason) -> Function {
    until(functions, name, &format!("{expected} is told of {name}"), |f| reason(f) == Some(expected)).await
}
