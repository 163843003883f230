//! How many invocations may be under way: of each tenant, as its tier says, and in this gateway. Who is over is refused
//! at once; nobody queues.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use eventflow_api::names::TenantId;

use super::ForwardError;
use super::metrics::{InvocationMetrics, Outcome};

/// The places of this gateway.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
    metrics: InvocationMetrics,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_tenant: HashMap<TenantId, usize>,
}

impl Places {
    pub(super) fn new(most: usize, metrics: InvocationMetrics) -> Self {
        Self { most, taken: Mutex::default(), metrics }
    }

    /// Takes a place for an invocation of the tenant, which may have `limit` of them.
    pub(super) fn enter(self: &Arc<Self>, tenant: &TenantId, limit: usize) -> Result<Ticket, ForwardError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = if taken.by_tenant.get(tenant).is_some_and(|own| *own >= limit) {
            Some(ForwardError::TenantBusy { limit })
        } else if taken.all >= self.most {
            Some(ForwardError::GatewayBusy)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.metrics.count(Outcome::Refused);
            return Err(refusal);
        }
        taken.all += 1;
        match taken.by_tenant.get_mut(tenant) {
            Some(own) => *own += 1,
            None => drop(taken.by_tenant.insert(tenant.clone(), 1)),
        }
        self.metrics.under_way.inc();
        let (places, tenant) = (Arc::clone(self), tenant.clone());
        Ok(Ticket { places, tenant, started: Instant::now(), outcome: Outcome::Left })
    }

    fn leave(&self, tenant: &TenantId) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(own) = taken.by_tenant.get_mut(tenant) {
            *own -= 1;
            if *own == 0 {
                taken.by_tenant.remove(tenant);
            }
        }
    }
}

/// One invocation's place. Given back, and the invocation counted, when this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    places: Arc<Places>,
    tenant: TenantId,
    started: Instant,
    /// How it will be counted.
    pub(super) outcome: Outcome,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.places.leave(&self.tenant);
        self.places.metrics.under_way.dec();
        self.places.metrics.count(self.outcome);
        self.places.metrics.duration.observe(self.started.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_tenant_and_in_all() {
        let places = Arc::new(Places::new(3, InvocationMetrics::default()));
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let first = places.enter(&a, 2).unwrap();
        let _second = places.enter(&a, 2).unwrap();
        assert!(matches!(places.enter(&a, 2), Err(ForwardError::TenantBusy { limit: 2 })));
        let _third = places.enter(&b, 2).unwrap();
        assert!(matches!(places.enter(&b, 2), Err(ForwardError::GatewayBusy)));
        drop(first);
        drop(places.enter(&b, 2).unwrap());
        let taken = places.taken.lock().unwrap();
        assert_eq!((taken.all, taken.by_tenant[&a], taken.by_tenant[&b]), (2, 1, 1));
    }

    #[test]
    fn a_tenant_without_invocations_is_forgotten() {
        let places = Arc::new(Places::new(3, InvocationMetrics::default()));
        drop(places.enter(&"a".parse().unwrap(), 1).unwrap());
        assert!(places.taken.lock().unwrap().by_tenant.is_empty());
    }
}
