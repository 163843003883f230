//! The Function object that a row asks for, and what an object says about itself. Pure.

use std::collections::BTreeMap;

use eventflow_api::function::Function;
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
