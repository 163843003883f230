//! Runs of functions against a real API server: reserved before they start, told as they are, given back when they are
//! over. What a kubelet would say of pods is written by hand.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::quota::{api, asking, cluster, ledger, one_cpu};
use common::{create, eventually, function_object, merge, until};
use eventflow_api::function::Function;
use eventflow_api::invocation::{Invocation, InvocationStatus, RunPhase, RunReason};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

fn run_object(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Invocation", "metadata": {"name": name}, "spec": spec})
}

/// A namespace with a function that has no pods of its own, whose runs ask for 400m of 1 CPU.
async fn ground(client: &Client) -> (String, Api<Invocation>) {
    let (_, ns) = one_cpu(client).await;
    create(&api::<Function>(client, &ns), function_object("f", asking(0, "400m"))).await;
    let runs = api::<Invocation>(client, &ns);
    (ns, runs)
}

async fn told(runs: &Api<Invocation>, name: &str, phase: RunPhase) -> InvocationStatus {
    let is = |run: &Invocation| run.status.as_ref().is_some_and(|status| status.phase == phase);
    until(runs, name, &format!("the run {name} is {phase:?}"), is).await.status.unwrap()
}

/// Plays the kubelet: gives the run's newest pod this status; the pod's name.
async fn report(client: &Client, ns: &str, run: &str, status: Value) -> String {
    let pods = api::<Pod>(client, ns);
    let of = ListParams::default().labels(&format!("eventflow.io/invocation={run}"));
    let pod = eventually("the run has a pod", async || {
        let mut list = pods.list(&of).await.unwrap().items;
        list.retain(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed")) && pod.metadata.deletion_timestamp.is_none()
        });
        list.pop()
    })
    .await;
    let patch = Patch::Merge(json!({"status": status}));
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await.unwrap();
    pod.name_any()
}

fn container(state: Value) -> Value {
    json!([{"name": "function", "image": "a:1", "imageID": "", "ready": false, "restartCount": 0, "state": state}])
}

fn running() -> Value {
    json!({"phase": "Running", "containerStatuses": container(json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}))})
}

fn ended(code: i32, word: &str, message: &str) -> Value {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let state = json!({"terminated": {"exitCode": code, "reason": word, "message": message,
        "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:05Z"}});
    json!({"phase": phase, "containerStatuses": container(state)})
}

#[tokio::test]
async fn a_run_is_reserved_starts_and_gives_back_what_it_held() {
    let client = cluster().await;
    let (ns, runs) = ground(&client).await;
    let spec = json!({"function": "f", "input": "{\"a\": 1}", "args": ["x"], "env": {"B": "2"}, "timeoutSeconds": 9});
    let run: Invocation = create(&runs, run_object("r", spec)).await;
    told(&runs, "r", RunPhase::Starting).await;
    let held = ledger(&client, &ns).await;
    let uid = run.uid().unwrap().parse().unwrap();
    assert_eq!((held.held(uid).cpu_requests, held.held(uid).pods, held.held(uid).functions), (400, 1, 0));
    let job = api::<Job>(&client, &ns).get("run-r").await.unwrap();
    let pod = job.spec.as_ref().unwrap().template.spec.clone().unwrap();
    assert_eq!((pod.active_deadline_seconds, pod.containers[0].args.clone().unwrap()), (Some(9), vec!["x".to_owned()]));
    let input = api::<ConfigMap>(&client, &ns).get("run-r").await.unwrap();
    assert_eq!((input.data.unwrap()["input"].as_str(), input.immutable), ("{\"a\": 1}", Some(true)));

    report(&client, &ns, "r", running()).await;
    assert!(told(&runs, "r", RunPhase::Running).await.started_at.is_some());
    let pod = report(&client, &ns, "r", ended(0, "Completed", "{\"done\": true}")).await;
    let status = told(&runs, "r", RunPhase::Succeeded).await;
    assert_eq!((status.reason, status.exit_code, status.attempts), (Some(RunReason::Completed), Some(0), 1));
    assert_eq!((status.result.as_deref(), status.pod.as_deref()), (Some("{\"done\": true}"), Some(pod.as_str())));
    assert_eq!(status.finished_at.as_deref(), Some("2026-01-01T00:00:05Z"));
    eventually("what it held is given back", async || {
        ledger(&client, &ns).await.reservations().get(&uid).is_none().then_some(())
    })
    .await;
    // What it wrote can still be read.
    assert!(api::<Pod>(&client, &ns).get_opt(&pod).await.unwrap().is_some());
    runs.delete("r", &DeleteParams::background()).await.unwrap();
    eventually("its Job goes with it", async || {
        api::<Job>(&client, &ns).get_opt("run-r").await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn runs_wait_for_room_and_what_never_fits_has_failed() {
    let client = cluster().await;
    let (ns, runs) = ground(&client).await;
    for name in ["a", "b", "c"] {
        create(&runs, run_object(name, json!({"function": "f"}))).await;
    }
    let phases = async || {
        let list = runs.list(&ListParams::default()).await.unwrap().items;
        let phase = |run: Invocation| (run.status.unwrap_or_default().phase, run.metadata.name.unwrap());
        let mut phases: Vec<_> = list.into_iter().map(phase).collect();
        phases.sort_by_key(|(phase, _)| *phase == RunPhase::Queued);
        phases
    };
    let waiting = eventually("two start and one waits", async || {
        let phases = phases().await;
        let started = phases.iter().filter(|(phase, _)| *phase == RunPhase::Starting).count();
        (started == 2 && phases[2].0 == RunPhase::Queued).then(|| phases[2].1.clone())
    })
    .await;
    let jobs = api::<Job>(&client, &ns).list(&ListParams::default()).await.unwrap().items;
    assert_eq!(jobs.len(), 2, "what waits has no Job");
    let message = told(&runs, &waiting, RunPhase::Queued).await.message;
    assert!(message.contains("cpuRequests 400m requested, 200m free"), "{message}");

    let first = phases().await[0].1.clone();
    report(&client, &ns, &first, ended(1, "Error", "")).await;
    let failed = told(&runs, &first, RunPhase::Failed).await;
    assert_eq!((failed.reason, failed.exit_code), (Some(RunReason::ExitCode), Some(1)));
    told(&runs, &waiting, RunPhase::Starting).await;

    create(&api::<Function>(&client, &ns), function_object("large", asking(0, "2"))).await;
    create(&runs, run_object("never", json!({"function": "large"}))).await;
    let never = told(&runs, "never", RunPhase::Failed).await;
    assert_eq!(never.reason, Some(RunReason::ExceedsMaxQuota));
}

#[tokio::test]
async fn a_run_is_cancelled_while_it_waits_and_while_it_runs() {
    let client = cluster().await;
    let (ns, runs) = ground(&client).await;
    create(&runs, run_object("first", json!({"function": "f"}))).await;
    report(&client, &ns, "first", running()).await;
    told(&runs, "first", RunPhase::Running).await;
    for name in ["second", "third"] {
        create(&runs, run_object(name, json!({"function": "f"}))).await;
    }
    let waiting = eventually("one waits", async || {
        let list = runs.list(&ListParams::default()).await.unwrap().items;
        let queued = |run: &Invocation| run.status.as_ref().is_some_and(|s| s.phase == RunPhase::Queued);
        list.into_iter().find(queued).map(|run| run.name_any())
    })
    .await;
    let changed = json!({"spec": {"retries": 3}});
    let refused = runs.patch(&waiting, &PatchParams::default(), &Patch::Merge(changed)).await.unwrap_err();
    assert!(refused.to_string().contains("only cancel can be changed"), "{refused}");
    merge(&runs, &waiting, json!({"spec": {"cancel": true}})).await;
    let status = told(&runs, &waiting, RunPhase::Cancelled).await;
    assert_eq!((status.reason, status.attempts, status.admitted_at), (Some(RunReason::Cancelled), 0, None));
    let back = runs.patch(&waiting, &PatchParams::default(), &Patch::Merge(json!({"spec": {"cancel": null}}))).await;
    assert!(back.unwrap_err().to_string().contains("cannot be taken back"));

    merge(&runs, "first", json!({"spec": {"cancel": true}})).await;
    let status = told(&runs, "first", RunPhase::Cancelled).await;
    assert_eq!((status.attempts, status.exit_code), (1, None));
    let of = ListParams::default().labels("eventflow.io/invocation=first");
    assert!(api::<Pod>(&client, &ns).list(&of).await.unwrap().items.is_empty(), "nothing of it runs");
}

#[tokio::test]
async fn a_failed_attempt_is_repeated_and_never_beside_another() {
    let client = cluster().await;
    let (ns, runs) = ground(&client).await;
    create(&runs, run_object("r", json!({"function": "f", "retries": 1}))).await;
    let first = report(&client, &ns, "r", ended(3, "Error", "")).await;
    let is = |run: &Invocation| run.status.as_ref().is_some_and(|s| s.message.contains("it is tried again"));
    until(&runs, "r", "the first attempt is told", is).await;
    let second = report(&client, &ns, "r", ended(0, "Completed", "")).await;
    assert_ne!(first, second);
    let status = told(&runs, "r", RunPhase::Succeeded).await;
    assert_eq!((status.attempts, status.exit_code, status.pod.as_deref()), (2, Some(0), Some(second.as_str())));
}

#[tokio::test]
async fn what_goes_by_hand_is_told() {
    let client = cluster().await;
    let (ns, runs) = ground(&client).await;
    create(&runs, run_object("r", json!({"function": "f"}))).await;
    report(&client, &ns, "r", running()).await;
    told(&runs, "r", RunPhase::Running).await;
    api::<Job>(&client, &ns).delete("run-r", &DeleteParams::background()).await.unwrap();
    let status = told(&runs, "r", RunPhase::Failed).await;
    assert_eq!(status.reason, Some(RunReason::Removed));
    eventually("what it held is given back", async || (ledger(&client, &ns).await.sum().pods == 0).then_some(())).await;
    // A Job of somebody else's in the way is left alone.
    let foreign = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "run-s", "namespace": ns},
        "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}}}});
    let foreign: Job = serde_json::from_value(foreign).unwrap();
    api::<Job>(&client, &ns).create(&PostParams::default(), &foreign).await.unwrap();
    create(&runs, run_object("s", json!({"function": "f"}))).await;
    let status = told(&runs, "s", RunPhase::Failed).await;
    assert!(status.message.contains("run-s exists"), "{}", status.message);
    assert!(api::<Job>(&client, &ns).get("run-s").await.unwrap().metadata.owner_references.is_none());
}

#[tokio::test]
async fn the_schema_refuses_what_the_api_refuses() {
    let client = cluster().await;
    let (_, runs) = ground(&client).await;
    for (name, spec) in [
        ("a", json!({"function": "Bad Name"})),
        ("a", json!({"function": "f", "retries": 11})),
        ("a", json!({"function": "f", "timeoutSeconds": 0})),
        ("a", json!({"function": "f", "env": {"EVENTFLOW_X": "y"}})),
        ("a", json!({"function": "f", "args": vec!["x"; 65]})),
        ("a", json!({"function": "f", "input": "x".repeat(262_145)})),
        ("x.y", json!({"function": "f"})),
        (&"x".repeat(59), json!({"function": "f"})),
    ] {
        let object = serde_json::from_value(run_object(name, spec.clone())).unwrap();
        let refused = runs.create(&PostParams::default(), &object).await;
        assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 422), "{name} {refused:?}");
    }
}
