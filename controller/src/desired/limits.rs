//! Defaults for containers in the tenant's namespace that name no requests or limits.

use std::collections::BTreeMap;

use eventflow_api::labels;
use eventflow_api::quantity::{Bytes, MilliCpu};
use eventflow_api::resources::PodResources;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem, LimitRangeSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::tenant_meta;
use crate::validate::ValidTenant;

/// The same defaults as a function's.
#[must_use]
pub fn desired(tenant: &ValidTenant) -> LimitRange {
    let default = PodResources::default();
    let item = LimitRangeItem {
        type_: "Container".to_owned(),
        default: Some(amounts(default.cpu_limit, default.memory_limit)),
        default_request: Some(amounts(default.cpu_request, default.memory_request)),
        ..LimitRangeItem::default()
    };
    LimitRange {
        metadata: tenant_meta(tenant, labels::TENANT_LIMITS),
        spec: Some(LimitRangeSpec { limits: vec![item] }),
    }
}

/// CPU and memory as Kubernetes writes them.
pub(super) fn amounts(cpu: MilliCpu, memory: Bytes) -> BTreeMap<String, Quantity> {
    BTreeMap::from([("cpu".to_owned(), Quantity(cpu.to_string())), ("memory".to_owned(), Quantity(memory.to_string()))])
}
