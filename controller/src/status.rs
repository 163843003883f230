//! What is said of tenants and functions. Computed purely from what was asked, applied and observed; written
//! only by [`write`], and only when it differs.

use eventflow_api::condition::{Condition, ConditionStatus, ConditionType, Reason};
use jiff::Timestamp;

/// The status of a function.
pub mod function;
/// The status of a run.
pub mod invocation;
/// What is wrong with a pod.
pub mod pod;
/// The status of a tenant.
pub mod tenant;
/// Writing of a status.
pub mod write;

/// Longest message of a condition, in characters.
const MESSAGE_MAX: usize = 1024;

/// When and of which generation conditions are told.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The generation of the spec that they speak of.
    pub generation: i64,
    /// Now.
    pub now: Timestamp,
}

impl Moment {
    fn condition(&self, type_: ConditionType, holds: bool, reason: Reason, message: &str) -> Condition {
        Condition {
            type_,
            status: if holds { ConditionStatus::True } else { ConditionStatus::False },
            reason,
            message: capped(message, MESSAGE_MAX),
            observed_generation: self.generation,
            last_transition_time: time(self.now),
        }
    }
}

/// A time as statuses hold it: RFC 3339 in UTC, to the second.
#[must_use]
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// At most that many characters of a text, with a sign that some are missing.
fn capped(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max - 1).chain(['…']).collect(),
    }
}
