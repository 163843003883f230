//! `GET /v1/audit`: who did what, newest first; in the caller's tenant, or for operators in any.

use std::sync::Arc;

use eventflow_api::http::{AuditEntry, AuditList};
use eventflow_api::names::TenantId;
use http::StatusCode;

use super::call::Call;
use super::{Answer, json};
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::store::{AuditRow, Page};

/// A page of the audit log: `limit`, `cursor`; for operators `tenant`, an id or `*` for all tenants and the platform.
///
/// # Errors
/// A query that cannot be read, a foreign cursor, another tenant's log without the right to it, a failing store.
pub async fn list(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    let mut query = call.query()?;
    let (limit, cursor, tenant) = (query.limit()?, query.text("cursor"), query.text("tenant"));
    query.finish()?;
    let page = match tenant {
        None => app.store.audit_list(&caller.tenant, cursor.as_deref(), limit).await?,
        Some(tenant) => {
            app.auth.operator(call.headers())?;
            of_any(&app, &tenant, cursor.as_deref(), limit).await?
        }
    };
    let entries = page.items.into_iter().map(|row| AuditEntry {
        id: row.id,
        tenant: row.tenant,
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

async fn of_any(app: &App, tenant: &str, cursor: Option<&str>, limit: Option<u32>) -> Result<Page<AuditRow>, ApiError> {
    let tenant = match tenant {
        "*" => None,
        id => Some(id.parse::<TenantId>().map_err(|error| {
            ApiError::malformed(format!("The query parameter \"tenant\" {error}; * stands for all."))
        })?),
    };
    Ok(app.store.audit_list_any(tenant.as_ref(), cursor, limit).await?)
}
