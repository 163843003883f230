//! The tenant's namespace, with the Pod Security Standard of its tier.

use eventflow_api::tier::PodSecurity;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{tenant_labels, tenant_owner};
use crate::validate::ValidTenant;

/// Label keys of the Pod Security admission; `warn` and `audit` always name the strictest standard.
pub const POD_SECURITY: [&str; 3] =
    ["pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/warn", "pod-security.kubernetes.io/audit"];

/// The tenant's namespace.
#[must_use]
pub fn desired(tenant: &ValidTenant) -> Namespace {
    let enforced = match tenant.pod_security {
        PodSecurity::Restricted => "restricted",
        PodSecurity::Baseline => "baseline",
    };
    let mut labels = tenant_labels(tenant);
    for (key, standard) in POD_SECURITY.into_iter().zip([enforced, "restricted", "restricted"]) {
        labels.insert(key.to_owned(), standard.to_owned());
    }
    Namespace {
        metadata: ObjectMeta {
            name: Some(tenant.id.namespace()),
            labels: Some(labels),
            owner_references: Some(vec![tenant_owner(tenant)]),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}
