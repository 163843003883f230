//! Functions as stored: the row, and the writing of it with its audit entry and its idempotency key in one transaction.

use deadpool_postgres::{Client, Transaction};
use eventflow_api::function::FunctionSpec;
use eventflow_api::names::{FunctionName, TenantId};
use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::audit::{self, NewEntry};
use super::connection::NAME_TENANT;
use super::idempotency::{self, Claim};
use super::{Answer, IdempotencyKey, Origin, Store, StoreError};
use crate::auth::Tenant;
use crate::failpoint;

/// A function as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionRow {
    /// Another one for a function made again under the same name.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// Unique among the tenant's live functions.
    pub name: FunctionName,
    /// What the tenant asks for.
    pub spec: FunctionSpec,
    /// Counts the changes of the spec, from 1.
    pub generation: i64,
    /// The newest generation that the cluster is known to hold; 0 for none.
    pub synced_generation: i64,
    /// UID of the Function object that was last written or adopted.
    pub object_uid: Option<String>,
    /// Its resourceVersion then; anything older says nothing new.
    pub applied_rv: Option<i64>,
    /// W3C `traceparent` of the call that made this generation.
    pub traceparent: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its spec was last changed.
    pub updated_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
}

/// The columns of a [`FunctionRow`], in order.
pub(super) const COLUMNS: &str = "functions.id, functions.tenant_id, functions.name, functions.spec, \
     functions.generation, functions.synced_generation, functions.object_uid, functions.applied_rv, \
     functions.traceparent, functions.created_at, functions.updated_at, functions.deleted_at";

impl FunctionRow {
    /// Whether the cluster was told all of it.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced_generation >= self.generation
    }

    /// Reads a row of [`COLUMNS`].
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let name = |i: usize| row.try_get::<_, String>(i);
        let Json(spec) = row.try_get(3)?;
        Ok(Self {
            id: row.try_get(0)?,
            tenant: name(1)?.parse().map_err(StoreError::internal)?,
            name: name(2)?.parse().map_err(StoreError::internal)?,
            spec,
            generation: row.try_get(4)?,
            synced_generation: row.try_get(5)?,
            object_uid: row.try_get(6)?,
            applied_rv: row.try_get(7)?,
            traceparent: row.try_get(8)?,
            created_at: row.try_get(9)?,
            updated_at: row.try_get(10)?,
            deleted_at: row.try_get(11)?,
        })
    }
}

/// A new spec for a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Replaces the stored one; equal to it, nothing changes.
    pub spec: FunctionSpec,
    /// The row id and generation that the caller read, from `If-Match`.
    pub if_generation: Option<(Uuid, i64)>,
}

/// The outcome of a write.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The row after it.
    pub row: FunctionRow,
    /// How the call is to be answered.
    pub answer: Answer,
}

/// One write, owned, so that it can run to its end without its caller.
struct Write {
    tenant: TenantId,
    name: FunctionName,
    act: Act,
    origin: Origin,
    key: Option<IdempotencyKey>,
}

enum Act {
    Create(FunctionSpec),
    Replace(Change),
    Delete(Option<(Uuid, i64)>),
}

impl Store {
    /// The live function of that name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn function_get(&self, tenant: &Tenant, name: &FunctionName) -> Result<Option<FunctionRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM functions WHERE tenant_id = $1 AND name = $2 AND deleted_at IS NULL");
        let rows = self.app.read(tenant.id(), &sql, &[&tenant.id().as_str(), &name.as_str()]).await?;
        rows.first().map(FunctionRow::read).transpose()
    }

    /// Stores a new function.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`], those of the idempotency key, and failures of the database.
    #[expect(clippy::too_many_arguments, reason = "five, and the store itself")]
    pub async fn function_create(
        &self,
        tenant: &Tenant,
        name: &FunctionName,
        spec: &FunctionSpec,
        origin: &Origin,
        key: Option<&IdempotencyKey>,
    ) -> Result<Written, StoreError> {
        self.write(Write {
            tenant: tenant.id().clone(),
            name: name.clone(),
            act: Act::Create(spec.clone()),
            origin: origin.clone(),
            key: key.cloned(),
        })
        .await
    }

    /// Stores a new spec of a live function.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::StaleGeneration`], those of the idempotency key, and failures of the
    /// database.
    #[expect(clippy::too_many_arguments, reason = "five, and the store itself")]
    pub async fn function_replace(
        &self,
        tenant: &Tenant,
        name: &FunctionName,
        change: Change,
        origin: &Origin,
        key: Option<&IdempotencyKey>,
    ) -> Result<Written, StoreError> {
        self.write(Write {
            tenant: tenant.id().clone(),
            name: name.clone(),
            act: Act::Replace(change),
            origin: origin.clone(),
            key: key.cloned(),
        })
        .await
    }

    /// Marks a live function as deleted; its name is free at once, its history stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::StaleGeneration`], those of the idempotency key, and failures of the
    /// database.
    #[expect(clippy::too_many_arguments, reason = "five, and the store itself")]
    pub async fn function_delete(
        &self,
        tenant: &Tenant,
        name: &FunctionName,
        if_generation: Option<(Uuid, i64)>,
        origin: &Origin,
        key: Option<&IdempotencyKey>,
    ) -> Result<Written, StoreError> {
        self.write(Write {
            tenant: tenant.id().clone(),
            name: name.clone(),
            act: Act::Delete(if_generation),
            origin: origin.clone(),
            key: key.cloned(),
        })
        .await
    }

    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        let client = self.app.get().await?;
        let store = self.clone();
        let task =
            tokio::spawn(async move { store.app.finish(client, |client| Box::pin(write.perform(client))).await });
        task.await.map_err(StoreError::internal)?
    }
}

/// How long a handler has the row to itself before projectors take it up.
const LEASE: &str = "next_attempt_at = now() + interval '3 seconds'";

impl Write {
    async fn perform(self, client: &mut Client) -> Result<Written, StoreError> {
        let tx = client.transaction().await?;
        tx.execute(&tx.prepare_cached(NAME_TENANT).await?, &[&self.tenant.as_str()]).await?;
        if let Some(key) = &self.key
            && let Claim::Seen(id, answer) = idempotency::claim(&tx, &self.tenant, key).await?
        {
            return Ok(Written { row: self.row(&tx, id).await?, answer });
        }
        let (row, entry) = match &self.act {
            Act::Create(spec) => self.create(&tx, spec).await?,
            Act::Replace(change) => self.replace(&tx, change).await?,
            Act::Delete(if_generation) => self.delete(&tx, *if_generation).await?,
        };
        if let Some(entry) = entry {
            audit::add(&tx, &row, &entry).await?;
        }
        if let Some(key) = &self.key {
            idempotency::remember(&tx, &self.tenant, key, row.id).await?;
        }
        failpoint::hit("before-commit");
        tx.commit().await?;
        let deleted = matches!(self.act, Act::Delete(_));
        failpoint::hit(if deleted { "after-delete-commit" } else { "after-commit" });
        Ok(Written { row, answer: Answer::Fresh })
    }

    async fn create(
        &self,
        tx: &Transaction<'_>,
        spec: &FunctionSpec,
    ) -> Result<(FunctionRow, Option<NewEntry<'_>>), StoreError> {
        let sql = format!(
            "INSERT INTO functions (id, tenant_id, name, spec, generation, traceparent, next_attempt_at)
             VALUES ($1, $2, $3, $4, 1, $5, now() + interval '3 seconds') RETURNING {COLUMNS}"
        );
        let (tenant, name) = (self.tenant.as_str(), self.name.as_str());
        let statement = tx.prepare_cached(&sql).await?;
        let row =
            tx.query_one(&statement, &[&Uuid::now_v7(), &tenant, &name, &Json(spec), &self.origin.traceparent]).await?;
        Ok((FunctionRow::read(&row)?, Some(self.entry("function.create", serde_json::json!({})))))
    }

    async fn replace(
        &self,
        tx: &Transaction<'_>,
        change: &Change,
    ) -> Result<(FunctionRow, Option<NewEntry<'_>>), StoreError> {
        let old = self.lock(tx, change.if_generation).await?;
        if old.spec == change.spec {
            return Ok((old, None));
        }
        let sql = format!(
            "UPDATE functions SET spec = $2, generation = generation + 1, updated_at = now(), traceparent = $3,
                 attempts = 0, {LEASE}
             WHERE id = $1 RETURNING {COLUMNS}"
        );
        let statement = tx.prepare_cached(&sql).await?;
        let row = tx.query_one(&statement, &[&old.id, &Json(&change.spec), &self.origin.traceparent]).await?;
        let changed = audit::changed_fields(&old.spec, &change.spec);
        Ok((FunctionRow::read(&row)?, Some(self.entry("function.update", changed))))
    }

    async fn delete(
        &self,
        tx: &Transaction<'_>,
        if_generation: Option<(Uuid, i64)>,
    ) -> Result<(FunctionRow, Option<NewEntry<'_>>), StoreError> {
        let old = self.lock(tx, if_generation).await?;
        let sql =
            format!("UPDATE functions SET deleted_at = now(), attempts = 0, {LEASE} WHERE id = $1 RETURNING {COLUMNS}");
        let row = tx.query_one(&tx.prepare_cached(&sql).await?, &[&old.id]).await?;
        Ok((FunctionRow::read(&row)?, Some(self.entry("function.delete", serde_json::json!({})))))
    }

    /// The live row, ours until the transaction ends, if it still is what the caller read.
    async fn lock(&self, tx: &Transaction<'_>, if_generation: Option<(Uuid, i64)>) -> Result<FunctionRow, StoreError> {
        let row = lock_live(tx, &self.tenant, &self.name).await?.ok_or(StoreError::NotFound)?;
        if if_generation.is_some_and(|read| read != (row.id, row.generation)) {
            return Err(StoreError::StaleGeneration);
        }
        Ok(row)
    }

    /// The row that an earlier call under the same key wrote, deleted or not.
    async fn row(&self, tx: &Transaction<'_>, id: Uuid) -> Result<FunctionRow, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM functions WHERE tenant_id = $1 AND id = $2");
        let row = tx.query_one(&tx.prepare_cached(&sql).await?, &[&self.tenant.as_str(), &id]).await?;
        FunctionRow::read(&row)
    }

    fn entry(&self, action: &'static str, detail: serde_json::Value) -> NewEntry<'_> {
        NewEntry { actor: &self.origin.actor, action, request_id: Some(&self.origin.request_id), detail }
    }
}

/// The live row of that name, locked until the transaction ends.
pub(super) async fn lock_live(
    tx: &Transaction<'_>,
    tenant: &TenantId,
    name: &FunctionName,
) -> Result<Option<FunctionRow>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM functions WHERE tenant_id = $1 AND name = $2 AND deleted_at IS NULL FOR UPDATE");
    let row = tx.query_opt(&tx.prepare_cached(&sql).await?, &[&tenant.as_str(), &name.as_str()]).await?;
    row.as_ref().map(FunctionRow::read).transpose()
}
