//! What is still to be carried to the cluster: live rows whose newest generation it does not hold, and deleted rows
//! whose object was not seen to be gone. Works for all tenants, as the projector's role.
//!
//! Claiming a row moves its next attempt into the future and holds no lock, so several gateways share the work and
//! one that dies delays it by seconds. Doing the same work twice is harmless, see `cluster/apply.rs`.

use std::time::Duration;

use eventflow_api::names::TenantId;
use uuid::Uuid;

use super::functions::COLUMNS;
use super::{FunctionRow, Store, StoreError};

/// Attempts are 2.5 to 4.6 s apart: more than one attempt may take, little enough to agree within 10 s of an outage's
/// end. Random, so that gateways do not go in step.
const CLAIM: &str = "
    UPDATE functions SET attempts = attempts + 1,
        next_attempt_at = now() + make_interval(secs => (2.5 + 0.5 * LEAST(attempts, 3)) * (0.85 + 0.3 * random()))
    WHERE id IN (
        SELECT id FROM functions
        WHERE purged_at IS NULL AND (synced_generation < generation OR deleted_at IS NOT NULL)
          AND next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING ";
const RETRY: &str = "
    UPDATE functions SET next_attempt_at = now() + make_interval(secs => $3) WHERE id = $1 AND generation = $2";
/// For what the API server refuses: trying again seldom helps, so up to a minute apart.
const RETRY_RARELY: &str = "
    UPDATE functions SET attempts = attempts + 1,
        next_attempt_at = now() + make_interval(secs => LEAST(60, power(2, LEAST(attempts, 6))))
    WHERE id = $1 AND generation = $2";
const HURRY: &str = "
    UPDATE functions SET next_attempt_at = now()
    WHERE tenant_id = $1 AND purged_at IS NULL AND (synced_generation < generation OR deleted_at IS NOT NULL)";
/// An object applied for a row that was purged meanwhile makes the row pending again, so that the object goes.
const APPLIED: &str = "
    UPDATE functions SET
        synced_generation = GREATEST(synced_generation, LEAST($2, generation)),
        object_uid = CASE WHEN $2 >= synced_generation THEN $3 ELSE object_uid END,
        applied_rv = CASE WHEN $2 >= synced_generation THEN $4 ELSE applied_rv END,
        attempts = 0, next_attempt_at = now(), purged_at = NULL
    WHERE id = $1";
const PURGED: &str =
    "UPDATE functions SET purged_at = now() WHERE id = $1 AND deleted_at IS NOT NULL AND purged_at IS NULL";
const STATE: &str = "SELECT deleted_at IS NULL, purged_at IS NULL FROM functions WHERE id = $1";
const COUNT: &str = "
    SELECT count(*), COALESCE(EXTRACT(EPOCH FROM now() - min(GREATEST(updated_at, COALESCE(deleted_at, updated_at)))), 0)::float8
    FROM functions WHERE purged_at IS NULL AND (synced_generation < generation OR deleted_at IS NOT NULL)";

/// How far a row has come in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// There is no such row.
    Unknown,
    /// Not deleted.
    Live,
    /// Deleted, and its object was not seen to be gone.
    Leaving,
    /// Deleted, and its object is gone.
    Purged,
}

/// How much is to be carried to the cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backlog {
    /// Rows.
    pub rows: i64,
    /// Age of the oldest, in seconds.
    pub oldest_seconds: f64,
}

impl Store {
    /// Takes up to `limit` rows that are due, for a few seconds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_claim(&self, limit: i64) -> Result<Vec<FunctionRow>, StoreError> {
        let rows = self.projector.query(&format!("{CLAIM}{COLUMNS}"), &[&limit]).await?;
        rows.iter().map(FunctionRow::read).collect()
    }

    /// Makes the row due after a while, unless it has changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_retry(&self, row: &FunctionRow, after: Duration) -> Result<(), StoreError> {
        self.projector.query(RETRY, &[&row.id, &row.generation, &after.as_secs_f64()]).await?;
        Ok(())
    }

    /// Makes a row that the API server refuses due later and later, unless it has changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_retry_rarely(&self, row: &FunctionRow) -> Result<(), StoreError> {
        self.projector.query(RETRY_RARELY, &[&row.id, &row.generation]).await?;
        Ok(())
    }

    /// Makes all pending rows of the tenant due now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_hurry(&self, tenant: &TenantId) -> Result<(), StoreError> {
        self.projector.query(HURRY, &[&tenant.as_str()]).await?;
        Ok(())
    }

    /// Remembers that the cluster holds this generation of the row, in the object `uid` at `resource_version`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark_applied(&self, row: &FunctionRow, uid: &str, resource_version: i64) -> Result<(), StoreError> {
        self.projector.query(APPLIED, &[&row.id, &row.generation, &uid, &resource_version]).await?;
        Ok(())
    }

    /// Remembers that a deleted row's object is gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark_purged(&self, id: Uuid) -> Result<(), StoreError> {
        self.projector.query(PURGED, &[&id]).await?;
        Ok(())
    }

    /// How far the row has come.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn function_life(&self, id: Uuid) -> Result<Life, StoreError> {
        let rows = self.projector.query(STATE, &[&id]).await?;
        Ok(match rows.first().map(|row| (row.get(0), row.get(1))) {
            None => Life::Unknown,
            Some((true, _)) => Life::Live,
            Some((false, true)) => Life::Leaving,
            Some((false, false)) => Life::Purged,
        })
    }

    /// How much is to be carried to the cluster; for metrics.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        let rows = self.projector.query(COUNT, &[]).await?;
        let row = rows.first().ok_or_else(|| StoreError::fault("a count without a row"))?;
        Ok(Backlog { rows: row.try_get(0)?, oldest_seconds: row.try_get(1)? })
    }
}
