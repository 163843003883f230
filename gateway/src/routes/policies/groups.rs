//! `/v1/policy-groups`: bindings that give one verdict together.

use std::sync::Arc;

use eventflow_api::policy::{Group, GroupList, GroupRequest};
use http::{Response, StatusCode};

use super::{body, label};
use crate::app::App;
use crate::auth::Operator;
use crate::routes::call::Call;
use crate::routes::{Answer, full, json};

/// `GET /v1/policy-groups`.
///
/// # Errors
/// A failing store.
pub async fn list(app: Arc<App>, _: Operator, call: Call) -> Answer {
    call.query()?.finish()?;
    json(StatusCode::OK, &GroupList { groups: app.store.policy_groups().await? })
}

/// `PUT /v1/policy-groups/{name}`: makes a group, or replaces one; bindings join it by naming it.
///
/// # Errors
/// Faults of the body, a group of the other world, a failing store.
pub async fn put(app: Arc<App>, operator: Operator, mut call: Call) -> Answer {
    call.query()?.finish()?;
    let wanted: GroupRequest = body(&mut call).await?;
    let name = label(call.param(0))?.to_owned();
    let GroupRequest { world, kind, order } = wanted;
    let group = Group { name, world, kind, order: order.unwrap_or(100), members: Vec::new() };
    app.store.policy_group_put(&group, &call.origin_of(operator.identity())).await?;
    app.policies.hurry();
    let stored = app.store.policy_groups().await?.into_iter().find(|stored| stored.name == group.name);
    json(StatusCode::OK, &stored.unwrap_or(group))
}

/// `DELETE /v1/policy-groups/{name}`: of a group without members.
///
/// # Errors
/// No such group, one with members, a failing store.
pub async fn delete(app: Arc<App>, operator: Operator, call: Call) -> Answer {
    call.query()?.finish()?;
    let origin = call.origin_of(operator.identity());
    app.store.policy_group_delete(call.param(0), &origin).await?;
    app.policies.hurry();
    let mut response = Response::new(full(Vec::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
