//! The routes as data: one table of method, path, needed right and handler. The router, the metrics' labels and the
//! tests of tenancy all read it, so that a route that is not in it does not exist.

use std::future::Future;
use std::sync::{Arc, LazyLock};

use futures::future::BoxFuture;
use http::Method;

use super::call::Call;
use super::{Answer, audit, functions, health, me, token};
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

/// One line of the table.
pub struct Route {
    /// The method. HEAD goes where GET goes.
    pub method: Method,
    /// The path; `{word}` stands for one segment, `{word}:verb` for one that ends so. Also the metrics' label.
    pub pattern: &'static str,
    /// Who may, and who answers.
    pub access: Access,
}

impl Route {
    /// The method as a text that lives for ever.
    #[must_use]
    pub fn method_str(&self) -> &'static str {
        match self.method {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            _ => "other",
        }
    }
}

/// Every route of the API.
pub static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    use Right::{Identity, Read, Write};
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
        tenant(GET, "/v1/audit", Read, audit::list),
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
    Route { method, pattern, access }
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
    Route { method, pattern, access }
}
