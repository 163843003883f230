//! What is said of a function, from pods and Deployments as a real cluster reports them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use controller::status::Moment;
use controller::status::function::{Computed, Outcome, compute};
use controller::validate::{Refusal, ValidFunction};
use controller::world::child::Rollout;
use controller::world::child::see;
use controller::world::views;
use eventflow_api::condition::{ConditionStatus, ConditionType, Reason, find};
use eventflow_api::function::{FunctionSpec, FunctionStatus, Phase};
use eventflow_api::tier::PodSecurity;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

const NOW: &str = "2026-11-22T12:00:00Z";

fn function(replicas: u32) -> ValidFunction {
    let spec: FunctionSpec =
        serde_json::from_value(json!({"image": "reg/app:1", "replicas": replicas, "port": 80})).unwrap();
    ValidFunction {
        name: "f".parse().unwrap(),
        uid: "u".into(),
        generation: 3,
        tenant: "a".parse().unwrap(),
        spec: Arc::new(spec.parse().unwrap()),
        replicas,
        suspension: None,
        pod_security: PodSecurity::Restricted,
        surge: true,
    }
}

/// A pod as the API server gives it: conditions and the one container's status.
fn pod(template: &str, conditions: Value, container: Value) -> Value {
    let mut container = container;
    container["name"] = "function".into();
    container["image"] = "reg/app:1".into();
    container["imageID"] = "".into();
    container["ready"] = json!(false);
    json!({
        "metadata": {"name": "fn-f-1", "namespace": "tenant-a", "creationTimestamp": "2026-11-22T11:59:00Z",
            "labels": {"app": "eventflow-function", "function": "f"}, "annotations": {"eventflow.io/template": template}},
        "status": {"phase": "Running", "conditions": conditions, "containerStatuses": [container]}
    })
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}})
}

fn end(code: i32, reason: &str, seconds: i64) -> Value {
    let finished: Timestamp = "2026-11-22T11:59:50Z".parse().unwrap();
    let started = finished - jiff::SignedDuration::from_secs(seconds);
    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": started.to_string(),
        "finishedAt": finished.to_string()}})
}

fn ready(since: &str) -> Value {
    json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}])
}

fn steady() -> Value {
    pod(
        "new",
        ready("2026-11-22T11:59:30Z"),
        json!({"restartCount": 0, "state": {"running": {"startedAt": "2026-11-22T11:59:20Z"}}}),
    )
}

fn rollout() -> Rollout {
    Rollout { observed: true, replicas: 1, ..Rollout::default() }
}

fn computed(function: &ValidFunction, rollout: &Rollout, pods: Vec<Value>) -> Computed {
    let pods: Vec<_> =
        pods.into_iter().map(|pod| views::pod(serde_json::from_value::<Pod>(pod).unwrap()).1.view).collect();
    let outcome = Outcome::Applied { function, template: "new", rollout };
    let at = Moment { generation: 3, now: NOW.parse().unwrap() };
    compute("f", &FunctionStatus::default(), &outcome, &pods, at)
}

fn told(status: &FunctionStatus) -> (Phase, Reason, String) {
    let ready = find(&status.conditions, ConditionType::Ready).unwrap();
    assert_eq!(ready.observed_generation, 3);
    (status.phase, ready.reason, ready.message.clone())
}

#[track_caller]
fn expect(pod: Value, phase: Phase, reason: Reason, message: &str) {
    let status = computed(&function(1), &rollout(), vec![pod]).status;
    let found = told(&status);
    assert_eq!((found.0, found.1), (phase, reason), "{}", found.2);
    assert!(found.2.contains(message), "{}", found.2);
}

#[test]
fn all_ready() {
    let status = computed(&function(1), &rollout(), vec![steady()]).status;
    assert_eq!(told(&status).0, Phase::Running);
    assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (1, 1, 1));
    assert_eq!(find(&status.conditions, ConditionType::Progressing).unwrap().reason, Reason::RolledOut);
    assert_eq!(status.selector, "app=eventflow-function,function=f");
}

#[test]
fn images_that_cannot_be_pulled() {
    let message = "failed to resolve reference \"reg/app:1\": not found";
    for reason in ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"] {
        expect(pod("new", json!([]), waiting(reason, message)), Phase::Failed, Reason::ImagePullFailed, "reg/app:1");
    }
}

#[test]
fn long_messages_are_cut() {
    let status =
        computed(&function(1), &rollout(), vec![pod("new", json!([]), waiting("ErrImagePull", &"ä".repeat(5000)))]);
    let length = told(&status.status).2.chars().count();
    assert!((1000..=1024).contains(&length), "{length}");
}

#[test]
fn containers_that_cannot_be_set_up() {
    let message = "exec: \"/nope\": no such file";
    expect(
        pod("new", json!([]), waiting("RunContainerError", message)),
        Phase::Failed,
        Reason::ContainerFailed,
        "/nope",
    );
    let mut last = end(128, "StartError", 0);
    last["terminated"]["message"] = message.into();
    let crash = json!({"restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": last});
    expect(pod("new", json!([]), crash), Phase::Failed, Reason::ContainerFailed, "/nope");
}

#[test]
fn crash_loops_through_every_step_of_the_loop() {
    let back_off = json!({"restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": end(3, "Error", 1)});
    expect(pod("new", json!([]), back_off), Phase::Failed, Reason::CrashLooping, "exit code 3");
    let again = json!({"restartCount": 2, "state": {"running": {"startedAt": "2026-11-22T11:59:59Z"}}, "lastState": end(3, "Error", 1)});
    expect(pod("new", json!([]), again.clone()), Phase::Failed, Reason::CrashLooping, "restarted 2 times");
    expect(pod("new", ready("2026-11-22T11:59:59Z"), again), Phase::Failed, Reason::CrashLooping, "exit code 3");
    let ended = json!({"restartCount": 1, "state": end(0, "Completed", 1), "lastState": end(0, "Completed", 1)});
    expect(pod("new", json!([]), ended), Phase::Failed, Reason::CrashLooping, "must keep running");
}

#[test]
fn one_crash_is_no_loop() {
    let first = json!({"restartCount": 0, "state": end(1, "Error", 1)});
    expect(pod("new", json!([]), first), Phase::Pending, Reason::Starting, "0 of 1");
    let old = json!({"restartCount": 9, "state": {"running": {"startedAt": "2026-11-22T11:59:59Z"}}, "lastState": end(1, "Error", 86_400)});
    expect(pod("new", json!([]), old), Phase::Pending, Reason::Starting, "0 of 1");
}

#[test]
fn a_restarted_pod_counts_once_it_stays_ready() {
    let restarted = json!({"restartCount": 2, "state": {"running": {"startedAt": "2026-11-22T11:59:00Z"}}, "lastState": end(1, "Error", 1)});
    let early = computed(&function(1), &rollout(), vec![pod("new", ready("2026-11-22T11:59:45Z"), restarted.clone())]);
    assert_eq!(told(&early.status).1, Reason::CrashLooping);
    assert_eq!(early.status.ready_replicas, 0);
    assert_eq!(early.look_again, Some("2026-11-22T12:00:05Z".parse().unwrap()));
    expect(pod("new", ready("2026-11-22T11:59:40Z"), restarted), Phase::Running, Reason::AllReady, "all 1");
}

#[test]
fn out_of_memory_is_told_at_once() {
    let killed = json!({"restartCount": 0, "state": end(137, "OOMKilled", 1)});
    expect(pod("new", json!([]), killed), Phase::Failed, Reason::OutOfMemory, "memoryLimit");
    let again =
        json!({"restartCount": 1, "state": {"running": {"startedAt": NOW}}, "lastState": end(137, "OOMKilled", 1)});
    expect(pod("new", json!([]), again), Phase::Failed, Reason::OutOfMemory, "memoryLimit");
}

#[test]
fn no_node_has_room() {
    let conditions = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]);
    expect(pod("new", conditions, json!({"restartCount": 0})), Phase::Pending, Reason::Unschedulable, "0/1 nodes");
}

#[test]
fn a_port_that_does_not_answer() {
    let running = |since: &str| json!({"restartCount": 0, "state": {"running": {"startedAt": since}}});
    expect(pod("new", json!([]), running("2026-11-22T11:59:30Z")), Phase::Pending, Reason::NotAnswering, "port");
    let early = computed(&function(1), &rollout(), vec![pod("new", json!([]), running("2026-11-22T11:59:31Z"))]);
    assert_eq!(told(&early.status).1, Reason::Starting);
    assert_eq!(early.look_again, Some("2026-11-22T12:00:01Z".parse().unwrap()));
}

/// A Deployment's status as its controller writes it.
fn deployment_rollout(conditions: Value) -> Rollout {
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "fn-f", "namespace": "tenant-a", "generation": 2},
        "spec": {"selector": {}, "template": {}},
        "status": {"observedGeneration": 2, "replicas": 0, "conditions": conditions}
    }))
    .unwrap();
    see(&deployment).1.view.rollout.unwrap()
}

#[test]
fn pods_that_are_refused() {
    for (message, reason) in [
        ("pods \"x\" is forbidden: exceeded quota: tenant-quota, requested: pods=1", Reason::QuotaExceeded),
        ("pods \"x\" is forbidden: violates PodSecurity", Reason::PodRefused),
    ] {
        let rollout = deployment_rollout(
            json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]),
        );
        let found = told(&computed(&function(1), &rollout, Vec::new()).status);
        assert_eq!((found.0, found.1), (Phase::Failed, reason));
        assert!(found.2.contains(message));
    }
}

#[test]
fn a_roll_out_that_takes_too_long() {
    let late = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    let status = computed(&function(1), &deployment_rollout(late.clone()), Vec::new()).status;
    assert_eq!((told(&status).0, told(&status).1), (Phase::Failed, Reason::RolloutTimedOut));
    let progressing = find(&status.conditions, ConditionType::Progressing).unwrap();
    assert_eq!((progressing.status, progressing.reason), (ConditionStatus::False, Reason::RolloutTimedOut));
    let conditions =
        json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}]);
    let pods = vec![pod("new", conditions, json!({"restartCount": 0}))];
    let found = told(&computed(&function(1), &deployment_rollout(late), pods).status);
    assert_eq!((found.0, found.1), (Phase::Failed, Reason::Unschedulable), "the cause is told, not the symptom");
}

#[test]
fn a_new_version_that_fails_while_the_old_one_serves() {
    let mut old = steady();
    old["metadata"]["annotations"]["eventflow.io/template"] = "old".into();
    let broken = pod("new", json!([]), waiting("ImagePullBackOff", "not found"));
    let status = computed(&function(1), &Rollout { replicas: 2, ..rollout() }, vec![old, broken]).status;
    let (phase, reason, message) = told(&status);
    assert_eq!((phase, reason, status.ready_replicas), (Phase::Failed, Reason::ImagePullFailed, 1));
    assert!(message.contains("1 of the version before still serve"), "{message}");
}

#[test]
fn partly_ready_idle_and_suspended() {
    let found = told(&computed(&function(2), &rollout(), vec![steady()]).status);
    assert_eq!((found.0, found.1), (Phase::Pending, Reason::PartlyReady));
    let found = told(&computed(&function(0), &rollout(), Vec::new()).status);
    assert_eq!((found.0, found.1), (Phase::Idle, Reason::ScaledToZero));
    for reason in [Reason::Suspended, Reason::TenantSuspended] {
        let suspended = ValidFunction { suspension: Some(reason), ..function(0) };
        let found = told(&computed(&suspended, &rollout(), vec![steady()]).status);
        assert_eq!((found.0, found.1), (Phase::Suspended, reason));
    }
}

#[test]
fn ended_and_ending_pods_do_not_count() {
    let mut evicted = pod("new", json!([]), waiting("ErrImagePull", "x"));
    evicted["status"]["phase"] = "Failed".into();
    let mut ending = steady();
    ending["metadata"]["deletionTimestamp"] = NOW.into();
    let status = computed(&function(1), &rollout(), vec![evicted, ending]).status;
    assert_eq!((status.replicas, status.ready_replicas, told(&status).1), (0, 0, Reason::Starting));
}

#[test]
fn refusals_are_told_in_every_condition_and_times_stay() {
    let refusal = Refusal::new(Reason::InvalidSpec, "image must not be empty");
    let compute = |old: &FunctionStatus, now: &str| {
        let at = Moment { generation: 3, now: now.parse().unwrap() };
        super_compute(old, &refusal, at)
    };
    let first = compute(&FunctionStatus::default(), "2026-11-22T11:00:00Z");
    assert_eq!(first.phase, Phase::Failed);
    assert!(first.conditions.iter().all(|c| c.reason == Reason::InvalidSpec && c.status == ConditionStatus::False));
    assert_eq!(compute(&first, NOW), first, "nothing is written again because of the time alone");
}

fn super_compute(old: &FunctionStatus, refusal: &Refusal, at: Moment) -> FunctionStatus {
    compute("f", old, &Outcome::Refused(refusal), &[], at).status
}
