//! `POST /auth/token`: the development issuer. The route does not exist unless it is on.

use std::sync::Arc;

use eventflow_api::http::{TokenRequest, TokenResponse};
use eventflow_api::names::TenantClaim;
use eventflow_api::violation::{Violation, ViolationCode};
use http::StatusCode;
use secrecy::ExposeSecret;

use super::call::Call;
use super::{Answer, json};
use crate::app::App;
use crate::auth::dev;
use crate::error::ApiError;

/// Longest name or e-mail address, in bytes: the token must stay within its own length.
const TEXT_MAX: usize = 512;

/// `{user_id, username, email, roles}` to a token of that user's.
///
/// # Errors
/// "No such route" unless the development issuer is on; faults of the body.
pub async fn create(app: Arc<App>, mut call: Call) -> Answer {
    let Some(issuer) = app.auth.dev() else { return Err(ApiError::no_such_route()) };
    call.query()?.finish()?;
    let (body, _) = call.json(&["application/json"]).await?;
    if !body.is_object() {
        return Err(ApiError::malformed("The body must be a JSON object."));
    }
    let request: TokenRequest = serde_json::from_value(body)
        .map_err(|error| ApiError::malformed(format!("The body does not fit: {error}.")))?;
    let claim = check(&request).map_err(ApiError::invalid)?;
    let token = issuer.token(&request).map_err(|error| ApiError::internal(error.to_string()))?;
    let tenant = app.auth.tenant(dev::ISSUER, &claim, &app.store, &app.cluster).await?;
    json(
        StatusCode::OK,
        &TokenResponse {
            token: token.expose_secret().to_owned(),
            user_id: request.user_id,
            username: request.username,
            email: request.email,
            namespace: tenant.namespace().to_owned(),
        },
    )
}

fn check(request: &TokenRequest) -> Result<TenantClaim, Vec<Violation>> {
    let mut violations = Vec::new();
    let claim = request.user_id.parse().map_err(|error| Violation::new("user_id", ViolationCode::Format, error));
    for (field, text) in [("username", &request.username), ("email", &request.email)] {
        if text.len() > TEXT_MAX {
            let message = format!("must be at most {TEXT_MAX} bytes long");
            violations.push(Violation::new(field, ViolationCode::Range, message));
        }
    }
    if request.roles.len() > 8 {
        violations.push(Violation::new("roles", ViolationCode::Range, "must have at most 8 entries"));
    }
    match claim {
        Ok(claim) if violations.is_empty() => Ok(claim),
        Ok(_) => Err(violations),
        Err(violation) => Err([vec![violation], violations].concat()),
    }
}
