use http::Method;
use serde_json::{Value, json};

use crate::bed::{Bed, Pod, header};
use crate::common::{FUNCTIONS_DOMAIN, Reply};

async fn call(bed: &Bed, host: &str, token: &str, path: &str) -> Reply {
    bed.app.call(Method::GET, path, token, Value::Null, &[("host", host), ("cookie", "c=d")]).await
}

#[tokio::test]
async fn a_function_answers_at_its_own_host() {
    let (bed, pod) = (Bed::start().await, Pod::echo().await);
    bed.function("open", json!({"auth": "none"}), &[&pod]).await;
    bed.function("closed", json!({}), &[&pod]).await;
    let host = |function: &str| format!("{function}.{}.{FUNCTIONS_DOMAIN}", bed.tenant);

    let reply = call(&bed, &host("open"), "", "/v1/functions?x").await;
    assert_eq!(reply.status.as_u16(), 200, "{reply:?}");
    let echoed = reply.json();
    assert_eq!(echoed["target"], "/v1/functions?x");
    assert_eq!(header(&echoed, "host"), [host("open")]);
    assert_eq!((header(&echoed, "cookie"), reply.header("set-cookie")), (vec!["c=d".to_owned()], "a=b"));
    assert_eq!(header(&echoed, "x-eventflow-tenant"), [bed.tenant.as_str()]);
    // A token there is the function's own business.
    let echoed = call(&bed, &host("open"), "mine", "/").await.json();
    assert_eq!(header(&echoed, "authorization"), ["Bearer mine"]);

    let echoed = call(&bed, &host("closed"), &bed.token, "/x").await.json();
    assert_eq!((&echoed["target"], header(&echoed, "authorization").len()), (&json!("/x"), 0));
    let stranger = bed.app.tenant().await;
    let viewer = bed.app.token_of(&bed.tenant, &["viewer"]).await.json()["token"].as_str().unwrap().to_owned();
    for (function, token, code) in [
        ("closed", "", "unauthenticated"),
        ("unknown", "", "unauthenticated"),
        ("No_Name", "", "unauthenticated"),
        ("closed", stranger.as_str(), "not-found"),
        ("unknown", &bed.token, "not-found"),
        ("closed", &viewer, "forbidden"),
    ] {
        let reply = call(&bed, &host(function), token, "/").await;
        assert_eq!(reply.problem(), code, "{function} {token}");
    }
    // `none` is for the own host alone.
    let reply = bed.app.get("", &bed.path("open", "/")).await;
    assert_eq!(reply.problem(), "unauthenticated");
    // Below the domain nothing is the API's.
    let reply = call(&bed, &format!("x.{FUNCTIONS_DOMAIN}"), &bed.token, "/v1/functions").await;
    assert_eq!(reply.problem(), "not-found");
}
