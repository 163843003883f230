//! Runs of functions as stored: the intent, written with its audit entry and its idempotency key in one transaction, and
//! the record of what became of it. The projector's side of them is `carrying`.

use std::sync::Arc;

use deadpool_postgres::{Client, Transaction};
use eventflow_api::invocation::{InvocationSpec, RunPhase, RunReason};
use eventflow_api::names::{FunctionName, TenantId};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use super::connection::NAME_TENANT;
use super::idempotency::{self, Claim};
use super::listing::{page_of, page_size};
use super::{Answer, IdempotencyKey, Origin, Page, Store, StoreError};
use crate::auth::Tenant;
use crate::failpoint;

/// From stored intent to the cluster, and the record back.
mod carrying;
/// The end of records.
mod pruning;

pub use carrying::{Ending, Unfinished};
pub use pruning::Retention;

/// Most runs of one tenant that are not over.
pub const UNFINISHED_MAX: i64 = 1_000;

/// A run as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct InvocationRow {
    /// The run's id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// The function's row.
    pub function_id: Uuid,
    /// The function's name.
    pub function: FunctionName,
    /// What was asked for; without the input unless it was asked for too.
    pub spec: InvocationSpec,
    /// The run that this one repeats.
    pub retry_of: Option<Uuid>,
    /// W3C `traceparent` of the call.
    pub traceparent: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Its end was asked for.
    pub cancel_requested: bool,
    /// 1, and 2 once its end was asked for.
    pub generation: i64,
    /// The newest generation that the cluster is known to hold; 0 for none.
    pub synced_generation: i64,
    /// UID of its object.
    pub object_uid: Option<String>,
    /// What became of it, once it is over.
    pub record: Option<Arc<Record>>,
}

/// What became of a run that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// How it ended.
    pub phase: RunPhase,
    /// Why.
    pub reason: Option<RunReason>,
    /// The same for people.
    pub message: String,
    /// Times its program was started, or was to be.
    pub attempts: i32,
    /// Exit code of the last attempt.
    pub exit_code: Option<i32>,
    /// When quota was reserved for it.
    pub admitted_at: Option<Timestamp>,
    /// When its program was first started.
    pub started_at: Option<Timestamp>,
    /// When it ended for good.
    pub finished_at: Timestamp,
    /// What the program gave back.
    pub result: Option<String>,
    /// The last lines of the last attempt.
    pub log_tail: Option<String>,
}

/// The columns of an [`InvocationRow`], in order; the input is the last.
const COLUMNS: &str = "id, tenant_id, function_id, function_name, spec, retry_of, traceparent, created_at, \
     cancel_requested_at IS NOT NULL, generation, synced_generation, object_uid, phase, reason, message, attempts, \
     exit_code, admitted_at, started_at, finished_at, result, log_tail";

impl InvocationRow {
    /// Whether the cluster was told all of it.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced_generation >= self.generation
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let name = |i: usize| row.try_get::<_, String>(i);
        let Json(spec) = row.try_get(4)?;
        Ok(Self {
            id: row.try_get(0)?,
            tenant: name(1)?.parse().map_err(StoreError::internal)?,
            function_id: row.try_get(2)?,
            function: name(3)?.parse().map_err(StoreError::internal)?,
            spec,
            retry_of: row.try_get(5)?,
            traceparent: row.try_get(6)?,
            created_at: row.try_get(7)?,
            cancel_requested: row.try_get(8)?,
            generation: row.try_get(9)?,
            synced_generation: row.try_get(10)?,
            object_uid: row.try_get(11)?,
            record: Record::read(row)?.map(Arc::new),
        })
    }

    /// A row with its input, which is one column more.
    fn read_whole(row: &Row) -> Result<Self, StoreError> {
        let mut read = Self::read(row)?;
        read.spec.input = row.try_get(22)?;
        Ok(read)
    }
}

impl Record {
    fn read(row: &Row) -> Result<Option<Self>, StoreError> {
        let (Some(phase), Some(finished_at)) = (row.try_get::<_, Option<String>>(12)?, row.try_get(19)?) else {
            return Ok(None);
        };
        Ok(Some(Self {
            phase: word(phase)?,
            reason: row.try_get::<_, Option<String>>(13)?.map(word).transpose()?,
            message: row.try_get(14)?,
            attempts: row.try_get(15)?,
            exit_code: row.try_get(16)?,
            admitted_at: row.try_get(17)?,
            started_at: row.try_get(18)?,
            finished_at,
            result: row.try_get(20)?,
            log_tail: row.try_get(21)?,
        }))
    }
}

/// A word of a closed set.
fn word<T: DeserializeOwned>(text: String) -> Result<T, StoreError> {
    serde_json::from_value(Value::String(text)).map_err(StoreError::internal)
}

/// A run to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewInvocation {
    /// The function's row; it must be live.
    pub function_id: Uuid,
    /// What is asked for.
    pub spec: InvocationSpec,
    /// The run that this one repeats.
    pub retry_of: Option<Uuid>,
}

/// The outcome of a write.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenInvocation {
    /// The row after it.
    pub row: InvocationRow,
    /// How the call is to be answered.
    pub answer: Answer,
}

/// One write, owned, so that it can run to its end without its caller.
struct Write {
    tenant: TenantId,
    act: Act,
    origin: Origin,
    key: Option<IdempotencyKey>,
}

enum Act {
    Create(NewInvocation),
    Cancel(Uuid),
}

const UNFINISHED: &str = "SELECT count(*) FROM invocations WHERE tenant_id = $1 AND finished_at IS NULL";
/// One at a time per tenant, so that their number keeps its bound.
const TAKE_TURNS: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1 || ' invocations', 0))";
const CANCEL: &str = "
    UPDATE invocations SET cancel_requested_at = now(), generation = 2, carries = 0,
        next_attempt_at = now() + interval '3 seconds'
    WHERE id = $5 AND generation = 1";

impl Store {
    /// The tenant's run of that id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn invocation_get(&self, tenant: &Tenant, id: Uuid) -> Result<Option<InvocationRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM invocations WHERE tenant_id = $1 AND id = $2");
        let rows = self.app.read(tenant.id(), &sql, &[&tenant.id().as_str(), &id]).await?;
        rows.first().map(InvocationRow::read).transpose()
    }

    /// The same with its input.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn invocation_get_whole(&self, tenant: &Tenant, id: Uuid) -> Result<Option<InvocationRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS}, input FROM invocations WHERE tenant_id = $1 AND id = $2");
        let rows = self.app.read(tenant.id(), &sql, &[&tenant.id().as_str(), &id]).await?;
        rows.first().map(InvocationRow::read_whole).transpose()
    }

    /// The runs of a function, newest first; `limit` is 1 to 1,000, 100 when absent.
    ///
    /// # Errors
    /// [`StoreError::BadCursor`], and failures of the database.
    pub async fn invocation_list(
        &self,
        tenant: &Tenant,
        function_id: Uuid,
        cursor: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Page<InvocationRow>, StoreError> {
        let before = cursor.map(|cursor| cursor.parse::<Uuid>().map_err(|_| StoreError::BadCursor)).transpose()?;
        let (before, size) = (before.unwrap_or(Uuid::max()), page_size(limit));
        // Ids grow with time.
        let sql = format!(
            "SELECT {COLUMNS} FROM invocations WHERE tenant_id = $1 AND function_id = $2 AND id < $3
             ORDER BY id DESC LIMIT $4"
        );
        let params: [&(dyn ToSql + Sync); 4] = [&tenant.id().as_str(), &function_id, &before, &(size + 1)];
        let rows = self.app.read(tenant.id(), &sql, &params).await?;
        let items = rows.iter().map(InvocationRow::read).collect::<Result<_, _>>()?;
        Ok(page_of(items, size, |last: &InvocationRow| last.id.to_string()))
    }

    /// Stores a new run of a live function.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the function is gone, [`StoreError::TooMany`], those of the idempotency key, and
    /// failures of the database.
    pub async fn invocation_create(
        &self,
        tenant: &Tenant,
        new: NewInvocation,
        origin: &Origin,
        key: Option<&IdempotencyKey>,
    ) -> Result<WrittenInvocation, StoreError> {
        self.invocation_write(tenant, Act::Create(new), origin, key).await
    }

    /// Notes that a run is not wanted any more. Asking again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Over`], those of the idempotency key, and failures
    /// of the database.
    pub async fn invocation_cancel(
        &self,
        tenant: &Tenant,
        id: Uuid,
        origin: &Origin,
        key: Option<&IdempotencyKey>,
    ) -> Result<WrittenInvocation, StoreError> {
        self.invocation_write(tenant, Act::Cancel(id), origin, key).await
    }

    /// What was written under this key before, if anything was: a call that would be refused now is answered as it was
    /// then.
    ///
    /// # Errors
    /// Those of the idempotency key, and failures of the database.
    pub async fn invocation_replay(
        &self,
        tenant: &Tenant,
        key: &IdempotencyKey,
    ) -> Result<Option<WrittenInvocation>, StoreError> {
        let client = self.app.get().await?;
        let (store, tenant, key) = (self.clone(), tenant.id().clone(), key.clone());
        let task =
            tokio::spawn(async move { store.app.finish(client, |client| Box::pin(replay(client, tenant, key))).await });
        task.await.map_err(StoreError::internal)?
    }

    async fn invocation_write(
        &self,
        tenant: &Tenant,
        act: Act,
        origin: &Origin,
        key: Option<&IdempotencyKey>,
    ) -> Result<WrittenInvocation, StoreError> {
        let write = Write { tenant: tenant.id().clone(), act, origin: origin.clone(), key: key.cloned() };
        let client = self.app.get().await?;
        let store = self.clone();
        let task =
            tokio::spawn(async move { store.app.finish(client, |client| Box::pin(write.perform(client))).await });
        task.await.map_err(StoreError::internal)?
    }
}

impl Write {
    async fn perform(self, client: &mut Client) -> Result<WrittenInvocation, StoreError> {
        let tx = client.transaction().await?;
        tx.execute(&tx.prepare_cached(NAME_TENANT).await?, &[&self.tenant.as_str()]).await?;
        if let Some(key) = &self.key
            && let Claim::Seen(id, answer) = idempotency::claim(&tx, &self.tenant, key).await?
        {
            return Ok(WrittenInvocation { row: row_of(&tx, &self.tenant, id).await?, answer });
        }
        let row = match &self.act {
            Act::Create(new) => self.create(&tx, new).await?,
            Act::Cancel(id) => self.cancel(&tx, *id).await?,
        };
        if let Some(key) = &self.key {
            idempotency::remember(&tx, &self.tenant, key, row.id).await?;
        }
        failpoint::hit("before-invocation-commit");
        tx.commit().await?;
        failpoint::hit("after-invocation-commit");
        Ok(WrittenInvocation { row, answer: Answer::Fresh })
    }

    async fn create(&self, tx: &Transaction<'_>, new: &NewInvocation) -> Result<InvocationRow, StoreError> {
        let tenant = self.tenant.as_str();
        tx.execute(&tx.prepare_cached(TAKE_TURNS).await?, &[&tenant]).await?;
        let unfinished: i64 = tx.query_one(&tx.prepare_cached(UNFINISHED).await?, &[&tenant]).await?.get(0);
        if unfinished >= UNFINISHED_MAX {
            return Err(StoreError::TooMany { limit: "unfinished-invocations", most: UNFINISHED_MAX });
        }
        let act = "INSERT INTO invocations
                 (id, tenant_id, function_id, function_name, spec, input, retry_of, actor, traceparent, next_attempt_at)
             SELECT $5::uuid, tenant_id, id, name, $6::jsonb, $7::text, $8::uuid, $1::text, $9::text, now() + interval '3 seconds'
             FROM functions WHERE tenant_id = $10 AND id = $11 AND deleted_at IS NULL FOR SHARE";
        let id = Uuid::now_v7();
        let spec = Json(InvocationSpec { input: None, ..new.spec.clone() });
        let detail = match new.retry_of {
            Some(of) => json!({"invocation": id, "retryOf": of}),
            None => json!({"invocation": id}),
        };
        let params: [&(dyn ToSql + Sync); 7] =
            [&id, &spec, &new.spec.input, &new.retry_of, &self.origin.traceparent, &tenant, &new.function_id];
        let row = self.noted(tx, act, ("invocation.create", detail), &params).await?.ok_or(StoreError::NotFound)?;
        Ok(InvocationRow { spec: new.spec.clone(), ..row })
    }

    async fn cancel(&self, tx: &Transaction<'_>, id: Uuid) -> Result<InvocationRow, StoreError> {
        let sql = format!("SELECT {COLUMNS}, input FROM invocations WHERE tenant_id = $1 AND id = $2 FOR UPDATE");
        let row = tx.query_opt(&tx.prepare_cached(&sql).await?, &[&self.tenant.as_str(), &id]).await?;
        let row = InvocationRow::read_whole(&row.ok_or(StoreError::NotFound)?)?;
        if row.record.is_some() {
            return Err(StoreError::Over);
        }
        if row.cancel_requested {
            return Ok(row);
        }
        let entry = ("invocation.cancel", json!({"invocation": id}));
        let changed = self.noted(tx, CANCEL, entry, &[&id]).await?.ok_or(StoreError::NotFound)?;
        Ok(InvocationRow { spec: row.spec, ..changed })
    }

    /// An act on one row and its entry in the audit log; the row after it, if there is one.
    async fn noted(
        &self,
        tx: &Transaction<'_>,
        act: &str,
        (action, detail): (&str, Value),
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<InvocationRow>, StoreError> {
        let sql = format!(
            "WITH made AS ({act} RETURNING *), noted AS (
                 INSERT INTO audit_log (tenant_id, actor, action, target, function_id, request_id, detail)
                 SELECT tenant_id, $1::text, $2::text, function_name, function_id, $3::text, $4::jsonb FROM made)
             SELECT {COLUMNS} FROM made"
        );
        let Origin { actor, request_id, .. } = &self.origin;
        let fixed: [&(dyn ToSql + Sync); 4] = [actor, &action, request_id, &detail];
        let row = tx.query_opt(&tx.prepare_cached(&sql).await?, &[&fixed, params].concat()).await?;
        row.as_ref().map(InvocationRow::read).transpose()
    }
}

async fn replay(
    client: &mut Client,
    tenant: TenantId,
    key: IdempotencyKey,
) -> Result<Option<WrittenInvocation>, StoreError> {
    let tx = client.transaction().await?;
    tx.execute(&tx.prepare_cached(NAME_TENANT).await?, &[&tenant.as_str()]).await?;
    match idempotency::claim(&tx, &tenant, &key).await? {
        Claim::New => Ok(None),
        Claim::Seen(id, answer) => Ok(Some(WrittenInvocation { row: row_of(&tx, &tenant, id).await?, answer })),
    }
}

/// The row that an earlier call under the same key wrote. Records may be pruned before their key is.
async fn row_of(tx: &Transaction<'_>, tenant: &TenantId, id: Uuid) -> Result<InvocationRow, StoreError> {
    let sql = format!("SELECT {COLUMNS}, input FROM invocations WHERE tenant_id = $1 AND id = $2");
    let row = tx.query_opt(&tx.prepare_cached(&sql).await?, &[&tenant.as_str(), &id]).await?;
    InvocationRow::read_whole(&row.ok_or(StoreError::NotFound)?)
}
