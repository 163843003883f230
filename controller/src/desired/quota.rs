//! The tenant's ResourceQuota: the API server's own wall behind the admission.
//! It counts no functions: that would cost a swap of the quota per create, and the ledger counts them.

use std::collections::BTreeMap;

use eventflow_api::labels;
use eventflow_api::quantity::{Bytes, MilliCpu};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::tenant_meta;
use crate::validate::ValidTenant;

/// The tenant's quota.
#[must_use]
pub fn desired(tenant: &ValidTenant) -> ResourceQuota {
    let hard = &tenant.hard;
    let entries: BTreeMap<String, Quantity> = [
        ("requests.cpu", MilliCpu::from_millis(hard.cpu_requests).to_string()),
        ("requests.memory", Bytes::from_bytes(hard.memory_requests).to_string()),
        ("limits.cpu", MilliCpu::from_millis(hard.cpu_limits).to_string()),
        ("limits.memory", Bytes::from_bytes(hard.memory_limits).to_string()),
        ("pods", hard.pods.to_string()),
        ("persistentvolumeclaims", hard.pvcs.to_string()),
    ]
    .into_iter()
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .collect();
    ResourceQuota {
        metadata: tenant_meta(tenant, labels::TENANT_QUOTA),
        spec: Some(ResourceQuotaSpec { hard: Some(entries), ..ResourceQuotaSpec::default() }),
        status: None,
    }
}
