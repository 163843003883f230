//! What is asked of the API. Segments of paths and values of queries are escaped here, so that no name leads elsewhere.

use std::fmt::Write;

use bytes::Bytes;
use http::Method;
use http::header::{HeaderName, HeaderValue, IF_MATCH};
use serde::Serialize;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One question.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    path: String,
    query: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<(&'static str, Bytes)>,
    repeatable: bool,
}

impl Request {
    /// A call of this path, of which each part is one segment: `["v1", "functions", name]`. Writes get an idempotency
    /// key of their own.
    #[must_use]
    pub fn new(method: Method, segments: &[&str]) -> Self {
        let path = segments.iter().fold(String::new(), |path, segment| path + "/" + &escape(segment));
        let mut request =
            Self { method, path, query: String::new(), headers: Vec::new(), body: None, repeatable: true };
        if super::writes(&request.method)
            && let Ok(key) = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string())
        {
            request.headers.push((IDEMPOTENCY_KEY, key));
        }
        request
    }

    /// A GET.
    #[must_use]
    pub fn get(segments: &[&str]) -> Self {
        Self::new(Method::GET, segments)
    }

    /// Appends to the last segment as it is: a verb such as `:explain`, or a path of the function's own.
    #[must_use]
    pub fn then(mut self, literal: &str) -> Self {
        self.path.push_str(literal);
        self
    }

    /// Adds a parameter to the query.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        let separator = if self.query.is_empty() { '?' } else { '&' };
        // Writing to a String cannot fail.
        let _ = write!(self.query, "{separator}{name}={}", escape(value));
        self
    }

    /// Adds a parameter to the query if there is one.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Sends JSON.
    #[must_use]
    pub fn json<T: Serialize>(self, body: &T) -> Self {
        self.bytes("application/json", serde_json::to_vec(body).unwrap_or_default())
    }

    /// Sends a JSON merge patch.
    #[must_use]
    pub fn merge_patch<T: Serialize>(self, body: &T) -> Self {
        self.bytes("application/merge-patch+json", serde_json::to_vec(body).unwrap_or_default())
    }

    /// Sends bytes of this media type.
    #[must_use]
    pub fn bytes(mut self, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.body = Some((media_type, body.into()));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Only if the thing is still as the tag says.
    #[must_use]
    pub fn if_match(self, tag: Option<&str>) -> Self {
        match tag.and_then(|tag| HeaderValue::from_str(tag).ok()) {
            Some(tag) => self.header(IF_MATCH, tag),
            None => self,
        }
    }

    /// Never to be made twice.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.repeatable = false;
        self
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    pub(super) fn path_and_query(&self) -> String {
        format!("{}{}", self.path, self.query)
    }

    pub(super) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    pub(super) fn body(&self) -> Option<&(&'static str, Bytes)> {
        self.body.as_ref()
    }

    pub(super) fn is_repeatable(&self) -> bool {
        self.repeatable
    }
}

/// `%XX` for all but letters, digits and `-._~`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte as char);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_elsewhere() {
        let request = Request::get(&["v1", "functions", "../a b?c#d/é"]).query("q", "x&y=1").query("limit", "2");
        assert_eq!(request.path_and_query(), "/v1/functions/..%2Fa%20b%3Fc%23d%2F%C3%A9?q=x%26y%3D1&limit=2");
    }

    #[test]
    fn writes_have_a_key_and_each_its_own() {
        let key = |request: &Request| request.headers().iter().find(|(name, _)| *name == IDEMPOTENCY_KEY).cloned();
        assert!(key(&Request::get(&["v1"])).is_none());
        let (one, two) = (Request::new(Method::POST, &["v1"]), Request::new(Method::DELETE, &["v1"]));
        assert!(key(&one).is_some() && key(&one) != key(&two));
    }
}
