//! Walks the route table with no token and with another tenant's, and fails on a route it does not know how to call:
//! whoever adds a route says here what it may show to whom.

mod common;

use common::TestApp;
use gateway::routes::{Access, ROUTES};
use http::{Method, StatusCode};
use serde_json::{Value, json};

/// What a caller of another tenant must see.
enum Foreign {
    /// Nothing of the kind: the thing is named in the path, and is another tenant's.
    NotFound,
    /// Nothing, since it was asked in a way that nobody may.
    Refused,
    /// An answer without a trace of the other tenant.
    OwnThingsOnly,
    /// A thing of its own, under the very name that the other tenant uses.
    OwnThingMade,
}

/// How to call a route of a tenant, where `secret-thing` is the name of another tenant's function, and `run` the id of
/// a run of it.
fn call_of(method: &Method, pattern: &str, run: &str) -> Option<(String, Value, Foreign)> {
    let function = json!({"name": "secret-thing", "image": "foreign:1"});
    let path = pattern.replace("{name}", "secret-thing").replace("{path..}", "secret").replace("{id}", run);
    let (body, foreign) = match (method.as_str(), pattern) {
        ("GET", "/v1/me" | "/v1/functions" | "/v1/audit" | "/v1/quota" | "/v1/usage") => {
            (Value::Null, Foreign::OwnThingsOnly)
        }
        ("POST", "/v1/functions/{name}:explain") => (Value::Null, Foreign::NotFound),
        (_, "/v1/functions/{name}/http/{path..}") => (Value::Null, Foreign::NotFound),
        // What it shows of whom is tested with the streams: this one ends at once.
        ("GET", "/v1/events") => return Some((format!("{path}?follow=never"), Value::Null, Foreign::Refused)),
        ("GET", "/v1/functions/{name}/logs" | "/v1/functions/{name}/events") => (Value::Null, Foreign::NotFound),
        ("GET" | "DELETE", "/v1/functions/{name}") => (Value::Null, Foreign::NotFound),
        ("PUT", "/v1/functions/{name}") => (json!({"image": "foreign:1"}), Foreign::NotFound),
        ("PATCH", "/v1/functions/{name}") => (json!({"image": "foreign:1"}), Foreign::NotFound),
        ("POST", "/v1/functions/{name}:invoke") => (json!({"input": "foreign"}), Foreign::NotFound),
        ("GET", "/v1/functions/{name}/invocations") => (Value::Null, Foreign::NotFound),
        ("GET", "/v1/invocations/{id}" | "/v1/invocations/{id}/logs") => (Value::Null, Foreign::NotFound),
        ("POST", "/v1/invocations/{id}:cancel" | "/v1/invocations/{id}:retry") => (Value::Null, Foreign::NotFound),
        ("POST", "/v1/functions") => (function, Foreign::OwnThingMade),
        _ => return None,
    };
    Some((path, body, foreign))
}

#[tokio::test]
async fn nobody_sees_another_tenants_things() {
    let app = TestApp::start().await;
    let owner = app.tenant().await;
    let mine = app.post(&owner, "/v1/functions", json!({"name": "secret-thing", "image": "secret:1"})).await;
    assert_eq!(mine.status, StatusCode::CREATED, "{mine:?}");
    let run = app.post(&owner, "/v1/functions/secret-thing:invoke", json!({"input": "secret"})).await.json();
    let run = run["invocation_id"].as_str().unwrap().to_owned();
    let me = app.get(&owner, "/v1/me").await.json();
    let traces = ["secret", me["tenant"].as_str().unwrap()];
    for route in ROUTES.iter() {
        let Access::Tenant(..) = route.access else { continue };
        let foreigner = app.tenant().await;
        // Of a route for all methods, one stands for all.
        let method = route.method.clone().unwrap_or(Method::POST);
        let what = format!("{method} {}", route.pattern);
        let (path, body, foreign) = call_of(&method, route.pattern, &run)
            .unwrap_or_else(|| panic!("{what} is new: say in call_of how to call it and what a foreigner may see"));

        let reply = app.call(method.clone(), &path, "", body.clone(), &[]).await;
        assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"), "{what}");

        for condition in [&[][..], &[("if-match", "*")], &[("if-match", mine.header("etag"))]] {
            let reply = app.call(method.clone(), &path, &foreigner, body.clone(), condition).await;
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            match foreign {
                Foreign::Refused => assert_eq!(reply.problem(), "malformed-request", "{what}"),
                Foreign::NotFound => assert_eq!(reply.problem(), "not-found", "{what} {condition:?}"),
                Foreign::OwnThingsOnly => {
                    assert_eq!(reply.status, StatusCode::OK, "{what}");
                    assert!(traces.iter().all(|trace| !text.contains(trace)), "{what} shows {text}");
                }
                Foreign::OwnThingMade => {
                    assert!(reply.status.is_success() || reply.problem() == "already-exists", "{what}: {text}");
                    assert!(!text.contains(traces[1]) && !text.contains("secret:1"), "{what} shows {text}");
                }
            }
        }
    }
    let still = app.get(&owner, &format!("/v1/invocations/{run}")).await.json();
    assert_eq!((&still["id"], &still["cancelRequested"]), (&json!(run), &Value::Null), "{still}");
    let after = app.get(&owner, "/v1/functions/secret-thing").await;
    let (after, mine) = (after.json(), mine.json());
    assert_eq!((&after["id"], &after["generation"], &after["image"]), (&mine["id"], &json!(1), &json!("secret:1")));
}

/// How to call a route of operators, where `{id}` and `{name}` are things that exist.
fn operators_call_of(method: &Method, pattern: &str, tenant: &str) -> Option<(String, Value)> {
    let path = pattern.replace("{id}", tenant).replace("{name}", "free").replace("{binding}", "any");
    let body = match (method.as_str(), pattern) {
        ("GET", "/v1/tenants" | "/v1/tenants/{id}" | "/v1/tiers" | "/v1/tiers/{name}") => Value::Null,
        ("POST", "/v1/tenants") => json!({"id": "made-by-nobody", "tier": "free"}),
        ("PATCH", "/v1/tenants/{id}") => json!({"suspended": true}),
        ("PUT", "/v1/tiers/{name}") => json!({}),
        (_, policies) if policies.starts_with("/v1/polic") => json!({}),
        _ => return None,
    };
    Some((path, body))
}

#[tokio::test]
async fn nobody_but_operators_gets_to_their_routes() {
    let app = TestApp::start().await;
    let owner = app.tenant().await;
    let me = app.get(&owner, "/v1/me").await.json();
    let id = me["tenant"].as_str().unwrap();
    let bosses = app.token_of(id, &["viewer", "developer", "owner"]).await.json();
    for route in ROUTES.iter().filter(|route| matches!(route.access, Access::Operator(_))) {
        let method = route.method.clone().unwrap_or(Method::POST);
        let what = format!("{method} {}", route.pattern);
        let (path, body) = operators_call_of(&method, route.pattern, id)
            .unwrap_or_else(|| panic!("{what} is new: say in operators_call_of how to call it"));
        let reply = app.call(method.clone(), &path, "", body.clone(), &[]).await;
        assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"), "{what}");
        for token in [&owner, bosses["token"].as_str().unwrap()] {
            let reply = app.call(method.clone(), &path, token, body.clone(), &[]).await;
            assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::FORBIDDEN, "forbidden"), "{what}");
            assert!(!String::from_utf8_lossy(&reply.body).contains("cpuRequests"), "{what}");
        }
    }
    // The one route of tenants that shows more to operators.
    for tenant in ["*", id] {
        let reply = app.get(&owner, &format!("/v1/audit?tenant={tenant}")).await;
        assert_eq!((reply.status, reply.problem().as_str()), (StatusCode::FORBIDDEN, "forbidden"));
    }
    let me = app.get(&owner, "/v1/quota").await.json();
    assert_eq!((&me["tier"], &me["suspended"]), (&json!("pro"), &json!(false)), "nothing was changed");
}

#[tokio::test]
async fn public_routes_are_these() {
    let public = ROUTES.iter().filter(|route| matches!(route.access, Access::Public(_)));
    let public: Vec<String> = public
        .map(|route| format!("{} {}", route.method.as_ref().map_or("ANY", Method::as_str), route.pattern))
        .collect();
    assert_eq!(public, ["GET /healthz", "GET /readyz", "POST /auth/token"]);
}
