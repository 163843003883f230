//! The Invocation object that a row asks for, and what an object says about itself. Pure.

use std::collections::BTreeMap;

use eventflow_api::invocation::{Invocation, InvocationSpec};
use eventflow_api::labels;
use kube::ResourceExt;
use uuid::Uuid;

use crate::store::InvocationRow;

/// The object as it is to be created. It has the run's id for a name, so that no other ever has it.
pub(super) fn wanted(row: &InvocationRow) -> Invocation {
    let spec = InvocationSpec { cancel: row.cancel_requested, ..row.spec.clone() };
    let mut invocation = Invocation::new(&row.id.to_string(), spec);
    let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let labels = [
        (labels::MANAGED_BY, labels::MANAGED_BY_VALUE),
        (labels::TENANT, row.tenant.as_str()),
        (labels::FUNCTION, row.function.as_str()),
    ];
    let mut annotations = BTreeMap::from([(labels::INVOCATION_ID.to_owned(), row.id.to_string())]);
    if let Some(traceparent) = &row.traceparent {
        annotations.insert(labels::TRACEPARENT.to_owned(), traceparent.clone());
    }
    invocation.metadata.namespace = Some(row.tenant.namespace());
    invocation.metadata.labels = Some(labels.into_iter().map(text).collect());
    invocation.metadata.annotations = Some(annotations);
    invocation
}

/// The run that the object says it is, if its name says the same.
pub(super) fn invocation_id(invocation: &Invocation) -> Option<Uuid> {
    let id: Uuid = invocation.annotations().get(labels::INVOCATION_ID)?.parse().ok()?;
    (invocation.name_any() == id.to_string()).then_some(id)
}
