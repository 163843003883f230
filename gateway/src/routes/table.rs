//! The routes as data: one table of method, path, needed right and handler. The router, the metrics' labels and the
//! tests of tenancy all read it, so that a route that is not in it does not exist.

use std::future::Future;
use std::sync::{Arc, LazyLock};

use futures::future::BoxFuture;
use http::Method;

use super::call::Call;
use super::{
    Answer, audit, events, functions, health, invocations, invoke, logs, me, policies, quota, tenants, tiers, token,
    usage,
};
use crate::app::App;
use crate::auth::{Caller, Operator, Right};

/// Handles a call that needs no token.
type PublicHandler = Box<dyn Fn(Arc<App>, Call) -> BoxFuture<'static, Answer> + Send + Sync>;
/// Handles a call of a tenant. There is no way to such a handler but through `auth`.
type TenantHandler = Box<dyn Fn(Arc<App>, Caller, Call) -> BoxFuture<'static, Answer> + Send + Sync>;
/// Handles a call of an operator, who acts for no tenant. There is no way to such a handler but through `auth`.
type OperatorHandler = Box<dyn Fn(Arc<App>, Operator, Call) -> BoxFuture<'static, Answer> + Send + Sync>;

/// Who may use a route, and who answers.
pub enum Access {
    /// Everybody.
    Public(PublicHandler),
    /// Callers with this right, each within its own tenant.
    Tenant(Right, TenantHandler),
    /// Operators of the platform.
    Operator(OperatorHandler),
}

/// Under which limits a request runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Calls of the API: all of them share one limit, and each ends by a deadline.
    Call,
    /// Streams, which may live for hours; their handler bounds them, and they take no place from calls.
    Stream,
}

/// One line of the table.
pub struct Route {
    /// The method, none for all of them. HEAD goes where GET goes.
    pub method: Option<Method>,
    /// The path; `{word}` stands for one segment, `{word}:verb` for one that ends so, and a last `{word..}` for all
    /// that follows. Also the metrics' label.
    pub pattern: &'static str,
    /// Who may, and who answers.
    pub access: Access,
    /// Under which limits.
    pub lane: Lane,
}

/// Every route of the API.
pub static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    use Right::{Identity, Invoke, Read, Write};
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    const PATCH: Method = Method::PATCH;
    const DELETE: Method = Method::DELETE;
    vec![
        public(GET, "/healthz", health::live),
        public(GET, "/readyz", health::ready),
        public(POST, "/auth/token", token::create),
        tenant(GET, "/v1/me", Identity, me::get),
        tenant(POST, "/v1/functions", Write, functions::create),
        tenant(GET, "/v1/functions", Read, functions::list),
        tenant(GET, "/v1/functions/{name}", Read, functions::get),
        tenant(PUT, "/v1/functions/{name}", Write, functions::replace),
        tenant(PATCH, "/v1/functions/{name}", Write, functions::patch),
        tenant(DELETE, "/v1/functions/{name}", Write, functions::delete),
        stream(None, "/v1/functions/{name}/http/{path..}", Invoke, invoke::http),
        stream(Some(GET), "/v1/functions/{name}/logs", Read, logs::get),
        tenant(GET, "/v1/functions/{name}/events", Read, events::of_function),
        stream(Some(GET), "/v1/events", Read, events::live),
        tenant(POST, "/v1/functions/{name}:explain", Read, functions::explain),
        // A stream since it may wait for the result for longer than calls may take.
        stream(Some(POST), "/v1/functions/{name}:invoke", Invoke, invocations::invoke),
        tenant(GET, "/v1/functions/{name}/invocations", Read, invocations::list),
        tenant(GET, "/v1/invocations/{id}", Read, invocations::get),
        tenant(POST, "/v1/invocations/{id}:cancel", Invoke, invocations::cancel),
        stream(Some(POST), "/v1/invocations/{id}:retry", Invoke, invocations::retry),
        stream(Some(GET), "/v1/invocations/{id}/logs", Read, logs::of_invocation),
        tenant(GET, "/v1/quota", Read, quota::get),
        tenant(GET, "/v1/usage", Read, usage::get),
        tenant(GET, "/v1/audit", Read, audit::list),
        operator(GET, "/v1/policies", policies::list),
        operator(POST, "/v1/policies", policies::upload),
        operator(GET, "/v1/policies/{name}", policies::get),
        operator(DELETE, "/v1/policies/{name}", policies::delete),
        operator(GET, "/v1/policies/{name}/revisions", policies::revisions),
        operator(GET, "/v1/policies/{name}/bindings", policies::bindings),
        operator(PUT, "/v1/policies/{name}/bindings/{binding}", policies::bind),
        operator(DELETE, "/v1/policies/{name}/bindings/{binding}", policies::unbind),
        operator(POST, "/v1/policies/{name}:shadow", policies::shadow),
        operator(POST, "/v1/policies/{name}:canary", policies::canary),
        operator(POST, "/v1/policies/{name}:activate", policies::activate),
        operator(POST, "/v1/policies/{name}:rollback", policies::rollback),
        operator(POST, "/v1/policies/{name}:evaluate", policies::evaluate),
        operator(GET, "/v1/policies/{name}/shadow", policies::shadow_report),
        operator(GET, "/v1/policies/{name}/decisions", policies::decisions),
        operator(GET, "/v1/policies/{name}/history", policies::history),
        operator(GET, "/v1/policy-groups", policies::list_groups),
        operator(PUT, "/v1/policy-groups/{name}", policies::put_group),
        operator(DELETE, "/v1/policy-groups/{name}", policies::delete_group),
        operator(GET, "/v1/tenants", tenants::list),
        operator(POST, "/v1/tenants", tenants::create),
        operator(GET, "/v1/tenants/{id}", tenants::get),
        operator(PATCH, "/v1/tenants/{id}", tenants::patch),
        operator(GET, "/v1/tiers", tiers::list),
        operator(GET, "/v1/tiers/{name}", tiers::get),
        operator(PUT, "/v1/tiers/{name}", tiers::put),
    ]
});

fn public<F>(
    method: Method,
    pattern: &'static str,
    handler: impl Fn(Arc<App>, Call) -> F + Send + Sync + 'static,
) -> Route
where
    F: Future<Output = Answer> + Send + 'static,
{
    let access = Access::Public(Box::new(move |app, call| Box::pin(handler(app, call))));
    Route { method: Some(method), pattern, access, lane: Lane::Call }
}

fn tenant<F>(
    method: Method,
    pattern: &'static str,
    right: Right,
    handler: impl Fn(Arc<App>, Caller, Call) -> F + Send + Sync + 'static,
) -> Route
where
    F: Future<Output = Answer> + Send + 'static,
{
    let access = Access::Tenant(right, Box::new(move |app, caller, call| Box::pin(handler(app, caller, call))));
    Route { method: Some(method), pattern, access, lane: Lane::Call }
}

fn operator<F>(
    method: Method,
    pattern: &'static str,
    handler: impl Fn(Arc<App>, Operator, Call) -> F + Send + Sync + 'static,
) -> Route
where
    F: Future<Output = Answer> + Send + 'static,
{
    let access = Access::Operator(Box::new(move |app, operator, call| Box::pin(handler(app, operator, call))));
    Route { method: Some(method), pattern, access, lane: Lane::Call }
}

fn stream<F>(
    method: Option<Method>,
    pattern: &'static str,
    right: Right,
    handler: impl Fn(Arc<App>, Caller, Call) -> F + Send + Sync + 'static,
) -> Route
where
    F: Future<Output = Answer> + Send + 'static,
{
    let access = Access::Tenant(right, Box::new(move |app, caller, call| Box::pin(handler(app, caller, call))));
    Route { method, pattern, access, lane: Lane::Stream }
}

/// Where requests for a function's own host name go, whatever their method and path.
pub static HOST_ROUTE: LazyLock<Route> = LazyLock::new(|| {
    let handler: PublicHandler = Box::new(|app, call| Box::pin(invoke::host(app, call)));
    Route { method: None, pattern: "{function}.{tenant}", access: Access::Public(handler), lane: Lane::Stream }
});
