//! Calls of functions: at their path in the API, and at their own host name.

use std::sync::Arc;

use eventflow_api::function::CallerAuth;
use eventflow_api::problem::ProblemCode;

use super::Answer;
use super::call::Call;
use crate::app::App;
use crate::auth::{Caller, Right};
use crate::error::ApiError;
use crate::forward::{self, Form, ForwardError, Target};

/// `ANY /v1/functions/{name}/http/{path}`
///
/// # Errors
/// See [`ForwardError`].
pub async fn http(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    let name = call.function_name()?;
    let ours = call.path().len() - call.param(1).len();
    let target = Target { tenant: caller.tenant.id().clone(), name, form: Form::Path(ours) };
    pass(&app, &target, call).await
}

/// Any request for `{function}.{tenant}.<domain>`. Whether there is such a function is told only to its tenant's
/// callers, unless everybody may call it.
///
/// # Errors
/// See [`ForwardError`]; without a token where one is needed, "unauthenticated".
pub async fn host(app: Arc<App>, call: Call) -> Answer {
    let names = (call.param(0).parse(), call.param(1).parse());
    let named = if let (Ok(name), Ok(tenant)) = names { Some((name, tenant)) } else { None };
    let function = named.as_ref().and_then(|(name, tenant)| app.cluster.function(tenant, name));
    if let (Some((name, tenant)), Some(CallerAuth::None)) = (&named, function.map(|function| function.spec.auth)) {
        let target = Target { tenant: tenant.clone(), name: name.clone(), form: Form::Host { token: false } };
        return pass(&app, &target, call).await;
    }
    let caller = app.auth.caller(call.headers(), Right::Invoke, &app.store, &app.cluster).await?;
    tracing::Span::current().record("tenant.id", caller.tenant.id().as_str());
    let (name, tenant) = named.filter(|(_, tenant)| tenant == caller.tenant.id()).ok_or(ForwardError::NotFound)?;
    if !caller.may(Right::Invoke) {
        let detail = "None of your roles includes this. Ask an owner of the tenant for another role.";
        return Err(ApiError::new(ProblemCode::Forbidden, detail));
    }
    let _under_way = app.policies.enter(caller.tenant.id());
    let permit = app.policies.check(&app, &caller, &call, "functions.http")?;
    let mut response = pass(&app, &Target { tenant, name, form: Form::Host { token: true } }, call).await?;
    permit.write_headers(response.headers_mut());
    Ok(response)
}

async fn pass(app: &App, target: &Target, call: Call) -> Answer {
    let request_id = call.request_id().to_owned();
    forward::call(app, target, &request_id, call.into_request()).await
}
