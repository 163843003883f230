//! What happens to a tenant's functions and quota, and what the cluster reported of a function.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::quota::ClusterEvent;
use crate::condition::Condition;
use crate::function::Phase;

/// What the cluster reported of a function, its Deployment, its ReplicaSets and its pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionEvents {
    /// Newest first.
    pub events: Vec<ClusterEvent>,
    /// There may be others that are not listed.
    pub more: bool,
}

/// How a function stands: the data of the event `function`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionEvent {
    /// Its name.
    pub name: String,
    /// Counts the changes of its spec; none when it was not made through the API and is not known there yet.
    pub generation: Option<i64>,
    /// Of which generation the rest speaks.
    pub observed_generation: i64,
    /// Where it stands, in one word.
    pub phase: Phase,
    /// Pods that exist.
    pub replicas: i32,
    /// Pods that are ready.
    pub ready_replicas: i32,
    /// It is being taken down.
    pub deleting: bool,
    /// What is true of it.
    pub conditions: Vec<Condition>,
}

/// A function that is gone: the data of the event `function-deleted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionGone {
    /// Its name.
    pub name: String,
}

/// How the quota stands: the data of the event `quota`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaEvent {
    /// The hard limits, by dimension.
    pub hard: BTreeMap<String, String>,
    /// What is reserved, by dimension.
    pub reserved: BTreeMap<String, String>,
    /// How many functions wait for quota.
    pub queued: i64,
}
