//! What no event tells: objects that went while nobody watched, and idempotency keys that are a day old.

use std::sync::Arc;
use std::time::Duration;

use eventflow_api::names::TenantId;
use kube::ResourceExt;
use uuid::Uuid;

use super::Inner;
use super::apply::{self, Hold};
use crate::error::chain;
use crate::store::FunctionRow;

/// How often to look without a reason.
const PERIOD: Duration = Duration::from_secs(300);
/// How often to look for old idempotency keys.
const KEYS_PERIOD: Duration = Duration::from_secs(60);
/// Rows or keys at a time.
const BATCH: i64 = 500;

/// Works for ever.
pub(super) async fn run(inner: Arc<Inner>) {
    futures::future::join(sweep_rows(&inner), sweep_keys(&inner)).await;
}

async fn sweep_keys(inner: &Inner) {
    loop {
        match inner.store.idempotency_sweep(BATCH).await {
            Ok(swept) if i64::try_from(swept).is_ok_and(|swept| swept == BATCH) => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "Old idempotency keys cannot be swept now"),
        }
        tokio::time::sleep(KEYS_PERIOD.mul_f64(rand::random_range(0.8..1.2))).await;
    }
}

async fn sweep_rows(inner: &Inner) {
    loop {
        drop(tokio::time::timeout(PERIOD, inner.desk.listed.notified()).await);
        // Without the tenants no absence proves anything, see below.
        futures::future::join(inner.functions.filled(), inner.tenants.filled()).await;
        while let Err(hold) = compare_all(inner).await {
            tracing::warn!(error = %chain(&hold), "Rows cannot be compared with the cluster now");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}

/// Finds rows whose object is gone. Nothing is believed from the cache alone: it may be older than the row.
async fn compare_all(inner: &Inner) -> Result<(), Hold> {
    let mut after = Uuid::nil();
    loop {
        let rows = inner.store.synced_rows(after, BATCH).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id;
        for row in &rows {
            let seen = inner.functions.get(&row.tenant.namespace(), row.name.as_str());
            if seen.is_none_or(|function| function.uid() != row.object_uid) && tenant_stands(inner, &row.tenant) {
                compare(inner, row).await?;
            }
        }
    }
}

/// A tenant without a Tenant object is no proof of anything: a cluster restored from nothing must not empty the
/// store. Its rows stay as they are.
fn tenant_stands(inner: &Inner, id: &TenantId) -> bool {
    inner.tenants.get("", id.as_str()).is_some_and(|tenant| tenant.metadata.deletion_timestamp.is_none())
}

async fn compare(inner: &Inner, row: &FunctionRow) -> Result<(), Hold> {
    let Some(uid) = &row.object_uid else { return Ok(()) };
    // Another object of the name is shown by the watch, and the adopter takes it over.
    let gone = apply::look(&apply::api(inner, row), row).await?.is_none();
    if gone && inner.store.adopt_absence(&row.tenant, row.name.as_str(), uid).await? {
        tracing::info!(
            tenant.id = %row.tenant, function.name = %row.name,
            "A function was deleted in the cluster while nobody watched"
        );
    }
    Ok(())
}
