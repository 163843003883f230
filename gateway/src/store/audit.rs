//! Who did what: written in the transaction of the thing done, never changed afterwards.

use deadpool_postgres::Transaction;
use eventflow_api::function::FunctionSpec;
use eventflow_api::names::TenantId;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};

use super::functions::COLUMNS;
use super::listing::{page_of, page_size};
use super::{FunctionRow, Origin, Page, Store, StoreError};
use crate::auth::Tenant;

/// One thing somebody did.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// Grows with time.
    pub id: i64,
    /// The tenant it concerns, if it concerns one.
    pub tenant: Option<String>,
    /// When.
    pub at: Timestamp,
    /// The caller's subject, or the field manager of a change made in the cluster.
    pub actor: String,
    /// `function.create`, `function.update`, `function.delete`, `function.adopt`, `tenant.update`, ...
    pub action: String,
    /// The thing's name.
    pub target: String,
    /// The function's generation after it.
    pub generation: Option<i64>,
    /// Names the call in the logs.
    pub request_id: Option<String>,
    /// What else is worth knowing.
    pub detail: Value,
}

const LIST: &str = "
    SELECT id, tenant_id, at, actor, action, target, generation, request_id, detail
    FROM audit_log WHERE tenant_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
const LIST_ALL: &str = "
    SELECT id, tenant_id, at, actor, action, target, generation, request_id, detail
    FROM audit_log WHERE id < $1 ORDER BY id DESC LIMIT $2";
/// A tenant that no row knows yet is named by the target alone.
const ADD_DEED: &str = "
    INSERT INTO audit_log (tenant_id, actor, action, target, request_id, detail)
    VALUES ((SELECT id FROM tenants WHERE id = $1), $2, $3, $4, $5, $6) RETURNING id";
const ADD: &str = "
    INSERT INTO audit_log (tenant_id, actor, action, target, function_id, generation, request_id, detail)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

impl Store {
    /// The tenant's audit log, newest first; `limit` is 1 to 1,000, 100 when absent.
    ///
    /// # Errors
    /// [`StoreError::BadCursor`], and failures of the database.
    pub async fn audit_list(
        &self,
        tenant: &Tenant,
        cursor: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Page<AuditRow>, StoreError> {
        let (before, size) = (before(cursor)?, page_size(limit));
        let rows = self.app.read(tenant.id(), LIST, &[&tenant.id().as_str(), &before, &(size + 1)]).await?;
        page(&rows, size)
    }

    /// For operators: the audit log of one tenant, or of all of them and the platform's own; otherwise as
    /// [`Store::audit_list`].
    ///
    /// # Errors
    /// [`StoreError::BadCursor`], and failures of the database.
    pub async fn audit_list_any(
        &self,
        tenant: Option<&TenantId>,
        cursor: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Page<AuditRow>, StoreError> {
        let (before, size) = (before(cursor)?, page_size(limit));
        let rows = match tenant {
            Some(tenant) => self.projector.query(LIST, &[&tenant.as_str(), &before, &(size + 1)]).await?,
            None => self.projector.query(LIST_ALL, &[&before, &(size + 1)]).await?,
        };
        page(&rows, size)
    }

    /// Writes down an operator's deed; the entry's id. Done before the deed, so that none goes unrecorded.
    ///
    /// # Errors
    /// When the database fails: then the deed must not be done.
    pub async fn audit_deed(&self, deed: &Deed<'_>) -> Result<i64, StoreError> {
        let Origin { actor, request_id, .. } = deed.origin;
        let rows = self
            .projector
            .query(ADD_DEED, &[&deed.tenant, actor, &deed.action, &deed.target, request_id, &Json(&deed.detail)])
            .await?;
        rows.first().map(|row| row.get(0)).ok_or_else(|| StoreError::fault("an entry without an id"))
    }
}

/// An operator's deed.
#[derive(Debug)]
pub struct Deed<'a> {
    /// The tenant it concerns, if it concerns one.
    pub tenant: Option<&'a str>,
    /// `tenant.create`, `tenant.update`, `tier.create`, `tier.update`, or one of these with `.failed`.
    pub action: String,
    /// The thing's name.
    pub target: &'a str,
    /// What changes.
    pub detail: Value,
    /// Whose it is.
    pub origin: &'a Origin,
}

/// The entry that a page starts before.
fn before(cursor: Option<&str>) -> Result<i64, StoreError> {
    cursor.map_or(Ok(i64::MAX), |cursor| cursor.parse().map_err(|_| StoreError::BadCursor))
}

fn page(rows: &[Row], size: i64) -> Result<Page<AuditRow>, StoreError> {
    let items = rows.iter().map(AuditRow::read).collect::<Result<_, _>>()?;
    Ok(page_of(items, size, |last: &AuditRow| last.id.to_string()))
}

impl AuditRow {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.try_get(0)?,
            tenant: row.try_get(1)?,
            at: row.try_get(2)?,
            actor: row.try_get(3)?,
            action: row.try_get(4)?,
            target: row.try_get(5)?,
            generation: row.try_get(6)?,
            request_id: row.try_get(7)?,
            detail: row.try_get(8)?,
        })
    }
}

/// An entry to be written about a function.
pub(super) struct NewEntry<'a> {
    pub(super) actor: &'a str,
    pub(super) action: &'static str,
    pub(super) request_id: Option<&'a str>,
    pub(super) detail: Value,
}

/// An act on one row of `functions` together with its entry: one statement, one round trip. `act` lacks its RETURNING
/// and has its own parameters from $5; the first four are those of [`NewEntry::params`]. Gives the row after the act.
pub(super) fn noted(act: &str) -> String {
    format!(
        "WITH made AS ({act} RETURNING *), noted AS (
             INSERT INTO audit_log (tenant_id, actor, action, target, function_id, generation, request_id, detail)
             SELECT tenant_id, $1::text, $2::text, name, id, generation, $3::text, $4::jsonb FROM made)
         SELECT {COLUMNS} FROM made AS functions"
    )
}

impl NewEntry<'_> {
    /// The parameters that [`noted`] needs first.
    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 4] {
        [&self.actor, &self.action, &self.request_id, &self.detail]
    }
}

/// Writes an entry about `row`, as it is after the act.
pub(super) async fn add(tx: &Transaction<'_>, row: &FunctionRow, entry: &NewEntry<'_>) -> Result<(), StoreError> {
    let statement = tx.prepare_cached(ADD).await?;
    let (tenant, name) = (row.tenant.as_str(), row.name.as_str());
    tx.execute(
        &statement,
        &[&tenant, &entry.actor, &entry.action, &name, &row.id, &row.generation, &entry.request_id, &entry.detail],
    )
    .await?;
    Ok(())
}

/// The names of the fields that differ; never their values, which may be secret.
pub(super) fn changed_fields(old: &FunctionSpec, new: &FunctionSpec) -> Value {
    let (old, new) = (json!(old), json!(new));
    let names = old.as_object().into_iter().chain(new.as_object()).flat_map(|fields| fields.keys());
    let mut changed: Vec<&String> = names.filter(|name| old.get(name.as_str()) != new.get(name.as_str())).collect();
    changed.sort();
    changed.dedup();
    json!({ "changed": changed })
}
