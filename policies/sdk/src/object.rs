//! The function a policy judges, parsed. It reads what the platform hands over and ignores what it does not know, so
//! that a policy built today still works when a function has a new field.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A function: its metadata and what it asks for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Object {
    /// Name, labels, annotations.
    pub metadata: Metadata,
    /// What the tenant asks for.
    pub spec: Spec,
}

/// Name, labels, annotations.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// The function's name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// What the tenant asks for. `None` and empty mean that it was not written, so that a policy may supply a default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// Image reference as written.
    pub image: String,
    /// Entry point.
    pub command: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Replicas; the platform's default is 1.
    pub replicas: Option<u32>,
    /// Port it serves HTTP on.
    pub port: Option<u16>,
    /// CPU and memory of one pod, as written.
    pub resources: ResourceTexts,
    /// Time-out of one invocation; the platform's default is 60.
    pub timeout_seconds: Option<u32>,
    /// How the platform may scale it; without it, `replicas` is fixed.
    pub scaling: Option<Scaling>,
    /// Switched off.
    pub suspend: bool,
}

/// Bounds between which the platform chooses the replicas.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Scaling {
    /// Fewest replicas.
    pub min: u32,
    /// Most replicas.
    pub max: u32,
}

/// CPU and memory of one pod, as written; see [`crate::MilliCpu`] and [`crate::Bytes`] to read them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceTexts {
    /// CPU requested: `100m`.
    pub cpu_request: Option<String>,
    /// Memory requested: `128Mi`.
    pub memory_request: Option<String>,
    /// CPU at most.
    pub cpu_limit: Option<String>,
    /// Memory at most.
    pub memory_limit: Option<String>,
}

impl Object {
    /// Reads the JSON of a view.
    ///
    /// # Errors
    /// JSON that is not a function. The platform never hands that over.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}
