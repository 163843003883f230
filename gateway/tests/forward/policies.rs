use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bed::{Bed, Pod, header};
use crate::common::{FUNCTIONS_DOMAIN, Reply};
use crate::operator::{Operator, component};

fn host(bed: &Bed, function: &str) -> String {
    format!("{function}.{}.{FUNCTIONS_DOMAIN}", bed.tenant)
}

async fn at_host(bed: &Bed, function: &str, token: &str) -> Reply {
    bed.app.call(Method::GET, "/x", token, Value::Null, &[("host", &host(bed, function)), ("x-debug", "1")]).await
}

#[tokio::test]
async fn what_policies_change_reaches_the_function() {
    let (bed, pod) = (Bed::start().await, Pod::echo().await);
    bed.function("open", json!({"auth": "none"}), &[&pod]).await;
    let operator = Operator::of(&bed.app).await;
    let settings = json!({"setHeaders": {"x-caller": "{tenant}/{role}@{address}"}, "removeHeaders": ["x-debug"],
        "actions": ["functions.http"]});
    operator.enforce("request-marks", settings).await;

    // Nobody says who they are, and nobody has the word of a policy taken off.
    let headers = [("x-caller", "me"), ("x-caller", "me too"), ("connection", "x-caller"), ("x-debug", "1")];
    let reply = bed.app.call(Method::POST, &bed.path("open", "/x"), &bed.token, json!({}), &headers).await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let echoed = reply.json();
    assert_eq!(header(&echoed, "x-caller"), [format!("{}/developer@127.0.0.1", bed.tenant)]);
    assert_eq!(header(&echoed, "x-debug"), [""; 0]);
    assert_ne!(reply.header("eventflow-policy-revision"), "");

    bed.function("closed", json!({}), &[&pod]).await;
    let reply = at_host(&bed, "closed", &bed.token).await;
    assert_eq!(header(&reply.json(), "x-caller"), [format!("{}/developer@127.0.0.1", bed.tenant)]);
    let reply = at_host(&bed, "open", "").await;
    assert_eq!(header(&reply.json(), "x-caller"), [format!("{}/anonymous@127.0.0.1", bed.tenant)]);
    assert_eq!(header(&reply.json(), "x-debug"), [""; 0]);
    assert_ne!(reply.header("eventflow-policy-revision"), "");
}

#[tokio::test]
async fn a_policy_shortens_the_functions_time_out() {
    let (bed, pod) = (Bed::start().await, Pod::silent().await);
    bed.function("silent", json!({"auth": "none", "timeoutSeconds": 300}), &[&pod]).await;
    let operator = Operator::of(&bed.app).await;
    operator.enforce("request-marks", json!({"timeoutMs": 300})).await;
    let told = "The function said nothing for 0.3 s";
    for reply in [bed.app.get(&bed.token, &bed.path("silent", "/")).await, at_host(&bed, "silent", "").await] {
        assert_eq!(reply.problem(), "function-timeout", "{reply:?}");
        assert!(reply.json()["detail"].as_str().unwrap().starts_with(told), "{reply:?}");
    }
    assert_eq!(bed.counted("function_timeout").await, 2);
}

#[tokio::test]
async fn whoever_calls_without_a_token_is_judged_too() {
    let (bed, pod) = (Bed::start().await, Pod::echo().await);
    bed.function("open", json!({"auth": "none"}), &[&pod]).await;
    bed.function("closed", json!({}), &[&pod]).await;
    assert_eq!(at_host(&bed, "open", "").await.status, StatusCode::OK);
    let operator = Operator::of(&bed.app).await;
    operator.enforce("request-marks", json!({"denyAnonymous": true})).await;
    let refused = at_host(&bed, "open", "").await;
    assert_eq!((refused.problem().as_str(), refused.status), ("policy-denied", StatusCode::FORBIDDEN), "{refused:?}");
    assert_eq!(refused.header("x-eventflow-error"), "policy-denied");
    // There a token is the function's own business: it makes nobody known.
    assert_eq!(at_host(&bed, "open", &bed.token).await.problem(), "policy-denied");
    assert_eq!(at_host(&bed, "closed", &bed.token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_policy_that_fails_lets_nobody_through() {
    let (bed, pod) = (Bed::start().await, Pod::echo().await);
    bed.function("open", json!({"auth": "none"}), &[&pod]).await;
    let operator = Operator::of(&bed.app).await;
    assert!(operator.upload(component("misbehave")).await.status.is_success());
    let scope = json!({"scope": {"kind": "tenant", "name": bed.tenant}, "settings": {"how": "panic"}});
    assert_eq!(operator.put("/v1/policies/misbehave/bindings/trap", scope).await.status, StatusCode::OK);
    operator.verb("misbehave", "activate", json!({})).await;
    operator.settled().await;
    let failed = at_host(&bed, "open", "").await;
    assert_eq!((failed.problem().as_str(), failed.status), ("policy-failed", StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(pod.connections(), 0);
}
