//! What functions wrote, from all of their pods: once, or for as long as somebody reads. A reader that is too slow
//! loses the oldest lines of its own feed and is told how many; it holds up nobody.

use eventflow_api::names::{FunctionName, TenantId};
use uuid::Uuid;

/// What a caller asks for.
pub mod request;
/// One line.
pub mod line;
/// Lines on their way to one reader.
pub mod feed;
/// The lines of one pod.
mod source;
/// The lines of all pods.
mod gather;

pub use gather::{Gathered, gather};

/// Whose logs.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The tenant.
    pub tenant: TenantId,
    /// Of what.
    pub of: Writer,
}

/// What writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writer {
    /// All pods of a function.
    Function(FunctionName),
    /// The pods of a run, one after the other.
    Run(Uuid),
}

/// Why there are no logs. The text is for the caller.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The tenant has no function of that name.
    #[error("There is no such function.")]
    NoFunction,
    /// The function has no pod of that name, or the pod no such container.
    #[error("The function has no pod of that name, or the pod has no container of that name.")]
    NoPod,
    /// The cluster does not say.
    #[error("The cluster cannot be reached. Try again.")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}
