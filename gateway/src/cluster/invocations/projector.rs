//! Carries rows of runs that are due to the API server, and keeps at it: makes their objects, tells them that they are
//! not wanted any more, and takes those out that are over and written down. The rows themselves are the queue.

use std::sync::Arc;
use std::time::Duration;

use eventflow_api::invocation::Invocation;
use eventflow_api::labels::GATEWAY_MANAGER;
use futures::StreamExt;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use super::object;
use crate::cluster::apply::{Hold, hold};
use crate::cluster::{Applied, Inner};
use crate::error::chain;
use crate::failpoint;
use crate::store::{InvocationRow, StoreError};

/// Rows taken at a time, and carried at the same time.
const BATCH: usize = 32;
/// Longest time for one row; shorter than a claim lasts.
const ROW_DEADLINE: Duration = Duration::from_secs(2);
/// How often to look without being woken.
const POLL: Duration = Duration::from_secs(1);
/// When to look again at a row that waits for something that usually comes at once.
const SOON: Duration = Duration::from_millis(300);

/// How a row was carried.
enum Carried {
    /// The object of this UID holds what the row asks for.
    Applied(String),
    /// The object of a run that is over is gone.
    Gone,
    /// It is on its way out.
    Leaving,
}

/// Works for ever.
pub(in crate::cluster) async fn run(inner: Arc<Inner>) {
    loop {
        match inner.store.invocation_claim(BATCH as i64).await {
            Ok(rows) if !rows.is_empty() => {
                futures::stream::iter(rows).for_each_concurrent(BATCH, |row| carry_due(Arc::clone(&inner), row)).await;
                continue;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "The projector of runs cannot read what is due"),
        }
        drop(tokio::time::timeout(POLL, inner.runs_due.notified()).await);
    }
}

async fn carry_due(inner: Arc<Inner>, row: InvocationRow) {
    // What could not be done is logged, and the row is due again.
    drop(carry(&inner, &row, ROW_DEADLINE).await);
}

/// Carries one row for a caller who waits, trying again for as long as what it waits for usually comes at once.
pub(super) async fn carry_now(inner: &Inner, row: &InvocationRow, deadline: Duration) -> Applied {
    if row.record.is_none() && row.is_synced() {
        return Applied::Yes;
    }
    let end = tokio::time::Instant::now() + deadline;
    let mut tenants = inner.tenants.changes();
    loop {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        let pending = match carry(inner, row, left).await {
            Ok(()) => return Applied::Yes,
            Err(hold) => hold,
        };
        if !matches!(pending, Hold::NoNamespace) || tokio::time::Instant::now() + SOON >= end {
            return Applied::Pending(pending.to_string());
        }
        drop(tokio::time::timeout(SOON, tenants.changed()).await);
    }
}

/// Carries one row once, and stores what came of it.
async fn carry(inner: &Inner, row: &InvocationRow, deadline: Duration) -> Result<(), Hold> {
    let work = async { if row.record.is_some() { remove(inner, row).await } else { apply(inner, row).await } };
    let carried = tokio::time::timeout(deadline, work).await;
    let carried = carried.unwrap_or_else(|_| Err(Hold::Unreachable("no answer in time".to_owned())));
    let stored = match &carried {
        Ok(carried) => store(inner, row, carried).await,
        Err(hold) => {
            tracing::debug!(
                tenant.id = %row.tenant, invocation.id = %row.id, reason = %hold,
                "A run waits to be carried to the cluster"
            );
            match hold {
                Hold::NoNamespace | Hold::Older | Hold::Contended => inner.store.invocation_retry(row.id, SOON).await,
                Hold::Refused(_) => inner.store.invocation_retry_rarely(row.id).await,
                // Due again by itself when the claim, or the handler's lease, is over.
                Hold::Unreachable(_) | Hold::Store(_) => Ok(()),
            }
        }
    };
    if let Err(error) = stored {
        // The row stays due, and carrying it again changes nothing.
        tracing::warn!(
            tenant.id = %row.tenant, invocation.id = %row.id, error = %chain(&error),
            "What became of a run in the cluster could not be stored"
        );
    }
    carried.map(|_| ())
}

async fn store(inner: &Inner, row: &InvocationRow, carried: &Carried) -> Result<(), StoreError> {
    match carried {
        Carried::Applied(uid) => {
            failpoint::hit("after-invocation-apply");
            inner.store.invocation_applied(row, uid).await
        }
        Carried::Gone => inner.store.invocation_purged(row.id).await,
        // The watch tells when it is gone; if it does not, the row is due again.
        Carried::Leaving => Ok(()),
    }
}

async fn apply(inner: &Inner, row: &InvocationRow) -> Result<Carried, Hold> {
    let api = api(inner, row);
    let params = PostParams { field_manager: Some(GATEWAY_MANAGER.to_owned()), ..PostParams::default() };
    // Once it was there it is never made again: its absence then means that somebody took it away.
    let made = match row.synced_generation {
        0 => api.create(&params, &object::wanted(row)).await,
        _ => api.get(&row.id.to_string()).await,
    };
    let found = match made {
        Ok(found) => found,
        Err(kube::Error::Api(status)) if status.code == 409 && row.synced_generation == 0 => {
            api.get(&row.id.to_string()).await.map_err(hold)?
        }
        // The recorder notes what became of it.
        Err(kube::Error::Api(status)) if status.code == 404 && row.synced_generation > 0 => {
            return Ok(Carried::Applied(row.object_uid.clone().unwrap_or_default()));
        }
        Err(error) => return Err(hold(error)),
    };
    let uid = found.metadata.uid.clone().unwrap_or_default();
    if row.cancel_requested && !found.spec.cancel {
        let params = PatchParams { field_manager: Some(GATEWAY_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "spec": {"cancel": true}}));
        match api.patch(&row.id.to_string(), &params, &patch).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(hold(error)),
        }
    }
    Ok(Carried::Applied(uid))
}

/// Deletes the object of a run that is over; what it owns goes with it.
async fn remove(inner: &Inner, row: &InvocationRow) -> Result<Carried, Hold> {
    let preconditions = row.object_uid.clone().map(|uid| Preconditions { uid: Some(uid), resource_version: None });
    let params = DeleteParams { preconditions, ..DeleteParams::background() };
    match api(inner, row).delete(&row.id.to_string(), &params).await {
        Ok(either) => Ok(either.either(|_| Carried::Leaving, |_| Carried::Gone)),
        // A conflict means that another object has the name: this one is gone.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Carried::Gone),
        Err(error) => Err(hold(error)),
    }
}

fn api(inner: &Inner, row: &InvocationRow) -> Api<Invocation> {
    Api::namespaced(inner.client.clone(), &row.tenant.namespace())
}
