//! The Tier: how much a tenant may use, and how freely. Cluster-scoped, edited by operators.

use serde::{Deserialize, Serialize};

/// What is counted against a tenant. Every field is a hard limit; absent in an override means "as the tier says".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct QuotaOverride {
    /// Sum of the CPU requests of all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_requests: Option<String>,
    /// Sum of the memory requests of all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_requests: Option<String>,
    /// Sum of the CPU limits of all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limits: Option<String>,
    /// Sum of the memory limits of all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limits: Option<String>,
    /// Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<u32>,
    /// Persistent volume claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claims: Option<u32>,
    /// Functions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<u32>,
}

/// Hard limits of a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Quota {
    /// Sum of the CPU requests of all pods, such as `10`.
    pub cpu_requests: String,
    /// Sum of the memory requests of all pods, such as `20Gi`.
    pub memory_requests: String,
    /// Sum of the CPU limits of all pods.
    pub cpu_limits: String,
    /// Sum of the memory limits of all pods.
    pub memory_limits: String,
    /// Pods.
    pub pods: u32,
    /// Persistent volume claims.
    pub persistent_volume_claims: u32,
    /// Functions.
    pub functions: u32,
}

/// How strictly pods are confined: the Pod Security Standard of the tenant's namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum PodSecurity {
    /// Non-root, no capabilities, default seccomp profile.
    #[default]
    Restricted,
    /// May run as root inside the container.
    Baseline,
}

/// Addresses functions may call. DNS is always allowed; the platform's own addresses never are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct EgressRule {
    /// Allowed addresses, such as `0.0.0.0/0`.
    pub cidr: String,
    /// Addresses within `cidr` that stay forbidden.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// What a tenant of this tier may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
// Two columns of the same type are not a mistake.
#[cfg_attr(feature = "crd", allow(clippy::duplicated_attributes))]
#[cfg_attr(feature = "crd", derive(kube::CustomResource, kube::KubeSchema))]
#[cfg_attr(
    feature = "crd",
    kube(
        group = "eventflow.eventflow.io",
        version = "v1alpha1",
        kind = "Tier",
        plural = "tiers",
        category = "eventflow",
        derive = "PartialEq",
        doc = "How much a tenant may use.",
        printcolumn(name = "CPU", type_ = "string", json_path = ".spec.quota.cpuRequests"),
        printcolumn(name = "Memory", type_ = "string", json_path = ".spec.quota.memoryRequests"),
        printcolumn(name = "Pods", type_ = "integer", json_path = ".spec.quota.pods"),
        printcolumn(name = "Functions", type_ = "integer", json_path = ".spec.quota.functions"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )
)]
pub struct TierSpec {
    /// Hard limits.
    pub quota: Quota,
    /// API calls and invocations per second.
    #[cfg_attr(feature = "crd", schemars(range(min = 1)))]
    pub requests_per_second: u32,
    /// API calls and invocations that may come at once.
    #[cfg_attr(feature = "crd", schemars(range(min = 1)))]
    pub burst: u32,
    /// Invocations under way at once.
    #[cfg_attr(feature = "crd", schemars(range(min = 1)))]
    pub concurrent_invocations: u32,
    /// Longest body of one invocation's request, in bytes.
    #[serde(default = "request_bytes_default")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1_099_511_627_776_u64)))]
    pub max_request_bytes: u64,
    /// Pods one function may ask for.
    #[cfg_attr(feature = "crd", schemars(range(min = 0, max = 100)))]
    pub max_replicas_per_function: u32,
    /// Longest time-out of a function, in seconds.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 86400)))]
    pub max_timeout_seconds: u32,
    /// How many records of runs each tenant keeps, the newest.
    #[serde(default = "kept_invocations_default")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1_000_000)))]
    pub kept_invocations: u32,
    /// For how many days records of runs are kept.
    #[serde(default = "kept_invocation_days_default")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 3650)))]
    pub kept_invocation_days: u32,
    /// Pod Security Standard.
    #[serde(default)]
    pub pod_security: PodSecurity,
    /// Addresses functions may call besides DNS.
    #[serde(default)]
    pub egress: Vec<EgressRule>,
}

/// Longest body of one invocation's request when the tier says nothing: 10 MiB.
pub const REQUEST_BYTES_DEFAULT: u64 = 10 << 20;
/// Longest body of one invocation's request that a tier may allow: 1 TiB.
pub const REQUEST_BYTES_MAX: u64 = 1 << 40;

/// Records of runs that are kept when the tier says nothing.
pub const KEPT_INVOCATIONS_DEFAULT: u32 = 1_000;
/// For how many days when the tier says nothing.
pub const KEPT_INVOCATION_DAYS_DEFAULT: u32 = 30;

fn kept_invocations_default() -> u32 {
    KEPT_INVOCATIONS_DEFAULT
}

fn kept_invocation_days_default() -> u32 {
    KEPT_INVOCATION_DAYS_DEFAULT
}

fn request_bytes_default() -> u64 {
    REQUEST_BYTES_DEFAULT
}
