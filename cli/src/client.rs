//! One call of the API: its deadline, its retries, its answer. What may be repeated safely is repeated when the
//! platform is away for a moment: reads, and writes by their idempotency key. Redirects are not followed, so a token
//! goes nowhere else.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::url::BaseUrl;

/// What is asked.
pub mod request;
/// When a call is made again.
mod retry;
/// The way to the platform: TCP, and TLS.
mod connector;
/// Server-sent events.
pub mod events;
/// Why a call was not answered as hoped.
pub mod failure;

pub use failure::{CallError, Problem, Violation};
pub use request::Request;

/// Longest answer that is read into memory.
const ANSWER_MAX: usize = 64 << 20;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where to, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// The platform.
    pub url: BaseUrl,
    /// The bearer token.
    pub token: Option<SecretString>,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// A body on its way out.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Calls the API of one platform.
pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Body>,
    url: BaseUrl,
    token: Option<SecretString>,
    deadline: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

/// An answer that is no failure, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value, CallError> {
        self.read()
    }

    /// The body as JSON of a certain form.
    ///
    /// # Errors
    /// When it is none.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|error| CallError::Unreadable(error.to_string()))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Client {
    /// A client of that platform, which waits at most `deadline` for each answer.
    ///
    /// # Errors
    /// When the certificates to trust cannot be read.
    pub fn new(target: Target, deadline: Duration) -> Result<Self, CallError> {
        let connector = connector::new(target.ca_file.as_deref(), deadline)?;
        let http = legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build(connector);
        Ok(Self { http, url: target.url, token: target.token, deadline })
    }

    /// Where the platform is.
    #[must_use]
    pub fn url(&self) -> &BaseUrl {
        &self.url
    }

    /// Makes the call, again if need be, and reads the whole answer.
    ///
    /// # Errors
    /// See [`CallError`]; an answer that tells of a failure is one.
    pub async fn call(&self, request: &Request) -> Result<Answer, CallError> {
        let mut tries = 1;
        loop {
            let error = match self.once(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let pause = if request.is_repeatable() { retry::pause(tries, &error, rand::random()) } else { None };
            let Some(pause) = pause else { return Err(error) };
            tokio::time::sleep(pause).await;
            tries += 1;
        }
    }

    /// Makes the call once and leaves the answer's body to be read as it comes; the deadline is for its head alone.
    ///
    /// # Errors
    /// No answer. An answer that tells of a failure is an answer.
    pub async fn open(&self, request: &Request, body: Option<Body>) -> Result<Response<Incoming>, CallError> {
        let request = self.http_request(request, body)?;
        let answered = tokio::time::timeout(self.deadline, self.http.request(request)).await;
        match answered {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(CallError::of(&error, &self.url)),
            Err(_) => Err(self.too_late()),
        }
    }

    /// What an answer says that tells of a failure.
    pub async fn failure(&self, response: Response<Incoming>) -> CallError {
        match tokio::time::timeout(self.deadline, self.whole(response)).await {
            Ok(Ok(answer)) => CallError::Unreadable(format!("status {} was taken for a failure", answer.status)),
            Ok(Err(error)) => error,
            Err(_) => self.too_late(),
        }
    }

    async fn once(&self, request: &Request) -> Result<Answer, CallError> {
        let request = self.http_request(request, None)?;
        let answered = async {
            let response = self.http.request(request).await.map_err(|error| CallError::of(&error, &self.url))?;
            self.whole(response).await
        };
        tokio::time::timeout(self.deadline, answered).await.unwrap_or_else(|_| Err(self.too_late()))
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<Answer, CallError> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await;
        let body = body.map_err(|error| CallError::Broken { url: self.url.clone(), reason: error.to_string() })?;
        let body = body.to_bytes();
        if parts.status.is_success() {
            return Ok(Answer { status: parts.status, headers: parts.headers, body });
        }
        Err(CallError::refused(&self.url, parts.status, &parts.headers, &body))
    }

    fn too_late(&self) -> CallError {
        CallError::TooLate { url: self.url.clone(), after: self.deadline }
    }

    fn http_request(&self, request: &Request, body: Option<Body>) -> Result<http::Request<Body>, CallError> {
        let uri = self.url.join(&request.path_and_query());
        let mut built = http::Request::builder().method(request.method()).uri(uri);
        let headers = built.headers_mut().ok_or_else(|| CallError::Unsendable("the path".to_owned()))?;
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("eventflow/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/problem+json"));
        if let Ok(id) = HeaderValue::from_str(&uuid::Uuid::now_v7().to_string()) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some((media_type, _)) = request.body() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        for (name, value) in request.headers() {
            headers.insert(name.clone(), value.clone());
        }
        if let Some(token) = &self.token {
            let bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
            let mut bearer = bearer.map_err(|_| CallError::Unsendable("the token".to_owned()))?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let whole = || {
            let bytes = request.body().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
            http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
        };
        let body = body.unwrap_or_else(whole);
        built.body(body).map_err(|error| CallError::Unsendable(error.to_string()))
    }
}

/// Whether calls of this method change something.
fn writes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

#[cfg(test)]
mod tests;
