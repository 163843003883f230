//! A scripted API server that refuses: what a reconcile does when a call fails, and that it gives up nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use controller::admission::cover::Reader;
use controller::admission::quiet::Quiet;
use controller::apply::Applier;
use controller::desired::Surroundings;
use controller::events::Events;
use controller::lease::Tenure;
use controller::queue::Next;
use controller::reconcile::{Context, reconcile};
use controller::world::child::{Child, ChildKind, see};
use controller::world::{Change, Key, Name, World, views};
use eventflow_api::resources::PodResources;
use http::{Method, Request, Response};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::client::Body;
use quota::ledger::{Claim, Ledger};
use quota::packed;
use quota::vector::Vector;
use serde_json::{Value, json};

/// One expected call and its answer.
struct Step(Method, &'static str, u16, Value);

/// An API server that answers by script, and fails the test on any other call.
fn scripted(steps: Vec<Step>) -> (Client, Arc<Mutex<VecDeque<Step>>>) {
    let script = Arc::new(Mutex::new(VecDeque::from(steps)));
    let left = script.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let step = script.lock().unwrap().pop_front();
        async move {
            let call = format!("{} {}", request.method(), request.uri().path());
            let Some(Step(method, path, status, body)) = step else { panic!("unexpected call: {call}") };
            assert_eq!(call, format!("{method} {path}"));
            let response = Response::builder().status(status).header("content-type", "application/json");
            Ok::<_, Infallible>(response.body(Body::from(serde_json::to_vec(&body).unwrap())).unwrap())
        }
    });
    (Client::new(service, "default"), left)
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code})
}

fn put<K: Child>(world: &World, object: Value) {
    let object: K = serde_json::from_value(object).unwrap();
    let (name, seen) = see(&object);
    world.children(K::KIND, Change::Applied(name, seen));
}

/// The function's identity.
const UID: &str = "00000000-0000-0000-0000-00000000000f";

fn function() -> Value {
    json!({"apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Function",
        "metadata": {"name": "f", "namespace": "tenant-a", "uid": UID, "resourceVersion": "5", "generation": 1},
        "spec": {"image": "a:1"}})
}

/// The ledger of `epoch`, in which the function holds what it needs for `generation`.
fn ledger(epoch: u64, generation: u64) -> Value {
    let wants = Vector { pods: 1, functions: 1, ..Vector::of_pod(&PodResources::default()) };
    let claim = Claim { uid: UID.parse().unwrap(), generation, wants };
    let ledger = Ledger::new(wants, epoch).admit(epoch, &[claim]).unwrap();
    json!({"apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "QuotaLedger",
        "metadata": {"name": "ledger", "namespace": "tenant-a", "uid": "l-uid", "resourceVersion": "3"},
        "spec": {"packed": packed::encode(&ledger), "epoch": epoch, "seq": 1, "hard": {}, "reserved": {}, "queued": 0}})
}

/// A world with a tenant that is set up and a function that has nothing yet.
fn world() -> Arc<World> {
    let world = Arc::new(World::default());
    let ready = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Provisioned", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let tenant =
        json!({"metadata": {"name": "a", "uid": "t-uid", "resourceVersion": "1"}, "spec": {}, "status": ready});
    let (name, seen) = views::tenant(serde_json::from_value(tenant).unwrap());
    world.tenants(Change::Applied(name, seen));
    let owner = json!([{"apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Tenant", "name": "a", "uid": "t-uid", "controller": true}]);
    put::<Namespace>(
        &world,
        json!({"metadata": {"name": "tenant-a", "uid": "n-uid", "resourceVersion": "2", "ownerReferences": owner}}),
    );
    let (name, seen) = views::function(serde_json::from_value(function()).unwrap());
    world.functions(Change::Applied(name, seen));
    let ledger = ledger(1, 1);
    let (name, seen) = controller::world::ledger::read(serde_json::from_value(ledger).unwrap());
    world.ledgers(Change::Applied(name, seen));
    world
}

fn context(client: Client, world: &Arc<World>) -> Context {
    let (events, _task) = Events::new(client.clone(), "test");
    Context {
        applier: Applier::new(client.clone(), world.clone()),
        reader: Reader::new(client.clone(), world.clone()),
        client,
        world: world.clone(),
        events,
        surroundings: Surroundings::default(),
        epoch: 1,
        tenure: Tenure::new(std::time::Duration::from_secs(3600)),
        max_pass: std::time::Duration::from_secs(60),
        quiet: Quiet::default(),
        metrics: Arc::default(),
    }
}

fn key() -> Key {
    Key::Function(Name { namespace: "tenant-a".into(), name: "f".into() })
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/tenant-a/deployments";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/tenant-a/deployments/fn-f";
const LEDGER: &str = "/apis/eventflow.eventflow.io/v1alpha1/namespaces/tenant-a/quotaledgers/ledger";
const STATUS: &str = "/apis/eventflow.eventflow.io/v1alpha1/namespaces/tenant-a/functions/f/status";

/// What the API server makes of the Deployment once it has its pods: exactly what was sent.
fn applied() -> Value {
    let world = world();
    let name = Name { namespace: "tenant-a".into(), name: "f".into() };
    let observed = controller::observe::function(&world, &name).unwrap();
    let valid = controller::validate::function(&observed).unwrap();
    let mut object = json!(controller::desired::function(&valid, &Surroundings::default()).deployment);
    object["metadata"]["uid"] = "d-uid".into();
    object["metadata"]["resourceVersion"] = "9".into();
    object["metadata"]["annotations"]["eventflow.io/mark"] = "after".into();
    object
}

/// The same as it is made: without pods.
fn born() -> Value {
    let mut object = applied();
    object["metadata"]["resourceVersion"] = "8".into();
    object["metadata"]["annotations"]["eventflow.io/mark"] = "before".into();
    object["spec"]["replicas"] = 0.into();
    object
}

/// How a Deployment comes to be.
fn made() -> Vec<Step> {
    vec![
        Step(Method::POST, DEPLOYMENTS, 201, born()),
        Step(Method::GET, LEDGER, 200, ledger(1, 1)),
        Step(Method::PATCH, DEPLOYMENT, 200, applied()),
    ]
}

#[tokio::test]
async fn a_refused_write_is_an_error_and_the_next_run_goes_on() {
    for (code, reason) in [(500, "InternalError"), (403, "Forbidden"), (400, "BadRequest")] {
        let world = world();
        let mut steps = vec![Step(Method::POST, DEPLOYMENTS, code, failure(code, reason))];
        steps.extend(made());
        steps.push(Step(Method::PATCH, STATUS, 200, function()));
        let (client, left) = scripted(steps);
        let context = context(client, &world);
        let error = reconcile(&context, &key()).await.unwrap_err();
        assert!(controller::telemetry::chain(&error).contains(&format!("no ({code})")));
        reconcile(&context, &key()).await.unwrap();
        assert!(left.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_controller_that_was_paused_gives_no_pods() {
    // Another one leads by now, or the reservation is gone.
    for now in [ledger(2, 1), ledger(1, 0)] {
        let world = world();
        let (client, left) =
            scripted(vec![Step(Method::POST, DEPLOYMENTS, 201, born()), Step(Method::GET, LEDGER, 200, now)]);
        assert_eq!(reconcile(&context(client, &world), &key()).await.unwrap(), Next::Settled);
        assert!(left.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_deployment_that_others_wrote_is_read_again_before_it_is_given_pods() {
    let world = world();
    let mut touched = born();
    touched["metadata"]["annotations"]["eventflow.io/mark"] = "touched".into();
    let (client, left) = scripted(vec![
        Step(Method::POST, DEPLOYMENTS, 201, born()),
        Step(Method::GET, LEDGER, 200, ledger(1, 1)),
        Step(Method::PATCH, DEPLOYMENT, 422, failure(422, "Invalid")),
        Step(Method::GET, DEPLOYMENT, 200, touched.clone()),
        // From the start.
        Step(Method::GET, DEPLOYMENT, 200, touched),
        Step(Method::GET, LEDGER, 200, ledger(1, 1)),
        Step(Method::PUT, DEPLOYMENT, 200, applied()),
        Step(Method::PATCH, STATUS, 200, function()),
    ]);
    reconcile(&context(client, &world), &key()).await.unwrap();
    assert!(left.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_failed_status_write_is_an_error_and_makes_nothing_twice() {
    let world = world();
    let mut steps = made();
    steps.push(Step(Method::PATCH, STATUS, 500, failure(500, "InternalError")));
    steps.push(Step(Method::PATCH, STATUS, 200, function()));
    let (client, left) = scripted(steps);
    let context = context(client, &world);
    reconcile(&context, &key()).await.unwrap_err();
    // Nothing of the Deployment is asked or written again: the answer to the write was remembered.
    reconcile(&context, &key()).await.unwrap();
    assert!(left.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_function_that_goes_meanwhile_is_no_error() {
    for (code, reason) in [(404, "NotFound"), (409, "Conflict")] {
        let world = world();
        let mut steps = made();
        steps.push(Step(Method::PATCH, STATUS, code, failure(code, reason)));
        let (client, _) = scripted(steps);
        assert_eq!(reconcile(&context(client, &world), &key()).await.unwrap(), Next::Settled);
    }
}

#[tokio::test]
async fn what_someone_changes_as_it_is_written_is_noted_and_not_fought() {
    let mut changed = applied();
    changed["spec"]["template"]["spec"]["priorityClassName"] = "by-a-webhook".into();
    let world = world();
    let (client, left) = scripted(vec![
        Step(Method::POST, DEPLOYMENTS, 201, born()),
        Step(Method::GET, LEDGER, 200, ledger(1, 1)),
        Step(Method::PATCH, DEPLOYMENT, 200, changed.clone()),
        Step(Method::GET, DEPLOYMENT, 200, changed.clone()),
        Step(Method::GET, LEDGER, 200, ledger(1, 1)),
        Step(Method::PUT, DEPLOYMENT, 409, failure(409, "Conflict")),
        Step(Method::GET, DEPLOYMENT, 200, changed.clone()),
        Step(Method::GET, DEPLOYMENT, 200, changed.clone()),
        Step(Method::GET, LEDGER, 200, ledger(1, 1)),
        Step(Method::PUT, DEPLOYMENT, 200, changed),
        Step(Method::PATCH, STATUS, 200, function()),
        // The second run: the Deployment is taken as it is.
        Step(Method::PATCH, STATUS, 200, function()),
    ]);
    let context = context(client, &world);
    reconcile(&context, &key()).await.unwrap();
    reconcile(&context, &key()).await.unwrap();
    assert!(left.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_a_former_function_left_is_deleted_by_identity_first() {
    let mut former = applied();
    former["metadata"]["ownerReferences"][0]["uid"] = "former".into();
    let world = world();
    put::<Deployment>(&world, former);
    let (client, left) = scripted(vec![
        Step(Method::DELETE, DEPLOYMENT, 200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
        Step(Method::PATCH, STATUS, 200, function()),
    ]);
    reconcile(&context(client, &world), &key()).await.unwrap();
    assert!(left.lock().unwrap().is_empty());
    assert_eq!(world.tables().children(ChildKind::Deployment).len(), 1, "the watch tells when it is gone");
}

#[tokio::test]
async fn a_foreign_deployment_is_only_read() {
    let mut foreign = applied();
    foreign["metadata"]["ownerReferences"] = json!([]);
    foreign["metadata"]["labels"] = json!({});
    let world = world();
    let (client, left) = scripted(vec![
        Step(Method::POST, DEPLOYMENTS, 409, failure(409, "AlreadyExists")),
        Step(Method::GET, DEPLOYMENT, 200, foreign),
        Step(Method::PATCH, STATUS, 200, function()),
    ]);
    assert!(matches!(reconcile(&context(client, &world), &key()).await.unwrap(), Next::After(_)));
    assert!(left.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_deployment_made_by_another_leader_meanwhile_is_read_before_it_is_written() {
    let world = world();
    let (client, left) = scripted(vec![
        Step(Method::POST, DEPLOYMENTS, 409, failure(409, "AlreadyExists")),
        Step(Method::GET, DEPLOYMENT, 200, applied()),
        Step(Method::PATCH, STATUS, 200, function()),
    ]);
    reconcile(&context(client, &world), &key()).await.unwrap();
    assert!(left.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_deployment_written_for_a_newer_spec_is_left_alone() {
    let mut newer = applied();
    newer["metadata"]["annotations"]["eventflow.io/generation"] = "2".into();
    let world = world();
    put::<Deployment>(&world, newer);
    let (client, left) = scripted(vec![Step(Method::PATCH, STATUS, 200, function())]);
    reconcile(&context(client, &world), &key()).await.unwrap();
    assert!(left.lock().unwrap().is_empty());
}

#[tokio::test]
async fn nothing_is_made_that_is_not_reserved() {
    let world = world();
    let name = Name { namespace: "tenant-a".into(), name: "ledger".into() };
    world.forget_ledger(&name);
    let (client, _) = scripted(Vec::new());
    assert_eq!(reconcile(&context(client, &world), &key()).await.unwrap(), Next::Settled);
}
