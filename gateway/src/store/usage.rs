//! What calls of functions came to: added up by hour. Written in numbered batches, each of which counts once however
//! often it is sent.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::auth::Tenant;

/// Days after which a writer is forgotten: by then its batches are not sent again.
const WRITER_DAYS: i32 = 7;

/// What calls came to since the batch before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSum {
    /// Whose function.
    pub tenant: String,
    /// Which.
    pub function: String,
    /// The hour in which they ended, as the second of its beginning.
    pub hour: i64,
    /// How they ended.
    pub outcome: &'static str,
    /// How many.
    pub calls: i64,
    /// How long they took together, in microseconds.
    pub run_us: i64,
    /// Bytes of their answers.
    pub bytes_out: i64,
}

/// What is asked for: whole hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageQuery {
    /// From this second on.
    pub from: i64,
    /// Up to before this second.
    pub to: i64,
    /// Seconds of one step.
    pub step: i64,
    /// Each function for itself.
    pub by_function: bool,
}

/// What calls of one outcome came to within one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The beginning of the step.
    pub from: Timestamp,
    /// The function, if each was asked for.
    pub function: Option<String>,
    /// How they ended.
    pub outcome: String,
    /// How many.
    pub calls: i64,
    /// How long they took together, in microseconds.
    pub run_us: i64,
    /// Bytes of their answers.
    pub bytes_out: i64,
}

const ADD: &str = "
    WITH forgotten AS (DELETE FROM usage_batches WHERE at < now() - make_interval(days => $4) AND writer <> $1),
    fresh AS (
        INSERT INTO usage_batches AS b (writer, number) VALUES ($1, $2)
        ON CONFLICT (writer) DO UPDATE SET number = excluded.number, at = now() WHERE b.number < excluded.number
        RETURNING 1)
    INSERT INTO usage_calls AS u (tenant_id, hour, function, outcome, calls, run_us, bytes_out)
    SELECT tenant, to_timestamp(hour), function, outcome, calls, run_us, bytes_out
    FROM jsonb_to_recordset($3) AS s(tenant text, hour bigint, function text, outcome text, calls bigint, run_us bigint,
        bytes_out bigint), fresh
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (tenant_id, hour, function, outcome) DO UPDATE SET calls = u.calls + excluded.calls,
        run_us = u.run_us + excluded.run_us, bytes_out = u.bytes_out + excluded.bytes_out";
const LIST: &str = "
    SELECT to_timestamp($2::bigint + (extract(epoch FROM hour)::bigint - $2::bigint) / $4::bigint * $4::bigint) AS step,
        CASE WHEN $5::boolean THEN function END AS function, outcome,
        sum(calls)::bigint, sum(run_us)::bigint, sum(bytes_out)::bigint
    FROM usage_calls
    WHERE tenant_id = $1 AND hour >= to_timestamp($2::bigint) AND hour < to_timestamp($3::bigint)
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT $6";

impl Store {
    /// Adds a batch of sums, unless this writer's batch of that number is there already.
    ///
    /// # Errors
    /// When the database fails; then it may be there or not, and is to be sent again as it is.
    pub async fn usage_add(&self, writer: Uuid, number: i64, sums: &[CallSum]) -> Result<(), StoreError> {
        let rows: Vec<Value> = sums
            .iter()
            .map(|s| {
                json!({"tenant": s.tenant, "hour": s.hour, "function": s.function, "outcome": s.outcome,
                    "calls": s.calls, "run_us": s.run_us, "bytes_out": s.bytes_out})
            })
            .collect();
        self.operator.query(ADD, &[&writer, &number, &Value::Array(rows), &WRITER_DAYS]).await.map(drop)
    }

    /// What the tenant's calls came to, step by step; at most so many rows.
    ///
    /// # Errors
    /// Failures of the database.
    pub async fn usage_list(&self, tenant: &Tenant, query: UsageQuery, most: i64) -> Result<Vec<UsageRow>, StoreError> {
        let UsageQuery { from, to, step, by_function } = query;
        let id = tenant.id();
        let rows = self.app.read(id, LIST, &[&id.as_str(), &from, &to, &step, &by_function, &most]).await?;
        let read = |row: &tokio_postgres::Row| {
            Ok(UsageRow {
                from: row.try_get(0)?,
                function: row.try_get(1)?,
                outcome: row.try_get(2)?,
                calls: row.try_get(3)?,
                run_us: row.try_get(4)?,
                bytes_out: row.try_get(5)?,
            })
        };
        rows.iter().map(read).collect()
    }
}
