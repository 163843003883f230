//! Quota admission with real pods: whole or not at all, and the controller's word alone.

use eventflow_api::condition::{self, ConditionType, Reason};
use eventflow_api::http::Function;
use eventflow_api::names::TenantId;
use eventflow_e2e::caller::Caller;
use eventflow_e2e::eventually::eventually;
use eventflow_e2e::platform::Platform;
use serde_json::{Value, json};

/// A user whose tenant may request so much CPU, and plenty of everything else.
async fn tenant_with(platform: &Platform, user: &str, cpu: &str) -> Caller {
    let caller = platform.sign_in(user).await;
    let quota =
        json!({"spec": {"quota": {"cpuRequests": cpu, "cpuLimits": "100", "memoryLimits": "100Gi"}}}).to_string();
    let id = caller.tenant.as_str().to_owned();
    eventually(30, "the tenant has its quota", || async {
        platform.try_kubectl(&["patch", "tenant", &id, "--type=merge", "-p", &quota])
    })
    .await;
    eventually(60, "the ledger follows", || async {
        let hard = [
            "get",
            "quotaledger",
            "ledger",
            "-n",
            &caller.tenant.namespace(),
            "-o",
            "jsonpath={.spec.hard.cpuRequests}",
        ];
        let hard = platform.try_kubectl(&hard)?;
        if hard == cpu { Ok(()) } else { Err(hard) }
    })
    .await;
    caller
}

/// Makes a function as kubectl users do.
fn apply(platform: &Platform, tenant: &TenantId, name: &str, image: &str, [replicas, cpu]: [&str; 2]) {
    let replicas: u32 = replicas.parse().expect("a number");
    let resources = json!({"cpuRequest": cpu, "cpuLimit": "500m", "memoryRequest": "16Mi", "memoryLimit": "64Mi"});
    platform.kubectl_apply(&json!({
        "apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Function",
        "metadata": {"name": name, "namespace": tenant.namespace()},
        "spec": {"image": image, "port": 8080, "replicas": replicas, "resources": resources},
    }));
}

fn delete(platform: &Platform, tenant: &TenantId, name: &str) {
    platform.kubectl(&["delete", "function", name, "-n", &tenant.namespace(), "--wait=false"]);
}

fn pods(platform: &Platform, tenant: &TenantId, name: &str) -> Vec<Value> {
    let selector = format!("function={name}");
    let pods = platform.kubectl(&["get", "pods", "-n", &tenant.namespace(), "-l", &selector, "-o", "json"]);
    let pods: Value = serde_json::from_str(&pods).expect("JSON of kubectl");
    pods["items"].as_array().cloned().unwrap_or_default()
}

fn reason(function: &Function, type_: ConditionType) -> Option<Reason> {
    condition::find(&function.status.conditions, type_).map(|c| c.reason)
}

fn reserved(expected: Reason) -> impl Fn(&Function) -> bool {
    move |function| reason(function, ConditionType::QuotaReserved) == Some(expected)
}

fn running(function: &Function) -> bool {
    reason(function, ConditionType::Ready) == Some(Reason::AllReady)
}

#[tokio::test]
async fn five_times_400m_in_one_cpu_is_refused_whole_and_in_two_is_queued_whole() {
    let platform = Platform::shared();
    let (alice, image) = (tenant_with(platform, "whole", "1").await, platform.image("hello:v1"));
    apply(platform, &alice.tenant, "five", &image, ["5", "400m"]);
    let refused = alice.function("five", 60, "is refused", reserved(Reason::ExceedsMaxQuota)).await;
    let told = condition::find(&refused.status.conditions, ConditionType::QuotaReserved).expect("told");
    assert!(told.message.contains("cpuRequests 2 requested, the limit is 1"), "{}", told.message);
    assert!(pods(platform, &alice.tenant, "five").is_empty());

    let bob = tenant_with(platform, "whole-later", "2").await;
    apply(platform, &bob.tenant, "first", &image, ["1", "100m"]);
    bob.function("first", 90, "runs", running).await;
    apply(platform, &bob.tenant, "five", &image, ["5", "400m"]);
    bob.function("five", 60, "waits", reserved(Reason::WaitingForQuota)).await;
    assert!(pods(platform, &bob.tenant, "five").is_empty(), "nothing of it is made");
    delete(platform, &bob.tenant, "first");
    bob.function("five", 120, "is admitted", reserved(Reason::Reserved)).await;
}

#[tokio::test]
async fn a_tenants_user_writes_neither_status_nor_ledger() {
    let platform = Platform::shared();
    let alice = tenant_with(platform, "honest", "1").await;
    let ns = alice.tenant.namespace();
    apply(platform, &alice.tenant, "app", &platform.image("hello:v1"), ["1", "100m"]);
    alice.function("app", 60, "is admitted", reserved(Reason::Reserved)).await;
    // With every right that RBAC gives within the namespace.
    platform.kubectl(&["create", "rolebinding", "mallory", "--clusterrole=admin", "--user=mallory", "-n", &ns]);
    platform.kubectl(&["create", "role", "everything", "--verb=*", "--resource=*.eventflow.eventflow.io", "-n", &ns]);
    platform.kubectl(&["create", "rolebinding", "mallory-too", "--role=everything", "--user=mallory", "-n", &ns]);
    let refused = |arguments: &[&str]| {
        let refusal = platform.try_kubectl(&[arguments, &["-n", &ns, "--as=mallory", "--type=merge"]].concat());
        let refusal = refusal.expect_err("it is refused");
        assert!(
            refusal.contains("only EventFlow's controller writes this") || refusal.contains("Forbidden"),
            "{refusal}"
        );
    };
    refused(&["patch", "quotaledger", "ledger", "-p", r#"{"spec":{"queued":7}}"#]);
    refused(&["patch", "fn", "app", "--subresource=status", "-p", r#"{"status":{"phase":"Idle"}}"#]);
}
