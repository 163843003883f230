//! Tenants and tiers as operators change them: read from the API server itself, written over the very version that
//! was read. What was written is waited for on the watch, so that this gateway acts on it once it has answered.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use eventflow_api::labels::GATEWAY_MANAGER;
use eventflow_api::names::TenantId;
use eventflow_api::tenant::Tenant;
use eventflow_api::tier::Tier;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::watch::Cache;
use super::{Cluster, HANDLER_DEADLINE};

/// Longest wait for the watch to show what was written.
const SEEN_WAIT: Duration = Duration::from_secs(1);

/// Why an object was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The API server cannot be reached, or did not answer in time. A write may have happened.
    #[error("the cluster cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Somebody else wrote it since it was read.
    #[error("the object was changed meanwhile")]
    Conflict,
    /// There is an object of this name.
    #[error("an object of this name exists")]
    Exists,
    /// There is no such object.
    #[error("there is no such object")]
    Missing,
    /// The API server refuses it.
    #[error("the API server refuses the object")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ObjectError {
    fn of(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.is_already_exists() => Self::Exists,
            kube::Error::Api(status) if status.is_conflict() => Self::Conflict,
            kube::Error::Api(status) if status.is_not_found() => Self::Missing,
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => Self::Refused(error.into()),
            _ => Self::Unavailable(error.into()),
        }
    }
}

/// A kind that operators change.
trait Kind: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned {}

impl Kind for Tenant {}
impl Kind for Tier {}

/// Waits for the API server, but not for long.
async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ObjectError> {
    match tokio::time::timeout(HANDLER_DEADLINE, call).await {
        Ok(outcome) => outcome.map_err(ObjectError::of),
        Err(elapsed) => Err(ObjectError::Unavailable(elapsed.into())),
    }
}

impl Cluster {
    /// The Tenant object, from the API server.
    ///
    /// # Errors
    /// [`ObjectError::Missing`], [`ObjectError::Unavailable`].
    pub async fn tenant_read(&self, id: &TenantId) -> Result<Tenant, ObjectError> {
        in_time(self.api::<Tenant>().get(id.as_str())).await
    }

    /// Makes a Tenant object.
    ///
    /// # Errors
    /// [`ObjectError::Exists`], [`ObjectError::Refused`], [`ObjectError::Unavailable`].
    pub async fn tenant_create(&self, tenant: &Tenant) -> Result<Tenant, ObjectError> {
        self.create(&self.inner.tenants, tenant).await
    }

    /// Writes a Tenant object over the version that it says.
    ///
    /// # Errors
    /// [`ObjectError::Conflict`], [`ObjectError::Missing`], [`ObjectError::Refused`], [`ObjectError::Unavailable`].
    pub async fn tenant_replace(&self, tenant: &Tenant) -> Result<Tenant, ObjectError> {
        self.replace(&self.inner.tenants, tenant).await
    }

    /// Takes back a Tenant object that was made just now, and no other.
    ///
    /// # Errors
    /// [`ObjectError::Unavailable`].
    pub async fn tenant_take_back(&self, tenant: &Tenant) -> Result<(), ObjectError> {
        let preconditions = Some(Preconditions { uid: tenant.metadata.uid.clone(), resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        match in_time(self.api::<Tenant>().delete(&tenant.name_any(), &params)).await {
            Ok(_) | Err(ObjectError::Missing | ObjectError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The Tier object, from the API server.
    ///
    /// # Errors
    /// [`ObjectError::Missing`], [`ObjectError::Unavailable`].
    pub async fn tier_read(&self, name: &str) -> Result<Tier, ObjectError> {
        in_time(self.api::<Tier>().get(name)).await
    }

    /// Makes a Tier object.
    ///
    /// # Errors
    /// [`ObjectError::Exists`], [`ObjectError::Refused`], [`ObjectError::Unavailable`].
    pub async fn tier_create(&self, tier: &Tier) -> Result<Tier, ObjectError> {
        self.create(&self.inner.tiers, tier).await
    }

    /// Writes a Tier object over the version that it says.
    ///
    /// # Errors
    /// [`ObjectError::Conflict`], [`ObjectError::Missing`], [`ObjectError::Refused`], [`ObjectError::Unavailable`].
    pub async fn tier_replace(&self, tier: &Tier) -> Result<Tier, ObjectError> {
        self.replace(&self.inner.tiers, tier).await
    }

    /// Every Tenant object, by id, from the watch cache.
    #[must_use]
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        sorted(&self.inner.tenants)
    }

    /// How many tenants are of this tier, in the watch cache.
    #[must_use]
    pub fn tenants_of(&self, tier: &str) -> usize {
        self.inner.tenants.all("").iter().filter(|tenant| tenant.spec.tier == tier).count()
    }

    /// Every Tier object, by name, from the watch cache.
    #[must_use]
    pub fn tiers(&self) -> Vec<Arc<Tier>> {
        sorted(&self.inner.tiers)
    }

    fn api<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.inner.client.clone())
    }

    async fn create<K: Kind>(&self, cache: &Cache<K>, object: &K) -> Result<K, ObjectError> {
        let written = in_time(self.api().create(&params(), object)).await?;
        seen(cache, &written).await;
        Ok(written)
    }

    async fn replace<K: Kind>(&self, cache: &Cache<K>, object: &K) -> Result<K, ObjectError> {
        let written = in_time(self.api().replace(&object.name_any(), &params(), object)).await?;
        seen(cache, &written).await;
        Ok(written)
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(GATEWAY_MANAGER.to_owned()), ..PostParams::default() }
}

fn sorted<K: Resource>(cache: &Cache<K>) -> Vec<Arc<K>> {
    let mut objects = cache.all("");
    objects.sort_by_key(|object| object.name_any());
    objects
}

fn version(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Waits a moment until the watch shows what was written, or something newer.
async fn seen<K: Kind>(cache: &Cache<K>, written: &K) {
    let mut changes = cache.changes();
    let seen = async {
        while cache.get("", &written.name_any()).is_none_or(|seen| version(&*seen) < version(written)) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    // Late is no failure: the watch will show it.
    drop(tokio::time::timeout(SEEN_WAIT, seen).await);
}
