//! The end of records: those that are too old, and those beyond the newest so many of a tenant. Only of runs whose
//! object is gone.

use crate::store::{Store, StoreError};

const PRUNE: &str = "
    DELETE FROM invocations WHERE id IN (
        SELECT id FROM (
            SELECT id, finished_at, purged_at, row_number() OVER (PARTITION BY tenant_id ORDER BY finished_at DESC, id) AS place
            FROM invocations WHERE tenant_id = ANY ($1) AND finished_at IS NOT NULL) AS kept
        WHERE purged_at IS NOT NULL AND (place > $2 OR finished_at < now() - make_interval(days => $3))
        LIMIT $4)
    RETURNING 1";

/// How many records of each tenant are kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Retention {
    /// The newest so many.
    pub count: u32,
    /// For so many days.
    pub days: u32,
}

impl Store {
    /// Forgets records of these tenants that are not to be kept, at most `limit` of them; how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn invocation_prune(&self, tenants: &[String], keep: Retention, limit: i64) -> Result<usize, StoreError> {
        let (count, days) = (i64::from(keep.count), i32::try_from(keep.days).unwrap_or(i32::MAX));
        Ok(self.projector.query(PRUNE, &[&tenants, &count, &days, &limit]).await?.len())
    }
}
