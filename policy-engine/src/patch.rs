//! What an admission policy's patch may touch: a closed list, checked twice. The paths of its operations are checked
//! before they run, and afterwards everything outside of the list is compared with what it was, so that a mistake in
//! the first check cannot move an object to another tenant.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::verdict::InvalidAnswer;

/// Operations a patch may have. One of a spec with all its environment variables has some 200.
const OPERATIONS: usize = 1_000;

/// The object with `patch` (RFC 6902 as text, or empty) applied.
///
/// # Errors
/// Text that is no JSON Patch, an operation outside of the list, and one that does not apply.
pub fn apply(object: &Value, patch: &str) -> Result<Value, InvalidAnswer> {
    if patch.is_empty() {
        return Ok(object.clone());
    }
    let invalid = |message: String| InvalidAnswer::Patch(message);
    let patch: Patch = serde_json::from_str(patch).map_err(|e| invalid(format!("its patch is no JSON Patch: {e}")))?;
    if patch.0.len() > OPERATIONS {
        return Err(invalid(format!("its patch has more than {OPERATIONS} operations")));
    }
    for operation in &patch.0 {
        let path = match operation {
            PatchOperation::Add(add) => &add.path,
            PatchOperation::Remove(remove) => &remove.path,
            PatchOperation::Replace(replace) => &replace.path,
            PatchOperation::Test(_) => continue,
            PatchOperation::Move(_) | PatchOperation::Copy(_) => {
                return Err(invalid("its patch may only add, remove, replace and test".to_owned()));
            }
        };
        let segments: Vec<String> = path.tokens().map(|token| token.decoded().into_owned()).collect();
        if !is_open(&segments) {
            return Err(invalid(format!("its patch touches {path}, which policies may not")));
        }
    }
    let mut changed = object.clone();
    json_patch::patch(&mut changed, &patch).map_err(|e| invalid(format!("its patch does not apply: {e}")))?;
    if closed_part(object) == closed_part(&changed) {
        Ok(changed)
    } else {
        Err(invalid("its patch changes what policies may not touch".to_owned()))
    }
}

fn is_open(segments: &[String]) -> bool {
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["spec", ..] => true,
        // The whole map only where there is none yet, or the platform's own keys would go: `closed_part` sees to it.
        ["metadata", "labels" | "annotations"] => true,
        ["metadata", "labels" | "annotations", key] => !is_platform_key(key),
        _ => false,
    }
}

/// Labels and annotations that the platform or Kubernetes acts on.
fn is_platform_key(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else {
        return key == eventflow_api::labels::APP || key == eventflow_api::labels::FUNCTION;
    };
    let domains = ["eventflow.io", "kubernetes.io", "k8s.io"];
    domains.iter().any(|domain| prefix.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// The object without what policies may change.
fn closed_part(object: &Value) -> Value {
    let mut rest = object.clone();
    let Some(top) = rest.as_object_mut() else {
        return rest;
    };
    top.remove("spec");
    if let Some(metadata) = top.get_mut("metadata").and_then(Value::as_object_mut) {
        for map in ["labels", "annotations"] {
            let kept = metadata.remove(map).and_then(|keys| match keys {
                Value::Object(mut keys) => {
                    keys.retain(|key, _| is_platform_key(key));
                    (!keys.is_empty()).then_some(Value::Object(keys))
                }
                _ => None,
            });
            if let Some(kept) = kept {
                metadata.insert(map.to_owned(), kept);
            }
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Value {
        json!({"metadata": {"name": "f", "namespace": "tenant-a", "labels": {"team": "x", "eventflow.io/tenant": "a", "app": "eventflow-function"}},
            "spec": {"image": "i:1", "env": {"A": "1"}}})
    }

    fn patched(patch: Value) -> Result<Value, InvalidAnswer> {
        apply(&object(), &patch.to_string())
    }

    #[test]
    fn spec_labels_and_annotations_are_open() {
        let changed = patched(json!([
            {"op": "test", "path": "/spec/image", "value": "i:1"},
            {"op": "replace", "path": "/spec/image", "value": "i:2"},
            {"op": "remove", "path": "/spec/env/A"},
            {"op": "add", "path": "/metadata/labels/example.com~1cost", "value": "c"},
            {"op": "remove", "path": "/metadata/labels/team"},
            {"op": "add", "path": "/metadata/annotations", "value": {"note": "n"}},
        ]))
        .unwrap();
        assert_eq!(changed["spec"], json!({"image": "i:2", "env": {}}));
        assert_eq!(changed["metadata"]["labels"]["example.com/cost"], "c");
        assert_eq!(changed["metadata"]["namespace"], "tenant-a");
        assert_eq!(apply(&object(), "").unwrap(), object());
    }

    #[test]
    fn everything_else_is_closed() {
        for operation in [
            json!({"op": "replace", "path": "/metadata/namespace", "value": "tenant-b"}),
            json!({"op": "replace", "path": "/metadata/name", "value": "g"}),
            json!({"op": "replace", "path": "", "value": {}}),
            json!({"op": "replace", "path": "/metadata", "value": {}}),
            json!({"op": "add", "path": "/status", "value": {}}),
            json!({"op": "replace", "path": "/metadata/labels/eventflow.io~1tenant", "value": "b"}),
            json!({"op": "remove", "path": "/metadata/labels/app"}),
            json!({"op": "replace", "path": "/metadata/labels", "value": {"eventflow.io/tenant": "b"}}),
            json!({"op": "remove", "path": "/metadata/labels"}),
            json!({"op": "add", "path": "/metadata/annotations", "value": {"x.eventflow.io/y": "z"}}),
            json!({"op": "add", "path": "/metadata/annotations", "value": {"pod-security.kubernetes.io/enforce": "privileged"}}),
            json!({"op": "move", "from": "/metadata/namespace", "path": "/spec/x"}),
            json!({"op": "copy", "from": "/spec", "path": "/spec/spec"}),
            json!({"op": "test", "path": "/spec/image", "value": "other"}),
            json!({"op": "remove", "path": "/spec/nothing"}),
        ] {
            let outcome = patched(json!([operation]));
            assert!(matches!(outcome, Err(InvalidAnswer::Patch(_))), "{operation}: {outcome:?}");
        }
        assert!(apply(&object(), "{}").is_err() && apply(&object(), "nonsense").is_err());
        let many = vec![json!({"op": "add", "path": "/spec/port", "value": 1}); OPERATIONS + 1];
        assert!(patched(json!(many)).is_err());
    }
}
