//! The QuotaLedger: who holds what of a tenant's quota. One per tenant namespace, named `LEDGER_NAME`, written by
//! the controller alone and by compare-and-swap alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Name of the one ledger of a tenant's namespace.
pub const LEDGER_NAME: &str = "ledger";

/// The ledger, packed, and its sums for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(kube::CustomResource, kube::KubeSchema))]
#[cfg_attr(
    feature = "crd",
    kube(
        group = "eventflow.eventflow.io",
        version = "v1alpha1",
        kind = "QuotaLedger",
        plural = "quotaledgers",
        category = "eventflow",
        namespaced,
        derive = "PartialEq",
        doc = "Who holds what of a tenant's quota. Written by the controller alone.",
        validation = kube::core::Rule::new("self.metadata.name == 'ledger'").message("a namespace has one ledger, named ledger"),
        printcolumn(name = "CPU", type_ = "string", json_path = ".spec.reserved.cpuRequests"),
        printcolumn(name = "CPU-Hard", type_ = "string", json_path = ".spec.hard.cpuRequests"),
        printcolumn(name = "Memory", type_ = "string", json_path = ".spec.reserved.memoryRequests"),
        printcolumn(name = "Memory-Hard", type_ = "string", json_path = ".spec.hard.memoryRequests"),
        printcolumn(name = "Pods", type_ = "string", json_path = ".spec.reserved.pods"),
        printcolumn(name = "Pods-Hard", type_ = "string", json_path = ".spec.hard.pods"),
        printcolumn(name = "Queued", type_ = "integer", json_path = ".spec.queued"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )
)]
pub struct QuotaLedgerSpec {
    /// The reservations, packed into one text; the rest repeats what it says, for people.
    pub packed: String,
    /// Counts the leaders that wrote this.
    pub epoch: i64,
    /// Counts the changes.
    pub seq: i64,
    /// The hard limits, by dimension.
    pub hard: BTreeMap<String, String>,
    /// The sum of all reservations, by dimension.
    pub reserved: BTreeMap<String, String>,
    /// How many functions wait for quota.
    pub queued: i64,
}
