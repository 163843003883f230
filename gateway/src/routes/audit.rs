//! `GET /v1/audit`: who did what in this tenant, newest first.

use std::sync::Arc;

use eventflow_api::http::{AuditEntry, AuditList};
use http::StatusCode;

use super::call::Call;
use super::{Answer, json};
use crate::app::App;
use crate::auth::Caller;

/// A page of the audit log: `limit`, `cursor`.
///
/// # Errors
/// A query that cannot be read, a foreign cursor, a failing store.
pub async fn list(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    let mut query = call.query()?;
    let (limit, cursor) = (query.limit()?, query.text("cursor"));
    query.finish()?;
    let page = app.store.audit_list(&caller.tenant, cursor.as_deref(), limit).await?;
    let entries = page.items.into_iter().map(|row| AuditEntry {
        id: row.id,
        at: row.at.to_string(),
        actor: row.actor,
        action: row.action,
        target: row.target,
        generation: row.generation,
        request_id: row.request_id,
        detail: row.detail,
    });
    json(StatusCode::OK, &AuditList { entries: entries.collect(), next_cursor: page.next_cursor })
}
