//! Writes statuses: one merge patch each, bound to the object's identity, so that a new object of an old name
//! never takes its predecessor's.

use eventflow_api::function::{Function, FunctionStatus};
use eventflow_api::invocation::{Invocation, InvocationStatus};
use eventflow_api::labels;
use eventflow_api::tenant::{Tenant, TenantStatus};
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::json;

use crate::world::{Name, World, run, views};

/// A status that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the status of {}/{}", .name.namespace, .name.name)]
pub struct StatusError {
    name: Name,
    source: Box<kube::Error>,
}

/// Access to Functions of one namespace, untyped.
#[must_use]
pub fn functions(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &ApiResource::erase::<Function>(&()))
}

/// Access to Invocations of one namespace, untyped.
#[must_use]
pub fn invocations(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &ApiResource::erase::<Invocation>(&()))
}

/// Access to Tenants, untyped.
#[must_use]
pub fn tenants(client: Client) -> Api<DynamicObject> {
    Api::all_with(client, &ApiResource::erase::<Tenant>(&()))
}

/// Writes a function's status and remembers it.
///
/// # Errors
/// If the API server refuses or cannot be asked. An object that is gone or was replaced is no error.
pub async fn function(
    client: &Client,
    world: &World,
    (name, uid): (&Name, &str),
    status: &FunctionStatus,
) -> Result<(), StatusError> {
    let api = functions(client.clone(), &name.namespace);
    if let Some(written) = patch(&api, name, uid, status).await? {
        let (name, seen) = views::function(written);
        world.record_function(name, seen);
    }
    Ok(())
}

/// Writes a run's status and remembers it.
///
/// # Errors
/// If the API server refuses or cannot be asked. An object that is gone or was replaced is no error.
pub async fn invocation(
    client: &Client,
    world: &World,
    (name, uid): (&Name, &str),
    status: &InvocationStatus,
) -> Result<(), StatusError> {
    let api = invocations(client.clone(), &name.namespace);
    if let Some(written) = patch(&api, name, uid, status).await? {
        let (name, seen) = run::invocation(written);
        world.record_invocation(name, seen);
    }
    Ok(())
}

/// Writes a tenant's status and remembers it.
///
/// # Errors
/// If the API server refuses or cannot be asked. An object that is gone or was replaced is no error.
pub async fn tenant(
    client: &Client,
    world: &World,
    (name, uid): (&Name, &str),
    status: &TenantStatus,
) -> Result<(), StatusError> {
    if let Some(written) = patch(&tenants(client.clone()), name, uid, status).await? {
        let (name, seen) = views::tenant(written);
        world.record_tenant(name, seen);
    }
    Ok(())
}

async fn patch(
    api: &Api<DynamicObject>,
    name: &Name,
    uid: &str,
    status: &impl Serialize,
) -> Result<Option<DynamicObject>, StatusError> {
    let params = PatchParams { field_manager: Some(labels::STATUS_MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "status": status}));
    match api.patch_status(&name.name, &params, &patch).await {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(None),
        Err(source) => Err(StatusError { name: name.clone(), source: Box::new(source) }),
    }
}
