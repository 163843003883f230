//! What a tenant's invocations may use, from the watch caches of tenants and tiers.

use eventflow_api::names::TenantId;
use eventflow_api::tenant::DEFAULT_TIER;

use super::Cluster;

/// What a tenant's invocations may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// None at all.
    pub suspended: bool,
    /// How many at once.
    pub concurrent_invocations: usize,
    /// Longest body of a request, in bytes.
    pub max_request_bytes: u64,
    /// Longest time-out, in seconds.
    pub max_timeout_seconds: u32,
}

/// While the tier is not known: little, and not nothing.
const UNKNOWN_TIER: Allowance =
    Allowance { suspended: false, concurrent_invocations: 10, max_request_bytes: 1 << 20, max_timeout_seconds: 60 };

impl Cluster {
    /// What the tenant's invocations may use.
    #[must_use]
    pub fn allowance(&self, tenant: &TenantId) -> Allowance {
        let tenant = self.tenant(tenant);
        let suspended = tenant.as_ref().is_some_and(|tenant| tenant.spec.suspended);
        let tier = self.tier(tenant.as_ref().map_or(DEFAULT_TIER, |tenant| &tenant.spec.tier));
        match tier {
            None => Allowance { suspended, ..UNKNOWN_TIER },
            Some(tier) => Allowance {
                suspended,
                concurrent_invocations: tier.spec.concurrent_invocations as usize,
                max_request_bytes: tier.spec.max_request_bytes,
                max_timeout_seconds: tier.spec.max_timeout_seconds,
            },
        }
    }
}
