//! Replicas of the gateway: each says every second that it lives and what it runs, and learns what it is to run, how
//! many live, and whose webhooks the API server is to trust.

use eventflow_api::http::AuditEntry;
use eventflow_api::policy::{LoadProblem, Replica};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::store::listing::{page_of, page_size};
use crate::store::{Page, Store, StoreError};

/// Seconds without a sign of life after which a replica does not count any more.
const ALIVE_SECONDS: i32 = 5;

/// What a replica says.
#[derive(Debug, Clone)]
pub struct Beat {
    /// Another one for every start.
    pub id: Uuid,
    /// The machine's or pod's name.
    pub name: String,
    /// The set of policies it runs.
    pub set_revision: i64,
    /// What it cannot put in force.
    pub problems: Vec<LoadProblem>,
    /// The certificate authority of its webhooks, in PEM.
    pub webhook_ca: Option<String>,
}

/// What a replica learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heart {
    /// The set of policies that is to run.
    pub set_revision: i64,
    /// Replicas that live, itself among them.
    pub replicas: u32,
    /// The certificate authorities of their webhooks, in PEM, in the order of their ids.
    pub webhook_cas: Vec<String>,
}

impl Store {
    /// Says that this replica lives, and learns what is new.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replica_beat(&self, beat: &Beat) -> Result<Heart, StoreError> {
        let sql = "
            WITH beat AS (
                INSERT INTO gateways (id, name, set_revision, problems, webhook_ca) VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (id) DO UPDATE SET seen_at = now(), set_revision = $3, problems = $4, webhook_ca = $5)
            SELECT s.revision,
                (SELECT count(*) FROM gateways WHERE id <> $1 AND seen_at > now() - make_interval(secs => $6)),
                coalesce((SELECT array_agg(webhook_ca ORDER BY id) FROM gateways
                    WHERE id <> $1 AND webhook_ca IS NOT NULL AND seen_at > now() - make_interval(secs => $6)), '{}')
            FROM policy_set s";
        let problems = json!(beat.problems);
        let alive = f64::from(ALIVE_SECONDS);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&beat.id, &beat.name, &beat.set_revision, &problems, &beat.webhook_ca, &alive];
        let rows = self.operator.query(sql, &params).await?;
        let row = rows.first().ok_or(StoreError::NotFound)?;
        let (others, mut cas): (i64, Vec<String>) = (row.try_get(1)?, row.try_get(2)?);
        cas.extend(beat.webhook_ca.clone());
        cas.sort();
        Ok(Heart {
            set_revision: row.try_get(0)?,
            replicas: u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1),
            webhook_cas: cas,
        })
    }

    /// Says that this replica ends, and forgets those that ended without a word long ago.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replica_leave(&self, id: Uuid) -> Result<(), StoreError> {
        let sql = "DELETE FROM gateways WHERE id = $1 OR seen_at < now() - interval '1 hour'";
        self.operator.query(sql, &[&id]).await.map(drop)
    }

    /// Replicas that live.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replica_list(&self) -> Result<Vec<Replica>, StoreError> {
        let sql = "SELECT id, name, set_revision, problems, started_at, seen_at FROM gateways
                   WHERE seen_at > now() - make_interval(secs => $1) ORDER BY started_at, id";
        let rows = self.operator.query(sql, &[&f64::from(ALIVE_SECONDS)]).await?;
        rows.iter()
            .map(|row| {
                let (id, started_at, seen_at): (Uuid, Timestamp, Timestamp) =
                    (row.try_get(0)?, row.try_get(4)?, row.try_get(5)?);
                Ok(Replica {
                    id: id.to_string(),
                    name: row.try_get(1)?,
                    set_revision: row.try_get(2)?,
                    problems: serde_json::from_value(row.try_get(3)?).map_err(StoreError::internal)?,
                    started_at: started_at.to_string(),
                    seen_at: seen_at.to_string(),
                })
            })
            .collect()
    }

    /// Who did what to this policy or group, newest first.
    ///
    /// # Errors
    /// [`StoreError::BadCursor`], and failures of the database.
    pub async fn policy_audit_list(
        &self,
        target: &str,
        cursor: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Page<AuditEntry>, StoreError> {
        let before: i64 = match cursor {
            Some(cursor) => cursor.parse().map_err(|_| StoreError::BadCursor)?,
            None => i64::MAX,
        };
        let size = page_size(limit);
        let sql = "SELECT id, at, actor, action, target, request_id, detail FROM audit_log
                   WHERE tenant_id IS NULL AND target = $1 AND action LIKE 'policy%' AND id < $2
                   ORDER BY id DESC LIMIT $3";
        let rows = self.operator.query(sql, &[&target, &before, &(size + 1)]).await?;
        let entry = |row: &tokio_postgres::Row| -> Result<AuditEntry, StoreError> {
            let at: Timestamp = row.try_get(1)?;
            Ok(AuditEntry {
                id: row.try_get(0)?,
                tenant: None,
                at: at.to_string(),
                actor: row.try_get(2)?,
                action: row.try_get(3)?,
                target: row.try_get(4)?,
                generation: None,
                request_id: row.try_get(5)?,
                detail: row.try_get(6)?,
            })
        };
        let items = rows.iter().map(entry).collect::<Result<_, _>>()?;
        Ok(page_of(items, size, |last: &AuditEntry| last.id.to_string()))
    }
}
