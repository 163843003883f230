//! A tenant's user with a token, speaking HTTP to the gateway, and plain GETs to pods.

use bytes::Bytes;
use eventflow_api::http::Function;
use eventflow_api::names::TenantId;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::eventually::eventually;

/// One answer, body read.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body as JSON; null if it is none.
    pub json: Value,
}

/// Sends one request and reads the answer.
pub async fn send(request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = tokio::time::timeout(std::time::Duration::from_secs(15), client.request(request));
    let answer = answer.await.map_err(|_| "no answer within 15 s".to_owned())?.map_err(|e| format!("{e:?}"))?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, json: serde_json::from_slice(&body).unwrap_or_default() })
}

/// A user with a token.
pub struct Caller {
    base: String,
    token: String,
    /// The tenant acted for.
    pub tenant: TenantId,
}

impl Caller {
    /// Gets a token for `user` from the development issuer of the gateway at `base`.
    pub async fn sign_in(base: &str, user: &str) -> Self {
        let body =
            json!({"user_id": user, "username": user, "email": format!("{user}@example.test"), "roles": ["developer"]});
        let request = Request::post(format!("{base}/auth/token"))
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()))
            .expect("a well-formed request");
        let answer = send(request).await.expect("the gateway answers");
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let namespace = answer.json["namespace"].as_str().expect("a namespace").to_owned();
        Self {
            base: base.to_owned(),
            token: answer.json["token"].as_str().expect("a token").to_owned(),
            tenant: TenantId::from_namespace(&namespace).expect("a tenant's namespace"),
        }
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Calls the API.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.try_call(method, path, body).await.expect("the gateway answers")
    }

    /// Calls the API, which may be away.
    pub async fn try_call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, String> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", kind)
            .body(Full::from(body.map(|b| b.to_string()).unwrap_or_default()))
            .expect("a well-formed request");
        send(request).await
    }

    /// Creates a function; must be accepted.
    pub async fn create(&self, body: Value) -> Answer {
        let answer = self.call(Method::POST, "/v1/functions", Some(body)).await;
        assert!(matches!(answer.status, StatusCode::CREATED | StatusCode::ACCEPTED), "{answer:?}");
        answer
    }

    /// Changes a function by merge patch; must be accepted.
    pub async fn patch(&self, name: &str, body: Value) -> Answer {
        let answer = self.call(Method::PATCH, &format!("/v1/functions/{name}"), Some(body)).await;
        assert!(answer.status.is_success(), "{answer:?}");
        answer
    }

    /// Deletes a function; must be accepted.
    pub async fn delete(&self, name: &str) {
        let answer = self.call(Method::DELETE, &format!("/v1/functions/{name}"), None).await;
        assert!(answer.status.is_success(), "{answer:?}");
    }

    /// Waits until the function looks as `wanted` says.
    pub async fn function(&self, name: &str, seconds: u64, what: &str, wanted: impl Fn(&Function) -> bool) -> Function {
        eventually(seconds, &format!("function {name} {what}"), || async {
            let answer = self.try_call(Method::GET, &format!("/v1/functions/{name}"), None).await?;
            let function: Function =
                serde_json::from_value(answer.json.clone()).map_err(|e| format!("{e}: {answer:?}"))?;
            if wanted(&function) { Ok(function) } else { Err(format!("{function:#?}")) }
        })
        .await
    }
}
