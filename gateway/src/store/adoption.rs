//! What the cluster changed on its own, taken over into the rows: the cluster wins, except over an intent not yet
//! applied. Every act checks under the row's lock, so any number of gateways may do it for the same event, late or
//! twice.

use deadpool_postgres::{Client, Transaction};
use eventflow_api::function::FunctionSpec;
use eventflow_api::names::{FunctionName, TenantId};
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::audit::{self, NewEntry};
use super::functions::{COLUMNS, lock_live};
use super::{FunctionRow, Store, StoreError};

/// A Function object as the watch shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Whose namespace it is in.
    pub tenant: TenantId,
    /// Whether there is a Tenant object of an operator's without an owner. One with an owner is known once that owner
    /// called: a row says so, and nothing that somebody may write into an object.
    pub ownerless: bool,
    /// Its name.
    pub name: FunctionName,
    /// Its spec, which parses.
    pub spec: FunctionSpec,
    /// Its UID.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: i64,
    /// The row it says it was written from.
    pub function_id: Option<Uuid>,
    /// The generation it says it was written from.
    pub generation: Option<i64>,
    /// Field manager of the newest change of its spec.
    pub actor: String,
    /// Whether that is the gateway itself.
    pub ours: bool,
}

/// What is to be done to the object.
#[derive(Debug, Clone, PartialEq)]
pub enum Adoption {
    /// Nothing.
    Nothing,
    /// It is to say which row and generation it now stands for.
    Stamp(Box<FunctionRow>),
    /// It stands for a deleted row, and the projector is to delete it.
    Leave,
}

const KNOW_TENANT: &str = "INSERT INTO tenants (id) VALUES ($1) ON CONFLICT DO NOTHING";
const TENANT_KNOWN: &str = "SELECT 1 FROM tenants WHERE id = $1";
/// Deleted rows that the object may belong to: by UID for certain, by annotation unless somebody copied it.
const DEAD: &str = "
    SELECT id, object_uid IS NOT DISTINCT FROM $3, purged_at IS NOT NULL FROM functions
    WHERE tenant_id = $1 AND deleted_at IS NOT NULL AND (id = $2 OR object_uid = $3)
    ORDER BY 2 DESC LIMIT 1 FOR UPDATE";
const REOPEN: &str = "UPDATE functions SET purged_at = NULL, next_attempt_at = now() WHERE id = $1";
const GONE: &str = "
    UPDATE functions SET deleted_at = now(), purged_at = now()
    WHERE tenant_id = $1 AND name = $2 AND object_uid = $3 AND deleted_at IS NULL AND synced_generation = generation
    RETURNING ";
const GONE_LEAVING: &str = "
    UPDATE functions SET purged_at = now()
    WHERE tenant_id = $1 AND object_uid = $2 AND deleted_at IS NOT NULL AND purged_at IS NULL";

impl Store {
    /// Takes over what the object says, if it says something new.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn adopt(&self, observed: &Observed) -> Result<Adoption, StoreError> {
        let client = self.projector.get().await?;
        let (store, observed) = (self.clone(), observed.clone());
        let task =
            tokio::spawn(
                async move { store.projector.finish(client, |client| Box::pin(observed.adopt(client))).await },
            );
        match task.await.map_err(StoreError::internal)? {
            // Made through the API meanwhile: that intent wins.
            Err(StoreError::AlreadyExists) => Ok(Adoption::Nothing),
            outcome => outcome,
        }
    }

    /// Takes over that the object is gone: a live row that was all applied is deleted with it, a deleted row is done.
    /// Whether a live row went.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn adopt_absence(&self, tenant: &TenantId, name: &str, uid: &str) -> Result<bool, StoreError> {
        let client = self.projector.get().await?;
        let (store, tenant, name, uid) = (self.clone(), tenant.clone(), name.to_owned(), uid.to_owned());
        let task = tokio::spawn(async move {
            store.projector.finish(client, |client| Box::pin(absent(client, tenant, name, uid))).await
        });
        task.await.map_err(StoreError::internal)?
    }

    /// The live rows of these tenants and names.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn live_rows(&self, keys: &[(TenantId, String)]) -> Result<Vec<FunctionRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM functions
             JOIN unnest($1::text[], $2::text[]) AS wanted (tenant_id, name) USING (tenant_id, name)
             WHERE functions.deleted_at IS NULL"
        );
        let tenants: Vec<&str> = keys.iter().map(|(tenant, _)| tenant.as_str()).collect();
        let names: Vec<&str> = keys.iter().map(|(_, name)| name.as_str()).collect();
        let rows = self.projector.query(&sql, &[&tenants, &names]).await?;
        rows.iter().map(FunctionRow::read).collect()
    }

    /// Up to `limit` live rows that the cluster should hold, by id, after `after`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn synced_rows(&self, after: Uuid, limit: i64) -> Result<Vec<FunctionRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM functions
             WHERE deleted_at IS NULL AND synced_generation = generation AND id > $1 ORDER BY id LIMIT $2"
        );
        let rows = self.projector.query(&sql, &[&after, &limit]).await?;
        rows.iter().map(FunctionRow::read).collect()
    }
}

impl Observed {
    async fn adopt(self, client: &mut Client) -> Result<Adoption, StoreError> {
        let tx = client.transaction().await?;
        if !self.tenant_known(&tx).await? {
            return Ok(Adoption::Nothing);
        }
        let adoption = match lock_live(&tx, &self.tenant, &self.name).await? {
            Some(row) => self.adopt_into(&tx, row).await?,
            None => self.adopt_new(&tx).await?,
        };
        tx.commit().await?;
        Ok(adoption)
    }

    async fn tenant_known(&self, tx: &Transaction<'_>) -> Result<bool, StoreError> {
        if self.ownerless {
            tx.execute(&tx.prepare_cached(KNOW_TENANT).await?, &[&self.tenant.as_str()]).await?;
        }
        let known = tx.query_opt(&tx.prepare_cached(TENANT_KNOWN).await?, &[&self.tenant.as_str()]).await?;
        Ok(known.is_some())
    }

    /// The object stands beside a live row of its name.
    async fn adopt_into(&self, tx: &Transaction<'_>, row: FunctionRow) -> Result<Adoption, StoreError> {
        let applied = row.applied_rv.unwrap_or(0);
        let stamped = self.function_id == Some(row.id) && self.generation == Some(row.generation);
        if !row.is_synced() || self.resource_version < applied {
            return Ok(Adoption::Nothing);
        }
        if self.resource_version == applied {
            return Ok(if stamped { Adoption::Nothing } else { Adoption::Stamp(Box::new(row)) });
        }
        // The object of an older row of this name, on its way out.
        if self.function_id != Some(row.id)
            && matches!(self.dead_row(tx).await?, Some(Dead { certain, purged, .. }) if certain || !purged)
        {
            return Ok(Adoption::Nothing);
        }
        let same = row.spec == self.spec || row.spec.parse().ok() == self.spec.parse().ok();
        let known = row.object_uid.as_deref() == Some(&self.uid);
        if same && known && stamped {
            return Ok(Adoption::Nothing);
        }
        let generation = if same { row.generation } else { row.generation + 1 };
        let sql = format!(
            "UPDATE functions SET spec = $2, generation = $3, synced_generation = $3, object_uid = $4, applied_rv = $5,
                 traceparent = CASE WHEN $3 = generation THEN traceparent END,
                 updated_at = CASE WHEN $3 = generation THEN updated_at ELSE now() END
             WHERE id = $1 RETURNING {COLUMNS}"
        );
        let spec = if same { &row.spec } else { &self.spec };
        let statement = tx.prepare_cached(&sql).await?;
        let updated =
            tx.query_one(&statement, &[&row.id, &Json(spec), &generation, &self.uid, &self.resource_version]).await?;
        let updated = FunctionRow::read(&updated)?;
        if !same {
            let detail = audit::changed_fields(&row.spec, &self.spec);
            // The scale subresource leaves no field manager on a spec that is one field: the gateway seems to own
            // what it never wrote.
            let actor = if self.ours { "scale" } else { &self.actor };
            audit::add(tx, &updated, &NewEntry { actor, ..self.entry(detail) }).await?;
        }
        Ok(Adoption::Stamp(Box::new(updated)))
    }

    /// No live row has the object's name.
    async fn adopt_new(&self, tx: &Transaction<'_>) -> Result<Adoption, StoreError> {
        if let Some(dead) = self.dead_row(tx).await? {
            if !dead.purged || dead.certain {
                return Ok(Adoption::Nothing);
            }
            if self.ours {
                // An apply that came after the deletion: it must go again.
                tx.execute(&tx.prepare_cached(REOPEN).await?, &[&dead.id]).await?;
                return Ok(Adoption::Leave);
            }
        }
        let sql = format!(
            "INSERT INTO functions (id, tenant_id, name, spec, generation, synced_generation, object_uid, applied_rv)
             VALUES ($1, $2, $3, $4, 1, 1, $5, $6) RETURNING {COLUMNS}"
        );
        let (tenant, name) = (self.tenant.as_str(), self.name.as_str());
        let statement = tx.prepare_cached(&sql).await?;
        let row = tx
            .query_one(
                &statement,
                &[&Uuid::now_v7(), &tenant, &name, &Json(&self.spec), &self.uid, &self.resource_version],
            )
            .await?;
        let row = FunctionRow::read(&row)?;
        audit::add(tx, &row, &self.entry(serde_json::json!({ "created": true }))).await?;
        Ok(Adoption::Stamp(Box::new(row)))
    }

    async fn dead_row(&self, tx: &Transaction<'_>) -> Result<Option<Dead>, StoreError> {
        let statement = tx.prepare_cached(DEAD).await?;
        let row = tx.query_opt(&statement, &[&self.tenant.as_str(), &self.function_id, &self.uid]).await?;
        Ok(row.map(|row| Dead { id: row.get(0), certain: row.get(1), purged: row.get(2) }))
    }

    fn entry(&self, detail: serde_json::Value) -> NewEntry<'_> {
        NewEntry { actor: &self.actor, action: "function.adopt", request_id: None, detail }
    }
}

/// A deleted row that an object may belong to.
struct Dead {
    id: Uuid,
    /// The UID says so, not only an annotation that anyone can copy.
    certain: bool,
    /// The object was seen to be gone.
    purged: bool,
}

async fn absent(client: &mut Client, tenant: TenantId, name: String, uid: String) -> Result<bool, StoreError> {
    let tx = client.transaction().await?;
    tx.execute(&tx.prepare_cached(GONE_LEAVING).await?, &[&tenant.as_str(), &uid]).await?;
    let statement = tx.prepare_cached(&format!("{GONE}{COLUMNS}")).await?;
    let row = tx.query_opt(&statement, &[&tenant.as_str(), &name, &uid]).await?;
    if let Some(row) = &row {
        let entry = NewEntry {
            // A deletion leaves no trace of who did it.
            actor: "kubernetes",
            action: "function.delete",
            request_id: None,
            detail: serde_json::json!({ "deletedInCluster": true }),
        };
        audit::add(&tx, &FunctionRow::read(row)?, &entry).await?;
    }
    tx.commit().await?;
    Ok(row.is_some())
}
