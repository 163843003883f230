//! What operators change, and the writing down of it. An entry of the audit log is durable **before** a change is
//! tried, and another follows if it was not made: without the database nothing is changed, and no change goes
//! unrecorded. The object names the entry of its newest change, so that whoever reads an entry whose gateway died can
//! tell whether it was made.

use std::sync::Arc;

use eventflow_api::labels;
use eventflow_api::problem::ProblemCode;
use http::{Response, StatusCode};
use kube::core::ObjectMeta;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::etag::{self, Precondition};
use super::{Answer, Body, json_bytes};
use crate::app::App;
use crate::error::ApiError;
use crate::store::{Deed, Origin};

/// How often a change is tried when somebody else was quicker.
pub const TRIES: usize = 5;

/// A change that is about to be made.
pub struct Change<'a> {
    /// The program.
    pub app: &'a Arc<App>,
    /// The tenant it concerns, if it concerns one.
    pub tenant: Option<&'a str>,
    /// `tenant.create`, `tenant.update`, `tier.create`, `tier.update`.
    pub action: &'static str,
    /// The thing's name.
    pub target: &'a str,
    /// Whose it is.
    pub origin: &'a Origin,
}

impl Change<'_> {
    /// Writes it down; the entry's id.
    ///
    /// # Errors
    /// When the database fails: then nothing must be changed.
    pub async fn begin(&self, detail: Value) -> Result<i64, ApiError> {
        Ok(self.app.store.audit_deed(&self.deed(self.action.to_owned(), detail)).await?)
    }

    /// Writes down that it was not made, if so. Of a change that the API server did not answer nobody knows.
    pub async fn end<T>(&self, entry: i64, outcome: Result<T, ApiError>) -> Result<T, ApiError> {
        let Err(error) = &outcome else { return outcome };
        let unknown = error.code() == ProblemCode::ClusterUnavailable;
        let detail = json!({
            "entry": entry,
            "outcome": if unknown { "unknown" } else { "not made" },
            "code": error.code().as_str(),
        });
        let deed = self.deed(format!("{}.failed", self.action), detail);
        if let Err(error) = self.app.store.audit_deed(&deed).await {
            let error = crate::error::chain(&error);
            tracing::error!(entry, target = self.target, error, "The failure of a change could not be written down.");
        }
        outcome
    }

    fn deed(&self, action: String, detail: Value) -> Deed<'_> {
        Deed { tenant: self.tenant, action, target: self.target, detail, origin: self.origin }
    }
}

/// Makes the object name the audit entry of its newest change.
pub fn sign(metadata: &mut ObjectMeta, entry: i64) {
    metadata.annotations.get_or_insert_default().insert(labels::AUDIT.to_owned(), entry.to_string());
}

/// Which fields change, from what to what. Nothing that operators decide is secret.
pub fn changes(old: &impl Serialize, new: &impl Serialize) -> Value {
    let (old, new) = (json!(old), json!(new));
    let names = old.as_object().into_iter().chain(new.as_object()).flat_map(|fields| fields.keys());
    let changed = names.filter(|name| old.get(name.as_str()) != new.get(name.as_str()));
    changed.map(|name| (name.clone(), json!({"from": old.get(name), "to": new.get(name)}))).collect()
}

/// Runs a change to its end, whatever becomes of its caller.
pub async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(change).await.map_err(|error| ApiError::internal(error.to_string()))?
}

/// Whether the precondition allows to change this version of an object.
///
/// # Errors
/// When it does not.
pub fn check(precondition: &Precondition, metadata: &ObjectMeta) -> Result<(), ApiError> {
    match precondition {
        Precondition::Versions(versions) if version(metadata).is_none_or(|v| !versions.contains(&v)) => {
            Err(etag::failed())
        }
        _ => Ok(()),
    }
}

fn version(metadata: &ObjectMeta) -> Option<(Uuid, i64)> {
    metadata.uid.as_deref()?.parse().ok().zip(metadata.generation)
}

/// An answer that holds the document of an object, with its tag.
pub fn response(status: StatusCode, metadata: &ObjectMeta, document: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(document).map_err(|error| ApiError::internal(error.to_string()))?;
    let tag = version(metadata).map(|(uid, generation)| etag::of(&uid, generation, &body));
    let mut response: Response<Body> = json_bytes(status, body);
    if let Some(tag) = tag {
        response.headers_mut().insert(http::header::ETAG, tag);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_by_field() {
        let old = json!({"tier": "pro", "suspended": false});
        let new = json!({"tier": "free", "suspended": false, "displayName": "A"});
        let expected = json!({"tier": {"from": "pro", "to": "free"}, "displayName": {"from": null, "to": "A"}});
        assert_eq!(changes(&old, &new), expected);
    }
}
