//! Why a call was not answered as hoped.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use hyper_util::client::legacy;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::url::BaseUrl;

/// What the platform says is wrong, read with leniency: a newer platform may say more.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Problem {
    /// What went wrong, for programs.
    pub code: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What went wrong and what to do, for people.
    #[serde(default)]
    pub detail: String,
    /// Names this call in the platform's logs.
    #[serde(default)]
    pub request_id: String,
    /// Each fault of each field.
    #[serde(default)]
    pub violations: Vec<Violation>,
    /// Seconds after which to try again.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
    /// What else it says.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// One fault of one field.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Violation {
    /// Which field.
    pub field: String,
    /// What is wrong with it.
    #[serde(default)]
    pub message: String,
}

/// Why a call was not answered as hoped.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers there.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable {
        /// Where.
        url: BaseUrl,
        /// Why.
        reason: String,
    },
    /// The connection broke under way.
    #[error("{url} broke off: {reason}")]
    Broken {
        /// Where.
        url: BaseUrl,
        /// Why.
        reason: String,
    },
    /// The deadline passed.
    #[error("{url} gave no answer within {}", humantime::format_duration(*after))]
    TooLate {
        /// Where.
        url: BaseUrl,
        /// The deadline.
        after: Duration,
    },
    /// The platform says no.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// Something else answers there.
    #[error("{url} answers {status}, and not as EventFlow does")]
    Foreign {
        /// Where.
        url: BaseUrl,
        /// With what.
        status: StatusCode,
    },
    /// An answer that this program does not understand.
    #[error("the answer cannot be understood: {0}")]
    Unreadable(String),
    /// The certificates to trust cannot be had.
    #[error("{path} has no certificates to trust: {reason}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It could not even be written down.
    #[error("the call cannot be made: {0}")]
    Unsendable(String),
}

impl CallError {
    pub(super) fn of(error: &legacy::Error, url: &BaseUrl) -> Self {
        let (url, reason) = (url.clone(), root(error));
        if error.is_connect() { Self::Unreachable { url, reason } } else { Self::Broken { url, reason } }
    }

    /// What an answer of this status says.
    pub(super) fn refused(url: &BaseUrl, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let is_problem = headers.get(CONTENT_TYPE).is_some_and(|value| {
            value.to_str().is_ok_and(|value| value.split(';').next() == Some("application/problem+json"))
        });
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) if is_problem => {
                let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                let retry_after = seconds.map(Duration::from_secs);
                Self::Refused(Box::new(Problem { status: status.as_u16(), retry_after, ..problem }))
            }
            _ => Self::Foreign { url: url.clone(), status },
        }
    }

    /// Whether it may be otherwise in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Refused(problem) => {
                problem.code == "idempotency-in-flight" || matches!(problem.status, 408 | 429 | 502..=504)
            }
            Self::Foreign { status, .. } => matches!(status.as_u16(), 502..=504),
            Self::TooLate { .. } | Self::Unreadable(_) | Self::Certificates { .. } | Self::Unsendable(_) => false,
        }
    }

    /// How long the platform asks to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(problem) => problem.retry_after,
            _ => None,
        }
    }

    /// Whether it says that there is no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.code == "not-found")
    }
}

/// The cause behind all causes, which is what a person can act on.
fn root(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
