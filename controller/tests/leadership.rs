//! Two controllers, one leader: who leads works, the other takes over when it goes, quietly or not.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{client, config, create, eventually, install, tenant_object, tenant_reason, unique, until};
use controller::run::{RunError, run};
use eventflow_api::condition::Reason;
use eventflow_api::tenant::Tenant;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Controller {
    task: JoinHandle<Result<(), RunError>>,
    stop: oneshot::Sender<()>,
}

fn start(client: &Client, lease: &str, identity: &str) -> Controller {
    let flags = [
        "--identity",
        identity,
        "--lease-duration",
        "4s",
        "--lease-renew-deadline",
        "3s",
        "--lease-retry-period",
        "200ms",
    ];
    let (stop, stopped) = oneshot::channel();
    let stopped = async { drop(stopped.await) };
    let task = tokio::spawn(run(config(lease, &flags), client.clone(), stopped));
    Controller { task, stop }
}

async fn holder(leases: &Api<Lease>, name: &str, what: &str, expected: &str) -> i32 {
    let lease = until(leases, name, what, |lease| {
        lease.spec.as_ref().is_some_and(|spec| spec.holder_identity.as_deref() == Some(expected))
    })
    .await;
    lease.spec.unwrap().lease_transitions.unwrap()
}

/// Whether somebody works: a new tenant is set up.
async fn somebody_works(client: &Client) {
    let (tenants, id) = (Api::<Tenant>::all(client.clone()), unique("lead"));
    create(&tenants, tenant_object(&id, json!({}))).await;
    until(&tenants, &id, "somebody works", |t| tenant_reason(t) == Some(Reason::Provisioned)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_and_the_other_takes_over() {
    let client = client().await;
    install(&client).await;
    let (name, leases) = (unique("leadership"), Api::<Lease>::namespaced(client.clone(), "kube-system"));
    let first = start(&client, &name, "first");
    let one = holder(&leases, &name, "the first leads", "first").await;
    let second = start(&client, &name, "second");
    somebody_works(&client).await;
    assert_eq!(holder(&leases, &name, "the first still leads", "first").await, one, "no transition meanwhile");

    first.stop.send(()).unwrap();
    first.task.await.unwrap().unwrap();
    let two = holder(&leases, &name, "the second leads", "second").await;
    assert_eq!(two, one + 1);
    somebody_works(&client).await;

    let third = start(&client, &name, "third");
    second.task.abort();
    let three = holder(&leases, &name, "the third leads", "third").await;
    assert_eq!(three, two + 1);
    somebody_works(&client).await;

    // Whoever finds the lease taken stops at once.
    let stolen = json!({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 60}});
    common::merge(&leases, &name, stolen).await;
    assert!(matches!(third.task.await.unwrap(), Err(RunError::LeaseLost)));
}

#[tokio::test]
async fn a_candidate_ends_when_asked_to() {
    let client = client().await;
    let name = unique("leadership");
    let first = start(&client, &name, "first");
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-system");
    holder(&leases, &name, "the first leads", "first").await;
    let second = start(&client, &name, "second");
    second.stop.send(()).unwrap();
    second.task.await.unwrap().unwrap();
    holder(&leases, &name, "the first still leads", "first").await;
    first.stop.send(()).unwrap();
    first.task.await.unwrap().unwrap();
    eventually("the lease is given back", async || {
        leases.get(&name).await.unwrap().spec.unwrap().holder_identity.is_none().then_some(())
    })
    .await;
}
