//! What is said of runs.

use super::*;
use crate::world::run::{JobEnd, ProgramEnd};
use quota::uid::Uid;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn moment(second: i64) -> Moment {
    Moment { generation: 1, now: at(second) }
}

fn job(end: Option<(bool, &str)>, attempts: i32) -> JobView {
    JobView {
        owner: None,
        deleting: false,
        suspended: false,
        mark: None,
        attempts,
        end: end.map(|(succeeded, reason)| JobEnd { succeeded, reason: reason.into() }),
    }
}

fn pod() -> RunPodView {
    RunPodView {
        invocation: None,
        created: Some(at(100)),
        deleting: false,
        ended: None,
        reason: None,
        disrupted: false,
        unschedulable: None,
        waiting: None,
        started: None,
        end: None,
    }
}

fn ended(exit_code: i32, reason: &str, message: &str) -> RunPodView {
    let end = ProgramEnd { exit_code, reason: reason.into(), message: message.into(), at: Some(at(120)) };
    RunPodView { ended: Some(exit_code == 0), started: Some(at(110)), end: Some(end), ..pod() }
}

fn of(job: &JobView, pods: &[RunPodView], second: i64) -> Computed {
    let pods: Vec<_> = pods.iter().cloned().enumerate().map(|(i, pod)| (format!("pod-{i}"), pod)).collect();
    let outcome = Outcome::Started { job, timeout: 7 };
    compute(&InvocationStatus::default(), &outcome, &pods, moment(second))
}

#[test]
fn a_run_waits_starts_runs_and_succeeds() {
    let told = Told {
        uid: Uid::from_bits(1),
        generation: 1,
        reason: Reason::WaitingForQuota,
        admitted: false,
        message: "number 1 in the queue".into(),
    };
    let queued = compute(&InvocationStatus::default(), &Outcome::Waiting(&told), &[], moment(90)).status;
    assert_eq!((queued.phase, queued.message.as_str()), (RunPhase::Queued, "number 1 in the queue"));
    assert!(queued.conditions.iter().all(|c| c.reason == Reason::WaitingForQuota));

    let starting = of(&job(None, 0), &[], 95).status;
    assert_eq!((starting.phase, starting.admitted_at.as_deref()), (RunPhase::Starting, Some("1970-01-01T00:01:35Z")));
    let running = of(&job(None, 1), &[RunPodView { started: Some(at(110)), ..pod() }], 115).status;
    assert_eq!((running.phase, running.started_at.as_deref()), (RunPhase::Running, Some("1970-01-01T00:01:50Z")));

    let done = of(&job(Some((true, "CompletionsReached")), 1), &[ended(0, "Completed", "{\"a\":1}")], 125).status;
    assert_eq!((done.phase, done.reason, done.exit_code), (RunPhase::Succeeded, Some(RunReason::Completed), Some(0)));
    assert_eq!(
        (done.result.as_deref(), done.finished_at.as_deref()),
        (Some("{\"a\":1}"), Some("1970-01-01T00:02:00Z"))
    );
    assert_eq!((done.attempts, done.pod.as_deref()), (1, Some("pod-0")));
}

#[test]
fn times_once_told_stay() {
    let old =
        InvocationStatus { admitted_at: Some("x".into()), started_at: Some("y".into()), ..InvocationStatus::default() };
    let job = job(None, 1);
    let outcome = Outcome::Started { job: &job, timeout: 7 };
    let status =
        compute(&old, &outcome, &[("p".into(), RunPodView { started: Some(at(1)), ..pod() })], moment(2)).status;
    assert_eq!((status.admitted_at.as_deref(), status.started_at.as_deref()), (Some("x"), Some("y")));
}

#[test]
fn each_way_to_fail_has_its_reason() {
    let over = job(Some((false, "BackoffLimitExceeded")), 1);
    let reason = |pod: RunPodView| of(&over, &[pod], 130).status.reason.unwrap();
    assert_eq!(reason(ended(3, "Error", "")), RunReason::ExitCode);
    assert_eq!(reason(ended(137, "OOMKilled", "")), RunReason::OutOfMemory);
    assert_eq!(reason(ended(128, "StartError", "exec: no such file")), RunReason::ContainerFailed);
    assert_eq!(
        reason(RunPodView { reason: Some("DeadlineExceeded".into()), ..ended(137, "Error", "") }),
        RunReason::TimedOut
    );
    assert_eq!(reason(RunPodView { reason: Some("Evicted".into()), ended: Some(false), ..pod() }), RunReason::Evicted);
    assert_eq!(reason(RunPodView { disrupted: true, ..ended(143, "Error", "") }), RunReason::Evicted);
    assert_eq!(reason(RunPodView { ended: Some(false), ..pod() }), RunReason::Removed);
    let gone = of(&over, &[], 130).status;
    assert_eq!((gone.reason, gone.phase), (Some(RunReason::Removed), RunPhase::Failed));
    let late = of(&job(Some((false, "DeadlineExceeded")), 0), &[], 130).status;
    assert_eq!(late.reason, Some(RunReason::Unschedulable));

    let status = of(&over, &[ended(128, "StartError", "exec: no such file")], 130).status;
    assert_eq!(status.result, None, "the runtime's words are no result");
    let status = of(&over, &[ended(3, "Error", "{\"why\":1}")], 130).status;
    assert_eq!((status.exit_code, status.result.as_deref()), (Some(3), Some("{\"why\":1}")));
}

#[test]
fn attempts_are_told_apart() {
    let between = of(&job(None, 1), &[ended(3, "Error", "")], 121).status;
    assert_eq!((between.phase, between.attempts), (RunPhase::Starting, 1));
    assert!(between.message.contains("attempt 1 failed: the program ended with exit code 3"), "{}", between.message);
    let last = of(&job(Some((false, "BackoffLimitExceeded")), 2), &[ended(4, "Error", ""), ended(3, "Error", "")], 121);
    assert_eq!((last.status.attempts, last.status.exit_code, last.status.pod.as_deref()), (2, Some(3), Some("pod-1")));
    assert!(last.status.message.ends_with("on the last of 2 attempts"), "{}", last.status.message);
    let second = of(&job(Some((true, "")), 2), &[ended(4, "Error", ""), ended(0, "Completed", "")], 121).status;
    assert_eq!((second.phase, second.exit_code, second.attempts), (RunPhase::Succeeded, Some(0), 2));
}

#[test]
fn an_image_gets_a_while() {
    let waiting = |word: &str| RunPodView { waiting: Some((word.into(), "not found".into())), ..pod() };
    let first = of(&job(None, 1), &[waiting("ErrImagePull")], 105);
    assert_eq!((first.status.phase, first.look_again), (RunPhase::Starting, Some(at(130))));
    let last = of(&job(None, 1), &[waiting("ImagePullBackOff")], 130);
    assert_eq!((last.status.phase, last.status.reason), (RunPhase::Failed, Some(RunReason::ImagePullFailed)));
    assert_eq!((last.look_again, last.status.started_at), (None, None));
    let config = of(&job(None, 1), &[waiting("CreateContainerConfigError")], 200).status;
    assert_eq!(config.reason, Some(RunReason::ContainerFailed));
    let usual = of(&job(None, 1), &[waiting("ContainerCreating")], 500).status;
    assert_eq!(usual.phase, RunPhase::Starting);
    let full = of(&job(None, 1), &[RunPodView { unschedulable: Some("0/1 nodes".into()), ..pod() }], 500).status;
    assert_eq!((full.phase, full.message.as_str()), (RunPhase::Starting, "no node has room: 0/1 nodes"));
}
