//! Carries all rows that are due to the API server, and keeps at it. The rows themselves are the queue, so nothing is
//! lost with a process, and a row changed ten times meanwhile is carried once, as it is.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::apply::{self, Carried, Checked, Hold};
use super::{Applied, Inner, object};
use crate::error::chain;
use crate::failpoint;
use crate::store::{FunctionRow, StoreError};

/// Rows taken at a time, and carried at the same time: a claim must outlast the carrying of all of them.
const BATCH: usize = 32;
/// Longest time for one row; shorter than a claim lasts.
const ROW_DEADLINE: Duration = Duration::from_secs(2);
/// How often to look without being woken: other gateways' rows, and those whose time has come.
const POLL: Duration = Duration::from_secs(1);
/// When to look again at a row that waits for something that usually comes at once.
const SOON: Duration = Duration::from_millis(300);

/// Works for ever.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        match inner.store.pending_claim(BATCH as i64).await {
            Ok(rows) if !rows.is_empty() => {
                futures::stream::iter(rows).for_each_concurrent(BATCH, |row| carry_due(Arc::clone(&inner), row)).await;
                continue;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "The projector cannot read what is due"),
        }
        drop(tokio::time::timeout(POLL, inner.due.notified()).await);
    }
}

async fn carry_due(inner: Arc<Inner>, row: FunctionRow) {
    // What could not be done is logged, and the row is due again.
    drop(carry(&inner, &row, ROW_DEADLINE).await);
}

/// Carries one row for a caller who waits, trying again for as long as what it waits for usually comes at once.
pub(super) async fn carry_now(inner: &Inner, row: &FunctionRow, deadline: Duration) -> Applied {
    if row.deleted_at.is_none() && row.is_synced() {
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
        let again = matches!(pending, Hold::NoNamespace | Hold::Older | Hold::Contended);
        if !again || tokio::time::Instant::now() + SOON >= end {
            return Applied::Pending(pending.to_string());
        }
        drop(tokio::time::timeout(SOON, tenants.changed()).await);
    }
}

/// Carries one row once, and stores what came of it.
async fn carry(inner: &Inner, row: &FunctionRow, deadline: Duration) -> Result<(), Hold> {
    let carried = tokio::time::timeout(deadline, apply::carry(inner, row)).await;
    let carried = carried.unwrap_or_else(|_| Err(Hold::Unreachable("no answer in time".to_owned())));
    let stored = match &carried {
        Ok(carried) => store(inner, row, carried).await,
        Err(hold) => {
            tracing::debug!(
                tenant.id = %row.tenant, function.name = %row.name, generation = row.generation,
                reason = %hold, "A function waits to be carried to the cluster"
            );
            match hold {
                Hold::NoNamespace | Hold::Older | Hold::Contended => inner.store.pending_retry(row, SOON).await,
                Hold::Refused(_) => inner.store.pending_retry_rarely(row).await,
                // Due again by itself when the claim, or the handler's lease, is over.
                Hold::Unreachable(_) | Hold::Store(_) => Ok(()),
            }
        }
    };
    if let Err(error) = stored {
        // The row stays due, and carrying it again changes nothing.
        tracing::warn!(
            tenant.id = %row.tenant, function.name = %row.name, error = %chain(&error),
            "What became of a function in the cluster could not be stored"
        );
    }
    carried.map(|_| ())
}

async fn store(inner: &Inner, row: &FunctionRow, carried: &Carried) -> Result<(), StoreError> {
    match carried {
        Carried::Applied(function) => {
            failpoint::hit("after-apply");
            inner.desk.checked(function, Checked::of(function));
            let uid = function.metadata.uid.as_deref().unwrap_or_default();
            let applied = object::resource_version(function);
            inner.store.mark_applied(row, uid, applied).await?;
            // The adopter passes over a row with unapplied intent, so it may have missed a change made meanwhile.
            let seen = inner.functions.get(&row.tenant.namespace(), row.name.as_str());
            if let Some(newer) = seen.filter(|seen| object::resource_version(seen) > applied) {
                inner.desk.changed(&newer);
            }
            Ok(())
        }
        // Whoever holds the newer one stores it.
        Carried::Superseded => Ok(()),
        Carried::Gone => inner.store.mark_purged(row.id).await,
        // The watch tells when it is gone; if it does not, the row is due again.
        Carried::Leaving => Ok(()),
    }
}
