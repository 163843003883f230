//! The status of a run, from what was asked, what was decided and what its Job and its pods do. Pure; the clock comes in.

use eventflow_api::condition::{Condition, ConditionType, Reason, keep_transition_times};
use eventflow_api::invocation::{InvocationStatus, RunPhase, RunReason};
use jiff::{SignedDuration, Timestamp};

use super::{MESSAGE_MAX, Moment, capped, time};
use crate::admission::survey::Told;
use crate::validate::Refusal;
use crate::world::run::{JobView, RunPodView};

/// How long an image may fail to be pulled, or a container to be set up, before the run has failed.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// What came of a run.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// It cannot be started yet.
    Held(&'a Refusal),
    /// It waits for quota.
    Waiting(&'a Told),
    /// Its Job was given leave to start.
    Started {
        /// Its Job.
        job: &'a JobView,
        /// Longest time of one attempt, in seconds.
        timeout: u32,
    },
    /// It is over without its Job's saying so.
    Over(RunPhase, RunReason, String),
}

/// A status, and when to compute it again if nothing changes.
#[derive(Debug)]
pub struct Computed {
    /// The status.
    pub status: InvocationStatus,
    /// When time alone will change it.
    pub look_again: Option<Timestamp>,
}

/// The status of a run, which was `old`; its pods, oldest first, with their names.
#[must_use]
pub fn compute(old: &InvocationStatus, outcome: &Outcome<'_>, pods: &[(String, RunPodView)], at: Moment) -> Computed {
    let mut status = InvocationStatus { observed_generation: at.generation, ..old.clone() };
    status.attempts = old.attempts.max(i32::try_from(pods.len()).unwrap_or(i32::MAX));
    let mut look_again = None;
    if status.started_at.is_none() {
        status.started_at = pods.iter().filter_map(|(_, pod)| pod.started).min().map(time);
    }
    if let Some((name, _)) = pods.last() {
        status.pod = Some(name.clone());
    }
    match outcome {
        Outcome::Held(refusal) => {
            status.phase = RunPhase::Pending;
            refusal.message.clone_into(&mut status.message);
            status.conditions = both(at, false, refusal.reason, &refusal.message);
        }
        Outcome::Waiting(told) => {
            status.phase = RunPhase::Queued;
            told.message.clone_into(&mut status.message);
            status.conditions = both(at, false, told.reason, &told.message);
        }
        Outcome::Started { job, timeout } => {
            status.attempts = status.attempts.max(job.attempts);
            status.admitted_at.get_or_insert_with(|| time(at.now));
            let reserved = "the tenant's quota holds room for its pod";
            status.conditions = vec![
                at.condition(ConditionType::QuotaReserved, true, Reason::Reserved, reserved),
                at.condition(ConditionType::Admitted, true, Reason::Admitted, "nothing stands in the way"),
            ];
            look_again = under_way(&mut status, job, pods, *timeout, at.now);
        }
        Outcome::Over(phase, reason, message) => {
            finish(&mut status, *phase, *reason, message, at.now);
            if *reason == RunReason::ExceedsMaxQuota {
                status.conditions = both(at, false, Reason::ExceedsMaxQuota, message);
            }
        }
    }
    status.message = capped(&status.message, MESSAGE_MAX);
    status.conditions = keep_transition_times(&old.conditions, status.conditions);
    Computed { status, look_again }
}

/// Whether the second status says nothing that a program would act on: only words differ.
#[must_use]
pub fn differs_in_words_only(a: &InvocationStatus, b: &InvocationStatus) -> bool {
    let gist = |s: &InvocationStatus| {
        let conditions: Vec<_> = s.conditions.iter().map(|c| (c.type_, c.status, c.reason)).collect();
        (s.phase, s.observed_generation, conditions)
    };
    gist(a) == gist(b)
}

fn both(at: Moment, holds: bool, reason: Reason, message: &str) -> Vec<Condition> {
    [ConditionType::QuotaReserved, ConditionType::Admitted]
        .map(|type_| at.condition(type_, holds, reason, message))
        .to_vec()
}

fn finish(status: &mut InvocationStatus, phase: RunPhase, reason: RunReason, message: &str, at: Timestamp) {
    status.phase = phase;
    status.reason = Some(reason);
    message.clone_into(&mut status.message);
    status.finished_at = Some(time(at));
}

/// A run whose Job was started; when to look again.
fn under_way(
    status: &mut InvocationStatus,
    job: &JobView,
    pods: &[(String, RunPodView)],
    timeout: u32,
    now: Timestamp,
) -> Option<Timestamp> {
    let last = pods.last().map(|(_, pod)| pod);
    if let Some(end) = &job.end {
        let decisive = pods.iter().rev().find(|(_, pod)| pod.ended == Some(end.succeeded)).or(pods.last());
        over(status, end.succeeded, &end.reason, decisive, (timeout, now));
        return None;
    }
    match last {
        Some(pod) if pod.ended.is_none() && pod.started.is_some() && pod.end.is_none() => {
            status.phase = RunPhase::Running;
            status.message = String::new();
            None
        }
        Some(pod) if pod.ended == Some(false) => {
            let (_, message) = failure(pod, timeout);
            status.phase = RunPhase::Starting;
            status.message = format!("attempt {} failed: {message}; it is tried again", status.attempts);
            None
        }
        Some(pod) if pod.ended.is_none() => starting(status, pod, now),
        _ => {
            status.phase = RunPhase::Starting;
            status.message = "its pod is being made".to_owned();
            None
        }
    }
}

/// A run whose pod does not run its program yet.
fn starting(status: &mut InvocationStatus, pod: &RunPodView, now: Timestamp) -> Option<Timestamp> {
    status.phase = RunPhase::Starting;
    if let Some(message) = &pod.unschedulable {
        status.message = format!("no node has room: {message}");
        return None;
    }
    let trouble = pod.waiting.as_ref().and_then(|(word, message)| trouble(word, message));
    let Some((reason, message)) = trouble else {
        status.message = "its pod is being started".to_owned();
        return None;
    };
    let until = pod.created.unwrap_or(now) + PATIENCE;
    if until <= now {
        finish(status, RunPhase::Failed, reason, &message, now);
        return None;
    }
    status.message = message;
    Some(until)
}

/// What is wrong with a container that does not start, if that does not mend itself.
fn trouble(word: &str, message: &str) -> Option<(RunReason, String)> {
    match word {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError" => Some((RunReason::ImagePullFailed, format!("the image cannot be pulled: {message}"))),
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError" => {
            Some((RunReason::ContainerFailed, format!("the container cannot be set up: {message}")))
        }
        _ => None,
    }
}

/// A run whose Job is over.
fn over(
    status: &mut InvocationStatus,
    succeeded: bool,
    word: &str,
    decisive: Option<&(String, RunPodView)>,
    (timeout, now): (u32, Timestamp),
) {
    let pod = decisive.map(|(_, pod)| pod);
    let end = pod.and_then(|pod| pod.end.as_ref());
    if let Some((name, _)) = decisive {
        status.pod = Some(name.clone());
    }
    status.exit_code = end.map(|end| end.exit_code);
    let finished = end.and_then(|end| end.at).unwrap_or(now);
    if succeeded {
        finish(status, RunPhase::Succeeded, RunReason::Completed, "", finished);
    } else {
        let (reason, message) = match pod {
            Some(pod) if pod.ended == Some(false) => failure(pod, timeout),
            _ if word == "DeadlineExceeded" && status.started_at.is_none() => {
                (RunReason::Unschedulable, "its pod could not be started in time".to_owned())
            }
            _ if word == "DeadlineExceeded" => (RunReason::TimedOut, "all attempts together took too long".to_owned()),
            _ => (RunReason::Removed, "its pod was taken away".to_owned()),
        };
        let message = match status.attempts {
            0 | 1 => message,
            attempts => format!("{message}, on the last of {attempts} attempts"),
        };
        finish(status, RunPhase::Failed, reason, &message, finished);
    }
    let cannot_run = status.reason == Some(RunReason::ContainerFailed);
    status.result = end.map(|end| end.message.clone()).filter(|text| !cannot_run && !text.trim().is_empty());
}

/// Why a pod failed.
fn failure(pod: &RunPodView, timeout: u32) -> (RunReason, String) {
    let end = pod.end.as_ref();
    match (pod.reason.as_deref(), end.map(|end| end.reason.as_str())) {
        (Some("DeadlineExceeded"), _) => (RunReason::TimedOut, format!("it took longer than {timeout} s")),
        (Some("Evicted" | "NodeLost" | "NodeShutdown" | "Terminated" | "Preempting" | "NodeAffinity"), _) => {
            (RunReason::Evicted, "its node took the pod away".to_owned())
        }
        _ if pod.disrupted => (RunReason::Evicted, "its node took the pod away".to_owned()),
        (_, Some("OOMKilled")) => {
            let message = "the program was killed for using more memory than resources.memoryLimit";
            (RunReason::OutOfMemory, message.to_owned())
        }
        (_, Some("StartError" | "ContainerCannotRun")) => {
            let message = end.map(|end| end.message.as_str()).unwrap_or_default();
            (RunReason::ContainerFailed, format!("the program cannot be started: {message}"))
        }
        (_, Some(_)) => {
            let code = end.map_or(0, |end| end.exit_code);
            (RunReason::ExitCode, format!("the program ended with exit code {code}"))
        }
        (_, None) => (RunReason::Removed, "its pod was taken away".to_owned()),
    }
}

#[cfg(test)]
mod tests;
