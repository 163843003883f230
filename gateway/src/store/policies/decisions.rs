//! The decision log, and how trials differ from what is enforced. Written by one task per replica, in batches.

use eventflow_api::policy::{Decision, LogLine, TrialReport};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::Row;

use crate::store::listing::{page_of, page_size};
use crate::store::{Page, Store, StoreError};

/// Days that a decision is kept.
const DAYS_KEPT: i32 = 7;
/// Decisions that are kept at most.
const ROWS_KEPT: i64 = 200_000;
/// Examples in a report on a trial.
const EXAMPLES: i64 = 10;

/// One policy's part in judging one request, redacted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDecision {
    /// The policy.
    pub policy: String,
    /// The rest; its id and time are the database's.
    pub decision: Decision,
}

/// Decisions of a trial since the last count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrialCount {
    /// The binding.
    pub binding: String,
    /// The revision's identity.
    pub digest: String,
    /// Decisions.
    pub decided: i64,
    /// Those that differ from what was enforced.
    pub differed: i64,
    /// Those that failed.
    pub failed: i64,
}

const COLUMNS: &str = "id, at, request_id, tenant, action, function, set_revision, binding, digest, role, verdict, \
     failure, enforced, would_be, time_us, log";

impl Store {
    /// Writes decisions down.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy_decisions_add(&self, decisions: &[NewDecision]) -> Result<(), StoreError> {
        let rows: Vec<Value> = decisions
            .iter()
            .map(|new| {
                let mut row = json!(new.decision);
                row["policy"] = json!(new.policy);
                row
            })
            .collect();
        let sql = "
            INSERT INTO policy_decisions (request_id, tenant, action, function, set_revision, policy, binding, digest,
                role, verdict, failure, enforced, would_be, time_us, log)
            SELECT request_id, tenant, action, function, set_revision, policy, binding, digest,
                role, verdict, failure, enforced, would_be, time_us, log
            FROM jsonb_to_recordset($1) AS d(request_id text, tenant text, action text, function text,
                set_revision bigint, policy text, binding text, digest text, role text, verdict text, failure text,
                enforced text, would_be text, time_us bigint, log jsonb)";
        self.operator.query(sql, &[&Value::Array(rows)]).await.map(drop)
    }

    /// Adds up decisions of trials. Of bindings that are gone meanwhile nothing is kept.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy_trials_add(&self, counts: &[TrialCount]) -> Result<(), StoreError> {
        let rows: Vec<Value> = counts
            .iter()
            .map(|c| {
                json!({"binding": c.binding, "digest": c.digest, "decided": c.decided, "differed": c.differed,
                    "failed": c.failed})
            })
            .collect();
        let sql = "
            INSERT INTO policy_trials AS t (binding, digest, decided, differed, failed)
            SELECT c.binding, c.digest, c.decided, c.differed, c.failed
            FROM jsonb_to_recordset($1) AS c(binding text, digest text, decided bigint, differed bigint, failed bigint)
            JOIN policy_bindings b ON b.name = c.binding
            JOIN policy_revisions r ON r.policy = b.policy AND r.number = b.trial AND r.digest = c.digest
            ON CONFLICT (binding, digest) DO UPDATE SET decided = t.decided + excluded.decided,
                differed = t.differed + excluded.differed, failed = t.failed + excluded.failed";
        self.operator.query(sql, &[&Value::Array(rows)]).await.map(drop)
    }

    /// Lets old decisions go.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy_decisions_prune(&self) -> Result<(), StoreError> {
        let sql = "DELETE FROM policy_decisions WHERE id IN (
                       SELECT id FROM policy_decisions
                       WHERE at < now() - make_interval(days => $1)
                          OR id <= (SELECT max(id) FROM policy_decisions) - $2
                       ORDER BY id LIMIT 10000)";
        self.operator.query(sql, &[&DAYS_KEPT, &ROWS_KEPT]).await.map(drop)
    }

    /// The policy's decisions, newest first.
    ///
    /// # Errors
    /// [`StoreError::BadCursor`], and failures of the database.
    pub async fn policy_decisions(
        &self,
        policy: &str,
        cursor: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Page<Decision>, StoreError> {
        let before: i64 = match cursor {
            Some(cursor) => cursor.parse().map_err(|_| StoreError::BadCursor)?,
            None => i64::MAX,
        };
        let size = page_size(limit);
        let sql =
            format!("SELECT {COLUMNS} FROM policy_decisions WHERE policy = $1 AND id < $2 ORDER BY id DESC LIMIT $3");
        let rows = self.operator.query(&sql, &[&policy, &before, &(size + 1)]).await?;
        let items = rows.iter().map(decision).collect::<Result<_, _>>()?;
        Ok(page_of(items, size, |last: &Decision| last.id.to_string()))
    }

    /// How the policy's trials differ from what is enforced, with examples.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy_trial_reports(&self, policy: &str) -> Result<Vec<TrialReport>, StoreError> {
        let sql = "
            SELECT t.binding, t.digest, t.decided, t.differed, t.failed, t.since FROM policy_trials t
            JOIN policy_bindings b ON b.name = t.binding WHERE b.policy = $1 ORDER BY t.binding, t.since";
        let mut reports = Vec::new();
        for row in self.operator.query(sql, &[&policy]).await? {
            let (binding, digest): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let since: Timestamp = row.try_get(5)?;
            let sql = format!(
                "SELECT {COLUMNS} FROM policy_decisions
                 WHERE policy = $1 AND binding = $2 AND digest = $3 AND would_be IS NOT NULL ORDER BY id DESC LIMIT $4"
            );
            let examples = self.operator.query(&sql, &[&policy, &binding, &digest, &EXAMPLES]).await?;
            reports.push(TrialReport {
                binding,
                digest,
                decided: row.try_get(2)?,
                differed: row.try_get(3)?,
                failed: row.try_get(4)?,
                since: since.to_string(),
                examples: examples.iter().map(decision).collect::<Result<_, _>>()?,
            });
        }
        Ok(reports)
    }
}

fn decision(row: &Row) -> Result<Decision, StoreError> {
    let at: Timestamp = row.try_get(1)?;
    let log: Vec<LogLine> = serde_json::from_value(row.try_get(15)?).map_err(StoreError::internal)?;
    Ok(Decision {
        id: row.try_get(0)?,
        at: at.to_string(),
        request_id: row.try_get(2)?,
        tenant: row.try_get(3)?,
        action: row.try_get(4)?,
        function: row.try_get(5)?,
        set_revision: row.try_get(6)?,
        binding: row.try_get(7)?,
        digest: row.try_get(8)?,
        role: row.try_get(9)?,
        verdict: row.try_get(10)?,
        failure: row.try_get(11)?,
        enforced: row.try_get(12)?,
        would_be: row.try_get(13)?,
        time_us: row.try_get(14)?,
        log,
    })
}
