//! What is read of runs: of Invocations, of the Jobs made for them, and of their pods. Nothing else of them is kept, and
//! of inputs nothing but that there is one.

use std::collections::BTreeMap;

use eventflow_api::invocation::{InvocationSpec, InvocationStatus, ValidInvocation};
use eventflow_api::labels;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;

use super::table::Seen;
use super::views::{part, seen, tenant_group};
use super::{Key, Name};
use crate::apply::fenced::MARK;
use crate::desired::deployment::CONTAINER;

/// What is read of an Invocation.
#[derive(Debug, Clone, PartialEq)]
pub struct InvocationView {
    /// Grows with the spec.
    pub generation: i64,
    /// It is being deleted.
    pub deleting: bool,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Its place among those of its tenant that wait for quota: higher goes first.
    pub priority: i32,
    /// It is not wanted any more.
    pub cancel: bool,
    /// What it asks for but for the input, or everything that is wrong with it.
    pub spec: Result<ValidInvocation, String>,
    /// Whether it has an input; an empty one counts.
    pub has_input: bool,
    /// The call that asked for it.
    pub traceparent: Option<String>,
    /// What was last said of it.
    pub status: InvocationStatus,
}

/// What is read of a run's Job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// The Invocation that controls it.
    pub owner: Option<String>,
    /// It is being deleted.
    pub deleting: bool,
    /// It makes no pods yet.
    pub suspended: bool,
    /// Another one with every write of a controller.
    pub mark: Option<String>,
    /// Pods that it made.
    pub attempts: i32,
    /// How it ended, if it did.
    pub end: Option<JobEnd>,
}

/// How a Job ended: it makes no pods any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// A pod of it succeeded.
    pub succeeded: bool,
    /// Kubernetes' word.
    pub reason: String,
}

/// What is read of a run's pod.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPodView {
    /// The identity of its Invocation.
    pub invocation: Option<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// It ended for good: whether it succeeded.
    pub ended: Option<bool>,
    /// Kubernetes' word on why it failed as a whole, such as `Evicted`.
    pub reason: Option<String>,
    /// A node that drains or is short of something takes it away.
    pub disrupted: bool,
    /// Why no node takes it.
    pub unschedulable: Option<String>,
    /// Why its container does not start: the kubelet's word and sentence.
    pub waiting: Option<(String, String)>,
    /// When its program was started.
    pub started: Option<Timestamp>,
    /// How its program ended.
    pub end: Option<ProgramEnd>,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramEnd {
    /// Its exit code.
    pub exit_code: i32,
    /// The runtime's word, such as `OOMKilled` or `Error`.
    pub reason: String,
    /// What it wrote into its result file; of one that could not be started, the runtime's sentence.
    pub message: String,
    /// When.
    pub at: Option<Timestamp>,
}

/// Reads an Invocation. Its group is the tenant that its namespace would belong to.
#[must_use]
pub fn invocation(object: DynamicObject) -> (Name, Seen<InvocationView>) {
    let (name, meta) = (Name::of(&object.metadata), object.metadata);
    let mut data = object.data;
    let spec: Result<InvocationSpec, String> = part(&mut data, "spec");
    let has_input = spec.as_ref().is_ok_and(|spec| spec.input.is_some());
    let cancel = spec.as_ref().is_ok_and(|spec| spec.cancel);
    let valid = spec.and_then(|spec| {
        let valid = spec.parse().map(|valid| ValidInvocation { input: None, ..valid });
        valid.map_err(|violations| {
            let all: Vec<String> = violations.iter().map(|v| format!("{} {}", v.field, v.message)).collect();
            all.join("; ")
        })
    });
    let annotation = |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name));
    let view = InvocationView {
        generation: meta.generation.unwrap_or_default(),
        deleting: meta.deletion_timestamp.is_some(),
        created: meta.creation_timestamp.as_ref().map(|t| t.0),
        priority: quota::queue::priority(annotation(labels::PRIORITY).map(String::as_str)),
        cancel,
        spec: valid,
        has_input,
        traceparent: annotation(labels::TRACEPARENT).cloned(),
        status: part(&mut data, "status").unwrap_or_default(),
    };
    let group = tenant_group(&name.namespace);
    seen(name, &meta, group, view)
}

/// Reads a run's Job. Its group is the Invocation that its label names.
#[must_use]
pub fn job(job: &Job) -> (Name, Seen<JobView>) {
    let (name, meta) = (Name::of(&job.metadata), &job.metadata);
    let status = job.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let end = conditions.iter().find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
    let count = |count: Option<i32>| count.unwrap_or_default();
    let view = JobView {
        owner: meta.owner_references.iter().flatten().find(|o| o.controller == Some(true)).map(|o| o.uid.clone()),
        deleting: meta.deletion_timestamp.is_some(),
        suspended: job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or_default(),
        mark: meta.annotations.as_ref().and_then(|all| all.get(MARK).cloned()),
        attempts: count(status.active) + count(status.failed) + count(status.succeeded),
        end: end.map(|c| JobEnd { succeeded: c.type_ == "Complete", reason: c.reason.clone().unwrap_or_default() }),
    };
    let group = invocation_group(&name.namespace, meta);
    seen(name, meta, group, view)
}

/// Reads a run's pod. Its group is the Invocation that its label names.
#[must_use]
pub fn pod(pod: Pod) -> (Name, Seen<RunPodView>) {
    let (name, meta) = (Name::of(&pod.metadata), pod.metadata);
    let status = pod.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let condition = |type_: &str, status: &str| conditions.iter().find(|c| c.type_ == type_ && c.status == status);
    let unschedulable = condition("PodScheduled", "False").filter(|c| c.reason.as_deref() == Some("Unschedulable"));
    let initial = status.init_container_statuses.unwrap_or_default();
    let container = status.container_statuses.unwrap_or_default().into_iter().find(|c| c.name == CONTAINER);
    let state = container.and_then(|container| container.state);
    let ended = match status.phase.as_deref() {
        Some("Succeeded") => Some(true),
        Some("Failed") => Some(false),
        _ => None,
    };
    let waits = |state: &ContainerState| {
        let waiting = state.waiting.as_ref()?;
        Some((waiting.reason.clone()?, waiting.message.clone().unwrap_or_default()))
    };
    let first = initial.iter().find_map(|container| waits(container.state.as_ref()?));
    let (running, terminated) = match &state {
        Some(state) => (state.running.as_ref(), state.terminated.as_ref()),
        None => (None, None),
    };
    let started = running.and_then(|r| r.started_at.as_ref()).or(terminated.and_then(|t| t.started_at.as_ref()));
    let view = RunPodView {
        invocation: meta.labels.as_ref().and_then(|labels| labels.get(crate::desired::UID).cloned()),
        created: meta.creation_timestamp.as_ref().map(|t| t.0),
        deleting: meta.deletion_timestamp.is_some(),
        ended,
        reason: status.reason,
        disrupted: condition("DisruptionTarget", "True").is_some(),
        unschedulable: unschedulable.map(|c| c.message.clone().unwrap_or_default()),
        waiting: first.or_else(|| state.as_ref().and_then(waits)),
        started: started.map(|t| t.0).filter(|at| *at > Timestamp::UNIX_EPOCH),
        end: terminated.map(end),
    };
    let group = invocation_group(&name.namespace, &meta);
    seen(name, &meta, group, view)
}

fn end(ended: &ContainerStateTerminated) -> ProgramEnd {
    ProgramEnd {
        exit_code: ended.exit_code,
        reason: ended.reason.clone().unwrap_or_default(),
        message: ended.message.clone().unwrap_or_default(),
        at: ended.finished_at.as_ref().map(|t| t.0),
    }
}

fn invocation_group(namespace: &str, meta: &ObjectMeta) -> Key {
    let label = |labels: &BTreeMap<String, String>| labels.get(labels::INVOCATION).cloned();
    let name = meta.labels.as_ref().and_then(label).unwrap_or_default();
    Key::Invocation(Name { namespace: namespace.to_owned(), name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_input_is_not_kept() {
        let object = json!({
            "metadata": {"name": "r", "namespace": "tenant-a", "uid": "u", "generation": 2,
                "annotations": {"eventflow.io/traceparent": "00-x"}},
            "spec": {"function": "f", "input": "secret", "retries": 2, "cancel": true}
        });
        let (_, seen) = invocation(serde_json::from_value(object).unwrap());
        let spec = seen.view.spec.unwrap();
        assert_eq!((spec.input, spec.retries, seen.view.has_input, seen.view.cancel), (None, 2, true, true));
        assert_eq!(seen.view.traceparent.as_deref(), Some("00-x"));
        let (_, odd) =
            invocation(serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": {"retries": "x"}})).unwrap());
        assert!(odd.view.spec.unwrap_err().contains("spec is not of the expected shape"));
    }

    #[test]
    fn a_job_is_over_once_it_says_so() {
        let of = |status| {
            let value = json!({"metadata": {"name": "run-r", "namespace": "n", "labels": {"eventflow.io/invocation": "r"},
                "ownerReferences": [{"apiVersion": "v", "kind": "Invocation", "name": "r", "uid": "u", "controller": true}]},
                "spec": {"template": {}, "suspend": false}, "status": status});
            job(&serde_json::from_value(value).unwrap())
        };
        let (_, seen) = of(json!({"active": 1, "failed": 2}));
        assert_eq!((seen.view.attempts, seen.view.end, seen.view.owner.as_deref()), (3, None, Some("u")));
        assert_eq!(seen.group, Key::Invocation(Name { namespace: "n".into(), name: "r".into() }));
        let target = json!({"conditions": [{"type": "FailureTarget", "status": "True"}]});
        assert_eq!(of(target).1.view.end, None, "pods may still run");
        let failed = json!({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]});
        let end = JobEnd { succeeded: false, reason: "BackoffLimitExceeded".into() };
        assert_eq!(of(failed).1.view.end, Some(end));
    }

    #[test]
    fn a_pod_tells_how_its_program_ended() {
        let value = json!({"metadata": {"name": "p", "labels": {"eventflow.io/function-uid": "u"}},
            "status": {"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": [{"name": "function",
                "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 137,
                "reason": "OOMKilled", "message": "{}", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:05Z"}}}]}});
        let view = pod(serde_json::from_value(value).unwrap()).1.view;
        assert_eq!((view.ended, view.reason.as_deref()), (Some(false), Some("DeadlineExceeded")));
        let end = view.end.unwrap();
        assert_eq!((end.exit_code, end.reason.as_str(), end.message.as_str()), (137, "OOMKilled", "{}"));
        assert!(view.started.is_some() && end.at > view.started);
    }
}
