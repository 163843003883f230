//! Who did what: written in the transaction of the thing done, never changed afterwards.

use jiff::Timestamp;
use serde_json::Value;

use super::{Page, Store, StoreError};
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
        let _ = (tenant, cursor, limit);
        todo!()
    }
}
