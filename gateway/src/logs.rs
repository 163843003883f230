//! What functions wrote, from all of their pods: once, or for as long as somebody reads. A reader that is too slow
//! loses the oldest lines of its own feed and is told how many; it holds up nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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

/// Most streams of logs of one tenant at once.
pub const STREAMS_OF_TENANT_MAX: usize = 20;
/// Most streams of logs at once.
const STREAMS_MAX: usize = 500;

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
    /// The tenant has as many streams open as it may.
    #[error("The tenant has {STREAMS_OF_TENANT_MAX} log streams open, the most there may be. Close one first.")]
    TenantBusy,
    /// The gateway has as many streams open as it takes.
    #[error("The gateway has as many log streams open as it takes. Try again in a moment.")]
    GatewayBusy,
    /// The cluster does not say.
    #[error("The cluster cannot be reached. Try again.")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The streams that are open.
#[derive(Debug, Default)]
pub struct Streams(Mutex<HashMap<TenantId, usize>>);

impl Streams {
    /// Takes a place for a stream of the tenant.
    ///
    /// # Errors
    /// [`LogError::TenantBusy`] and [`LogError::GatewayBusy`].
    pub fn open(self: &Arc<Self>, tenant: &TenantId) -> Result<OpenStream, LogError> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(tenant).is_some_and(|own| *own >= STREAMS_OF_TENANT_MAX) {
            return Err(LogError::TenantBusy);
        }
        if open.values().sum::<usize>() >= STREAMS_MAX {
            return Err(LogError::GatewayBusy);
        }
        *open.entry(tenant.clone()).or_default() += 1;
        Ok(OpenStream { streams: Arc::clone(self), tenant: tenant.clone() })
    }
}

/// One open stream; its place is free once this is dropped.
#[derive(Debug)]
pub struct OpenStream {
    streams: Arc<Streams>,
    tenant: TenantId,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_its_own_streams() {
        let streams = Arc::new(Streams::default());
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let open: Vec<_> = (0..STREAMS_OF_TENANT_MAX).map(|_| streams.open(&a).unwrap()).collect();
        assert!(matches!(streams.open(&a), Err(LogError::TenantBusy)));
        assert!(streams.open(&b).is_ok());
        drop(open);
        assert!(streams.open(&a).is_ok());
        assert!(streams.0.lock().unwrap().is_empty());
    }
}
