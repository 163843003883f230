//! Problem documents (RFC 9457) with a closed set of codes. Never carries a raw error of the database, of
//! Kubernetes or of a token library.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::admission::Admission;
use crate::violation::Violation;

/// What went wrong. Stable: programs match on it, and it is the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// 400: the body is not JSON, or the query cannot be read.
    MalformedRequest,
    /// 401: no token, or none that is accepted.
    Unauthenticated,
    /// 403: the role does not include this right.
    Forbidden,
    /// 403, or the 4xx that the policy chose: refused by a policy; see `policy` and `reason`.
    PolicyDenied,
    /// 403: the tenant is suspended.
    TenantSuspended,
    /// 404: no such thing, or another tenant's.
    NotFound,
    /// 404: no such route.
    NoSuchRoute,
    /// 405: the route has no such method.
    MethodNotAllowed,
    /// 408: the body took too long to arrive.
    RequestTimeout,
    /// 409: the name is taken.
    AlreadyExists,
    /// 409: the function has no port, so it serves no HTTP.
    FunctionNotHttp,
    /// 409: a call with the same idempotency key is under way.
    IdempotencyInFlight,
    /// 409: the run is over, so it cannot be cancelled.
    InvocationFinished,
    /// 409: the run is not over, so it cannot be tried again.
    InvocationUnfinished,
    /// 409: the policy is in no state for this.
    PolicyState,
    /// 412: the thing was changed meanwhile.
    PreconditionFailed,
    /// 413: the body is too large.
    BodyTooLarge,
    /// 415: the body is of another media type.
    UnsupportedMediaType,
    /// 422: fields are at fault; see `violations`.
    InvalidFields,
    /// 422: the idempotency key was used with another body.
    IdempotencyMismatch,
    /// 422: the module or its settings are refused; see `violations`.
    PolicyRefused,
    /// 422: will never fit the tenant's quota.
    QuotaExceedsTier,
    /// 429: too many requests; see `limit`.
    TooManyRequests,
    /// 431: headers too large.
    HeadersTooLarge,
    /// 500: a fault of the platform.
    Internal,
    /// 502: the function broke off, or answered what is no HTTP.
    FunctionFailed,
    /// 503: no pod of the function is ready.
    FunctionNotReady,
    /// 503: overloaded; try again.
    Overloaded,
    /// 503: a policy failed, and its binding says that this refuses; see `policy`.
    PolicyFailed,
    /// 503: the database cannot be reached.
    StoreUnavailable,
    /// 503: the cluster cannot be reached.
    ClusterUnavailable,
    /// 504: the function said nothing for as long as its time-out.
    FunctionTimeout,
    /// 504: took too long.
    Timeout,
}

impl ProblemCode {
    /// Every code, for documents and tests.
    pub const ALL: [Self; 33] = [
        Self::MalformedRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::PolicyDenied,
        Self::TenantSuspended,
        Self::NotFound,
        Self::NoSuchRoute,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::AlreadyExists,
        Self::FunctionNotHttp,
        Self::IdempotencyInFlight,
        Self::InvocationFinished,
        Self::InvocationUnfinished,
        Self::PolicyState,
        Self::PreconditionFailed,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidFields,
        Self::IdempotencyMismatch,
        Self::PolicyRefused,
        Self::QuotaExceedsTier,
        Self::TooManyRequests,
        Self::HeadersTooLarge,
        Self::Internal,
        Self::FunctionFailed,
        Self::FunctionNotReady,
        Self::Overloaded,
        Self::PolicyFailed,
        Self::StoreUnavailable,
        Self::ClusterUnavailable,
        Self::FunctionTimeout,
        Self::Timeout,
    ];

    /// The code as text: `invalid-fields`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedRequest => "malformed-request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::PolicyDenied => "policy-denied",
            Self::TenantSuspended => "tenant-suspended",
            Self::NotFound => "not-found",
            Self::NoSuchRoute => "no-such-route",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::RequestTimeout => "request-timeout",
            Self::AlreadyExists => "already-exists",
            Self::FunctionNotHttp => "function-not-http",
            Self::IdempotencyInFlight => "idempotency-in-flight",
            Self::InvocationFinished => "invocation-finished",
            Self::InvocationUnfinished => "invocation-unfinished",
            Self::PolicyState => "policy-state",
            Self::PreconditionFailed => "precondition-failed",
            Self::BodyTooLarge => "body-too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::InvalidFields => "invalid-fields",
            Self::IdempotencyMismatch => "idempotency-mismatch",
            Self::PolicyRefused => "policy-refused",
            Self::QuotaExceedsTier => "quota-exceeds-tier",
            Self::TooManyRequests => "too-many-requests",
            Self::HeadersTooLarge => "headers-too-large",
            Self::Internal => "internal",
            Self::FunctionFailed => "function-failed",
            Self::FunctionNotReady => "function-not-ready",
            Self::Overloaded => "overloaded",
            Self::PolicyFailed => "policy-failed",
            Self::StoreUnavailable => "store-unavailable",
            Self::ClusterUnavailable => "cluster-unavailable",
            Self::FunctionTimeout => "function-timeout",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of every error answer, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:eventflow:problem:{code}`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The status' standard phrase.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, for programs.
    pub code: ProblemCode,
    /// What went wrong and what to do, for people.
    pub detail: String,
    /// Names this call in the platform's logs.
    pub request_id: String,
    /// Each fault of each field, if fields are at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// The policy that refused or failed, if one did: its binding's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Why the policy refused, for programs; the code is the policy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The limit that was reached, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// What was requested, what the limit is and what would fit, if the quota is in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_serde_agree() {
        for code in ProblemCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
