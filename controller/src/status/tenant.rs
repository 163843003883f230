//! The status of a tenant. Pure.

use eventflow_api::condition::{ConditionType, Reason, keep_transition_times};
use eventflow_api::tenant::TenantStatus;

use super::Moment;
use crate::validate::Refusal;

/// The status of a tenant whose status was `old`: set up in `namespace`, or refused.
#[must_use]
pub fn compute(
    old: &TenantStatus,
    namespace: Option<&str>,
    outcome: Result<(), &Refusal>,
    over_quota: Option<bool>,
    at: Moment,
) -> TenantStatus {
    let ready = match outcome {
        Ok(()) => {
            at.condition(ConditionType::Ready, true, Reason::Provisioned, "the namespace and all in it is in place")
        }
        Err(refusal) => at.condition(ConditionType::Ready, false, refusal.reason, &refusal.message),
    };
    let over = over_quota.map(|over| match over {
        true => {
            let message =
                "more is reserved than the quota, which was lowered; nothing new is admitted until enough goes";
            at.condition(ConditionType::OverQuota, true, Reason::OverQuota, message)
        }
        false => {
            at.condition(ConditionType::OverQuota, false, Reason::WithinQuota, "what is reserved is within the quota")
        }
    });
    TenantStatus {
        namespace: namespace.map(str::to_owned),
        observed_generation: at.generation,
        conditions: keep_transition_times(&old.conditions, std::iter::once(ready).chain(over).collect()),
    }
}
