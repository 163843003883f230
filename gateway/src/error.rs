//! The only map from a failure to a status. Whatever goes wrong anywhere becomes an `ApiError` here: a closed code
//! (the metric's label), a sentence for the caller, and a private reason that only the log hears.

use std::error::Error;
use std::fmt::Write;

use eventflow_api::admission::Admission;
use eventflow_api::problem::{Problem, ProblemCode};
use eventflow_api::violation::Violation;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use policy_engine::set::RateState;
use policy_engine::types::Denial;

use crate::auth::AuthError;
use crate::cluster::{ClusterError, ObjectError};
use crate::forward::ForwardError;
use crate::logs::LogError;
use crate::routes::Body;
use crate::server::Fault;
use crate::store::StoreError;
use crate::streams::Full;

/// Seconds after which a caller may try again when something of ours is away.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Names the problem's code on every answer that is ours and no function's.
pub const EVENTFLOW_ERROR: HeaderName = HeaderName::from_static("x-eventflow-error");

/// Why a call was not answered as hoped.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    code: ProblemCode,
    detail: String,
    violations: Vec<Violation>,
    admission: Option<Box<Admission>>,
    reason: Option<String>,
    allow: Option<String>,
    policy: Option<Box<PolicyWord>>,
}

/// What a policy had to do with it.
#[derive(Debug, Clone, PartialEq)]
struct PolicyWord {
    binding: String,
    /// The policy's own code, and the status that it chose.
    denied: Option<(String, StatusCode)>,
    /// The limit that was reached.
    rate: Option<RateState>,
    retry_after_seconds: Option<u32>,
}

impl ApiError {
    /// A failure with a sentence that says what to do.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            violations: Vec::new(),
            admission: None,
            reason: None,
            allow: None,
            policy: None,
        }
    }

    /// Fields are at fault; each fault is listed.
    #[must_use]
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let detail = match violations.as_slice() {
            [one] => format!("The field {:?} {}.", one.field, one.message),
            many => format!("{} fields are at fault; see violations.", many.len()),
        };
        Self { violations, ..Self::new(ProblemCode::InvalidFields, detail) }
    }

    /// A module or its settings are refused; everything wrong with them is listed.
    #[must_use]
    pub fn refused(violations: Vec<Violation>) -> Self {
        let detail = match violations.as_slice() {
            [one] => format!("The module was refused: {}.", one.message),
            many => format!("The module was refused for {} reasons; see violations.", many.len()),
        };
        Self { violations, ..Self::new(ProblemCode::PolicyRefused, detail) }
    }

    /// It can never fit the tenant's quota; `why` says so in words, `admission` in numbers.
    #[must_use]
    pub fn exceeds(why: &str, admission: Admission) -> Self {
        let detail = format!("The function {why}. Nothing was changed.");
        Self { admission: Some(Box::new(admission)), ..Self::new(ProblemCode::QuotaExceedsTier, detail) }
    }

    /// The request cannot be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::MalformedRequest, detail)
    }

    /// A fault of ours; the caller learns nothing but that.
    pub fn internal(reason: impl Into<String>) -> Self {
        let detail = "The platform failed. Try again; if it happens again, report the request_id.";
        Self::new(ProblemCode::Internal, detail).because(reason)
    }

    /// No such route of the API.
    #[must_use]
    pub fn no_such_route() -> Self {
        Self::new(
            ProblemCode::NoSuchRoute,
            "There is no such route. Paths are case-sensitive and have no trailing slash.",
        )
    }

    /// The path exists, with other methods.
    #[must_use]
    pub fn method_not_allowed(allow: String) -> Self {
        let detail = format!("This path allows {allow} only.");
        Self { allow: Some(allow), ..Self::new(ProblemCode::MethodNotAllowed, detail) }
    }

    /// A policy said no; the words are its own, and said to be.
    #[must_use]
    pub fn denied(binding: &str, denial: &Denial) -> Self {
        let detail = format!("The policy {binding} refuses this: {}", denial.message);
        let status = StatusCode::from_u16(denial.status).ok().filter(StatusCode::is_client_error);
        Self::new(ProblemCode::PolicyDenied, detail).by_policy(PolicyWord {
            binding: binding.to_owned(),
            denied: Some((denial.code.clone(), status.unwrap_or(StatusCode::FORBIDDEN))),
            rate: None,
            retry_after_seconds: denial.retry_after_ms.map(|ms| ms.div_ceil(1000)),
        })
    }

    /// A counter has no room.
    #[must_use]
    pub fn rate_limited(binding: &str, rate: &RateState) -> Self {
        let detail = match rate.retry_after_ms {
            u32::MAX => format!("This call costs more than the limit {:?} ever has room for.", rate.name),
            ms => format!("The limit {:?} is reached. Try again in {} s.", rate.name, ms.div_ceil(1000).max(1)),
        };
        Self::new(ProblemCode::TooManyRequests, detail).by_policy(PolicyWord {
            binding: binding.to_owned(),
            denied: None,
            rate: Some(rate.clone()),
            retry_after_seconds: Some(rate.retry_after_ms.div_ceil(1000).max(1)),
        })
    }

    /// A policy failed, and its binding says that this refuses. What it did is for the log.
    #[must_use]
    pub fn policy_failed(binding: &str, reason: impl Into<String>) -> Self {
        let detail =
            format!("The policy {binding} failed, so nothing can be let through. Try again, or ask an operator.");
        let word = PolicyWord { binding: binding.to_owned(), denied: None, rate: None, retry_after_seconds: None };
        Self::new(ProblemCode::PolicyFailed, detail).because(reason).by_policy(word)
    }

    fn by_policy(mut self, word: PolicyWord) -> Self {
        self.policy = Some(Box::new(word));
        self
    }

    /// The sentence for the caller.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Adds what only the log may hear.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// What went wrong, for programs.
    #[must_use]
    pub fn code(&self) -> ProblemCode {
        self.code
    }

    /// What went wrong, for the log alone.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        let chosen = self.policy.as_ref().and_then(|word| word.denied.as_ref()).map(|(_, status)| *status);
        chosen.unwrap_or_else(|| status(self.code))
    }

    /// The answer, as a problem document.
    #[must_use]
    pub fn response(&self, request_id: &str) -> Response<Body> {
        let status = self.status();
        let problem = Problem {
            type_: format!("urn:eventflow:problem:{}", self.code),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            code: self.code,
            detail: self.detail.clone(),
            request_id: request_id.to_owned(),
            violations: self.violations.clone(),
            policy: self.policy.as_ref().map(|word| word.binding.clone()),
            reason: self.policy.as_ref().and_then(|word| word.denied.as_ref()).map(|(code, _)| code.clone()),
            limit: self.policy.as_ref().and_then(|word| word.rate.as_ref()).map(|rate| rate.name.clone()),
            admission: self.admission.as_deref().cloned(),
        };
        // A problem is made of texts and numbers alone; writing it cannot fail.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(crate::routes::full(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(EVENTFLOW_ERROR, HeaderValue::from_static(self.code.as_str()));
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
            }
            _ => {}
        }
        if let Some(seconds) = self.policy.as_ref().and_then(|word| word.retry_after_seconds) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(rate) = self.policy.as_ref().and_then(|word| word.rate.as_ref()) {
            crate::policy::write_rates(std::slice::from_ref(rate), headers);
        }
        if let Some(allow) = self.allow.as_ref().and_then(|a| HeaderValue::from_str(a).ok()) {
            headers.insert(ALLOW, allow);
        }
        response
    }
}

/// The status that each code stands for.
fn status(code: ProblemCode) -> StatusCode {
    use ProblemCode as P;
    match code {
        P::MalformedRequest => StatusCode::BAD_REQUEST,
        P::Unauthenticated => StatusCode::UNAUTHORIZED,
        P::Forbidden | P::PolicyDenied | P::TenantSuspended => StatusCode::FORBIDDEN,
        P::NotFound | P::NoSuchRoute => StatusCode::NOT_FOUND,
        P::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        P::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        P::AlreadyExists
        | P::IdempotencyInFlight
        | P::FunctionNotHttp
        | P::PolicyState
        | P::InvocationFinished
        | P::InvocationUnfinished => StatusCode::CONFLICT,
        P::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        P::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        P::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        P::InvalidFields | P::IdempotencyMismatch | P::PolicyRefused | P::QuotaExceedsTier => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        P::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        P::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        P::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        P::FunctionFailed => StatusCode::BAD_GATEWAY,
        P::Overloaded | P::PolicyFailed | P::StoreUnavailable | P::ClusterUnavailable | P::FunctionNotReady => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        P::Timeout | P::FunctionTimeout => StatusCode::GATEWAY_TIMEOUT,
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::HeadTooLarge => {
                let detail = "The head of the request is too large. Send fewer or shorter header fields.";
                Self::new(ProblemCode::HeadersTooLarge, detail)
            }
            Fault::Malformed(what) => Self::malformed(format!("The request is not well-formed HTTP: {what}.")),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (code, detail) = match &error {
            StoreError::Unavailable(_) | StoreError::Timeout(_) => (
                ProblemCode::StoreUnavailable,
                "The store cannot be reached. Try again; send an Idempotency-Key to repeat a write safely.",
            ),
            StoreError::AlreadyExists => {
                (ProblemCode::AlreadyExists, "The name is taken. Choose another name, or change the existing one.")
            }
            StoreError::NotFound => (ProblemCode::NotFound, "There is no such thing."),
            StoreError::StaleGeneration => (
                ProblemCode::PreconditionFailed,
                "It was changed meanwhile. Read it again and repeat with the new ETag.",
            ),
            StoreError::IdempotencyMismatch => (
                ProblemCode::IdempotencyMismatch,
                "This Idempotency-Key was used for another request. Use a new key for each new request.",
            ),
            StoreError::IdempotencyInFlight => (
                ProblemCode::IdempotencyInFlight,
                "A request with this Idempotency-Key is under way. Repeat it in a moment to get its answer.",
            ),
            StoreError::BadCursor => (
                ProblemCode::MalformedRequest,
                "The cursor does not belong to this query. Leave it out to start from the first page.",
            ),
            StoreError::WrongState(why) => {
                return Self::new(ProblemCode::PolicyState, format!("This cannot be done now: {why}."));
            }
            StoreError::Over => {
                (ProblemCode::InvocationFinished, "The run is over. Read it to see how it ended, or retry it.")
            }
            StoreError::TooMany { limit, most } => {
                let detail = format!("The limit {limit:?} is reached: at most {most} at once. Wait for some to end.");
                return Self::new(ProblemCode::TooManyRequests, detail);
            }
            StoreError::Internal(_) => return Self::internal(chain(&error)),
        };
        Self::new(code, detail).because(chain(&error))
    }
}

impl From<ClusterError> for ApiError {
    fn from(error: ClusterError) -> Self {
        let (code, detail) = match &error {
            ClusterError::Unavailable(_) => {
                (ProblemCode::ClusterUnavailable, "The cluster cannot be reached. Try again.")
            }
            ClusterError::TenantConflict => {
                (ProblemCode::Forbidden, "A tenant of this id belongs to another owner. Ask an operator to settle it.")
            }
            ClusterError::TenantTerminating => (ProblemCode::TenantSuspended, "The tenant is being deleted."),
        };
        Self::new(code, detail).because(chain(&error))
    }
}

impl From<ObjectError> for ApiError {
    fn from(error: ObjectError) -> Self {
        let (code, detail) = match &error {
            ObjectError::Unavailable(_) => (
                ProblemCode::ClusterUnavailable,
                "The cluster cannot be reached. Read it again to see whether the change was made.",
            ),
            ObjectError::Conflict => (
                ProblemCode::PreconditionFailed,
                "It was changed meanwhile. Read it again and repeat with the new ETag.",
            ),
            ObjectError::Exists => {
                (ProblemCode::AlreadyExists, "The name is taken. Choose another name, or change the existing one.")
            }
            ObjectError::Missing => (ProblemCode::NotFound, "There is no such thing."),
            ObjectError::Refused(_) => return Self::internal(chain(&error)),
        };
        Self::new(code, detail).because(chain(&error))
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            // One sentence for every fault of a token, so that nobody learns which check it failed.
            AuthError::Missing | AuthError::Rejected(_) => {
                let detail = "A valid bearer token is required: send it as Authorization: Bearer <token>.";
                Self::new(ProblemCode::Unauthenticated, detail).because(error.to_string())
            }
            AuthError::UnknownTenant => {
                Self::new(ProblemCode::Forbidden, "The tenant is not set up here. Ask an operator to create it.")
            }
            AuthError::NotAnOperator => Self::new(
                ProblemCode::Forbidden,
                "This is for operators of the platform: none of your roles is `operator`.",
            ),
            AuthError::Store(error) => error.into(),
            AuthError::Cluster(error) => error.into(),
        }
    }
}

impl From<ForwardError> for ApiError {
    fn from(error: ForwardError) -> Self {
        use ForwardError as F;
        let code = match &error {
            F::NotFound => ProblemCode::NotFound,
            F::NotHttp => ProblemCode::FunctionNotHttp,
            F::TenantSuspended => ProblemCode::TenantSuspended,
            F::NotReady(_) => ProblemCode::FunctionNotReady,
            F::TenantBusy { .. } => ProblemCode::TooManyRequests,
            F::GatewayBusy => ProblemCode::Overloaded,
            F::BodyTooLarge { .. } => ProblemCode::BodyTooLarge,
            F::CallerSilent { .. } => ProblemCode::RequestTimeout,
            F::CallerBroke => ProblemCode::MalformedRequest,
            F::Unreachable(_) | F::Broke(_) => ProblemCode::FunctionFailed,
            F::Silent { .. } => ProblemCode::FunctionTimeout,
            F::Headers(_) => return Self::internal(chain(&error)),
        };
        let failure = Self::new(code, error.to_string());
        match std::error::Error::source(&error) {
            Some(source) => failure.because(chain(source)),
            None => failure,
        }
    }
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        let code = match full {
            Full::OfTenant => ProblemCode::TooManyRequests,
            Full::OfGateway => ProblemCode::Overloaded,
        };
        Self::new(code, full.to_string())
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        let code = match &error {
            LogError::NoFunction | LogError::NoPod => ProblemCode::NotFound,
            LogError::Unavailable(_) => ProblemCode::ClusterUnavailable,
        };
        let failure = Self::new(code, error.to_string());
        match std::error::Error::source(&error) {
            Some(source) => failure.because(chain(source)),
            None => failure,
        }
    }
}

/// The error and all its sources, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_of_failure() {
        for code in ProblemCode::ALL {
            assert!(status(code).is_client_error() || status(code).is_server_error(), "{code}");
        }
    }

    #[test]
    fn all_faults_of_a_token_look_alike() {
        let missing = ApiError::from(AuthError::Missing).response("r");
        let rejected = ApiError::from(AuthError::Rejected("expired".into())).response("r");
        assert_eq!(missing.headers(), rejected.headers());
        assert_eq!(missing.status(), rejected.status());
        assert_eq!(missing.headers()[WWW_AUTHENTICATE], "Bearer");
    }

    #[test]
    fn an_internal_failure_says_nothing_of_its_cause() {
        let error = ApiError::from(StoreError::Internal("relation \"functions\" does not exist".into()));
        assert!(!error.detail.contains("relation"));
        assert!(error.reason().is_some_and(|r| r.contains("relation")));
    }
}
