//! Conditions: what is true of an object now, with closed sets of types and reasons.
//! The shape is Kubernetes' `metav1.Condition`; transition times are text so that this compiles anywhere.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a condition speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum ConditionType {
    /// The tenant's quota holds room for all of the function's pods.
    QuotaReserved,
    /// The function may run.
    Admitted,
    /// A roll-out is under way.
    Progressing,
    /// Everything asked for is there and answers.
    Ready,
    /// The tenant uses or reserves more than its quota, which was lowered.
    OverQuota,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody knows.
    Unknown,
}

/// Why a condition is as it is. Stable: programs may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Reason {
    /// Reserved in the tenant's ledger.
    Reserved,
    /// Will fit when something of the tenant's goes.
    WaitingForQuota,
    /// Will never fit this tenant's quota.
    ExceedsMaxQuota,
    /// More pods or a longer time-out than the tenant's tier allows one function.
    ExceedsTierLimits,
    /// The larger size waits for room; the old one runs.
    ScaleUpPending,
    /// The new version waits for room; the old one runs.
    UpdatePending,
    /// Nothing stands in the way.
    Admitted,
    /// The object is malformed in a way its schema could not refuse.
    InvalidSpec,
    /// Refused by a policy.
    PolicyDenied,
    /// An object of the needed name exists and is not ours.
    NameConflict,
    /// The tenant is suspended.
    TenantSuspended,
    /// The namespace belongs to no Tenant, or is not ready yet.
    TenantNotReady,
    /// Pods are being started or replaced.
    RollingOut,
    /// Every pod runs the newest version.
    RolledOut,
    /// Pods are replaced in place, since there is no room for one more meanwhile.
    ReplacingInPlace,
    /// The roll-out made no progress for too long.
    RolloutTimedOut,
    /// All pods are ready.
    AllReady,
    /// Some pods are ready, not all.
    PartlyReady,
    /// Pods are starting.
    Starting,
    /// No pods were asked for.
    ScaledToZero,
    /// `suspend` is set.
    Suspended,
    /// The image cannot be pulled.
    ImagePullFailed,
    /// The program ends again and again.
    CrashLooping,
    /// The program was killed for using more memory than its limit.
    OutOfMemory,
    /// No node has room.
    Unschedulable,
    /// The namespace's ResourceQuota refused a pod.
    QuotaExceeded,
    /// The API server refused a pod for another reason.
    PodRefused,
    /// The container could not be set up: a missing command, a bad working directory.
    ContainerFailed,
    /// The pods run and their port does not answer.
    NotAnswering,
    /// The namespace and everything in it are in place.
    Provisioned,
    /// Being set up.
    Provisioning,
    /// The tier does not exist.
    UnknownTier,
    /// A namespace of the tenant's name exists and is not ours.
    NamespaceConflict,
    /// Being deleted.
    Terminating,
    /// Within the quota.
    WithinQuota,
    /// Over the quota, which was lowered.
    OverQuota,
}

macro_rules! display_as_debug {
    ($($t:ty),*) => {$(
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    )*};
}
display_as_debug!(ConditionType, ConditionStatus, Reason);

/// One condition of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Condition {
    /// What it speaks of; one condition per type.
    #[serde(rename = "type")]
    pub type_: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, for programs.
    pub reason: Reason,
    /// Why and what to do, for people; at most 1,024 characters.
    #[serde(default)]
    #[cfg_attr(feature = "crd", schemars(length(max = 1024)))]
    pub message: String,
    /// The generation of the spec it speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// When `status` last changed, RFC 3339 in UTC.
    #[cfg_attr(feature = "crd", schemars(extend("format" = "date-time")))]
    pub last_transition_time: String,
}

/// The condition of that type.
#[must_use]
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Gives each of `new` the transition time of the same condition in `old` if its status did not change.
#[must_use]
pub fn keep_transition_times(old: &[Condition], mut new: Vec<Condition>) -> Vec<Condition> {
    for condition in &mut new {
        if let Some(before) = find(old, condition.type_)
            && before.status == condition.status
        {
            condition.last_transition_time.clone_from(&before.last_transition_time);
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: ConditionStatus, reason: Reason, time: &str) -> Condition {
        Condition {
            type_: ConditionType::Ready,
            status,
            reason,
            message: String::new(),
            observed_generation: 1,
            last_transition_time: time.to_owned(),
        }
    }

    #[test]
    fn the_time_moves_only_with_the_status() {
        let old = [ready(ConditionStatus::False, Reason::Starting, "t0")];
        let same = keep_transition_times(&old, vec![ready(ConditionStatus::False, Reason::CrashLooping, "t1")]);
        assert_eq!((same[0].last_transition_time.as_str(), same[0].reason), ("t0", Reason::CrashLooping));
        let changed = keep_transition_times(&old, vec![ready(ConditionStatus::True, Reason::AllReady, "t1")]);
        assert_eq!(changed[0].last_transition_time, "t1");
    }
}
