//! The controller against a real API server, without nodes: what a kubelet would say of pods is written by hand.
//! One controller for all tests, a tenant of its own for each.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::OnceLock;

use common::{
    client, create, eventually, function_object, install, is_ready, merge, namespace_object, namespaces, reason,
    report_pods, serving, tenant, tenant_object, tenant_reason, unique, until,
};
use eventflow_api::condition::Reason;
use eventflow_api::function::{Function, Phase};
use eventflow_api::tenant::Tenant;
use eventflow_api::tier::Tier;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

/// A connection to a cluster in which a controller works.
async fn cluster() -> Client {
    static CONTROLLER: OnceLock<()> = OnceLock::new();
    CONTROLLER.get_or_init(|| {
        let (started, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let client = client().await;
                install(&client).await;
                started.send(()).unwrap();
                let config = common::config(&unique("apiserver"), &[]);
                controller::run::run(config, client, std::future::pending()).await.unwrap();
            });
        });
        wait.recv().unwrap();
    });
    client().await
}

fn api<K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>>(
    client: &Client,
    namespace: &str,
) -> Api<K> {
    Api::namespaced(client.clone(), namespace)
}

#[tokio::test]
async fn a_tenant_is_set_up_and_put_back_in_order() {
    let client = cluster().await;
    let (id, ns) = tenant(&client, json!({"tier": "free"})).await;
    let namespace = namespaces(&client).get(&ns).await.unwrap();
    assert_eq!(namespace.labels()["eventflow.io/tenant"], id);
    assert_eq!(namespace.labels()["pod-security.kubernetes.io/enforce"], "restricted");
    assert_eq!(namespace.owner_references()[0].name, id);

    let (quotas, limits) = (api::<ResourceQuota>(&client, &ns), api::<LimitRange>(&client, &ns));
    let (policies, accounts) = (api::<NetworkPolicy>(&client, &ns), api::<ServiceAccount>(&client, &ns));
    let pods = |q: &ResourceQuota| q.spec.as_ref().unwrap().hard.as_ref().unwrap()["pods"].0.clone();
    assert_eq!(pods(&quotas.get("tenant-quota").await.unwrap()), "10");
    let policy = policies.get("tenant-default").await.unwrap().spec;

    merge(&quotas, "tenant-quota", json!({"spec": {"hard": {"pods": "1000", "services": "3"}}})).await;
    merge(&policies, "tenant-default", json!({"spec": {"egress": [{}], "policyTypes": ["Egress"]}})).await;
    merge(&accounts, "function", json!({"automountServiceAccountToken": true})).await;
    limits.delete("tenant-limits", &DeleteParams::default()).await.unwrap();
    let labels = json!({"app.kubernetes.io/managed-by": null, "pod-security.kubernetes.io/enforce": "privileged"});
    merge(&namespaces(&client), &ns, json!({"metadata": {"labels": labels}})).await;

    until(&quotas, "tenant-quota", "the quota is put back", |q| {
        pods(q) == "10" && q.spec.as_ref().unwrap().hard.as_ref().unwrap().len() == 6
    })
    .await;
    until(&policies, "tenant-default", "the policy is put back", |p| p.spec == policy).await;
    until(&accounts, "function", "the account is put back", |a| a.automount_service_account_token == Some(false)).await;
    until(&limits, "tenant-limits", "the defaults are made again", |_| true).await;
    until(&namespaces(&client), &ns, "the namespace is put back", |n| {
        n.labels().get("pod-security.kubernetes.io/enforce").is_some_and(|l| l == "restricted")
            && n.labels().contains_key("app.kubernetes.io/managed-by")
    })
    .await;
}

#[tokio::test]
async fn a_namespace_that_others_made_is_left_alone() {
    let client = cluster().await;
    let (id, tenants) = (unique("t"), Api::<Tenant>::all(client.clone()));
    let ns = format!("tenant-{id}");
    let before = create(&namespaces(&client), namespace_object(&ns)).await;
    create(&tenants, tenant_object(&id, json!({}))).await;
    until(&tenants, &id, "the conflict is told", |t| tenant_reason(t) == Some(Reason::NamespaceConflict)).await;
    assert_eq!(namespaces(&client).get(&ns).await.unwrap().labels(), before.labels());
    assert!(api::<ResourceQuota>(&client, &ns).list(&ListParams::default()).await.unwrap().items.is_empty());

    let functions = api::<Function>(&client, &ns);
    create(&functions, function_object("f", json!({"image": "a:1"}))).await;
    until(&functions, "f", "the function waits", |f| reason(f) == Some(Reason::TenantNotReady)).await;

    tenants.delete(&id, &DeleteParams::default()).await.unwrap();
    eventually("the tenant is gone", async || tenants.get_opt(&id).await.unwrap().is_none().then_some(())).await;
    assert!(namespaces(&client).get(&ns).await.unwrap().metadata.deletion_timestamp.is_none());
}

#[tokio::test]
async fn tiers_are_followed() {
    let client = cluster().await;
    let (tiers, tenants) = (Api::<Tier>::all(client.clone()), Api::<Tenant>::all(client.clone()));
    let (id, name) = (unique("t"), unique("tier"));
    create(&tenants, tenant_object(&id, json!({"tier": name, "quota": {"pods": 7}}))).await;
    until(&tenants, &id, "the missing tier is told", |t| tenant_reason(t) == Some(Reason::UnknownTier)).await;
    let mut tier = tiers.get("free").await.unwrap();
    tier.metadata = kube::core::ObjectMeta { name: Some(name.clone()), ..Default::default() };
    create(&tiers, json!(tier)).await;
    until(&tenants, &id, "the tenant is set up", |t| tenant_reason(t) == Some(Reason::Provisioned)).await;
    let quotas = api::<ResourceQuota>(&client, &format!("tenant-{id}"));
    let hard = |q: &ResourceQuota, what: &str| q.spec.as_ref().unwrap().hard.as_ref().unwrap()[what].0.clone();
    let quota = quotas.get("tenant-quota").await.unwrap();
    assert_eq!((hard(&quota, "pods"), hard(&quota, "requests.cpu")), ("7".into(), "2".into()));
    merge(&tiers, &name, json!({"spec": {"podSecurity": "baseline", "quota": {"cpuRequests": "1500m"}}})).await;
    until(&quotas, "tenant-quota", "the quota follows", |q| hard(q, "requests.cpu") == "1500m").await;
    until(&namespaces(&client), &format!("tenant-{id}"), "the standard follows", |n| {
        n.labels()["pod-security.kubernetes.io/enforce"] == "baseline"
    })
    .await;
    tiers.delete(&name, &DeleteParams::default()).await.unwrap();
    until(&tenants, &id, "the missing tier is told", |t| tenant_reason(t) == Some(Reason::UnknownTier)).await;
}

#[tokio::test]
async fn a_function_is_made_changed_and_put_back_in_order() {
    let client = cluster().await;
    let (_, ns) = tenant(&client, json!({})).await;
    let (functions, deployments, services) =
        (api::<Function>(&client, &ns), api::<Deployment>(&client, &ns), api::<Service>(&client, &ns));
    create(&functions, function_object("f", json!({"image": "a:1", "port": 8080, "env": {"A": "1"}}))).await;
    let replicas = |d: &Deployment| d.spec.as_ref().unwrap().replicas;
    let made = until(&deployments, "fn-f", "the Deployment is made", |d| replicas(d) == Some(1)).await;
    assert_eq!(made.metadata.generation, Some(2), "made without pods, then given them, and nothing else is changed");
    until(&services, "fn-f", "the Service is made", |_| true).await;
    let container = |d: &Deployment| d.spec.clone().unwrap().template.spec.unwrap().containers[0].clone();

    let spec = json!({"image": "a:2", "env": {"B": "2", "A": null}, "replicas": 3, "command": ["/x"],
        "args": ["y"], "resources": {"cpuLimit": "1"}, "timeoutSeconds": 7});
    merge(&functions, "f", json!({"spec": spec})).await;
    let changed =
        until(&deployments, "fn-f", "the new spec is applied", |d| container(d).image.as_deref() == Some("a:2")).await;
    let c = container(&changed);
    assert!(c.env.as_ref().unwrap().iter().all(|e| e.name != "A"));
    assert_eq!((c.command, c.args), (Some(vec!["/x".into()]), Some(vec!["y".into()])));
    assert_eq!(c.resources.unwrap().limits.unwrap()["cpu"].0, "1");
    let pod = changed.spec.clone().unwrap().template.spec.unwrap();
    assert_eq!(pod.termination_grace_period_seconds, Some(7));

    let foreign = json!({"spec": {"replicas": 9, "template": {"spec": {"nodeSelector": {"a": "b"},
        "containers": [{"name": "function", "env": [{"name": "EVIL", "value": "1"}]}, {"name": "side", "image": "b:1"}]}}}});
    let params = PatchParams::default();
    deployments.patch("fn-f", &params, &Patch::Strategic(foreign)).await.unwrap();
    until(&deployments, "fn-f", "the Deployment is put back", |d| {
        let pod = d.spec.clone().unwrap().template.spec.unwrap();
        d.spec.as_ref().unwrap().replicas == Some(3)
            && pod.containers.len() == 1
            && pod.node_selector.is_none()
            && container(d).env.unwrap().iter().all(|e| e.name != "EVIL")
    })
    .await;
    services.delete("fn-f", &DeleteParams::default()).await.unwrap();
    until(&services, "fn-f", "the Service is made again", |_| true).await;
    merge(&services, "fn-f", json!({"spec": {"ports": [{"port": 81}], "selector": {"app": "other"}}})).await;
    until(&services, "fn-f", "the Service is put back", |s| {
        let spec = s.spec.as_ref().unwrap();
        spec.ports.as_ref().unwrap()[0].port == 80 && spec.selector.as_ref().unwrap()["app"] == "eventflow-function"
    })
    .await;
    merge(&functions, "f", json!({"spec": {"port": null}})).await;
    eventually("the orphan is gone", async || services.get_opt("fn-f").await.unwrap().is_none().then_some(())).await;
    deployments.delete("fn-f", &DeleteParams::default()).await.unwrap();
    let uid = changed.uid();
    until(&deployments, "fn-f", "the Deployment is made again", |d| d.uid() != uid).await;
}

#[tokio::test]
async fn a_deployment_that_others_made_is_left_alone() {
    let client = cluster().await;
    let (_, ns) = tenant(&client, json!({})).await;
    let (functions, deployments) = (api::<Function>(&client, &ns), api::<Deployment>(&client, &ns));
    let labels = json!({"x": "y"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "b:1"}]}});
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "fn-f"},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}});
    let before = create(&deployments, object).await;
    create(&functions, function_object("f", json!({"image": "a:1"}))).await;
    let told = until(&functions, "f", "the conflict is told", |f| reason(f) == Some(Reason::NameConflict)).await;
    assert_eq!(told.status.unwrap().phase, Phase::Failed);
    assert_eq!(deployments.get("fn-f").await.unwrap().spec, before.spec);
}

#[tokio::test]
async fn what_pods_do_is_told_and_not_told_twice() {
    let client = cluster().await;
    let (_, ns) = tenant(&client, json!({})).await;
    let (functions, deployments) = (api::<Function>(&client, &ns), api::<Deployment>(&client, &ns));
    create(&functions, function_object("f", json!({"image": "a:1", "replicas": 2}))).await;
    until(&functions, "f", "it is on its way", |f| reason(f) == Some(Reason::Starting)).await;
    let end = json!({"terminated": {"exitCode": 3, "reason": "Error"}});
    let crash = json!({"phase": "Running", "containerStatuses": [{"name": "function", "image": "a:1", "imageID": "",
        "ready": false, "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": end}]});
    report_pods(&client, &ns, "f", 2, crash).await;
    let failed = until(&functions, "f", "the crash is told", |f| reason(f) == Some(Reason::CrashLooping)).await;
    assert_eq!(failed.status.unwrap().phase, Phase::Failed);
    report_pods(&client, &ns, "f", 2, serving()).await;
    let running = until(&functions, "f", "it runs", |f| {
        is_ready(f) && f.status.as_ref().is_some_and(|s| s.ready_replicas == 2 && s.replicas == 2)
    })
    .await;
    assert_eq!(running.status.as_ref().unwrap().phase, Phase::Running);

    // Two repairs, one after the other: the first has been reconciled and reported once the second is done.
    for replicas in [5, 7] {
        merge(&deployments, "fn-f", json!({"spec": {"replicas": replicas}})).await;
        until(&deployments, "fn-f", "it is put back", |d| d.spec.as_ref().unwrap().replicas == Some(2)).await;
    }
    let after = until(&functions, "f", "it runs", is_ready).await;
    let (before, after) = (running.status.unwrap(), after.status.unwrap());
    let times = |s: &eventflow_api::function::FunctionStatus| {
        s.conditions.iter().map(|c| c.last_transition_time.clone()).collect::<Vec<_>>()
    };
    assert_eq!(times(&before), times(&after));
    merge(&functions, "f", json!({"metadata": {"annotations": {"x": "y"}}})).await;
    // A repair makes it be reconciled. Once the counts have settled, nothing is written any more.
    eventually("nothing new is not written", async || {
        let before = functions.get("f").await.unwrap().resource_version();
        merge(&deployments, "fn-f", json!({"metadata": {"labels": {"function": "other"}}})).await;
        until(&deployments, "fn-f", "its label is put back", |d| d.labels()["function"] == "f").await;
        (functions.get("f").await.unwrap().resource_version() == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_malformed_function_stops_nobody() {
    let client = cluster().await;
    let (_, ns) = tenant(&client, json!({})).await;
    let functions = api::<Function>(&client, &ns);
    // The schema cannot refuse this, a container runtime would.
    create(&functions, function_object("bad", json!({"image": "a:1", "args": ["a\u{0}b"]}))).await;
    create(&functions, function_object("good", json!({"image": "a:1"}))).await;
    until(&functions, "good", "the good one goes on", |f| reason(f) == Some(Reason::Starting)).await;
    let bad = until(&functions, "bad", "the fault is told", |f| reason(f) == Some(Reason::InvalidSpec)).await;
    let message = &bad.status.unwrap().conditions[0].message;
    assert!(message.contains("args[0]"), "{message}");
    merge(&functions, "bad", json!({"spec": {"args": ["ab"]}})).await;
    until(&functions, "bad", "it is mended", |f| reason(f) == Some(Reason::Starting)).await;
}

#[tokio::test]
async fn a_function_outside_of_a_tenant_is_not_run() {
    let client = cluster().await;
    let ns = unique("plain");
    create(&namespaces(&client), namespace_object(&ns)).await;
    let functions = api::<Function>(&client, &ns);
    create(&functions, function_object("f", json!({"image": "a:1"}))).await;
    until(&functions, "f", "that is told", |f| reason(f) == Some(Reason::TenantNotReady)).await;
    assert!(api::<Deployment>(&client, &ns).list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn suspension_stops_and_resuming_restores() {
    let client = cluster().await;
    let (id, ns) = tenant(&client, json!({})).await;
    let (functions, deployments, tenants) =
        (api::<Function>(&client, &ns), api::<Deployment>(&client, &ns), Api::<Tenant>::all(client.clone()));
    create(&functions, function_object("f", json!({"image": "a:1", "replicas": 2}))).await;
    let replicas = |d: &Deployment| d.spec.as_ref().unwrap().replicas.unwrap();
    until(&deployments, "fn-f", "it is made", |d| replicas(d) == 2).await;
    merge(&tenants, &id, json!({"spec": {"suspended": true}})).await;
    until(&deployments, "fn-f", "it is stopped", |d| replicas(d) == 0).await;
    let told = until(&functions, "f", "that is told", |f| reason(f) == Some(Reason::TenantSuspended)).await;
    assert_eq!(told.status.unwrap().phase, Phase::Suspended);
    merge(&tenants, &id, json!({"spec": {"suspended": false}})).await;
    until(&deployments, "fn-f", "it runs again", |d| replicas(d) == 2).await;
    merge(&functions, "f", json!({"spec": {"suspend": true}})).await;
    until(&deployments, "fn-f", "it is stopped", |d| replicas(d) == 0).await;
    until(&functions, "f", "that is told", |f| reason(f) == Some(Reason::Suspended)).await;
}

#[tokio::test]
async fn deleted_things_go_and_their_names_are_free() {
    let client = cluster().await;
    let (id, ns) = tenant(&client, json!({})).await;
    let (functions, deployments, tenants) =
        (api::<Function>(&client, &ns), api::<Deployment>(&client, &ns), Api::<Tenant>::all(client.clone()));
    create(&functions, function_object("f", json!({"image": "a:1"}))).await;
    let first = until(&deployments, "fn-f", "it is made", |_| true).await;
    functions.delete("f", &DeleteParams::default()).await.unwrap();
    eventually("it is gone", async || functions.get_opt("f").await.unwrap().is_none().then_some(())).await;
    let second = create(&functions, function_object("f", json!({"image": "a:2"}))).await;
    until(&deployments, "fn-f", "the new one's is made", |d| {
        d.uid() != first.uid() && d.owner_references()[0].uid == second.uid().unwrap()
    })
    .await;
    tenants.delete(&id, &DeleteParams::default()).await.unwrap();
    eventually("the namespace goes with the tenant", async || {
        let namespace = namespaces(&client).get_opt(&ns).await.unwrap();
        namespace.is_none_or(|n| n.metadata.deletion_timestamp.is_some()).then_some(())
    })
    .await;
}
