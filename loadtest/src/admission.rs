//! `admission`: quota given out whole, how fast, and what plain Kubernetes leaves behind under the same load.

/// Standing queues, opened at once.
pub mod queue;
/// The wait for the verdict.
pub mod verdict;
/// The same load on plain ResourceQuota and Deployments.
pub mod plain;
/// Thousands of Functions.
pub mod scale;

use eventflow_api::condition::{ConditionStatus, ConditionType, Reason, find};
use eventflow_api::function::Function;
use kube::ResourceExt;

/// `namespace/name`.
fn path(function: &Function) -> String {
    format!("{}/{}", function.namespace().unwrap_or_default(), function.name_any())
}

/// Names a function once it is admitted.
fn admitted(function: &Function) -> Option<String> {
    let admitted = find(&function.status.as_ref()?.conditions, ConditionType::Admitted)?;
    (admitted.status == ConditionStatus::True).then(|| path(function))
}

/// Names a function once it is known to wait for quota.
fn queued(function: &Function) -> Option<String> {
    let conditions = &function.status.as_ref()?.conditions;
    conditions.iter().any(|condition| condition.reason == Reason::WaitingForQuota).then(|| path(function))
}
