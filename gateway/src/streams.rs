//! How many streams a tenant may hold open, and all tenants together. Streams live for hours and take no place from
//! calls, so that they need a bound of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use eventflow_api::names::TenantId;

/// Most streams of one kind and tenant at once.
pub const STREAMS_OF_TENANT_MAX: usize = 20;
/// Most streams of one kind at once.
const STREAMS_MAX: usize = 500;

/// Why there is no place for one more. The text is for the caller.
#[derive(Debug, thiserror::Error)]
pub enum Full {
    /// The tenant has as many streams open as it may.
    #[error("The tenant has {STREAMS_OF_TENANT_MAX} such streams open, the most there may be. Close one first.")]
    OfTenant,
    /// The gateway has as many streams open as it takes.
    #[error("The gateway has as many such streams open as it takes. Try again in a moment.")]
    OfGateway,
}

/// The streams of one kind that are open.
#[derive(Debug, Default)]
pub struct Streams(Mutex<HashMap<TenantId, usize>>);

impl Streams {
    /// Takes a place for a stream of the tenant.
    ///
    /// # Errors
    /// See [`Full`].
    pub fn open(self: &Arc<Self>, tenant: &TenantId) -> Result<OpenStream, Full> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(tenant).is_some_and(|own| *own >= STREAMS_OF_TENANT_MAX) {
            return Err(Full::OfTenant);
        }
        if open.values().sum::<usize>() >= STREAMS_MAX {
            return Err(Full::OfGateway);
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
        assert!(matches!(streams.open(&a), Err(Full::OfTenant)));
        assert!(streams.open(&b).is_ok());
        drop(open);
        assert!(streams.open(&a).is_ok());
        assert!(streams.0.lock().unwrap().is_empty());
    }
}
