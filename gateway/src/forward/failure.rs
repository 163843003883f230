//! Why a call was not answered by the function, in words for its caller, and how that is counted. Which status that is, is
//! decided elsewhere.

use super::metrics::Outcome;
use super::pods::ConnectError;
use crate::routes::BoxError;

/// Why a call was not answered by the function. The text is for the caller.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The tenant has no function of that name.
    #[error("There is no such function.")]
    NotFound,
    /// It serves no HTTP.
    #[error("The function has no port, so it serves no HTTP. Set \"port\" to the one its program listens on.")]
    NotHttp,
    /// Its tenant is stopped.
    #[error("The tenant is suspended. Ask an operator why.")]
    TenantSuspended,
    /// No pod of it is ready; why.
    #[error("No pod of the function is ready: {0}")]
    NotReady(String),
    /// The tenant's calls under way are as many as its tier allows.
    #[error(
        "The tenant has {limit} invocations under way, the most that its tier allows (concurrentInvocations). Try again when one ends."
    )]
    TenantBusy {
        /// As many as allowed.
        limit: usize,
    },
    /// All calls under way are as many as this gateway takes.
    #[error("The gateway has as many invocations under way as it takes. Try again in a moment.")]
    GatewayBusy,
    /// The caller's body is too long.
    #[error("The body is larger than {limit} bytes, the most that the tenant's tier allows (maxRequestBytes).")]
    BodyTooLarge {
        /// The longest allowed.
        limit: u64,
    },
    /// The caller stopped sending its body.
    #[error("Nothing of the body came for {seconds} s. Send it again, faster.")]
    CallerSilent {
        /// For how long.
        seconds: f64,
    },
    /// The caller's body broke off.
    #[error("The body ended early.")]
    CallerBroke,
    /// No pod took a connection.
    #[error("No pod of the function takes a connection on its port; does its program listen there, on all addresses?")]
    Unreachable(#[source] Box<ConnectError>),
    /// The pod broke off, or answered what is no HTTP.
    #[error("The function closed the connection before its answer was complete, or its answer is no HTTP.")]
    Broke(#[source] BoxError),
    /// The function was silent for as long as its time-out.
    #[error("The function said nothing for {seconds} s, its time-out (timeoutSeconds, or what a policy makes of it).")]
    Silent {
        /// For how long.
        seconds: f64,
    },
    /// A field of ours cannot be written.
    #[error("the request to the pod cannot be written")]
    Headers(#[source] BoxError),
}

impl ForwardError {
    /// How it is counted.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::NotReady(_) => Outcome::NotReady,
            Self::TenantBusy { .. } | Self::GatewayBusy | Self::TenantSuspended => Outcome::Refused,
            Self::Unreachable(_) | Self::Broke(_) => Outcome::FunctionFailed,
            Self::Silent { .. } => Outcome::FunctionTimeout,
            Self::NotFound
            | Self::NotHttp
            | Self::BodyTooLarge { .. }
            | Self::CallerSilent { .. }
            | Self::CallerBroke
            | Self::Headers(_) => Outcome::CallerFault,
        }
    }
}
