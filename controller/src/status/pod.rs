//! What is wrong with a pod, in the words of the conditions. Pure; the clock comes in.

use eventflow_api::condition::Reason;
use jiff::{SignedDuration, Timestamp};

use crate::validate::Refusal;
use crate::world::views::{End, PodView, State};

/// Seconds that a pod may run without its port answering before that is said.
const ANSWER_WITHIN: i64 = 30;
/// Seconds after which the end of a program is an accident of its own, not part of a loop: the kubelet's figure.
const LOOP_WITHIN: i64 = 600;
/// Seconds a restarted pod must stay ready per restart before it counts, and the most of them.
const PROBATION: [i64; 2] = [10, 60];

/// What a pod does, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Serves.
    Ready,
    /// On its way; nothing is wrong so far.
    Starting,
    /// Something is wrong.
    Trouble(Refusal),
}

/// What a pod does now, and when to look again if nothing changes.
#[must_use]
pub fn health(pod: &PodView, image: &str, now: Timestamp) -> (Health, Option<Timestamp>) {
    if let Some(since) = pod.ready_since {
        let stable = since + SignedDuration::from_secs(probation(pod));
        if stable <= now {
            return (Health::Ready, None);
        }
        return (looping(pod).map_or(Health::Starting, Health::Trouble), Some(stable));
    }
    if let Some(message) = &pod.unschedulable {
        let message = format!("no node has room: {message}");
        return (trouble(Reason::Unschedulable, message), None);
    }
    match &pod.state {
        Some(State::Waiting { reason, message }) => (waiting(pod, reason, message, image), None),
        Some(State::Ended(end)) => (ended(pod, end), None),
        Some(State::Running { since }) => running(pod, *since, now),
        None => (Health::Starting, None),
    }
}

fn trouble(reason: Reason, message: impl Into<String>) -> Health {
    Health::Trouble(Refusal::new(reason, message))
}

fn waiting(pod: &PodView, reason: &str, message: &str, image: &str) -> Health {
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError" => {
            trouble(Reason::ImagePullFailed, format!("the image {image} cannot be pulled: {message}"))
        }
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError" => {
            trouble(Reason::ContainerFailed, format!("the container cannot be set up: {message}"))
        }
        "CrashLoopBackOff" => Health::Trouble(match &pod.last_end {
            Some(end) => crash(pod, end),
            None => Refusal::new(Reason::CrashLooping, message),
        }),
        _ => Health::Starting,
    }
}

fn ended(pod: &PodView, end: &End) -> Health {
    let definite = is_definite(end);
    let looping = pod.restarts > 0 && pod.last_end.as_ref().is_some_and(|last| last.ran_seconds < LOOP_WITHIN);
    if definite || (looping && end.ran_seconds < LOOP_WITHIN) {
        Health::Trouble(crash(pod, end))
    } else {
        Health::Starting
    }
}

fn running(pod: &PodView, since: Option<Timestamp>, now: Timestamp) -> (Health, Option<Timestamp>) {
    if let Some(refusal) = looping(pod) {
        return (Health::Trouble(refusal), None);
    }
    let Some(since) = since else { return (Health::Starting, None) };
    let due = since + SignedDuration::from_secs(ANSWER_WITHIN);
    if due <= now {
        let message = format!("the program has run for more than {ANSWER_WITHIN} seconds and its port does not answer");
        (trouble(Reason::NotAnswering, message), None)
    } else {
        (Health::Starting, Some(due))
    }
}

/// A container that runs, but ended so often before that it will likely end again. Once may be an accident,
/// unless it can only happen again.
fn looping(pod: &PodView) -> Option<Refusal> {
    let end = pod.last_end.as_ref()?;
    let loops = (pod.restarts >= 2 || is_definite(end)) && end.ran_seconds < LOOP_WITHIN;
    loops.then(|| crash(pod, end))
}

/// Seconds for which a pod must have been ready to count: none unless it was restarted.
fn probation(pod: &PodView) -> i64 {
    let [each, most] = PROBATION;
    match &pod.last_end {
        Some(end) if pod.restarts > 0 && end.ran_seconds < LOOP_WITHIN => (each * i64::from(pod.restarts)).min(most),
        _ => 0,
    }
}

/// Whether one such end is enough to tell that the function cannot run as it is.
fn is_definite(end: &End) -> bool {
    matches!(end.reason.as_str(), "OOMKilled" | "StartError" | "ContainerCannotRun")
}

fn crash(pod: &PodView, end: &End) -> Refusal {
    match end.reason.as_str() {
        "OOMKilled" => {
            Refusal::new(Reason::OutOfMemory, "the program was killed for using more memory than resources.memoryLimit")
        }
        "StartError" | "ContainerCannotRun" => {
            Refusal::new(Reason::ContainerFailed, format!("the program cannot be started: {}", end.message))
        }
        _ => {
            let times = match pod.restarts {
                0 | 1 => "and did so again after a restart".to_owned(),
                n => format!("and was restarted {n} times"),
            };
            let hint = if end.exit_code == 0 { "a function must keep running" } else { "its logs may say why" };
            Refusal::new(
                Reason::CrashLooping,
                format!("the program ended with exit code {}, {times}; {hint}", end.exit_code),
            )
        }
    }
}
