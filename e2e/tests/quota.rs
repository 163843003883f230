//! Quota admission with real pods: whole or not at all, in order, and a full tenant can still deploy.

use std::time::{Duration, Instant};

use eventflow_api::condition::{self, ConditionType, Reason};
use eventflow_api::http::Function;
use eventflow_api::names::TenantId;
use eventflow_e2e::caller::Caller;
use eventflow_e2e::eventually::eventually;
use eventflow_e2e::platform::Platform;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// Held by each test: together they ask for more than the node has.
static NODE: Mutex<()> = Mutex::const_new(());

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

/// Deletes all of the tenant's functions and waits for their pods to go: the node has room for one test at a time.
async fn leave(platform: &Platform, tenant: &TenantId) {
    let ns = tenant.namespace();
    platform.kubectl(&["delete", "functions", "--all", "-n", &ns, "--wait=false"]);
    eventually(120, "all pods are gone", || async {
        let left = platform.try_kubectl(&["get", "pods", "-n", &ns, "-o", "name"])?;
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
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
    let _node = NODE.lock().await;
    let (alice, image) = (tenant_with(platform, "whole", "1").await, platform.image("hello:v1"));
    let resources = json!({"cpuRequest": "400m", "cpuLimit": "500m", "memoryRequest": "16Mi", "memoryLimit": "64Mi"});
    let five = json!({"name": "five", "image": image, "port": 8080, "replicas": 5, "resources": resources});
    for path in ["/v1/functions?dry_run=true", "/v1/functions"] {
        let refused = alice.call(Method::POST, path, Some(five.clone())).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
        assert_eq!(refused.json["code"], "quota-exceeds-tier");
        assert_eq!(refused.json["admission"]["smallestChange"], json!({"change": "replicas", "replicas": 2}));
    }
    // The same by way of kubectl, where the object is the place to say so.
    apply(platform, &alice.tenant, "five", &image, ["5", "400m"]);
    let refused = alice.function("five", 60, "is refused", reserved(Reason::ExceedsMaxQuota)).await;
    let told = condition::find(&refused.status.conditions, ConditionType::QuotaReserved).expect("told");
    assert!(told.message.contains("cpuRequests 2 requested, the limit is 1"), "{}", told.message);
    assert!(pods(platform, &alice.tenant, "five").is_empty());

    let bob = tenant_with(platform, "whole-later", "2").await;
    apply(platform, &bob.tenant, "first", &image, ["1", "100m"]);
    bob.function("first", 90, "runs", running).await;
    let queued = bob.call(Method::POST, "/v1/functions", Some(five)).await;
    assert_eq!(queued.status, StatusCode::ACCEPTED, "{queued:?}");
    let admission = &queued.json["admission"];
    assert_eq!((&admission["verdict"], &admission["position"]), (&json!("queued"), &json!(1)), "{admission}");
    assert_eq!(admission["shortfall"][0]["missing"], "100m", "{admission}");
    assert_eq!(admission["holders"][0]["name"], "first", "{admission}");
    bob.function("five", 60, "waits", reserved(Reason::WaitingForQuota)).await;
    assert!(pods(platform, &bob.tenant, "five").is_empty(), "nothing of it is made");
    delete(platform, &bob.tenant, "first");
    bob.function("five", 120, "is admitted", reserved(Reason::Reserved)).await;
    eventually(60, "all of it is made", || async {
        let made = pods(platform, &bob.tenant, "five").len();
        if made == 5 { Ok(()) } else { Err(made) }
    })
    .await;
    leave(platform, &bob.tenant).await;
}

#[tokio::test]
async fn a_queue_of_ten_drains_in_order() {
    let platform = Platform::shared();
    let _node = NODE.lock().await;
    let (alice, image) = (tenant_with(platform, "drains", "150m").await, platform.image("hello:v1"));
    let name = |i: usize| format!("q{i}");
    for i in 0..10 {
        apply(platform, &alice.tenant, &name(i), &image, ["1", "100m"]);
        let first = if i == 0 { Reason::Reserved } else { Reason::WaitingForQuota };
        alice.function(&name(i), 60, "is told its place", reserved(first)).await;
        // Creation times are told in seconds, and decide.
        tokio::time::sleep(Duration::from_millis(1_050)).await;
    }
    let mut slowest = Duration::ZERO;
    for i in 0..10 {
        alice.function(&name(i), 90, "runs", running).await;
        for later in i + 1..10 {
            let waits = alice.function(&name(later), 5, "is told of", |_| true).await;
            assert_eq!(
                reason(&waits, ConditionType::QuotaReserved),
                Some(Reason::WaitingForQuota),
                "{later} after {i}"
            );
        }
        delete(platform, &alice.tenant, &name(i));
        eventually(60, "its pod is gone", || async {
            let left = pods(platform, &alice.tenant, &name(i));
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
        let gone = Instant::now();
        if i + 1 < 10 {
            alice.function(&name(i + 1), 60, "is admitted", reserved(Reason::Reserved)).await;
            slowest = slowest.max(gone.elapsed());
        }
    }
    println!("from a pod being gone to the next one being admitted: at most {slowest:?}");
}

#[tokio::test]
async fn a_full_tenant_can_deploy_a_new_version() {
    let platform = Platform::shared();
    let _node = NODE.lock().await;
    let alice = tenant_with(platform, "full", "200m").await;
    apply(platform, &alice.tenant, "app", &platform.image("hello:v1"), ["2", "100m"]);
    alice.function("app", 90, "runs", running).await;
    apply(platform, &alice.tenant, "app", &platform.image("hello:v2"), ["2", "100m"]);
    let new = json!(platform.image("hello:v2"));
    eventually(240, "two pods of the new version serve, and no other is left", || async {
        let pods = pods(platform, &alice.tenant, "app");
        let serves = |pod: &Value| {
            let ready = pod["status"]["conditions"]
                .as_array()
                .is_some_and(|conditions| conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
            ready && pod["spec"]["containers"][0]["image"] == new
        };
        if pods.len() == 2 && pods.iter().all(serves) { Ok(()) } else { Err(pods) }
    })
    .await;
    alice.function("app", 60, "says so", |f| f.status.observed_generation == 2 && running(f)).await;
    leave(platform, &alice.tenant).await;
}

#[tokio::test]
async fn kubectl_scale_goes_through_the_ledger() {
    let platform = Platform::shared();
    let _node = NODE.lock().await;
    let alice = tenant_with(platform, "scaled", "250m").await;
    let ns = alice.tenant.namespace();
    apply(platform, &alice.tenant, "app", &platform.image("hello:v1"), ["1", "100m"]);
    alice.function("app", 90, "runs", running).await;
    platform.kubectl(&["scale", "fn/app", "--replicas=2", "-n", &ns]);
    alice.function("app", 90, "has two pods", |f| f.status.ready_replicas == 2 && running(f)).await;
    platform.kubectl(&["scale", "fn/app", "--replicas=3", "-n", &ns]);
    alice.function("app", 60, "can never have three", reserved(Reason::ExceedsMaxQuota)).await;
    assert_eq!(pods(platform, &alice.tenant, "app").len(), 2);
    // Nor by way of its Deployment.
    platform.kubectl(&["scale", "deployment/fn-app", "--replicas=3", "-n", &ns]);
    eventually(60, "the Deployment is put back", || async {
        let replicas = ["get", "deployment", "fn-app", "-n", &ns, "-o", "jsonpath={.spec.replicas}"];
        let replicas = platform.try_kubectl(&replicas)?;
        if replicas == "2" { Ok(()) } else { Err(replicas) }
    })
    .await;
    leave(platform, &alice.tenant).await;
}

#[tokio::test]
async fn a_tenants_user_writes_neither_status_nor_ledger() {
    let platform = Platform::shared();
    let _node = NODE.lock().await;
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
    leave(platform, &alice.tenant).await;
}
