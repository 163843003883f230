//! Requests: what a policy is shown of one, and what its verdict means for it. Runs on the worker that serves the
//! request, for some microseconds per policy.

use std::sync::Arc;

use eventflow_api::http::Role;
use eventflow_api::names::TenantId;
use eventflow_api::policy::World;
use http::{HeaderMap, HeaderValue, Method, header};
use policy_engine::Call as Surroundings;
use policy_engine::counters::Lane;
use policy_engine::set::{RateState, Refused};
use policy_engine::types::{Pair, RequestView};

use super::recorder::About;
use super::{Permit, Policies, facts};
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::routes::Route;
use crate::routes::call::Call;

/// Headers that no policy is shown: they are the caller's secrets.
const SECRET_HEADERS: [header::HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    tenant: &'a TenantId,
    subject: &'a str,
    role: &'static str,
    issuer: Option<&'a str>,
}

impl<'a> Asker<'a> {
    /// Anybody, at a function of this tenant that everybody may call.
    #[must_use]
    pub fn anonymous(tenant: &'a TenantId) -> Self {
        Self { tenant, subject: "", role: "anonymous", issuer: None }
    }
}

impl<'a> From<&'a Caller> for Asker<'a> {
    fn from(caller: &'a Caller) -> Self {
        let identity = &caller.identity;
        Self {
            tenant: caller.tenant.id(),
            subject: &identity.subject,
            role: role(&identity.roles),
            issuer: Some(&identity.issuer),
        }
    }
}

/// `RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers.
pub fn write_rates(rates: &[RateState], headers: &mut HeaderMap) {
    for rate in rates {
        let seconds = rate.window_ms.div_ceil(1000).max(1);
        let wait = if rate.remaining > 0 { 0 } else { rate.retry_after_ms.div_ceil(1000).max(1) };
        let policy = format!("\"{}\";q={};w={seconds}", rate.name, rate.limit);
        let left = format!("\"{}\";r={};t={wait}", rate.name, rate.remaining);
        for (name, value) in [("ratelimit-policy", policy), ("ratelimit", left)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.append(name, value);
            }
        }
    }
}

/// What is asked, as policies call it: `functions.create`, `functions.invoke`, `functions.logs`, `me.get`.
#[must_use]
pub fn action(route: &Route) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut verb = None;
    let mut ends_in_name = false;
    for segment in route.pattern.split('/').filter(|segment| !segment.is_empty() && *segment != "v1") {
        ends_in_name = segment.starts_with('{');
        if !ends_in_name {
            words.push(segment);
        } else if let Some((_, after)) = segment.split_once("}:") {
            verb = Some(after);
        }
    }
    let verb = verb.or(match (words.len(), route.method.as_ref()) {
        // A thing of a thing names itself.
        (2.., _) => None,
        (_, Some(&Method::GET)) if ends_in_name || words == ["me"] => Some("get"),
        (_, Some(&Method::GET)) => Some("list"),
        (_, Some(&Method::POST)) => Some("create"),
        (_, Some(&Method::PUT)) => Some("replace"),
        (_, Some(&Method::PATCH)) => Some("patch"),
        (_, Some(&Method::DELETE)) => Some("delete"),
        _ => Some("other"),
    });
    words.extend(verb);
    words.join(".")
}

/// Whether this action runs a function.
#[must_use]
pub fn is_invocation(action: &str) -> bool {
    matches!(action, "functions.invoke" | "functions.http")
}

impl Policies {
    /// Judges a call at a tenant's things. Every policy of the set in its scope is asked; the first refusal ends it.
    ///
    /// # Errors
    /// A refusal, a limit that is reached, and a policy that failed.
    pub fn check(&self, app: &Arc<App>, asker: Asker<'_>, call: &Call, action: &str) -> Result<Permit, ApiError> {
        let sets = self.inner.sets.load();
        let Some(sets) = sets.as_ref() else {
            return Err(ApiError::policy_failed("(none yet)", "no set of policies was loaded since the start"));
        };
        let set_revision = sets.request.revision();
        if sets.bound.0 == 0 && sets.broken.is_empty() {
            return Ok(Permit { set_revision, ..Permit::default() });
        }
        let id = asker.tenant;
        let view = self.view(app, asker, call, action);
        if let Some(broken) = sets.broken(World::Request, &view.tenant) {
            return Err(ApiError::policy_failed(&broken.binding, broken.message.clone()));
        }
        self.inner.samples.request(&view);
        let around = Surroundings {
            now_ms: now_ms(),
            tenant: id.as_str().into(),
            counters: Arc::clone(&self.inner.counters),
            lane: Lane::Enforced,
            facts: Some(facts::source(app, id)),
        };
        let outcome = sets.request.check(&view, &around);
        let about = About::of_request(&view, sets.revision);
        self.inner.note(&about, &outcome.steps, || {
            let secrets = view.headers.iter().map(|pair| pair.value.clone());
            secrets.chain(view.query.split(['&', '=']).map(str::to_owned)).collect()
        });
        match outcome.result {
            Ok(changes) => {
                let permit = Permit { set_revision, changes, rates: outcome.rates };
                permit.trace();
                Ok(permit)
            }
            Err(refused) => Err(refusal(refused)),
        }
    }

    fn view(&self, app: &App, asker: Asker<'_>, call: &Call, action: &str) -> RequestView {
        let (uri, headers) = (call.uri(), call.headers());
        let shown = headers.iter().filter(|(name, _)| !SECRET_HEADERS.contains(name));
        let pair = |name: &str, value: &str| Pair { name: name.to_owned(), value: value.to_owned() };
        RequestView {
            request_id: call.request_id().to_owned(),
            tenant: facts::tenant(app, asker.tenant),
            subject: asker.subject.to_owned(),
            role: asker.role.to_owned(),
            action: action.to_owned(),
            function: call.first_param().map(str::to_owned),
            method: call.method().to_string(),
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            headers: shown
                .map(|(name, value)| pair(name.as_str(), &String::from_utf8_lossy(value.as_bytes())))
                .collect(),
            claims: asker.issuer.map(|issuer| pair("iss", issuer)).into_iter().collect(),
            remote_address: call.peer().map(|address| address.to_string()).unwrap_or_default(),
            content_length: headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()),
            in_flight: self.inner.crowd.count(asker.tenant),
        }
    }
}

/// The strongest role.
fn role(roles: &[Role]) -> &'static str {
    match roles.iter().max() {
        Some(Role::Operator) => "operator",
        Some(Role::Owner) => "owner",
        Some(Role::Developer) => "developer",
        Some(Role::Viewer) | None => "viewer",
    }
}

/// A refusal in the API's words.
pub(crate) fn refusal(refused: Refused) -> ApiError {
    match refused {
        Refused::Denied { binding, denial } => ApiError::denied(&binding, &denial),
        Refused::RateLimited { binding, rate } => ApiError::rate_limited(&binding, &rate),
        Refused::Failed { binding, policy, failure } => {
            ApiError::policy_failed(&binding, format!("the policy {policy} failed: {failure}"))
        }
        Refused::Unsettled { binding } => {
            ApiError::policy_failed(&binding, "it goes on changing what other policies had settled")
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::ROUTES;

    #[test]
    fn actions_are_named_after_the_route_table() {
        let of = |method: Method, pattern: &str| {
            let route = ROUTES.iter().find(|route| route.method.as_ref() == Some(&method) && route.pattern == pattern);
            action(route.unwrap())
        };
        assert_eq!(of(Method::POST, "/v1/functions"), "functions.create");
        assert_eq!(of(Method::GET, "/v1/functions"), "functions.list");
        assert_eq!(of(Method::GET, "/v1/functions/{name}"), "functions.get");
        assert_eq!(of(Method::DELETE, "/v1/functions/{name}"), "functions.delete");
        assert_eq!(of(Method::GET, "/v1/me"), "me.get");
        let mut seen = std::collections::HashSet::new();
        for route in ROUTES.iter() {
            assert!(seen.insert((action(route), route.method.clone())), "{} is there twice", action(route));
        }
    }

    #[test]
    fn what_is_left_is_told() {
        let rate = |remaining, retry_after_ms| RateState {
            name: "requests".into(),
            limit: 50,
            window_ms: 1000,
            burst: 100,
            remaining,
            retry_after_ms,
        };
        let mut headers = HeaderMap::new();
        write_rates(&[rate(7, 0)], &mut headers);
        assert_eq!(headers["ratelimit"], "\"requests\";r=7;t=0");
        assert_eq!(headers["ratelimit-policy"], "\"requests\";q=50;w=1");
        let mut headers = HeaderMap::new();
        write_rates(&[rate(0, 1)], &mut headers);
        assert_eq!(headers["ratelimit"], "\"requests\";r=0;t=1");
    }
}
