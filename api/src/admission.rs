//! The verdict of quota admission as every surface tells it: the HTTP answer, the dashboard, the command line.
//! Amounts are texts in Kubernetes' grammar, so that they read as they were written.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::quantity::{Bytes, MilliCpu};
use crate::resources::Resources;

/// What is counted against a tenant. The names are those of the fields of [`crate::tier::Quota`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Dimension {
    /// CPU requests of all pods, in thousandths of a core.
    CpuRequests,
    /// Memory requests of all pods, in bytes.
    MemoryRequests,
    /// CPU limits of all pods, in thousandths of a core.
    CpuLimits,
    /// Memory limits of all pods, in bytes.
    MemoryLimits,
    /// Pods.
    Pods,
    /// Persistent volume claims.
    PersistentVolumeClaims,
    /// Functions.
    Functions,
}

impl Dimension {
    /// Every dimension, in the order they are told.
    pub const ALL: [Self; 7] = [
        Self::CpuRequests,
        Self::MemoryRequests,
        Self::CpuLimits,
        Self::MemoryLimits,
        Self::Pods,
        Self::PersistentVolumeClaims,
        Self::Functions,
    ];

    /// The name as text: `cpuRequests`. A bounded metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CpuRequests => "cpuRequests",
            Self::MemoryRequests => "memoryRequests",
            Self::CpuLimits => "cpuLimits",
            Self::MemoryLimits => "memoryLimits",
            Self::Pods => "pods",
            Self::PersistentVolumeClaims => "persistentVolumeClaims",
            Self::Functions => "functions",
        }
    }

    /// An amount as people write it: `1500m`, `2Gi`, `3`.
    #[must_use]
    pub fn amount(self, value: u64) -> String {
        match self {
            Self::CpuRequests | Self::CpuLimits => MilliCpu::from_millis(value).to_string(),
            Self::MemoryRequests | Self::MemoryLimits => Bytes::from_bytes(value).to_string(),
            Self::Pods | Self::PersistentVolumeClaims | Self::Functions => value.to_string(),
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Amounts by dimension; what is zero is left out.
pub type Amounts = BTreeMap<Dimension, String>;

/// What is missing in one dimension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shortfall {
    /// Which.
    pub dimension: Dimension,
    /// What was asked for.
    pub requested: String,
    /// What could be had: the free quota, or the whole quota if the request can never fit.
    pub available: String,
    /// How much must become free (or the quota grow) for the request to fit.
    pub missing: String,
}

/// Something of the tenant's that holds quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// The function's name, or its uid if it is on its way out and its name is no longer known.
    pub name: String,
    /// What it holds.
    pub reserved: Amounts,
}

/// The least that must change for a request to fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "camelCase")]
pub enum SmallestChange {
    /// That many replicas fit.
    Replicas {
        /// How many.
        replicas: u32,
    },
    /// Not even one replica fits as it is; one of this size does. Only what must shrink is named.
    Resources {
        /// How many replicas of that size fit.
        replicas: u32,
        /// The most each pod may ask for.
        resources: Resources,
    },
    /// No size fits: the quota itself must grow.
    Quota,
}

/// The verdict on one function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Admission {
    /// All of it is reserved.
    Admitted {
        /// What it holds.
        reserved: Amounts,
    },
    /// It will fit when something goes.
    Queued {
        /// Its place in the tenant's queue, from 1.
        position: usize,
        /// What is missing; empty if it only waits for its turn.
        shortfall: Vec<Shortfall>,
        /// What holds the quota, largest first.
        holders: Vec<Holder>,
    },
    /// It will never fit this quota.
    Exceeds {
        /// Requested and limit of each dimension that is too small.
        over: Vec<Shortfall>,
        /// What would fit.
        smallest_change: SmallestChange,
    },
    /// Nobody has decided yet.
    Undecided {
        /// What it waits for, for people.
        why: String,
    },
}

impl Admission {
    /// The verdict's name in JSON. A bounded metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Admitted { .. } => "admitted",
            Self::Queued { .. } => "queued",
            Self::Exceeds { .. } => "exceeds",
            Self::Undecided { .. } => "undecided",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_serde_agree() {
        for dimension in Dimension::ALL {
            assert_eq!(serde_json::to_value(dimension).unwrap(), dimension.as_str());
        }
    }

    #[test]
    fn the_json_is_flat_and_camel_case() {
        let verdict = Admission::Exceeds {
            over: vec![Shortfall {
                dimension: Dimension::CpuRequests,
                requested: "2".into(),
                available: "1".into(),
                missing: "1".into(),
            }],
            smallest_change: SmallestChange::Replicas { replicas: 2 },
        };
        let json = serde_json::json!({
            "verdict": "exceeds",
            "over": [{"dimension": "cpuRequests", "requested": "2", "available": "1", "missing": "1"}],
            "smallestChange": {"change": "replicas", "replicas": 2}
        });
        assert_eq!(serde_json::to_value(&verdict).unwrap(), json);
        assert_eq!(json["verdict"], verdict.label());
        assert_eq!(serde_json::from_value::<Admission>(json).unwrap(), verdict);
    }
}
