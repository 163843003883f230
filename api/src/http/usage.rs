//! What a tenant's calls came to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a tenant's calls came to, step by step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageReport {
    /// From when on: a whole hour, RFC 3339 in UTC.
    pub from: String,
    /// Up to before when: a whole hour.
    pub to: String,
    /// Seconds of one step.
    pub step_seconds: i64,
    /// Steps in which something was called.
    pub steps: Vec<UsageStep>,
}

/// What calls came to within one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageStep {
    /// Its beginning.
    pub from: String,
    /// The function, if each was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Calls in all.
    pub calls: i64,
    /// Calls by how they ended.
    pub outcomes: BTreeMap<String, i64>,
    /// How long they took together.
    pub run_seconds: f64,
    /// Bytes of their answers' bodies.
    pub bytes_out: i64,
}
