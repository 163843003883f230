//! Functions as stored: the row, and the writing of it with its audit entry and its idempotency key in one transaction.

use deadpool_postgres::{Client, Transaction};
use eventflow_api::function::FunctionSpec;
use eventflow_api::names::{FunctionName, TenantId};
use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};
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

    /// What was written under this key before, if anything was: a call that would be refused now is answered as it was
    /// then.
    ///
    /// # Errors
    /// Those of the idempotency key, and failures of the database.
    pub async fn function_replay(&self, tenant: &Tenant, key: &IdempotencyKey) -> Result<Option<Written>, StoreError> {
        let client = self.app.get().await?;
        let (store, tenant, key) = (self.clone(), tenant.id().clone(), key.clone());
        let task =
            tokio::spawn(async move { store.app.finish(client, |client| Box::pin(replay(client, tenant, key))).await });
        task.await.map_err(StoreError::internal)?
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
        let name_tenant = tx.prepare_cached(NAME_TENANT).await?;
        let tenant = self.tenant.as_str();
        let named: [&(dyn ToSql + Sync); 1] = [&tenant];
        // Sent in this order without waiting in between: the act's first statement runs as the tenant.
        let (named, outcome) = futures::join!(tx.execute(&name_tenant, &named), self.act(&tx));
        named?;
        let written = outcome?;
        if written.answer != Answer::Fresh {
            return Ok(written);
        }
        failpoint::hit("before-commit");
        tx.commit().await?;
        let deleted = matches!(self.act, Act::Delete(_));
        failpoint::hit(if deleted { "after-delete-commit" } else { "after-commit" });
        Ok(written)
    }

    async fn act(&self, tx: &Transaction<'_>) -> Result<Written, StoreError> {
        if let Some(key) = &self.key
            && let Claim::Seen(id, answer) = idempotency::claim(tx, &self.tenant, key).await?
        {
            return Ok(Written { row: row_of(tx, &self.tenant, id).await?, answer });
        }
        let row = match &self.act {
            Act::Create(spec) => self.create(tx, spec).await?,
            Act::Replace(change) => self.replace(tx, change).await?,
            Act::Delete(if_generation) => self.delete(tx, *if_generation).await?,
        };
        if let Some(key) = &self.key {
            idempotency::remember(tx, &self.tenant, key, row.id).await?;
        }
        Ok(Written { row, answer: Answer::Fresh })
    }

    async fn create(&self, tx: &Transaction<'_>, spec: &FunctionSpec) -> Result<FunctionRow, StoreError> {
        let act = "INSERT INTO functions (id, tenant_id, name, spec, generation, traceparent, next_attempt_at)
             VALUES ($5, $6, $7, $8, 1, $9, now() + interval '3 seconds')";
        let (id, tenant, name) = (Uuid::now_v7(), self.tenant.as_str(), self.name.as_str());
        let entry = self.entry("function.create", serde_json::json!({}));
        self.noted(tx, act, &entry, &[&id, &tenant, &name, &Json(spec), &self.origin.traceparent]).await
    }

    async fn replace(&self, tx: &Transaction<'_>, change: &Change) -> Result<FunctionRow, StoreError> {
        let old = self.lock(tx, change.if_generation).await?;
        if old.spec == change.spec {
            return Ok(old);
        }
        let act = format!(
            "UPDATE functions SET spec = $6, generation = generation + 1, updated_at = now(), traceparent = $7,
                 attempts = 0, {LEASE}
             WHERE id = $5"
        );
        let entry = self.entry("function.update", audit::changed_fields(&old.spec, &change.spec));
        self.noted(tx, &act, &entry, &[&old.id, &Json(&change.spec), &self.origin.traceparent]).await
    }

    async fn delete(
        &self,
        tx: &Transaction<'_>,
        if_generation: Option<(Uuid, i64)>,
    ) -> Result<FunctionRow, StoreError> {
        let old = self.lock(tx, if_generation).await?;
        let act = format!("UPDATE functions SET deleted_at = now(), attempts = 0, {LEASE} WHERE id = $5");
        self.noted(tx, &act, &self.entry("function.delete", serde_json::json!({})), &[&old.id]).await
    }

    /// An act on one row and its entry in the audit log; the row after it.
    async fn noted(
        &self,
        tx: &Transaction<'_>,
        act: &str,
        entry: &NewEntry<'_>,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<FunctionRow, StoreError> {
        let statement = tx.prepare_cached(&audit::noted(act)).await?;
        let row = tx.query_one(&statement, &[&entry.params(), params].concat()).await?;
        FunctionRow::read(&row)
    }

    /// The live row, ours until the transaction ends, if it still is what the caller read.
    async fn lock(&self, tx: &Transaction<'_>, if_generation: Option<(Uuid, i64)>) -> Result<FunctionRow, StoreError> {
        let row = lock_live(tx, &self.tenant, &self.name).await?.ok_or(StoreError::NotFound)?;
        if if_generation.is_some_and(|read| read != (row.id, row.generation)) {
            return Err(StoreError::StaleGeneration);
        }
        Ok(row)
    }

    fn entry(&self, action: &'static str, detail: serde_json::Value) -> NewEntry<'_> {
        let detail = self.origin.noted(detail);
        NewEntry { actor: &self.origin.actor, action, request_id: Some(&self.origin.request_id), detail }
    }
}

async fn replay(client: &mut Client, tenant: TenantId, key: IdempotencyKey) -> Result<Option<Written>, StoreError> {
    let tx = client.transaction().await?;
    tx.execute(&tx.prepare_cached(NAME_TENANT).await?, &[&tenant.as_str()]).await?;
    match idempotency::claim(&tx, &tenant, &key).await? {
        Claim::New => Ok(None),
        Claim::Seen(id, answer) => Ok(Some(Written { row: row_of(&tx, &tenant, id).await?, answer })),
    }
}

/// The row that an earlier call under the same key wrote, deleted or not.
async fn row_of(tx: &Transaction<'_>, tenant: &TenantId, id: Uuid) -> Result<FunctionRow, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM functions WHERE tenant_id = $1 AND id = $2");
    let row = tx.query_one(&tx.prepare_cached(&sql).await?, &[&tenant.as_str(), &id]).await?;
    FunctionRow::read(&row)
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
