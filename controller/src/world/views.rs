//! What is read of custom resources and pods, and nothing else of them is kept. Custom resources come in
//! untyped, so that one that cannot be parsed is known as such and stops nobody.

use std::sync::Arc;

use eventflow_api::condition::{ConditionStatus, ConditionType, find};
use eventflow_api::function::{FunctionSpec, FunctionStatus, ValidSpec};
use eventflow_api::labels;
use eventflow_api::names::TenantId;
use eventflow_api::tenant::{TenantSpec, TenantStatus};
use eventflow_api::tier::TierSpec;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::table::Seen;
use super::{Key, Name};
use crate::desired::UID;
use crate::desired::deployment::{CONTAINER, TEMPLATE};

/// What is read of a Tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantView {
    /// Grows with the spec.
    pub generation: i64,
    /// It is being deleted.
    pub deleting: bool,
    /// What it asks for, or why that cannot be told.
    pub spec: Result<TenantSpec, String>,
    /// What was last said of it.
    pub status: TenantStatus,
}

impl TenantView {
    /// Whether it was said to be set up.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        find(&self.status.conditions, ConditionType::Ready).is_some_and(|c| c.status == ConditionStatus::True)
    }
}

/// What is read of a Tier.
#[derive(Debug, Clone, PartialEq)]
pub struct TierView {
    /// What it allows, or why that cannot be told.
    pub spec: Result<TierSpec, String>,
}

/// What is read of a Function.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionView {
    /// Grows with the spec.
    pub generation: i64,
    /// It is being deleted.
    pub deleting: bool,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Its place among those of its tenant that wait for quota: higher goes first.
    pub priority: i32,
    /// What it asks for, or everything that is wrong with it.
    pub spec: Result<Arc<ValidSpec>, String>,
    /// What was last said of it.
    pub status: FunctionStatus,
}

/// What is read of a function's pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodView {
    /// The identity of its function.
    pub function: Option<String>,
    /// Which template it was made from.
    pub template: Option<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// It ended for good and is about to be replaced.
    pub ended: bool,
    /// Since when it is ready.
    pub ready_since: Option<Timestamp>,
    /// Why no node takes it.
    pub unschedulable: Option<String>,
    /// Times its container was restarted.
    pub restarts: i32,
    /// What its container does.
    pub state: Option<State>,
    /// How its container ended last time.
    pub last_end: Option<End>,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Not started, for a reason that the kubelet names.
    Waiting {
        /// The kubelet's word.
        reason: String,
        /// The kubelet's sentence.
        message: String,
    },
    /// Runs.
    Running {
        /// Since when.
        since: Option<Timestamp>,
    },
    /// Ended, and is about to be restarted.
    Ended(End),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Exit code of the program.
    pub exit_code: i32,
    /// The runtime's word, such as `OOMKilled` or `Error`.
    pub reason: String,
    /// The runtime's sentence.
    pub message: String,
    /// Seconds it had run.
    pub ran_seconds: i64,
}

/// Reads a Tenant.
#[must_use]
pub fn tenant(object: DynamicObject) -> (Name, Seen<TenantView>) {
    let (name, meta) = (Name::of(&object.metadata), object.metadata);
    let mut data = object.data;
    let view = TenantView {
        generation: meta.generation.unwrap_or_default(),
        deleting: meta.deletion_timestamp.is_some(),
        spec: part(&mut data, "spec"),
        status: part(&mut data, "status").unwrap_or_default(),
    };
    let group = Key::Tenant(name.name.clone());
    seen(name, &meta, group, view)
}

/// Reads a Tier. Its group is its own name.
#[must_use]
pub fn tier(object: DynamicObject) -> (Name, Seen<TierView>) {
    let (name, meta) = (Name::of(&object.metadata), object.metadata);
    let mut data = object.data;
    let group = Key::Tenant(name.name.clone());
    seen(name, &meta, group, TierView { spec: part(&mut data, "spec") })
}

/// Reads a Function. Its group is the tenant that its namespace would belong to.
#[must_use]
pub fn function(object: DynamicObject) -> (Name, Seen<FunctionView>) {
    let (name, meta) = (Name::of(&object.metadata), object.metadata);
    let mut data = object.data;
    let spec: Result<FunctionSpec, String> = part(&mut data, "spec");
    let view = FunctionView {
        generation: meta.generation.unwrap_or_default(),
        deleting: meta.deletion_timestamp.is_some(),
        created: meta.creation_timestamp.as_ref().map(|t| t.0),
        priority: priority(&meta),
        spec: spec.and_then(|spec| {
            spec.parse().map(Arc::new).map_err(|violations| {
                let all: Vec<String> = violations.iter().map(|v| format!("{} {}", v.field, v.message)).collect();
                all.join("; ")
            })
        }),
        status: part(&mut data, "status").unwrap_or_default(),
    };
    let group = tenant_group(&name.namespace);
    seen(name, &meta, group, view)
}

fn priority(meta: &ObjectMeta) -> i32 {
    let said = meta.annotations.as_ref().and_then(|annotations| annotations.get(labels::PRIORITY));
    quota::queue::priority(said.map(String::as_str))
}

/// Reads a function's pod. Its group is the function that its label names.
#[must_use]
pub fn pod(pod: Pod) -> (Name, Seen<PodView>) {
    let (name, meta) = (Name::of(&pod.metadata), pod.metadata);
    let status = pod.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let condition = |type_: &str| conditions.iter().find(|c| c.type_ == type_);
    let ready = condition("Ready").filter(|c| c.status == "True");
    let unschedulable =
        condition("PodScheduled").filter(|c| c.status == "False" && c.reason.as_deref() == Some("Unschedulable"));
    let container = status.container_statuses.unwrap_or_default().into_iter().find(|c| c.name == CONTAINER);
    let view = PodView {
        function: meta.labels.as_ref().and_then(|labels| labels.get(UID).cloned()),
        template: meta.annotations.as_ref().and_then(|a| a.get(TEMPLATE).cloned()),
        created: meta.creation_timestamp.as_ref().map(|t| t.0),
        deleting: meta.deletion_timestamp.is_some(),
        ended: matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")),
        ready_since: ready.map(|c| c.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)),
        unschedulable: unschedulable.map(|c| c.message.clone().unwrap_or_default()),
        restarts: container.as_ref().map_or(0, |c| c.restart_count),
        last_end: container.as_ref().and_then(|c| c.last_state.as_ref()?.terminated.as_ref()).map(end),
        state: container.as_ref().and_then(|c| c.state.as_ref()).and_then(state),
    };
    let group = function_group(&name.namespace, &meta).unwrap_or_else(|| tenant_group(&name.namespace));
    seen(name, &meta, group, view)
}

fn state(state: &ContainerState) -> Option<State> {
    if let Some(waiting) = &state.waiting {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        return Some(State::Waiting { reason: text(&waiting.reason), message: text(&waiting.message) });
    }
    if let Some(ended) = &state.terminated {
        return Some(State::Ended(end(ended)));
    }
    state.running.as_ref().map(|r| State::Running { since: r.started_at.as_ref().map(|t| t.0) })
}

fn end(ended: &k8s_openapi::api::core::v1::ContainerStateTerminated) -> End {
    let ran = ended.started_at.as_ref().zip(ended.finished_at.as_ref());
    End {
        exit_code: ended.exit_code,
        reason: ended.reason.clone().unwrap_or_default(),
        message: ended.message.clone().unwrap_or_default(),
        ran_seconds: ran.map_or(0, |(from, to)| to.0.as_second() - from.0.as_second()),
    }
}

/// The tenant whose namespace this is or would be.
pub(super) fn tenant_group(namespace: &str) -> Key {
    Key::Tenant(TenantId::from_namespace(namespace).map(String::from).unwrap_or_default())
}

/// The function that an object's label names.
pub(super) fn function_group(namespace: &str, meta: &ObjectMeta) -> Option<Key> {
    let name = meta.labels.as_ref()?.get(labels::FUNCTION)?.clone();
    Some(Key::Function(Name { namespace: namespace.to_owned(), name }))
}

pub(super) fn seen<V>(name: Name, meta: &ObjectMeta, group: Key, view: V) -> (Name, Seen<V>) {
    let resource_version = meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default();
    (name, Seen { uid: meta.uid.clone().unwrap_or_default(), resource_version, group, view })
}

/// A part of an object, taken out and parsed. The error never repeats a value, which may be a secret.
pub(super) fn part<T: DeserializeOwned>(data: &mut Value, field: &str) -> Result<T, String> {
    let value = data.get_mut(field).map(Value::take).unwrap_or(Value::Null);
    serde_json::from_value(value).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => {
            format!("{field} is not of the expected shape: {}", without_values(&e.to_string()))
        }
        _ => format!("{field} cannot be read"),
    })
}

/// serde quotes offending strings as `string "..."`; what is between the quotes goes.
fn without_values(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(from), Some(to)) if to > from => format!("{}\"…\"{}", &message[..from], &message[to + 1..]),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_odd_function_is_known_as_such() {
        let (name, seen) = function(object(json!({
            "apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Function",
            "metadata": {"name": "f", "namespace": "tenant-a", "uid": "u", "generation": 3},
            "spec": {"image": "a:1", "replicas": "hunter2"}, "status": {"phase": "Running"}
        })));
        assert_eq!((name.namespace.as_str(), seen.group), ("tenant-a", Key::Tenant("a".into())));
        let message = seen.view.spec.unwrap_err();
        assert!(message.contains("spec is not of the expected shape") && !message.contains("hunter2"), "{message}");
        assert_eq!(seen.view.status.phase, eventflow_api::function::Phase::Running);
    }

    #[test]
    fn a_wrong_function_names_every_fault() {
        let (_, seen) = function(object(json!({
            "metadata": {"name": "f", "namespace": "x"}, "spec": {"image": "Bad Image", "args": ["a\u{0}b"]}
        })));
        let message = seen.view.spec.unwrap_err();
        assert!(message.contains("image must") && message.contains("args[0] must not contain NUL"), "{message}");
    }
}
