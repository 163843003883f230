//! Runs on their way to the cluster and back: rows that the cluster does not hold, the record once it is over, and the
//! taking away of its object after that. Works for all tenants, as the projector's role; doing anything twice is
//! harmless.

use std::time::Duration;

use eventflow_api::names::TenantId;
use uuid::Uuid;

use super::{COLUMNS, InvocationRow, Record};
use crate::store::{Store, StoreError};

/// As for functions, see `store/pending.rs`.
const CLAIM: &str = "
    UPDATE invocations SET carries = carries + 1,
        next_attempt_at = now() + make_interval(secs => (2.5 + 0.5 * LEAST(carries, 3)) * (0.85 + 0.3 * random()))
    WHERE id IN (
        SELECT id FROM invocations
        WHERE purged_at IS NULL AND (synced_generation < generation OR finished_at IS NOT NULL)
          AND next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING ";
const RETRY: &str = "UPDATE invocations SET next_attempt_at = now() + make_interval(secs => $2) WHERE id = $1";
/// For what the API server refuses: up to a minute apart.
const RETRY_RARELY: &str = "
    UPDATE invocations SET next_attempt_at = now() + make_interval(secs => LEAST(60, power(2, LEAST(carries, 6))))
    WHERE id = $1";
const APPLIED: &str = "
    UPDATE invocations SET synced_generation = GREATEST(synced_generation, LEAST($2, generation)),
        object_uid = $3, carries = 0, next_attempt_at = now()
    WHERE id = $1";
const PURGED: &str = "
    UPDATE invocations SET purged_at = now() WHERE id = $1 AND finished_at IS NOT NULL AND purged_at IS NULL";
/// The first record stays.
const FINISH: &str = "
    UPDATE invocations SET phase = $2, reason = $3, message = $4, attempts = $5, exit_code = $6, admitted_at = $7,
        started_at = $8, finished_at = $9, result = $10, log_tail = $11, carries = 0, next_attempt_at = now()
    WHERE id = $1 AND tenant_id = $12 AND finished_at IS NULL
    RETURNING created_at";
/// Rows that the cluster is known to hold, by id.
const UNFINISHED: &str = "
    SELECT id, tenant_id, object_uid FROM invocations
    WHERE finished_at IS NULL AND synced_generation > 0 AND id > $1 ORDER BY id LIMIT $2";
const OPEN: &str = "SELECT finished_at IS NULL FROM invocations WHERE id = $1 AND tenant_id = $2";

/// Whether a record was made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was; the run was asked for at this time.
    Recorded(jiff::Timestamp),
    /// It was made before, or there is no such run.
    Known,
}

/// A run that the cluster is known to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its id, and its object's name.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// UID of its object.
    pub object_uid: Option<String>,
}

impl Store {
    /// Takes up to `limit` rows that are due, for a few seconds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn invocation_claim(&self, limit: i64) -> Result<Vec<InvocationRow>, StoreError> {
        let rows = self.projector.query(&format!("{CLAIM}{COLUMNS}, input"), &[&limit]).await?;
        rows.iter().map(InvocationRow::read_whole).collect()
    }

    /// Makes the row due after a while.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn invocation_retry(&self, id: Uuid, after: Duration) -> Result<(), StoreError> {
        self.projector.query(RETRY, &[&id, &after.as_secs_f64()]).await?;
        Ok(())
    }

    /// Makes a row that the API server refuses due later and later.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn invocation_retry_rarely(&self, id: Uuid) -> Result<(), StoreError> {
        self.projector.query(RETRY_RARELY, &[&id]).await?;
        Ok(())
    }

    /// Remembers that the cluster holds this generation of the row, in the object `uid`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn invocation_applied(&self, row: &InvocationRow, uid: &str) -> Result<(), StoreError> {
        self.projector.query(APPLIED, &[&row.id, &row.generation, &uid]).await?;
        Ok(())
    }

    /// Remembers that the object of a run that is over is gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn invocation_purged(&self, id: Uuid) -> Result<(), StoreError> {
        self.projector.query(PURGED, &[&id]).await?;
        Ok(())
    }

    /// Makes the record of a run that is over; its object is due to be taken away from then on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn invocation_finish(&self, tenant: &TenantId, id: Uuid, record: &Record) -> Result<Ending, StoreError> {
        let phase = format!("{:?}", record.phase);
        let reason = record.reason.map(eventflow_api::invocation::RunReason::as_str);
        let rows = self
            .projector
            .query(
                FINISH,
                &[
                    &id,
                    &phase,
                    &reason,
                    &record.message,
                    &record.attempts,
                    &record.exit_code,
                    &record.admitted_at,
                    &record.started_at,
                    &record.finished_at,
                    &record.result,
                    &record.log_tail,
                    &tenant.as_str(),
                ],
            )
            .await?;
        Ok(match rows.first() {
            Some(row) => Ending::Recorded(row.try_get(0)?),
            None => Ending::Known,
        })
    }

    /// Whether the tenant has a run of that id that is not over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn invocation_is_open(&self, tenant: &TenantId, id: Uuid) -> Result<bool, StoreError> {
        let rows = self.projector.query(OPEN, &[&id, &tenant.as_str()]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// Runs that the cluster is known to hold and that are not over, by id, after `after`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn invocation_unfinished(&self, after: Uuid, limit: i64) -> Result<Vec<Unfinished>, StoreError> {
        let rows = self.projector.query(UNFINISHED, &[&after, &limit]).await?;
        let read = |row: &tokio_postgres::Row| {
            let tenant = row.try_get::<_, String>(1)?.parse().map_err(StoreError::internal)?;
            Ok(Unfinished { id: row.try_get(0)?, tenant, object_uid: row.try_get(2)? })
        };
        rows.iter().map(read).collect()
    }
}
