//! The Function object that a row asks for, and what an object says about itself. Pure.

use std::collections::BTreeMap;

use eventflow_api::function::{Function, FunctionStatus};
use eventflow_api::labels;
use kube::ResourceExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::store::FunctionRow;

/// The object as it is to be created.
pub(super) fn wanted(row: &FunctionRow) -> Function {
    let mut function = Function::new(row.name.as_str(), row.spec.clone());
    function.metadata.namespace = Some(row.tenant.namespace());
    function.metadata.labels = Some(labels_of(row));
    function.metadata.annotations = Some(annotations_of(row));
    function
}

/// The object as it is to be applied over `current`, and over nothing else: the UID guards against a namesake, the
/// resourceVersion against whoever wrote meanwhile.
pub(super) fn applied_over(row: &FunctionRow, current: &Function) -> Value {
    json!({
        "apiVersion": format!("{}/{}", labels::GROUP, labels::VERSION),
        "kind": "Function",
        "metadata": {
            "name": row.name,
            "namespace": row.tenant.namespace(),
            "uid": current.metadata.uid,
            "resourceVersion": current.metadata.resource_version,
            "labels": labels_of(row),
            "annotations": annotations_of(row),
        },
        "spec": row.spec,
    })
}

/// A merge patch that makes `current` say which row and generation it stands for; its spec stays as it is.
pub(super) fn stamp(row: &FunctionRow, current: &Function) -> Value {
    json!({
        "metadata": {
            "uid": current.metadata.uid,
            "resourceVersion": current.metadata.resource_version,
            "labels": labels_of(row),
            "annotations": {
                labels::GENERATION: row.generation.to_string(),
                labels::FUNCTION_ID: row.id.to_string(),
                // That call did not make this generation.
                labels::TRACEPARENT: row.traceparent,
            },
        },
    })
}

fn labels_of(row: &FunctionRow) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_VALUE.to_owned()),
        (labels::TENANT.to_owned(), row.tenant.to_string()),
    ])
}

fn annotations_of(row: &FunctionRow) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([
        (labels::GENERATION.to_owned(), row.generation.to_string()),
        (labels::FUNCTION_ID.to_owned(), row.id.to_string()),
    ]);
    if let Some(traceparent) = &row.traceparent {
        annotations.insert(labels::TRACEPARENT.to_owned(), traceparent.clone());
    }
    annotations
}

/// The row that the object says it was written from.
pub(super) fn function_id(function: &Function) -> Option<Uuid> {
    function.annotations().get(labels::FUNCTION_ID)?.parse().ok()
}

/// The generation that the object says it was written from.
pub(super) fn generation(function: &Function) -> Option<i64> {
    function.annotations().get(labels::GENERATION)?.parse().ok()
}

/// The object's status, its generations told in the store's count, as every other generation of the API is. The API
/// server has a count of its own; what speaks of an older spec than the object's speaks of an older generation.
pub(super) fn status(function: &Function) -> Option<FunctionStatus> {
    let mut status = function.status.clone()?;
    let (stamped, newest) = (generation(function).unwrap_or(0), function.metadata.generation);
    let in_store = |observed: i64| match observed {
        0 => 0,
        observed if Some(observed) == newest => stamped,
        _ => (stamped - 1).max(0),
    };
    status.observed_generation = in_store(status.observed_generation);
    for condition in &mut status.conditions {
        condition.observed_generation = in_store(condition.observed_generation);
    }
    Some(status)
}

/// The object's resourceVersion as the number it is (and is documented to be, since Kubernetes 1.35).
pub(super) fn resource_version(function: &Function) -> i64 {
    function.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// The field manager of the newest change of the object's spec.
pub(super) fn spec_manager(function: &Function) -> String {
    let owns_spec = |fields: &Value| fields.get("f:spec").is_some();
    let entries = function.metadata.managed_fields.iter().flatten();
    entries
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns_spec(&fields.0)))
        // Times are whole seconds: at a tie the gateway, which is always first there, gives way.
        .max_by_key(|entry| (entry.time.clone(), entry.manager.as_deref() != Some(labels::GATEWAY_MANAGER)))
        .and_then(|entry| entry.manager.clone())
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_speaks_of_the_generations_of_the_store() {
        let observed = |observed: i64, in_cluster: i64, stamp: &str| {
            let function: Function = serde_json::from_value(json!({
                "apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Function",
                "metadata": {"name": "a", "generation": in_cluster, "annotations": {labels::GENERATION: stamp}},
                "spec": {"image": "a:1"},
                "status": {"observedGeneration": observed, "conditions": [{
                    "type": "Ready", "status": "True", "reason": "AllReady", "observedGeneration": observed,
                    "lastTransitionTime": "2026-01-01T00:00:00Z"
                }]}
            }))
            .unwrap();
            let status = status(&function).unwrap();
            assert_eq!(status.conditions[0].observed_generation, status.observed_generation);
            status.observed_generation
        };
        assert_eq!(observed(5, 5, "3"), 3);
        assert_eq!(observed(4, 5, "3"), 2, "of the spec before");
        assert_eq!(observed(0, 1, "1"), 0, "nobody looked yet");
        assert_eq!(observed(1, 1, "x"), 0, "not written by us");
    }
}
