//! `GET /v1/quota`: what a tenant may use, holds and uses. `POST /v1/functions/{name}:explain`: why a function is in
//! the state it is in.

use serde::{Deserialize, Serialize};

use super::Sync;
use crate::admission::{Admission, Amounts, Holder, Shortfall};
use crate::condition::Condition;
use crate::function::Phase;
use crate::names::FunctionName;

/// What a tenant may use, has reserved and really uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaReport {
    /// The tenant's tier.
    pub tier: String,
    /// Nothing runs, and nothing new is taken.
    pub suspended: bool,
    /// More is reserved than the limits allow, which were lowered: nothing more is admitted until enough goes.
    pub over_quota: bool,
    /// The hard limits, every dimension.
    pub hard: Amounts,
    /// What all functions hold together, every dimension.
    pub reserved: Amounts,
    /// What the pods that are there are charged, as the API server counts; absent until it was counted once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Amounts>,
    /// Who waits, first in the queue first.
    pub queued: Vec<QueuedFunction>,
    /// What each function wants and holds, by name.
    pub functions: Vec<FunctionShare>,
    /// What is still held by functions that are gone, until their pods are gone too.
    pub leaving: Vec<Holder>,
}

/// A function that waits for quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueuedFunction {
    /// Its name.
    pub name: FunctionName,
    /// Its place in the queue, from 1.
    pub position: usize,
    /// What is missing; empty if it only waits for its turn.
    pub shortfall: Vec<Shortfall>,
    /// Since when it has waited, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// What one function wants and holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionShare {
    /// Its name.
    pub name: FunctionName,
    /// `admitted`, `queued` or `exceeds`.
    pub verdict: String,
    /// What it asks for.
    pub wanted: Amounts,
    /// What it holds.
    pub reserved: Amounts,
}

/// Why a function is in the state it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Its name.
    pub name: FunctionName,
    /// Counts the changes of its spec.
    pub generation: i64,
    /// Its state in one word.
    pub phase: Phase,
    /// The one thing to know, for people.
    pub summary: String,
    /// Whether the cluster was told what the store holds.
    pub sync: Sync,
    /// The verdict of quota admission as of now.
    pub admission: Admission,
    /// What is true of it.
    pub conditions: Vec<Condition>,
    /// What the cluster reported of it and of its pods, newest first.
    pub events: Vec<ClusterEvent>,
    /// Why there may be events that are not listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_missing: Option<String>,
}

/// Something the cluster reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterEvent {
    /// When it was last seen, RFC 3339 in UTC.
    pub at: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Why, for programs.
    pub reason: String,
    /// What happened, for people.
    pub message: String,
    /// Of what: `Function/web`, `Pod/fn-web-...`.
    pub object: String,
    /// How often it was seen.
    pub count: i32,
}
