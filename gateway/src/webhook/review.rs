//! One question of the API server: an AdmissionReview in, one out. What says nothing about what a tenant asks for is
//! let through unjudged: the gateway's own writes, status and finalizers, and the cluster taking down what is gone.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eventflow_api::names::{FunctionName, TenantId};
use policy_engine::types::Operation;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::policy::{Matter, refusal};

/// Accounts of the cluster itself, which take down what belongs to what is gone.
const CLUSTER_ACCOUNTS: &str = "system:serviceaccount:kube-system:";

/// Which of the two questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// What is to be changed.
    Mutate,
    /// Whether it may stand.
    Validate,
}

/// The answer; none to what is no question. `us` is the user that the API server knows this gateway by.
pub(super) async fn review(app: &Arc<App>, us: Option<&str>, stage: Stage, body: &[u8]) -> Option<Value> {
    let review: Value = serde_json::from_slice(body).ok()?;
    let request = review.get("request")?;
    let uid = request.get("uid")?.as_str()?;
    let mut response = match matter(request, us, stage) {
        Some(matter) => judge(app, stage, matter, &request["object"]).await,
        None => json!({"allowed": true}),
    };
    response["uid"] = json!(uid);
    Some(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

/// What there is to judge, if anything.
fn matter(request: &Value, us: Option<&str>, stage: Stage) -> Option<Matter> {
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let operation = match text("/operation") {
        "CREATE" => Operation::Create,
        "UPDATE" => Operation::Update,
        "DELETE" => Operation::Delete,
        _ => return None,
    };
    let (object, old) = (&request["object"], &request["oldObject"]);
    let user = text("/userInfo/username");
    let deleted = operation == Operation::Delete;
    let is_cleaning = deleted && user.starts_with(CLUSTER_ACCOUNTS);
    // A deletion names no field manager; the gateway's always name the UID, a person's who shares its user do not.
    let by_gateway = deleted && us == Some(user) && request.pointer("/options/preconditions/uid").is_some();
    let says_nothing = operation == Operation::Update
        && (shown(object) == shown(old) || object.pointer("/metadata/deletionTimestamp").is_some());
    if !text("/subResource").is_empty() || is_cleaning || by_gateway || says_nothing {
        return None;
    }
    let judged = if deleted { old } else { object };
    let tenant = TenantId::from_namespace(text("/namespace"))?;
    let name: FunctionName = judged.pointer("/metadata/name")?.as_str()?.parse().ok()?;
    let manager = text("/options/fieldManager");
    let dry_run = request["dryRun"].as_bool().unwrap_or(false);
    Some(Matter {
        tenant,
        request_id: text("/uid").to_owned(),
        subject: if manager.is_empty() { user.to_owned() } else { format!("{user} ({manager})") },
        operation,
        name,
        object: shown(judged),
        old: (operation == Operation::Update).then(|| shown(old)),
        dry_run,
        // Both stages are one change: it is paid for once.
        counts: stage == Stage::Mutate && !dry_run,
        keeps_metadata: true,
    })
}

/// An object as policies see it: what people write, without what the API server adds.
fn shown(object: &Value) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "labels", "annotations"] {
        if let Some(value) = object.pointer(&format!("/metadata/{field}")) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata, "spec": object["spec"]})
}

async fn judge(app: &Arc<App>, stage: Stage, matter: Matter, object: &Value) -> Value {
    let deleted = matter.operation == Operation::Delete;
    let outcome = match app.policies.judge(app, matter).await {
        Ok(outcome) => outcome,
        Err(error) => return refused(&error),
    };
    let admitted = match outcome.result {
        Ok(admitted) => admitted,
        Err(denied) => return refused(&refusal(denied)),
    };
    let mut response = json!({"allowed": true});
    if !admitted.warnings.is_empty() {
        response["warnings"] = json!(admitted.warnings);
    }
    if !admitted.changed || deleted {
        return response;
    }
    if stage == Stage::Validate {
        let detail =
            "a policy would still change it after all others had their say: another webhook is at odds with it";
        return refused(&ApiError::policy_failed("(all)", detail));
    }
    response["patchType"] = json!("JSONPatch");
    response["patch"] = json!(STANDARD.encode(patch(object, &admitted.object).to_string()));
    response
}

/// From the object as it came to the one that the policies made of it.
fn patch(object: &Value, wanted: &Value) -> Value {
    let mut operations = Vec::new();
    for path in ["/spec", "/metadata/labels", "/metadata/annotations"] {
        match (object.pointer(path), wanted.pointer(path)) {
            (before, Some(after)) if before != Some(after) => {
                operations.push(json!({"op": "add", "path": path, "value": after}));
            }
            (Some(_), None) => operations.push(json!({"op": "remove", "path": path})),
            _ => {}
        }
    }
    Value::Array(operations)
}

/// A refusal in the API's words.
fn refused(error: &ApiError) -> Value {
    if let Some(reason) = error.reason() {
        tracing::error!(problem.code = error.code().as_str(), reason, "A change made in the cluster was refused.");
    }
    json!({"allowed": false, "status": {"code": error.status().as_u16(), "message": error.detail(),
        "reason": error.status().canonical_reason().unwrap_or_default().replace(' ', "")}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: Value) -> Value {
        let object = json!({"apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Function",
            "metadata": {"name": "f", "namespace": "tenant-a", "managedFields": [], "labels": {"a": "b"}},
            "spec": {"image": "i:1"}});
        let mut request = json!({"uid": "u", "operation": "CREATE", "namespace": "tenant-a", "object": object,
            "userInfo": {"username": "alice"}, "options": {"fieldManager": "kubectl"}});
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        request
    }

    #[test]
    fn what_people_write_is_judged() {
        let matter = matter(&request(json!({})), None, Stage::Mutate).unwrap();
        assert_eq!((matter.subject.as_str(), matter.counts), ("alice (kubectl)", true));
        assert_eq!(matter.object["metadata"], json!({"name": "f", "namespace": "tenant-a", "labels": {"a": "b"}}));
    }

    #[test]
    fn what_says_nothing_is_let_through() {
        let object = request(json!({}))["object"].clone();
        let mut status = object.clone();
        status["status"] = json!({"phase": "Running"});
        for change in [
            json!({"operation": "CONNECT"}),
            json!({"subResource": "status"}),
            json!({"namespace": "default"}),
            json!({"operation": "UPDATE", "object": status, "oldObject": object}),
            json!({"operation": "DELETE", "oldObject": object, "options": {"preconditions": {"uid": "u"}}}),
            json!({"operation": "DELETE", "oldObject": object,
                "userInfo": {"username": "system:serviceaccount:kube-system:namespace-controller"}}),
        ] {
            assert!(matter(&request(change.clone()), Some("alice"), Stage::Mutate).is_none(), "{change}");
        }
        let kubectl = json!({"operation": "DELETE", "object": null, "oldObject": object, "options": {}});
        assert!(matter(&request(kubectl), Some("alice"), Stage::Validate).is_some_and(|matter| !matter.counts));
        // Naming the UID makes nobody the gateway.
        let clever = json!({"operation": "DELETE", "oldObject": object, "options": {"preconditions": {"uid": "u"}}});
        assert!(matter(&request(clever), Some("gateway"), Stage::Validate).is_some());
    }

    #[test]
    fn a_patch_has_what_differs() {
        let before = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"image": "i"}});
        let after = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"n": "1"}}, "spec": {"image": "j"}});
        let operations = patch(&before, &after);
        assert_eq!(
            operations,
            json!([{"op": "add", "path": "/spec", "value": {"image": "j"}},
                {"op": "add", "path": "/metadata/annotations", "value": {"n": "1"}}])
        );
    }
}
