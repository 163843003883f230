//! From stored intent to Function objects, and from the watch back: a projector carries rows to the API server, an
//! adopter carries changes made in the cluster to the rows, and caches answer reads without a call.
//!
//! It never makes pods, namespaces or quotas; its writes end at Functions and Tenants.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eventflow_api::condition::Condition;
use eventflow_api::function::{FunctionStatus, Phase};
use eventflow_api::names::{FunctionName, TenantClaim, TenantId};
use eventflow_api::tenant::Tenant as TenantObject;
use eventflow_api::tier::Tier;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::auth::Tenant;
use crate::store::{FunctionRow, Store};

/// Whether the cluster holds a row's intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It does.
    Yes,
    /// Not yet, and the projector goes on trying; why, for logs.
    Pending(String),
}

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

/// The cluster, seen from the gateway. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    store: Store,
}

impl Cluster {
    /// Starts the watches, the projector, the adopter and the sweeper; all end soon after `shutdown` is cancelled.
    /// Neither the API server nor the database needs to be up.
    #[must_use]
    pub fn start(client: Client, store: Store, shutdown: CancellationToken) -> (Self, JoinSet<()>) {
        let _ = shutdown;
        (Self { inner: Arc::new(Inner { client, store }) }, JoinSet::new())
    }

    /// Carries the row to the cluster now, within 2 s. Never an error: what cannot be done now is done by the
    /// projector.
    pub async fn function_apply(&self, row: &FunctionRow) -> Applied {
        let _ = (row, &self.inner.client, &self.inner.store);
        todo!()
    }

    /// Takes a deleted row's object out of the cluster now, within 2 s; otherwise as [`Cluster::function_apply`].
    pub async fn function_remove(&self, row: &FunctionRow) -> Applied {
        let _ = row;
        todo!()
    }

    /// What became of the function, from the watch cache. `None` when no object of this very row was seen.
    #[must_use]
    pub fn function_status(&self, tenant: &Tenant, name: &FunctionName, row_id: &Uuid) -> Option<Arc<FunctionStatus>> {
        let _ = (tenant, name, row_id);
        todo!()
    }

    /// The phase of each of the tenant's functions, by name, from the watch cache.
    #[must_use]
    pub fn phases(&self, tenant: &Tenant) -> HashMap<String, Phase> {
        let _ = tenant;
        todo!()
    }

    /// Waits for the controller's `Admitted` condition on this generation of the row, at most for `deadline`.
    pub async fn function_verdict(&self, row: &FunctionRow, deadline: Duration) -> Option<Condition> {
        let _ = (row, deadline);
        todo!()
    }

    /// Makes sure that the Tenant object exists and belongs to this claim of this issuer; no call when the watch
    /// cache says so already.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn tenant_ensure(&self, issuer: &str, claim: &TenantClaim, id: &TenantId) -> Result<(), ClusterError> {
        let _ = (issuer, claim, id);
        todo!()
    }

    /// The Tenant object, from the watch cache.
    #[must_use]
    pub fn tenant(&self, id: &TenantId) -> Option<Arc<TenantObject>> {
        let _ = id;
        todo!()
    }

    /// The Tier object of that name, from the watch cache.
    #[must_use]
    pub fn tier(&self, name: &str) -> Option<Arc<Tier>> {
        let _ = name;
        todo!()
    }

    /// Whether each watch cache has been filled once, by name.
    #[must_use]
    pub fn ready(&self) -> Vec<(&'static str, bool)> {
        todo!()
    }
}
