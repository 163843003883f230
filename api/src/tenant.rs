//! The Tenant: who owns things. Cluster-scoped; its name is the tenant's id.

use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::tier::QuotaOverride;

/// Tier of a tenant that names none.
pub const DEFAULT_TIER: &str = "pro";

/// Whose tenant this is, in the words of the identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct TenantOwner {
    /// The token's issuer.
    pub issuer: String,
    /// The value of the claim that names the tenant.
    pub subject: String,
}

/// Who owns things, and how much they may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::CustomResource, kube::KubeSchema))]
#[cfg_attr(
    feature = "crd",
    kube(
        group = "eventflow.eventflow.io",
        version = "v1alpha1",
        kind = "Tenant",
        plural = "tenants",
        category = "eventflow",
        status = "TenantStatus",
        derive = "PartialEq",
        doc = "Who owns functions. The name is the tenant's id; the namespace is tenant-{id}.",
        validation = kube::core::Rule::new("self.metadata.name.size() <= 56 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
            .message("metadata.name must be a DNS label of at most 56 characters"),
        printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
        printcolumn(name = "Namespace", type_ = "string", json_path = ".status.namespace"),
        printcolumn(
            name = "Ready",
            type_ = "string",
            json_path = ".status.conditions[?(@.type==\"Ready\")].status"
        ),
        printcolumn(
            name = "Reason",
            type_ = "string",
            json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
        ),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )
)]
pub struct TenantSpec {
    /// Name of the tier.
    #[serde(default = "default_tier")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 253)))]
    pub tier: String,
    /// Whose tenant this is; absent for one that an operator made and nobody signed in to yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "crd",
        x_kube(validation = kube::core::Rule::new("self == oldSelf").message("the owner of a tenant never changes"))
    )]
    pub owner: Option<TenantOwner>,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 256)))]
    pub display_name: Option<String>,
    /// Deviations from the tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaOverride>,
    /// Set: its functions are stopped, and new ones are refused.
    #[serde(default)]
    pub suspended: bool,
}

fn default_tier() -> String {
    DEFAULT_TIER.to_owned()
}

/// What became of a tenant. Written by the controller alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct TenantStatus {
    /// The tenant's namespace, once it exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The generation of the spec this speaks of.
    pub observed_generation: i64,
    /// What is true of the tenant, and why.
    #[cfg_attr(
        feature = "crd",
        schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))
    )]
    pub conditions: Vec<Condition>,
}
