//! What a handler gets: the request's parts, read strictly, each fault with a sentence that says what to do.

use std::error::Error;
use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use eventflow_api::names::{FunctionName, TenantId};
use eventflow_api::problem::ProblemCode;
use http::header::{CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Uri};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::query::Query;
use super::{Body, BoxError};
use crate::auth::Caller;
use crate::auth::token::Identity;
use crate::error::ApiError;
use crate::policy::Permit;
use crate::server::{Fault, Peer};
use crate::stack::RequestId;
use crate::store::{IdempotencyKey, Origin};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// W3C trace context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Longest idempotency key, in bytes.
const IDEMPOTENCY_KEY_MAX: usize = 255;

/// Media types of a whole document.
pub const JSON: [&str; 1] = ["application/json"];
/// Media types of a change to a document.
pub const MERGE_PATCH: [&str; 2] = ["application/merge-patch+json", "application/json"];

/// One request.
pub struct Call {
    parts: Parts,
    body: Body,
    params: Vec<String>,
    max_body: usize,
    permit: Permit,
}

impl Call {
    /// Takes a request apart; the body is not read yet.
    pub fn new<B>(request: Request<B>, params: Vec<String>, max_body: usize) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        Self { parts, body: body.map_err(Into::into).boxed_unsync(), params, max_body, permit: Permit::default() }
    }

    /// The request's headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// What the policies let this call do; nothing in particular for routes that they do not judge.
    #[must_use]
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Sets what the policies let this call do.
    pub fn set_permit(&mut self, permit: Permit) {
        self.permit = permit;
    }

    /// What is asked for.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.parts.uri
    }

    /// The first segment that a word of the route's pattern stands for.
    #[must_use]
    pub fn first_param(&self) -> Option<&str> {
        self.params.first().map(String::as_str)
    }

    /// The function that the path names.
    ///
    /// # Errors
    /// "Not found" when it can be no function's name: there is none of that name, and never will be.
    pub fn function_name(&self) -> Result<FunctionName, ApiError> {
        let name = self.params.first().and_then(|name| name.parse().ok());
        name.ok_or_else(|| ApiError::from(crate::store::StoreError::NotFound))
    }

    /// The request's path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// What stands in the place of the pattern's word of this number, counted from 0.
    #[must_use]
    pub fn param(&self, number: usize) -> &str {
        self.params.get(number).map_or("", String::as_str)
    }

    /// The tenant that the path names.
    ///
    /// # Errors
    /// "Not found" when it can be no tenant's id.
    pub fn tenant_id(&self) -> Result<TenantId, ApiError> {
        self.word().parse().map_err(|_| ApiError::from(crate::store::StoreError::NotFound))
    }

    /// The word of the path that stands for a name.
    #[must_use]
    pub fn word(&self) -> &str {
        self.param(0)
    }

    /// Names the call.
    #[must_use]
    pub fn request_id(&self) -> &str {
        self.parts.extensions.get::<RequestId>().map_or("", RequestId::as_str)
    }

    /// The address that the connection comes from.
    #[must_use]
    pub fn peer(&self) -> Option<IpAddr> {
        self.parts.extensions.get::<Peer>().map(|peer| peer.0)
    }

    /// The request as it came, to be handed on.
    #[must_use]
    pub fn into_request(self) -> Request<Body> {
        Request::from_parts(self.parts, self.body)
    }

    /// The query, to be read parameter by parameter.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn query(&self) -> Result<Query, ApiError> {
        Query::parse(self.parts.uri.query().unwrap_or_default())
    }

    /// Where a write of this caller comes from.
    #[must_use]
    pub fn origin(&self, caller: &Caller) -> Origin {
        self.origin_of(&caller.identity)
    }

    /// Where a write of this identity comes from.
    #[must_use]
    pub fn origin_of(&self, identity: &Identity) -> Origin {
        let traceparent = self.parts.headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        Origin {
            actor: identity.subject.clone(),
            request_id: self.request_id().to_owned(),
            traceparent: traceparent.filter(|text| is_traceparent(text)).map(str::to_owned),
            notes: self.permit.annotations().map(|note| (note.name.clone(), note.value.clone())).collect(),
        }
    }

    /// Reads the whole body as JSON of one of these media types.
    ///
    /// # Errors
    /// Another media type, a body that is too large, too slow, cut off, empty, or no strict JSON.
    pub async fn json(&mut self, media_types: &'static [&'static str]) -> Result<(Value, Bytes), ApiError> {
        self.check_media_type(media_types)?;
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Err(ApiError::malformed("The body is empty; a JSON object is needed."));
        }
        let value = crate::json::parse(&bytes)
            .map_err(|error| ApiError::malformed(format!("The body is not strict JSON: {error}.")))?;
        Ok((value, bytes))
    }

    fn check_media_type(&self, accepted: &[&str]) -> Result<(), ApiError> {
        let mut values = self.parts.headers.get_all(CONTENT_TYPE).iter();
        let essence = values.next().and_then(|value| value.to_str().ok()).map(|value| {
            let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
            let charset = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="));
            let utf8 = charset.is_none_or(|c| c.trim_matches('"').eq_ignore_ascii_case("utf-8"));
            (essence.trim().to_ascii_lowercase(), utf8)
        });
        let fits = essence.is_some_and(|(essence, utf8)| utf8 && accepted.contains(&essence.as_str()));
        if fits && values.next().is_none() {
            return Ok(());
        }
        let detail = format!("Send the body as {}.", accepted.join(" or "));
        Err(ApiError::new(ProblemCode::UnsupportedMediaType, detail))
    }

    /// The whole body.
    ///
    /// # Errors
    /// When it is too large, too slow or cut off.
    pub async fn bytes(&mut self) -> Result<Bytes, ApiError> {
        self.bytes_up_to(self.max_body).await
    }

    /// The whole body as one of these media types, of at most `most` bytes.
    ///
    /// # Errors
    /// Another media type, and a body that is too large, too slow or cut off.
    pub async fn upload(&mut self, media_types: &[&str], most: usize) -> Result<Bytes, ApiError> {
        self.check_media_type(media_types)?;
        self.bytes_up_to(most).await
    }

    async fn bytes_up_to(&mut self, most: usize) -> Result<Bytes, ApiError> {
        let too_large = || {
            let detail = format!("The body is larger than {most} bytes.");
            ApiError::new(ProblemCode::BodyTooLarge, detail)
        };
        if http_body::Body::size_hint(&self.body).lower() > most as u64 {
            return Err(too_large());
        }
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) if bytes.len() + data.len() > most => return Err(too_large()),
                Ok(Ok(data)) => bytes.extend_from_slice(&data),
                // Trailers say nothing to us.
                Ok(Err(_)) => {}
                Err(error) if is_late(error.as_ref()) => {
                    let detail = "The body took too long to arrive. Send it again, faster.";
                    return Err(ApiError::new(ProblemCode::RequestTimeout, detail));
                }
                Err(error) => match framing_fault(error.as_ref()) {
                    Some(fault) => return Err(fault.into()),
                    None => return Err(ApiError::malformed("The body ended early.").because(error.to_string())),
                },
            }
        }
        Ok(bytes.freeze())
    }

    /// What makes this call recognisable when it is repeated, if the caller wants that. Covers method, path, query
    /// and body.
    ///
    /// # Errors
    /// A key that is no 1 to 255 visible ASCII characters, or more than one.
    pub fn idempotency_key(&self, body: &[u8]) -> Result<Option<IdempotencyKey>, ApiError> {
        let mut values = self.parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
        let key = value.to_str().ok().filter(|key| visible && (1..=IDEMPOTENCY_KEY_MAX).contains(&key.len()));
        let (Some(key), None) = (key, values.next()) else {
            let detail = "Idempotency-Key must be there once, with 1 to 255 visible ASCII characters.";
            return Err(ApiError::malformed(detail));
        };
        let mut digest = Sha256::new();
        let target = self.parts.uri.path_and_query().map_or("", |target| target.as_str());
        for part in [self.parts.method.as_str().as_bytes(), target.as_bytes(), body] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        Ok(Some(IdempotencyKey { key: key.to_owned(), body_sha256: digest.finalize().into() }))
    }

    /// The request's method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.parts.method
    }
}

/// Whether the body's deadline passed.
fn is_late(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<tower_http::timeout::TimeoutError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// What is wrong with the body's framing, if that is what ended it.
fn framing_fault(error: &(dyn Error + 'static)) -> Option<Fault> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(fault) = inner.and_then(|inner| inner.downcast_ref::<Fault>()) {
            return Some(*fault);
        }
        next = error.source();
    }
    None
}

/// Version 00 of W3C trace context.
pub(crate) fn is_traceparent(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let hex = |b: u8| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    lengths == [2, 32, 16, 2] && text.starts_with("00-") && text.bytes().all(hex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::full;

    fn call(headers: &[(&str, &str)], body: &'static str) -> Call {
        let mut request = Request::post("/v1/functions?dry_run=true");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Call::new(request.body(full(body)).unwrap(), Vec::new(), 20)
    }

    async fn json_code(content_type: &str, body: &'static str) -> Option<ProblemCode> {
        let outcome = call(&[("content-type", content_type)], body).json(&["application/json"]).await;
        outcome.err().map(|error| error.code())
    }

    #[tokio::test]
    async fn bodies_are_read_strictly() {
        use ProblemCode::*;
        assert_eq!(json_code("application/json", r#"{"a":1}"#).await, None);
        assert_eq!(json_code("Application/JSON; charset=UTF-8", r#"{"a":1}"#).await, None);
        assert_eq!(json_code("application/json; charset=latin1", "{}").await, Some(UnsupportedMediaType));
        assert_eq!(json_code("text/plain", "{}").await, Some(UnsupportedMediaType));
        assert_eq!(json_code("application/json", "").await, Some(MalformedRequest));
        assert_eq!(json_code("application/json", r#"{"a":1,"a":2}"#).await, Some(MalformedRequest));
        assert_eq!(json_code("application/json", r#"{"a":"0123456789abcdef"}"#).await, Some(BodyTooLarge));
    }

    #[test]
    fn an_idempotency_key_covers_the_body() {
        let a = call(&[("idempotency-key", "k1")], "");
        let digest = |body: &[u8]| a.idempotency_key(body).unwrap().unwrap().body_sha256;
        assert_ne!(digest(b"1"), digest(b"2"));
        assert_eq!(digest(b"1"), digest(b"1"));
        assert_eq!(call(&[], "").idempotency_key(b"").unwrap(), None);
        let long = "k".repeat(256);
        for bad in ["", "a b", &long] {
            assert!(call(&[("idempotency-key", bad)], "").idempotency_key(b"").is_err(), "{bad}");
        }
        assert!(call(&[("idempotency-key", "a"), ("idempotency-key", "b")], "").idempotency_key(b"").is_err());
    }

    #[test]
    fn only_well_formed_traces_are_kept() {
        assert!(is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(!is_traceparent("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(!is_traceparent("x"));
    }
}
