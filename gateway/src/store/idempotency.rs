//! One answer per idempotency key: the key is stored with the write it stands for, and gets its answer afterwards.

use deadpool_postgres::Transaction;
use eventflow_api::names::TenantId;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::auth::Tenant;

/// What makes a repeated call recognisable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The caller's key: 1 to 255 visible ASCII characters.
    pub key: String,
    /// SHA-256 of method, path and body.
    pub body_sha256: [u8; 32],
}

/// How a write is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It happened now.
    Fresh,
    /// It happened before and was answered so; answer the same.
    Replay {
        /// HTTP status.
        status: u16,
        /// The body as sent.
        body: Vec<u8>,
    },
    /// It happened before under this key, and nobody knows whether it was answered: show the row as it is now.
    Resumed,
}

/// Held until the transaction ends, by whoever is at work under this key. A tenant's id has no space.
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 0))";
const FIND: &str = "
    SELECT body_sha256, function_id, status, body, created_at < now() - interval '24 hours'
    FROM idempotency_keys WHERE tenant_id = $1 AND key = $2";
const FORGET: &str = "DELETE FROM idempotency_keys WHERE tenant_id = $1 AND key = $2";
const INSERT: &str = "
    INSERT INTO idempotency_keys (tenant_id, key, body_sha256, function_id) VALUES ($1, $2, $3, $4)";
const FINISH: &str = "
    UPDATE idempotency_keys SET status = $4, body = $5 WHERE tenant_id = $1 AND key = $2 AND body_sha256 = $3";
const SWEEP: &str = "
    DELETE FROM idempotency_keys WHERE (tenant_id, key) IN (
        SELECT tenant_id, key FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
        ORDER BY created_at LIMIT $1)
    RETURNING 1";

impl Store {
    /// Remembers how the call with this key was answered. Best effort: without it the next call is
    /// [`Answer::Resumed`].
    ///
    /// # Errors
    /// When the database fails; the call itself is done, so log it and go on.
    pub async fn idempotency_finish(
        &self,
        tenant: &Tenant,
        key: &IdempotencyKey,
        status: u16,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let status = i32::from(status);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&tenant.id().as_str(), &key.key, &key.body_sha256.as_slice(), &status, &body];
        self.app.write(tenant.id(), FINISH, &params).await?;
        Ok(())
    }

    /// Forgets keys older than a day, at most `limit` of them; how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn idempotency_sweep(&self, limit: i64) -> Result<usize, StoreError> {
        Ok(self.projector.query(SWEEP, &[&limit]).await?.len())
    }
}

/// What is known of a key when a write begins.
pub(super) enum Claim {
    /// Nothing; the key is ours until the transaction ends.
    New,
    /// The write happened, to this function.
    Seen(Uuid, Answer),
}

/// Takes the key for this transaction, or finds what happened under it.
pub(super) async fn claim(tx: &Transaction<'_>, tenant: &TenantId, key: &IdempotencyKey) -> Result<Claim, StoreError> {
    let locked = tx.query_one(&tx.prepare_cached(LOCK).await?, &[&tenant.as_str(), &key.key]).await?;
    if !locked.get::<_, bool>(0) {
        return Err(StoreError::IdempotencyInFlight);
    }
    let found = tx.query_opt(&tx.prepare_cached(FIND).await?, &[&tenant.as_str(), &key.key]).await?;
    let Some(row) = found else { return Ok(Claim::New) };
    if row.get::<_, bool>(4) {
        tx.execute(&tx.prepare_cached(FORGET).await?, &[&tenant.as_str(), &key.key]).await?;
        return Ok(Claim::New);
    }
    if row.get::<_, &[u8]>(0) != key.body_sha256 {
        return Err(StoreError::IdempotencyMismatch);
    }
    let answer = match (row.get::<_, Option<i32>>(2), row.get::<_, Option<Vec<u8>>>(3)) {
        (Some(status), Some(body)) => {
            Answer::Replay { status: u16::try_from(status).map_err(StoreError::internal)?, body }
        }
        _ => Answer::Resumed,
    };
    Ok(Claim::Seen(row.get(1), answer))
}

/// Stores the key beside the write it stands for.
pub(super) async fn remember(
    tx: &Transaction<'_>,
    tenant: &TenantId,
    key: &IdempotencyKey,
    function: Uuid,
) -> Result<(), StoreError> {
    let statement = tx.prepare_cached(INSERT).await?;
    tx.execute(&statement, &[&tenant.as_str(), &key.key, &key.body_sha256.as_slice(), &function]).await?;
    Ok(())
}
