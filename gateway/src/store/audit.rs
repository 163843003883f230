//! Who did what: written in the transaction of the thing done, never changed afterwards.

use deadpool_postgres::Transaction;
use eventflow_api::function::FunctionSpec;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::functions::COLUMNS;
use super::listing::{page_of, page_size};
use super::{FunctionRow, Page, Store, StoreError};
use crate::auth::Tenant;

/// One thing somebody did.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// Grows with time.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// The caller's subject, or the field manager of a change made in the cluster.
    pub actor: String,
    /// `function.create`, `function.update`, `function.delete`, `function.adopt`.
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
    SELECT id, at, actor, action, target, generation, request_id, detail
    FROM audit_log WHERE tenant_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
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
        let before: i64 = match cursor {
            Some(cursor) => cursor.parse().map_err(|_| StoreError::BadCursor)?,
            None => i64::MAX,
        };
        let size = page_size(limit);
        let rows = self.app.read(tenant.id(), LIST, &[&tenant.id().as_str(), &before, &(size + 1)]).await?;
        let items = rows.iter().map(AuditRow::read).collect::<Result<_, _>>()?;
        Ok(page_of(items, size, |last: &AuditRow| last.id.to_string()))
    }
}

impl AuditRow {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.try_get(0)?,
            at: row.try_get(1)?,
            actor: row.try_get(2)?,
            action: row.try_get(3)?,
            target: row.try_get(4)?,
            generation: row.try_get(5)?,
            request_id: row.try_get(6)?,
            detail: row.try_get(7)?,
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
