//! How many invocations may be under way: of each tenant, as its tier says, and in this gateway. Who is over is refused
//! at once; nobody queues. What a policy ranks low is refused first, while there is still room for the rest. What ends,
//! or is refused, is counted here, for the metrics and for the tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eventflow_api::names::{FunctionName, TenantId};

use super::ForwardError;
use super::metrics::{InvocationMetrics, Outcome};
use crate::metering::{Call, Meter};
use crate::policy::PRIORITY;

/// The places of this gateway.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
    metrics: InvocationMetrics,
    meter: Arc<Meter>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_tenant: HashMap<TenantId, usize>,
}

impl Places {
    pub(super) fn new(most: usize, metrics: InvocationMetrics, meter: Arc<Meter>) -> Self {
        Self { most, taken: Mutex::default(), metrics, meter }
    }

    /// Takes a place for an invocation of the tenant's function; the tenant may have `limit` of them.
    pub(super) fn enter(
        self: &Arc<Self>,
        (tenant, function): (&TenantId, &FunctionName),
        limit: usize,
        priority: u8,
    ) -> Result<Ticket, ForwardError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = if taken.by_tenant.get(tenant).is_some_and(|own| *own >= limit) {
            Some(ForwardError::TenantBusy { limit })
        } else if taken.all >= self.open_to(priority) {
            Some(ForwardError::GatewayBusy)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            drop(taken);
            self.metrics.count(Outcome::Refused);
            let call = Call { outcome: Outcome::Refused.as_str(), time: Duration::ZERO, bytes_out: 0 };
            self.meter.count(tenant, function, call);
            return Err(refusal);
        }
        taken.all += 1;
        match taken.by_tenant.get_mut(tenant) {
            Some(own) => *own += 1,
            None => drop(taken.by_tenant.insert(tenant.clone(), 1)),
        }
        self.metrics.under_way.inc();
        let (places, tenant, function) = (Arc::clone(self), tenant.clone(), function.clone());
        Ok(Ticket { places, tenant, function, started: Instant::now(), outcome: Outcome::Left, bytes_out: 0 })
    }

    /// How many places calls of this priority may fill: half of them at 0, all of them from the usual priority on.
    fn open_to(&self, priority: u8) -> usize {
        let usual = usize::from(PRIORITY);
        let share = usize::from(priority).min(usual) + usual;
        self.most.saturating_mul(share).div_ceil(2 * usual)
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
    function: FunctionName,
    started: Instant,
    /// How it will be counted.
    pub(super) outcome: Outcome,
    /// Bytes of the answer so far.
    pub(super) bytes_out: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.places.leave(&self.tenant);
        self.places.metrics.under_way.dec();
        self.places.metrics.count(self.outcome);
        let time = self.started.elapsed();
        self.places.metrics.duration.observe(time.as_secs_f64());
        let call = Call { outcome: self.outcome.as_str(), time, bytes_out: self.bytes_out };
        self.places.meter.count(&self.tenant, &self.function, call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_tenant_and_in_all() {
        let places = Arc::new(Places::new(3, InvocationMetrics::default(), Arc::default()));
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let f = "f".parse().unwrap();
        let first = places.enter((&a, &f), 2, PRIORITY).unwrap();
        let _second = places.enter((&a, &f), 2, PRIORITY).unwrap();
        assert!(matches!(places.enter((&a, &f), 2, PRIORITY), Err(ForwardError::TenantBusy { limit: 2 })));
        let _third = places.enter((&b, &f), 2, PRIORITY).unwrap();
        assert!(matches!(places.enter((&b, &f), 2, PRIORITY), Err(ForwardError::GatewayBusy)));
        drop(first);
        drop(places.enter((&b, &f), 2, PRIORITY).unwrap());
        let taken = places.taken.lock().unwrap();
        assert_eq!((taken.all, taken.by_tenant[&a], taken.by_tenant[&b]), (2, 1, 1));
    }

    #[test]
    fn a_tenant_without_invocations_is_forgotten() {
        let places = Arc::new(Places::new(3, InvocationMetrics::default(), Arc::default()));
        drop(places.enter((&"a".parse().unwrap(), &"f".parse().unwrap()), 1, PRIORITY).unwrap());
        assert!(places.taken.lock().unwrap().by_tenant.is_empty());
    }

    #[test]
    fn the_last_are_refused_first() {
        let places = Arc::new(Places::new(4, InvocationMetrics::default(), Arc::default()));
        let (tenant, f): (TenantId, FunctionName) = ("a".parse().unwrap(), "f".parse().unwrap());
        let held: Vec<_> = (0..2).map(|_| places.enter((&tenant, &f), 9, 0).unwrap()).collect();
        assert!(matches!(places.enter((&tenant, &f), 9, 0), Err(ForwardError::GatewayBusy)));
        let more: Vec<_> = (0..2).map(|_| places.enter((&tenant, &f), 9, PRIORITY).unwrap()).collect();
        assert!(matches!(places.enter((&tenant, &f), 9, 9), Err(ForwardError::GatewayBusy)));
        drop((held, more));
        drop(places.enter((&tenant, &f), 9, 0).unwrap());
    }
}
