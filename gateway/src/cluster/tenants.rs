//! Tenant objects on first use: made with their owner, never taken from another. The controller does the rest.

use std::sync::Arc;
use std::time::Duration;

use eventflow_api::labels::GATEWAY_MANAGER;
use eventflow_api::names::{TenantClaim, TenantId};
use eventflow_api::tenant::{DEFAULT_TIER, Tenant, TenantOwner, TenantSpec};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::Inner;

/// Longest wait for the API server.
const DEADLINE: Duration = Duration::from_secs(2);

/// Wait before the object of a tenant is tried again; doubles with every failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const RETRY_LAST: Duration = Duration::from_secs(30);

/// Why a tenant cannot be set up in the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The API server cannot be reached or refuses to serve. Trying again may help.
    #[error("the cluster cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A Tenant object of this id belongs to somebody else.
    #[error("a tenant of this id belongs to another owner")]
    TenantConflict,
    /// The tenant is being deleted.
    #[error("the tenant is being deleted")]
    TenantTerminating,
}

/// What a Tenant object says about an owner.
enum Ownership {
    Theirs,
    Nobodys,
}

pub(super) async fn ensure(
    inner: &Inner,
    issuer: &str,
    claim: &TenantClaim,
    id: &TenantId,
) -> Result<(), ClusterError> {
    let owner = TenantOwner { issuer: issuer.to_owned(), subject: claim.to_string() };
    let seen = inner.tenants.get("", id.as_str());
    if !inner.greeted.contains_key(id) {
        inner.greeted.insert(id.clone(), ());
        inner.desk.tenant(id.as_str());
    }
    let settled = match &seen {
        Some(tenant) => matches!(ownership(tenant, &owner)?, Ownership::Theirs),
        None => inner.ensured.contains_key(id),
    };
    if settled {
        return Ok(());
    }
    match tokio::time::timeout(DEADLINE, make(inner, &owner, id)).await {
        Ok(Ok(())) => inner.ensured.insert(id.clone(), ()),
        Ok(Err(error)) => return Err(error),
        Err(elapsed) => return Err(ClusterError::Unavailable(elapsed.into())),
    }
    Ok(())
}

/// Goes on trying until the object is made, or turns out to be somebody else's. Otherwise a tenant that called once
/// while the API server was slow and then only reads would never have one. A process that ends leaves that to the next
/// call.
pub(super) fn ensure_later(inner: &Arc<Inner>, issuer: &str, claim: &TenantClaim, id: &TenantId) {
    if !inner.owed.entry(id.clone()).or_insert(()).is_fresh() {
        return;
    }
    let (inner, issuer, claim, id) = (inner.clone(), issuer.to_owned(), claim.clone(), id.clone());
    tokio::spawn(async move {
        let mut wait = RETRY_FIRST;
        loop {
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.8..1.2))).await;
            wait = wait.saturating_mul(2).min(RETRY_LAST);
            match ensure(&inner, &issuer, &claim, &id).await {
                Err(ClusterError::Unavailable(_)) => {}
                Ok(()) => break,
                Err(error) => {
                    let error = crate::error::chain(&error);
                    tracing::warn!(tenant.id = %id, error, "The tenant's object cannot be made.");
                    break;
                }
            }
        }
        inner.owed.invalidate(&id);
    });
}

async fn make(inner: &Inner, owner: &TenantOwner, id: &TenantId) -> Result<(), ClusterError> {
    let api: Api<Tenant> = Api::all(inner.client.clone());
    let spec = TenantSpec {
        tier: DEFAULT_TIER.to_owned(),
        owner: Some(owner.clone()),
        display_name: None,
        quota: None,
        suspended: false,
    };
    let params = PostParams { field_manager: Some(GATEWAY_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &Tenant::new(id.as_str(), spec)).await {
        Ok(_) => return Ok(()),
        // Somebody was quicker: another call of the same tenant's, or an operator.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(ClusterError::Unavailable(error.into())),
    }
    let tenant = api.get(id.as_str()).await.map_err(|error| ClusterError::Unavailable(error.into()))?;
    match ownership(&tenant, owner)? {
        Ownership::Theirs => Ok(()),
        Ownership::Nobodys => take(&api, &tenant, owner, id).await,
    }
}

/// An operator made the tenant for whoever signs in first under its name.
async fn take(api: &Api<Tenant>, tenant: &Tenant, owner: &TenantOwner, id: &TenantId) -> Result<(), ClusterError> {
    let metadata = json!({ "uid": tenant.metadata.uid, "resourceVersion": tenant.metadata.resource_version });
    let patch = Patch::Merge(json!({ "metadata": metadata, "spec": { "owner": owner } }));
    let params = PatchParams { field_manager: Some(GATEWAY_MANAGER.to_owned()), ..PatchParams::default() };
    let patched = api.patch(id.as_str(), &params, &patch).await;
    patched.map(drop).map_err(|error| ClusterError::Unavailable(error.into()))
}

fn ownership(tenant: &Tenant, owner: &TenantOwner) -> Result<Ownership, ClusterError> {
    if tenant.metadata.deletion_timestamp.is_some() {
        return Err(ClusterError::TenantTerminating);
    }
    match &tenant.spec.owner {
        Some(there) if there == owner => Ok(Ownership::Theirs),
        Some(_) => Err(ClusterError::TenantConflict),
        None => Ok(Ownership::Nobodys),
    }
}
