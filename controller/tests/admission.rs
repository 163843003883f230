//! Quota admission against a real API server: whole functions, admitted, queued or refused. What a kubelet would say
//! of pods is written by hand.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use common::quota::{api, asking, cluster, is_told, ledger, one_cpu, replicas};
use common::{create, eventually, function_object, merge, reason, report_pods, serving, unique, until};
use eventflow_api::condition::{ConditionStatus, ConditionType, Reason, find};
use eventflow_api::function::{Function, Phase};
use eventflow_api::ledger::QuotaLedger;
use eventflow_api::tenant::Tenant;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use quota::packed;
use serde_json::json;

#[tokio::test]
async fn what_can_never_fit_is_refused_whole() {
    let client = cluster().await;
    let (_, ns) = one_cpu(&client).await;
    let functions = api::<Function>(&client, &ns);
    create(&functions, function_object("f", asking(5, "400m"))).await;
    let told = is_told(&functions, "f", Reason::ExceedsMaxQuota).await.status.unwrap();
    assert_eq!(told.phase, Phase::Failed);
    let reserved = find(&told.conditions, ConditionType::QuotaReserved).unwrap();
    assert_eq!((reserved.status, reserved.reason), (ConditionStatus::False, Reason::ExceedsMaxQuota));
    assert!(reserved.message.contains("cpuRequests 2 requested, the limit is 1"), "{}", reserved.message);
    assert!(api::<Deployment>(&client, &ns).list(&ListParams::default()).await.unwrap().items.is_empty());
    merge(&functions, "f", json!({"spec": {"replicas": 2}})).await;
    is_told(&functions, "f", Reason::Starting).await;
}

#[tokio::test]
async fn who_waits_starts_when_another_goes() {
    let client = cluster().await;
    let (_, ns) = one_cpu(&client).await;
    let (functions, deployments) = (api::<Function>(&client, &ns), api::<Deployment>(&client, &ns));
    create(&functions, function_object("first", asking(2, "400m"))).await;
    is_told(&functions, "first", Reason::Starting).await;
    create(&functions, function_object("second", asking(1, "300m"))).await;
    let told = is_told(&functions, "second", Reason::WaitingForQuota).await.status.unwrap();
    assert_eq!(told.phase, Phase::Queued);
    assert!(deployments.get_opt("fn-second").await.unwrap().is_none());
    assert_eq!(ledger(&client, &ns).await.sum().cpu_requests, 800);
    // A smaller one may pass.
    create(&functions, function_object("third", asking(1, "200m"))).await;
    is_told(&functions, "third", Reason::Starting).await;
    functions.delete("first", &DeleteParams::default()).await.unwrap();
    is_told(&functions, "second", Reason::Starting).await;
    eventually("what is reserved is what lives", async || {
        (ledger(&client, &ns).await.sum().cpu_requests == 500).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_larger_size_waits_and_the_old_one_runs_on() {
    let client = cluster().await;
    let (_, ns) = one_cpu(&client).await;
    let (functions, deployments) = (api::<Function>(&client, &ns), api::<Deployment>(&client, &ns));
    create(&functions, function_object("other", asking(1, "400m"))).await;
    create(&functions, function_object("f", asking(1, "300m"))).await;
    until(&deployments, "fn-f", "it is made", |_| true).await;
    report_pods(&client, &ns, "f", 1, serving()).await;
    is_told(&functions, "f", Reason::AllReady).await;
    merge(&functions, "f", json!({"spec": {"replicas": 3}})).await;
    let told = is_told(&functions, "f", Reason::ScaleUpPending).await.status.unwrap();
    assert_eq!((told.phase, told.ready_replicas), (Phase::Running, 1));
    assert_eq!(replicas(&deployments.get("fn-f").await.unwrap()), 1);
    // A hand that scales the Deployment meanwhile is no back door.
    merge(&deployments, "fn-f", json!({"spec": {"replicas": 4}})).await;
    until(&deployments, "fn-f", "it is put back", |d| replicas(d) == 1).await;
    functions.delete("other", &DeleteParams::default()).await.unwrap();
    until(&deployments, "fn-f", "it grows", |d| replicas(d) == 3).await;
    merge(&functions, "f", json!({"spec": {"replicas": 1}})).await;
    until(&deployments, "fn-f", "it shrinks", |d| replicas(d) == 1).await;
    eventually("the difference is given back", async || {
        (ledger(&client, &ns).await.sum().cpu_requests == 300).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_roll_out_surges_where_there_is_room_and_replaces_in_place_where_not() {
    let client = cluster().await;
    let (_, ns) = one_cpu(&client).await;
    let (functions, deployments) = (api::<Function>(&client, &ns), api::<Deployment>(&client, &ns));
    create(&functions, function_object("f", asking(1, "400m"))).await;
    report_pods(&client, &ns, "f", 1, serving()).await;
    is_told(&functions, "f", Reason::AllReady).await;
    let surge = |d: &Deployment| {
        let strategy = d.spec.as_ref().unwrap().strategy.as_ref().unwrap();
        strategy.rolling_update.as_ref().unwrap().max_surge == Some(IntOrString::Int(1))
    };
    until(&deployments, "fn-f", "its controller has told", |d| {
        d.status.as_ref().is_some_and(|s| s.updated_replicas == Some(1))
    })
    .await;
    merge(&functions, "f", json!({"spec": {"image": "a:2"}})).await;
    until(&deployments, "fn-f", "it rolls with one pod more", surge).await;
    assert_eq!(ledger(&client, &ns).await.sum().cpu_requests, 800);
    eventually("the roll-out ends and the surplus is given back", async || {
        report_pods(&client, &ns, "f", 1, serving()).await;
        (ledger(&client, &ns).await.sum().cpu_requests == 400).then_some(())
    })
    .await;
    is_told(&functions, "f", Reason::AllReady).await;
    create(&functions, function_object("full", asking(1, "600m"))).await;
    is_told(&functions, "full", Reason::Starting).await;
    merge(&functions, "f", json!({"spec": {"image": "a:3"}})).await;
    let image = |d: &Deployment| d.spec.clone().unwrap().template.spec.unwrap().containers[0].image.clone();
    let rolled = until(&deployments, "fn-f", "it rolls in place", |d| image(d).as_deref() == Some("a:3")).await;
    assert!(!surge(&rolled));
    eventually("the roll-out ends", async || {
        report_pods(&client, &ns, "f", 1, serving()).await;
        (reason(&functions.get("f").await.unwrap()) == Some(Reason::AllReady)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_lowered_quota_evicts_nobody_and_a_raised_one_admits() {
    let client = cluster().await;
    let (id, ns) = one_cpu(&client).await;
    let (functions, deployments, tenants) =
        (api::<Function>(&client, &ns), api::<Deployment>(&client, &ns), Api::<Tenant>::all(client.clone()));
    create(&functions, function_object("f", asking(2, "400m"))).await;
    is_told(&functions, "f", Reason::Starting).await;
    merge(&tenants, &id, json!({"spec": {"quota": {"cpuRequests": "500m"}}})).await;
    let over = |status: ConditionStatus| {
        move |t: &Tenant| {
            let conditions = t.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
            find(&conditions, ConditionType::OverQuota).is_some_and(|c| c.status == status)
        }
    };
    until(&tenants, &id, "it is over its quota", over(ConditionStatus::True)).await;
    assert_eq!(replicas(&deployments.get("fn-f").await.unwrap()), 2);
    create(&functions, function_object("g", asking(1, "100m"))).await;
    is_told(&functions, "g", Reason::WaitingForQuota).await;
    merge(&tenants, &id, json!({"spec": {"quota": {"cpuRequests": "2"}}})).await;
    is_told(&functions, "g", Reason::Starting).await;
    until(&tenants, &id, "it is within its quota", over(ConditionStatus::False)).await;
}

#[tokio::test]
async fn a_ledger_deleted_or_edited_by_hand_comes_back() {
    let client = cluster().await;
    let (_, ns) = one_cpu(&client).await;
    let (functions, ledgers) = (api::<Function>(&client, &ns), api::<QuotaLedger>(&client, &ns));
    create(&functions, function_object("f", asking(2, "400m"))).await;
    is_told(&functions, "f", Reason::Starting).await;
    let first = ledgers.get("ledger").await.unwrap();
    ledgers.delete("ledger", &DeleteParams::default()).await.unwrap();
    until(&ledgers, "ledger", "it is made again", |l| l.uid() != first.uid()).await;
    eventually("it knows who lives", async || (ledger(&client, &ns).await.sum().cpu_requests == 800).then_some(()))
        .await;
    merge(&ledgers, "ledger", json!({"spec": {"packed": "v1.nonsense"}})).await;
    until(&ledgers, "ledger", "it is written anew", |l| packed::decode(&l.spec.packed).is_ok()).await;
    eventually("it knows who lives", async || (ledger(&client, &ns).await.sum().cpu_requests == 800).then_some(()))
        .await;
}

#[tokio::test]
async fn many_at_once_never_exceed_and_all_get_their_turn() {
    let client = cluster().await;
    let (_, ns) = one_cpu(&client).await;
    let functions = api::<Function>(&client, &ns);
    let writers = (0..30).map(|i| {
        let functions = functions.clone();
        tokio::spawn(async move {
            create(&functions, function_object(&format!("f{i}"), asking(1, "250m"))).await;
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let mut left = 30;
    let start = tokio::time::Instant::now();
    while left > 0 {
        assert!(start.elapsed() < Duration::from_secs(90), "{left} never got their turn");
        assert!(ledger(&client, &ns).await.sum().cpu_requests <= 1000);
        let list = functions.list(&ListParams::default()).await.unwrap().items;
        let admitted: Vec<_> = list.iter().filter(|f| reason(f) == Some(Reason::Starting)).collect();
        assert!(admitted.len() <= 4, "{}", admitted.len());
        for function in admitted {
            functions.delete(&function.name_any(), &DeleteParams::default()).await.unwrap();
            left -= 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually("nothing is left reserved", async || ledger(&client, &ns).await.reservations().is_empty().then_some(()))
        .await;
}

#[tokio::test]
async fn only_the_controller_writes_status_and_ledgers() {
    let client = cluster().await;
    let (_, ns) = one_cpu(&client).await;
    create(&api::<Function>(&client, &ns), function_object("f", asking(1, "100m"))).await;
    is_told(&api::<Function>(&client, &ns), "f", Reason::Starting).await;
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/policies/controller-only.yaml")).unwrap();
    let params = PatchParams::apply("test").force();
    let (policy, binding) = text.split_once("\n---\n").unwrap();
    let policy: ValidatingAdmissionPolicy = serde_saphyr::from_str(policy).unwrap();
    let binding: ValidatingAdmissionPolicyBinding = serde_saphyr::from_str(binding).unwrap();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    policies.patch(&policy.name_any(), &params, &Patch::Apply(&policy)).await.unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    bindings.patch(&binding.name_any(), &params, &Patch::Apply(&binding)).await.unwrap();

    // Someone with every right that RBAC can give, but not an administrator.
    let user = unique("mallory");
    let rights = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    create(&Api::<ClusterRoleBinding>::all(client.clone()), rights).await;
    let mallory = common::client_as(&user).await;
    let (functions, ledgers) = (api::<Function>(&mallory, &ns), api::<QuotaLedger>(&mallory, &ns));
    let params = PatchParams::default();
    let denied =
        |error: kube::Error| matches!(error, kube::Error::Api(s) if s.message.contains("only EventFlow's controller"));
    eventually("a ledger cannot be written", async || {
        let patch = Patch::Merge(json!({"spec": {"queued": 7}}));
        ledgers.patch("ledger", &params, &patch).await.is_err_and(denied).then_some(())
    })
    .await;
    let patch = Patch::Merge(json!({"status": {"phase": "Running"}}));
    assert!(functions.patch_status("f", &params, &patch).await.is_err_and(denied));
    let patch = Patch::Merge(json!({"spec": {"replicas": 2}}));
    functions.patch("f", &params, &patch).await.expect("the spec is anyone's who may");
}
