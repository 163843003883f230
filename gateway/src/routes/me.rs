//! `GET /v1/me`: who am I, and whose things do I see.

use std::sync::Arc;

use eventflow_api::http::Me;
use http::StatusCode;

use super::call::Call;
use super::{Answer, json};
use crate::app::App;
use crate::auth::Caller;

/// The caller, as the token says, and its tenant, as the store and the cluster say.
///
/// # Errors
/// An unknown query parameter.
pub async fn get(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    call.query()?.finish()?;
    let tenant = app.cluster.tenant(caller.tenant.id());
    let identity = &caller.identity;
    json(
        StatusCode::OK,
        &Me {
            tenant: caller.tenant.id().clone(),
            namespace: caller.tenant.namespace().to_owned(),
            tier: tenant.map_or_else(String::new, |tenant| tenant.spec.tier.clone()),
            subject: identity.subject.clone(),
            issuer: identity.issuer.clone(),
            roles: identity.roles.clone(),
            username: identity.username.clone(),
            email: identity.email.clone(),
        },
    )
}
