//! What tests against the real API server share: installing the custom resources, making objects, waiting.
#![allow(dead_code, reason = "each test binary uses a part")]

/// Quota.
pub mod quota;

use std::fmt::Debug;
use std::time::Duration;

use clap::Parser;
use controller::config::Config;
use controller::crds;
use devcluster::TestCluster;
use eventflow_api::condition::{Condition, ConditionStatus, ConditionType, Reason, find};
use eventflow_api::function::Function;
use eventflow_api::tenant::Tenant;
use eventflow_api::tier::Tier;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the cluster this test runs in.
pub async fn client() -> Client {
    let cluster = TestCluster::attach().expect("run under devcluster");
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_path()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// The same, as another user.
pub async fn client_as(user: &str) -> Client {
    let cluster = TestCluster::attach().expect("run under devcluster");
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig_path()).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some(user.to_owned());
    Client::try_from(config).unwrap()
}

/// Puts the custom resources and the shipped tiers in place.
pub async fn install(client: &Client) {
    let params = PatchParams::apply("test").force();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (_, crd) in crds::definitions() {
        api.patch(&crd.name_any(), &params, &Patch::Apply(&crd)).await.unwrap();
    }
    let tiers: Api<Tier> = Api::all(client.clone());
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/tiers.yaml")).unwrap();
    for document in text.split("\n---\n") {
        let tier: Tier = serde_saphyr::from_str(document).unwrap();
        eventually("the tier is accepted", async || {
            tiers.patch(&tier.name_any(), &params, &Patch::Apply(&tier)).await.ok()
        })
        .await;
    }
}

/// A controller's flags for a test: any free port, a lease of that name.
pub fn config(lease: &str, more: &[&str]) -> Config {
    let base = ["controller", "--admin-listen", "127.0.0.1:0", "--lease-name", lease, "--gateway-cidr", "10.88.0.1"];
    Config::try_parse_from(base.iter().chain(more)).unwrap()
}

/// Waits until `probe` gives something.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = tokio::time::Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Waits until the object of that name satisfies a condition.
pub async fn until<K>(api: &Api<K>, name: &str, what: &str, condition: impl Fn(&K) -> bool) -> K
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    eventually(what, async || api.get_opt(name).await.unwrap().filter(&condition)).await
}

/// A name nobody else has.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:08x}", rand::random::<u32>())
}

/// Makes an object from JSON.
pub async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

/// Merges JSON into an object.
pub async fn merge<K>(api: &Api<K>, name: &str, patch: Value) -> K
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
}

/// A tenant that is set up, and its namespace.
pub async fn tenant(client: &Client, spec: Value) -> (String, String) {
    let id = unique("t");
    let tenants: Api<Tenant> = Api::all(client.clone());
    create(&tenants, tenant_object(&id, spec)).await;
    until(&tenants, &id, "the tenant is set up", |t| tenant_reason(t) == Some(Reason::Provisioned)).await;
    let namespace = format!("tenant-{id}");
    (id, namespace)
}

pub fn tenant_object(id: &str, spec: Value) -> Value {
    json!({"apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Tenant", "metadata": {"name": id}, "spec": spec})
}

pub fn function_object(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Function", "metadata": {"name": name}, "spec": spec})
}

pub fn namespace_object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

pub fn namespaces(client: &Client) -> Api<Namespace> {
    Api::all(client.clone())
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    find(conditions, ConditionType::Ready)
}

pub fn tenant_reason(tenant: &Tenant) -> Option<Reason> {
    let current = tenant.status.as_ref().filter(|s| Some(s.observed_generation) == tenant.metadata.generation)?;
    ready(&current.conditions).map(|c| c.reason)
}

pub fn reason(function: &Function) -> Option<Reason> {
    let current = function.status.as_ref().filter(|s| Some(s.observed_generation) == function.metadata.generation)?;
    ready(&current.conditions).map(|c| c.reason)
}

pub fn is_ready(function: &Function) -> bool {
    function.status.as_ref().and_then(|s| ready(&s.conditions)).is_some_and(|c| c.status == ConditionStatus::True)
}

/// Plays the kubelet: gives every pod of a function this status.
pub async fn report_pods(client: &Client, namespace: &str, function: &str, count: usize, status: Value) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of = ListParams::default().labels(&format!("function={function}"));
    let list = eventually("the pods exist", async || {
        let list = pods.list(&of).await.unwrap().items;
        let live: Vec<_> = list.into_iter().filter(|p| p.metadata.deletion_timestamp.is_none()).collect();
        (live.len() >= count).then_some(live)
    })
    .await;
    for pod in list {
        let patch = Patch::Merge(json!({"status": status}));
        match pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
            // A roll-out may have ended it meanwhile.
            Err(kube::Error::Api(status)) if status.is_not_found() => (),
            patched => drop(patched.unwrap()),
        }
    }
}

/// The status of a pod that serves.
pub fn serving() -> Value {
    let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
        "containerStatuses": [{"name": "function", "image": "a:1", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": now}}}]})
}
