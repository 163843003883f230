//! Calls of functions: at their path in the API, and at their own host name.

use std::sync::Arc;

use eventflow_api::function::CallerAuth;
use eventflow_api::problem::ProblemCode;

use super::call::Call;
use super::{Answer, held};
use crate::app::App;
use crate::auth::{Caller, Right};
use crate::error::ApiError;
use crate::forward::{self, Form, ForwardError, Target};
use crate::policy::Asker;

/// What policies call an invocation, however it comes.
const ACTION: &str = "functions.http";

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
        tracing::Span::current().record("tenant.id", tenant.as_str());
        let target = Target { tenant: tenant.clone(), name: name.clone(), form: Form::Host { token: false } };
        return judged(&app, (Asker::anonymous(tenant), &target), call).await;
    }
    let caller = app.auth.caller(call.headers(), Right::Invoke, &app.store, &app.cluster).await?;
    tracing::Span::current().record("tenant.id", caller.tenant.id().as_str());
    let (name, tenant) = named.filter(|(_, tenant)| tenant == caller.tenant.id()).ok_or(ForwardError::NotFound)?;
    if !caller.may(Right::Invoke) {
        let detail = "None of your roles includes this. Ask an owner of the tenant for another role.";
        return Err(ApiError::new(ProblemCode::Forbidden, detail));
    }
    judged(&app, ((&caller).into(), &Target { tenant, name, form: Form::Host { token: true } }), call).await
}

/// Passes on what the policies let through. At the API's host the router asks them; here it does not know the tenant.
async fn judged(app: &Arc<App>, (asker, target): (Asker<'_>, &Target), mut call: Call) -> Answer {
    let under_way = app.policies.enter(&target.tenant);
    let permit = app.policies.check(app, asker, &call, ACTION)?;
    call.set_permit(permit.clone());
    let mut response = pass(app, target, call).await?;
    permit.write_headers(response.headers_mut());
    Ok(response.map(|body| held(body, under_way)))
}

async fn pass(app: &App, target: &Target, call: Call) -> Answer {
    let (request_id, permit) = (call.request_id().to_owned(), call.permit().clone());
    forward::call(app, target, (&request_id, &permit), call.into_request()).await
}
