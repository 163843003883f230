//! What a tier allows and a tenant's suspension mean for quota, against a real API server.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::quota::{api, asking, cluster, is_told, ledger, one_cpu, replicas};
use common::{create, eventually, function_object, merge, reason, unique, until};
use eventflow_api::condition::{ConditionStatus, ConditionType, Reason, find};
use eventflow_api::function::{Function, Phase};
use eventflow_api::tenant::Tenant;
use eventflow_api::tier::Tier;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// A tier with room for so many milli-CPU and little else to say.
async fn tier(client: &Client, cpu: &str, replicas: u32) -> String {
    let name = unique("tier");
    let quota = json!({"cpuRequests": cpu, "memoryRequests": "100Gi", "cpuLimits": "100", "memoryLimits": "100Gi",
        "pods": 100, "persistentVolumeClaims": 1, "functions": 100});
    let spec = json!({"quota": quota, "requestsPerSecond": 100, "burst": 100, "concurrentInvocations": 100,
        "maxReplicasPerFunction": replicas, "maxTimeoutSeconds": 300});
    let object = json!({"apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Tier", "metadata": {"name": name}, "spec": spec});
    create(&Api::<Tier>::all(client.clone()), object).await;
    name
}

fn message(function: &Function) -> String {
    let conditions = function.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    find(&conditions, ConditionType::QuotaReserved).map(|c| c.message.clone()).unwrap_or_default()
}

fn admitted(function: &Function) -> bool {
    let conditions = function.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    let of_now = function.status.as_ref().map(|s| s.observed_generation) == function.metadata.generation;
    of_now && find(&conditions, ConditionType::Admitted).is_some_and(|c| c.status == ConditionStatus::True)
}

#[tokio::test]
async fn a_tier_limits_one_function_and_a_lowered_one_stops_nobody() {
    let client = cluster().await;
    let small = tier(&client, "2", 2).await;
    let (_, ns) = common::tenant(&client, json!({"tier": small})).await;
    let (functions, deployments) = (api::<Function>(&client, &ns), api::<Deployment>(&client, &ns));
    create(&functions, function_object("f", asking(3, "100m"))).await;
    let told = is_told(&functions, "f", Reason::ExceedsTierLimits).await;
    assert_eq!(told.status.as_ref().unwrap().phase, Phase::Failed);
    assert!(message(&told).contains("replicas is 3, the limit is 2"), "{}", message(&told));
    assert!(deployments.list(&ListParams::default()).await.unwrap().items.is_empty());
    let mut slow = asking(1, "100m");
    slow["timeoutSeconds"] = json!(301);
    create(&functions, function_object("slow", slow)).await;
    let told = is_told(&functions, "slow", Reason::ExceedsTierLimits).await;
    assert!(message(&told).contains("timeoutSeconds is 301, the limit is 300"), "{}", message(&told));
    merge(&functions, "f", json!({"spec": {"replicas": 2}})).await;
    is_told(&functions, "f", Reason::Starting).await;
    until(&deployments, "fn-f", "it has its pods", |d| replicas(d) == 2).await;

    merge(&Api::<Tier>::all(client.clone()), &small, json!({"spec": {"maxReplicasPerFunction": 1}})).await;
    create(&functions, function_object("g", asking(2, "100m"))).await;
    is_told(&functions, "g", Reason::ExceedsTierLimits).await;
    assert!(admitted(&functions.get("f").await.unwrap()));
    assert_eq!(replicas(&deployments.get("fn-f").await.unwrap()), 2);
    // More of it is another matter.
    merge(&functions, "f", json!({"spec": {"replicas": 4}})).await;
    is_told(&functions, "f", Reason::ExceedsTierLimits).await;
    assert_eq!(replicas(&deployments.get("fn-f").await.unwrap()), 2);
}

#[tokio::test]
async fn another_tier_is_looked_at_at_once() {
    let client = cluster().await;
    let (small, large) = (tier(&client, "500m", 10).await, tier(&client, "2", 10).await);
    let (id, ns) = common::tenant(&client, json!({"tier": small})).await;
    let functions = api::<Function>(&client, &ns);
    create(&functions, function_object("f", asking(4, "250m"))).await;
    is_told(&functions, "f", Reason::ExceedsMaxQuota).await;
    let tenants: Api<Tenant> = Api::all(client.clone());
    merge(&tenants, &id, json!({"spec": {"tier": large}})).await;
    is_told(&functions, "f", Reason::Starting).await;
    assert_eq!(ledger(&client, &ns).await.hard().cpu_requests, 2000);
    merge(&tenants, &id, json!({"spec": {"tier": small}})).await;
    eventually("the limits follow", async || (ledger(&client, &ns).await.hard().cpu_requests == 500).then_some(()))
        .await;
    until(&tenants, &id, "it is over its quota", |t| {
        let conditions = t.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        find(&conditions, ConditionType::OverQuota).is_some_and(|c| c.status == ConditionStatus::True)
    })
    .await;
    assert!(admitted(&functions.get("f").await.unwrap()), "nobody is evicted");
}

#[tokio::test]
async fn a_suspended_tenant_runs_nothing_and_a_resumed_one_what_it_ran() {
    let client = cluster().await;
    let (id, ns) = one_cpu(&client).await;
    let (functions, deployments) = (api::<Function>(&client, &ns), api::<Deployment>(&client, &ns));
    let tenants: Api<Tenant> = Api::all(client.clone());
    create(&functions, function_object("f", asking(2, "300m"))).await;
    until(&deployments, "fn-f", "it runs", |d| replicas(d) == 2).await;
    merge(&tenants, &id, json!({"spec": {"suspended": true}})).await;
    let told = is_told(&functions, "f", Reason::TenantSuspended).await;
    assert_eq!(told.status.as_ref().unwrap().phase, Phase::Suspended);
    until(&deployments, "fn-f", "it is stopped", |d| replicas(d) == 0).await;
    create(&functions, function_object("new", asking(1, "100m"))).await;
    let told = is_told(&functions, "new", Reason::TenantSuspended).await;
    assert!(!admitted(&told) && message(&told).contains("until it is resumed"), "{}", message(&told));
    assert!(deployments.get_opt("fn-new").await.unwrap().is_none());
    // What ran keeps its place, so that it can be restored whole.
    assert_eq!(ledger(&client, &ns).await.sum().cpu_requests, 600);
    merge(&tenants, &id, json!({"spec": {"suspended": false}})).await;
    until(&deployments, "fn-f", "it is restored", |d| replicas(d) == 2).await;
    is_told(&functions, "f", Reason::Starting).await;
    is_told(&functions, "new", Reason::Starting).await;
    assert_eq!(ledger(&client, &ns).await.sum().cpu_requests, 700);
}

#[tokio::test]
async fn who_is_more_urgent_goes_first() {
    let client = cluster().await;
    let (_, ns) = one_cpu(&client).await;
    let functions = api::<Function>(&client, &ns);
    create(&functions, function_object("full", asking(1, "1"))).await;
    is_told(&functions, "full", Reason::Starting).await;
    let with_priority = |name: &str, priority: &str| -> Value {
        let mut object = function_object(name, asking(1, "1"));
        object["metadata"]["annotations"] = json!({"eventflow.io/priority": priority});
        object
    };
    create(&functions, with_priority("early", "no number")).await;
    is_told(&functions, "early", Reason::WaitingForQuota).await;
    create(&functions, with_priority("urgent", "7")).await;
    is_told(&functions, "urgent", Reason::WaitingForQuota).await;
    functions.delete("full", &DeleteParams::default()).await.unwrap();
    is_told(&functions, "urgent", Reason::Starting).await;
    assert_eq!(reason(&functions.get("early").await.unwrap()), Some(Reason::WaitingForQuota));
}
