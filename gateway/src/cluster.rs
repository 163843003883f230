//! From stored intent to Function objects, and from the watch back: a projector carries rows to the API server, an
//! adopter carries changes made in the cluster to the rows, and caches answer reads without a call.
//!
//! It never makes pods, namespaces or quotas; its writes end at Functions and Tenants.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eventflow_api::function::{Function, FunctionStatus, Phase};
use eventflow_api::invocation::Invocation;
use eventflow_api::labels::{MANAGED_BY, MANAGED_BY_VALUE, TENANT_QUOTA};
use eventflow_api::ledger::QuotaLedger;
use eventflow_api::names::{FunctionName, TenantClaim, TenantId};
use eventflow_api::tenant::Tenant as TenantObject;
use eventflow_api::tier::Tier;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, ResourceExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::auth::Tenant;
use crate::forward::pods::Table;
use crate::live::Hub;
use crate::store::{FunctionRow, Store};

/// What the API server holds, kept up to date by watches.
mod watch;
/// The Function object that a row asks for, and what an object says about itself.
mod object;
/// One row to the API server, safely beside others who do the same.
mod apply;
/// All rows that are due to the API server.
mod projector;
/// Changes made in the cluster to the rows.
mod adopter;
/// What no event tells: rows without objects, old idempotency keys.
mod sweeper;
/// Tenant objects on first use.
mod tenants;
/// What a tenant's invocations may use.
mod allowance;
/// Where functions answer.
mod endpoints;

pub use allowance::Allowance;
/// Tenants and tiers as operators change them.
mod operators;
/// What the caches say of a tenant's quota.
mod quota;
/// The controller's word on a function, with the quota's numbers.
mod verdict;
/// Runs of functions: to the cluster, and the record back.
mod invocations;
/// What the cluster reported of a function and of its pods.
mod events;
/// What the watch caches tell those who watch a tenant.
mod told;

pub use self::quota::{QuotaView, Standing, Totals};
pub use operators::ObjectError;
pub use tenants::ClusterError;

use adopter::Desk;
use endpoints::Endpoints;
use invocations::Recorder;
use watch::Cache;

/// Longest time a handler's request waits for the API server.
const HANDLER_DEADLINE: Duration = Duration::from_secs(2);

/// Whether the cluster holds a row's intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It does.
    Yes,
    /// Not yet, and the projector goes on trying; why, for logs.
    Pending(String),
}

/// The cluster, seen from the gateway. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    store: Store,
    functions: Cache<Function>,
    tenants: Cache<TenantObject>,
    tiers: Cache<Tier>,
    slices: Cache<EndpointSlice>,
    endpoints: Endpoints,
    /// Where functions answer, from the slices.
    pods: Table,
    /// Who holds what; written by the controller alone.
    ledgers: Cache<QuotaLedger>,
    /// What the pods that are there are charged. The API server keeps this sum anyway: watching one small object per
    /// tenant costs less than watching every pod, and a call per question costs more than both.
    quotas: Cache<ResourceQuota>,
    /// Runs, without their inputs.
    runs: Cache<Invocation>,
    /// What is to be written down of runs.
    recorder: Recorder,
    /// Wakes the projector of runs.
    runs_due: Notify,
    /// What the adopter has to look at.
    desk: Desk,
    /// What happens, for those who watch.
    live: Arc<Hub>,
    /// Wakes the projector.
    due: Notify,
    /// Tenants whose object was made here and may not have come by the watch yet.
    ensured: moka::sync::Cache<TenantId, ()>,
    /// Tenants whose object could not be made yet, which is tried again.
    owed: moka::sync::Cache<TenantId, ()>,
    /// Tenants that called lately: the adopter looked at their functions once, now that they are known.
    greeted: moka::sync::Cache<TenantId, ()>,
}

impl Cluster {
    /// Starts the watches, the projector, the adopter and the sweeper; all end soon after `shutdown` is cancelled.
    /// Neither the API server nor the database needs to be up.
    #[must_use]
    pub fn start(client: Client, store: Store, shutdown: CancellationToken) -> (Self, JoinSet<()>) {
        let remember = |seconds| {
            moka::sync::Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(seconds)).build()
        };
        let inner = Arc::new(Inner {
            client,
            store,
            functions: Cache::new("functions"),
            tenants: Cache::new("tenants"),
            tiers: Cache::new("tiers"),
            slices: Cache::new("endpoints").of(format!("{MANAGED_BY}={MANAGED_BY_VALUE}"), endpoints::trim),
            endpoints: Endpoints::default(),
            pods: Table::default(),
            ledgers: Cache::new("ledgers"),
            quotas: Cache::new("quotas").named(TENANT_QUOTA),
            runs: Cache::new("invocations").of(String::new(), invocations::trim),
            recorder: Recorder::default(),
            runs_due: Notify::new(),
            desk: Desk::default(),
            live: Arc::default(),
            due: Notify::new(),
            ensured: remember(30),
            owed: remember(3_600),
            greeted: remember(3_600),
        });
        let mut tasks = JoinSet::new();
        let mut start = |task: futures::future::BoxFuture<'static, ()>| {
            let shutdown = shutdown.clone();
            tasks.spawn(async move {
                // Nothing comes back: either the task ended or it was told to.
                let _: Option<()> = shutdown.run_until_cancelled(task).await;
            });
        };
        start(Box::pin(watch_functions(Arc::clone(&inner))));
        start(Box::pin(watch_tenants(Arc::clone(&inner))));
        start(Box::pin(watch_tiers(Arc::clone(&inner))));
        start(Box::pin(watch_endpoints(Arc::clone(&inner))));
        let tidied = Arc::clone(&inner);
        start(Box::pin(async move { tidied.pods.tidy().await }));
        start(Box::pin(watch_ledgers(Arc::clone(&inner))));
        start(Box::pin(watch_quotas(Arc::clone(&inner))));
        start(Box::pin(invocations::watch(Arc::clone(&inner))));
        start(Box::pin(invocations::project(Arc::clone(&inner))));
        start(Box::pin(invocations::record(Arc::clone(&inner))));
        start(Box::pin(invocations::sweep(Arc::clone(&inner))));
        start(Box::pin(projector::run(Arc::clone(&inner))));
        start(Box::pin(adopter::run(Arc::clone(&inner))));
        start(Box::pin(sweeper::run(Arc::clone(&inner))));
        (Self { inner }, tasks)
    }

    /// Carries the row to the cluster now, within 2 s. Never an error: what cannot be done now is done by the
    /// projector. Goes on when the caller goes away.
    pub async fn function_apply(&self, row: &FunctionRow) -> Applied {
        self.carry(row).await
    }

    /// Takes a deleted row's object out of the cluster now, within 2 s; otherwise as [`Cluster::function_apply`].
    pub async fn function_remove(&self, row: &FunctionRow) -> Applied {
        self.carry(row).await
    }

    async fn carry(&self, row: &FunctionRow) -> Applied {
        let (inner, row) = (Arc::clone(&self.inner), row.clone());
        let task = tokio::spawn(async move { projector::carry_now(&inner, &row, HANDLER_DEADLINE).await });
        task.await.unwrap_or_else(|error| Applied::Pending(error.to_string()))
    }

    /// What became of the function, from the watch cache, its generations told in the store's count. `None` when no
    /// object of this very row was seen.
    #[must_use]
    pub fn function_status(&self, tenant: &Tenant, name: &FunctionName, row_id: &Uuid) -> Option<FunctionStatus> {
        let function = self.inner.functions.get(tenant.namespace(), name.as_str())?;
        if object::function_id(&function) != Some(*row_id) {
            return None;
        }
        object::status(&function)
    }

    /// The phase of each of the tenant's functions, by name, from the watch cache.
    #[must_use]
    pub fn phases(&self, tenant: &Tenant) -> HashMap<String, Phase> {
        let phase = |function: &Function| function.status.as_ref().map_or(Phase::Pending, |status| status.phase);
        self.inner.functions.map(tenant.namespace(), phase)
    }

    /// Makes sure that the Tenant object exists and belongs to this claim of this issuer; no call when the watch
    /// cache says so already. While the API server is away this goes on by itself.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn tenant_ensure(&self, issuer: &str, claim: &TenantClaim, id: &TenantId) -> Result<(), ClusterError> {
        let made = tenants::ensure(&self.inner, issuer, claim, id).await;
        if let Err(ClusterError::Unavailable(_)) = &made {
            tenants::ensure_later(&self.inner, issuer, claim, id);
        }
        made
    }

    /// The Tenant object, from the watch cache.
    #[must_use]
    pub fn tenant(&self, id: &TenantId) -> Option<Arc<TenantObject>> {
        self.inner.tenants.get("", id.as_str())
    }

    /// The Tier object of that name, from the watch cache.
    #[must_use]
    pub fn tier(&self, name: &str) -> Option<Arc<Tier>> {
        self.inner.tiers.get("", name)
    }

    /// The Function object, from the watch cache.
    #[must_use]
    pub fn function(&self, tenant: &TenantId, name: &FunctionName) -> Option<Arc<Function>> {
        self.inner.functions.get(&tenant.namespace(), name.as_str())
    }

    /// Where functions answer.
    #[must_use]
    pub fn pods(&self) -> &Table {
        &self.inner.pods
    }

    /// The tenant's pods, to be asked for at the API server.
    #[must_use]
    pub fn pods_of(&self, tenant: &TenantId) -> Api<Pod> {
        Api::namespaced(self.inner.client.clone(), &tenant.namespace())
    }

    /// The tenant's Function objects, from the watch cache, in no order.
    #[must_use]
    pub fn functions_of(&self, id: &TenantId) -> Vec<Arc<Function>> {
        self.inner.functions.all(&id.namespace())
    }

    /// How many Function objects there are, in the watch cache.
    #[must_use]
    pub fn function_count(&self) -> usize {
        self.inner.functions.count()
    }

    /// Whether each watch cache has been filled once, by name.
    #[must_use]
    pub fn ready(&self) -> Vec<(&'static str, bool)> {
        let Inner { functions, tenants, tiers, ledgers, quotas, slices, runs, .. } = &*self.inner;
        let platform = [tenants.ready(), tiers.ready(), ledgers.ready(), quotas.ready()];
        [functions.ready(), runs.ready(), slices.ready()].into_iter().chain(platform).collect()
    }
}

async fn watch_functions(inner: Arc<Inner>) {
    let observe = |seen: watch::Seen<Function>| {
        inner.tell_function(&seen);
        match seen {
            watch::Seen::Changed(function) => inner.desk.changed(&function),
            watch::Seen::Gone(function) => inner.desk.gone(&function),
            watch::Seen::Listed => inner.desk.listed(),
        }
    };
    inner.functions.run(Api::all(inner.client.clone()), observe).await;
}

async fn watch_tenants(inner: Arc<Inner>) {
    let observe = |seen: watch::Seen<TenantObject>| {
        if let watch::Seen::Changed(tenant) = seen {
            // Its functions may have waited for it: those made by kubectl to be adopted, the rest for the namespace.
            inner.desk.tenant(&tenant.name_any());
            inner.due.notify_one();
            inner.runs_due.notify_one();
        }
    };
    inner.tenants.run(Api::all(inner.client.clone()), observe).await;
}

async fn watch_tiers(inner: Arc<Inner>) {
    inner.tiers.run(Api::all(inner.client.clone()), |_| ()).await;
}

async fn watch_ledgers(inner: Arc<Inner>) {
    inner.ledgers.run(Api::all(inner.client.clone()), |seen| inner.tell_ledger(&seen)).await;
}

async fn watch_quotas(inner: Arc<Inner>) {
    inner.quotas.run(Api::all(inner.client.clone()), |_| ()).await;
}

async fn watch_endpoints(inner: Arc<Inner>) {
    let observe = |seen: watch::Seen<EndpointSlice>| match seen {
        watch::Seen::Changed(slice) => inner.endpoints.changed(&slice, &inner.pods),
        watch::Seen::Gone(slice) => inner.endpoints.gone(&slice, &inner.pods),
        watch::Seen::Listed => {}
    };
    inner.slices.run(Api::all(inner.client.clone()), observe).await;
}
