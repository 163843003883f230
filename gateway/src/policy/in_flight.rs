//! Invocations of each tenant that this replica carries now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use eventflow_api::names::TenantId;

/// Counts by tenant; tenants without any take no room.
#[derive(Debug, Default, Clone)]
pub(super) struct Crowd(Arc<Mutex<HashMap<TenantId, u32>>>);

impl Crowd {
    pub(super) fn enter(&self, tenant: &TenantId) -> InFlight {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(tenant.clone()).or_insert(0);
        *count += 1;
        InFlight { crowd: self.clone(), tenant: tenant.clone() }
    }

    pub(super) fn count(&self, tenant: &TenantId) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).copied().unwrap_or(0)
    }

    fn leave(&self, tenant: &TenantId) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                counts.remove(tenant);
            }
        }
    }
}

/// An invocation under way.
#[derive(Debug)]
pub struct InFlight {
    crowd: Crowd,
    tenant: TenantId,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.crowd.leave(&self.tenant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_is_not_counted() {
        let (crowd, tenant) = (Crowd::default(), "a".parse().unwrap());
        let first = crowd.enter(&tenant);
        let second = crowd.enter(&tenant);
        assert_eq!(crowd.count(&tenant), 2);
        drop(first);
        assert_eq!(crowd.count(&tenant), 1);
        drop(second);
        assert!(crowd.0.lock().unwrap().is_empty());
    }
}
