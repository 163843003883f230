//! The status of a function, from what was asked, what was applied and what its pods do. Pure.

use eventflow_api::condition::{Condition, ConditionType, Reason, keep_transition_times};
use eventflow_api::function::{FunctionStatus, Phase};
use eventflow_api::labels;
use jiff::Timestamp;

use super::Moment;
use super::pod::{Health, health};
use crate::admission::survey::Told;
use crate::validate::{Refusal, ValidFunction};
use crate::world::child::Rollout;
use crate::world::views::PodView;

/// What came of a function.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// Nothing was made, or what is there was left as it is.
    Refused(&'a Refusal),
    /// Its newest spec waits for quota; what ran runs on.
    Waiting {
        /// What was decided.
        told: &'a Told,
        /// The Deployment of what ran.
        rollout: Option<&'a Rollout>,
    },
    /// Its objects are as they should be.
    Applied {
        /// What was asked.
        function: &'a ValidFunction,
        /// Digest of the template of its newest version.
        template: &'a str,
        /// How far its Deployment has come.
        rollout: &'a Rollout,
    },
}

/// A status, and when to compute it again if nothing changes.
#[derive(Debug)]
pub struct Computed {
    /// The status; `last_updated` is set by whoever writes it.
    pub status: FunctionStatus,
    /// When time alone will change it.
    pub look_again: Option<Timestamp>,
}

/// The status of the function `name`, which was `old`.
#[must_use]
pub fn compute(name: &str, old: &FunctionStatus, outcome: &Outcome<'_>, pods: &[PodView], at: Moment) -> Computed {
    let census = Census::take(outcome, pods, at.now);
    let (phase, conditions) = match outcome {
        Outcome::Refused(refusal) => refused(refusal, at),
        Outcome::Waiting { told, .. } => waiting(told, &census, at),
        Outcome::Applied { function, rollout, .. } => applied(function, rollout, &census, at),
    };
    let status = FunctionStatus {
        phase,
        replicas: census.live,
        available_replicas: census.ready,
        ready_replicas: census.ready,
        selector: format!("{}={},{}={name}", labels::APP, labels::APP_VALUE, labels::FUNCTION),
        observed_generation: at.generation,
        last_updated: old.last_updated.clone(),
        conditions: keep_transition_times(&old.conditions, conditions),
    };
    Computed { status, look_again: census.look_again }
}

/// Whether the second status says nothing that a program would act on: only counts and words differ.
#[must_use]
pub fn differs_in_numbers_only(a: &FunctionStatus, b: &FunctionStatus) -> bool {
    let gist = |s: &FunctionStatus| {
        let conditions: Vec<_> = s.conditions.iter().map(|c| (c.type_, c.status, c.reason)).collect();
        (s.phase, s.observed_generation, conditions)
    };
    gist(a) == gist(b)
}

/// The pods, counted.
#[derive(Debug, Default)]
struct Census {
    /// Neither ended nor ending.
    live: i32,
    /// Ready, of any version.
    ready: i32,
    /// Ready, of the newest version.
    fresh_ready: i32,
    /// Of older versions.
    stale: i32,
    /// The worst that is wrong with a pod of the newest version.
    trouble: Option<Refusal>,
    look_again: Option<Timestamp>,
}

impl Census {
    fn take(outcome: &Outcome<'_>, pods: &[PodView], now: Timestamp) -> Self {
        let (newest, image) = match outcome {
            Outcome::Refused(_) => (None, ""),
            Outcome::Waiting { rollout, .. } => (rollout.and_then(|r| r.template.as_deref()), "of the version before"),
            Outcome::Applied { function, template, .. } => (Some(*template), function.spec.image.as_str()),
        };
        let mut census = Self::default();
        for pod in pods.iter().filter(|pod| !pod.ended && !pod.deleting) {
            census.live += 1;
            let (health, again) = health(pod, image, now);
            let fresh = newest.is_none() || pod.template.as_deref() == newest;
            census.stale += i32::from(!fresh);
            census.look_again = [census.look_again, again].into_iter().flatten().min();
            match health {
                Health::Ready => {
                    census.ready += 1;
                    census.fresh_ready += i32::from(fresh);
                }
                Health::Trouble(refusal) if fresh && census.is_worse(refusal.reason) => census.trouble = Some(refusal),
                Health::Trouble(_) | Health::Starting => (),
            }
        }
        census
    }

    fn is_worse(&self, reason: Reason) -> bool {
        self.trouble.as_ref().is_none_or(|trouble| severity(reason) > severity(trouble.reason))
    }
}

/// Which of two faults is told.
fn severity(reason: Reason) -> u8 {
    match reason {
        Reason::ImagePullFailed | Reason::ContainerFailed => 4,
        Reason::OutOfMemory => 3,
        Reason::CrashLooping => 2,
        Reason::Unschedulable => 1,
        _ => 0,
    }
}

/// Whether the function cannot run as it is, whoever waits.
fn is_final(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ImagePullFailed
            | Reason::ContainerFailed
            | Reason::OutOfMemory
            | Reason::CrashLooping
            | Reason::QuotaExceeded
            | Reason::PodRefused
            | Reason::RolloutTimedOut
    )
}

fn refused(refusal: &Refusal, at: Moment) -> (Phase, Vec<Condition>) {
    let phase = match refusal.reason {
        Reason::TenantNotReady | Reason::Terminating => Phase::Pending,
        _ => Phase::Failed,
    };
    let told = |type_| at.condition(type_, false, refusal.reason, &refusal.message);
    (phase, vec![told(ConditionType::Admitted), told(ConditionType::Progressing), told(ConditionType::Ready)])
}

fn waiting(told: &Told, census: &Census, at: Moment) -> (Phase, Vec<Condition>) {
    let phase = match told.reason {
        _ if census.ready > 0 => Phase::Running,
        Reason::ExceedsMaxQuota | Reason::ExceedsTierLimits => Phase::Failed,
        Reason::TenantSuspended => Phase::Suspended,
        _ => Phase::Queued,
    };
    let say = |type_| at.condition(type_, false, told.reason, &told.message);
    let types =
        [ConditionType::QuotaReserved, ConditionType::Admitted, ConditionType::Progressing, ConditionType::Ready];
    (phase, types.map(say).to_vec())
}

fn applied(function: &ValidFunction, rollout: &Rollout, census: &Census, at: Moment) -> (Phase, Vec<Condition>) {
    let wanted = function.replicas as i32;
    let rolled = census.fresh_ready >= wanted && census.stale == 0 && rollout.observed && rollout.replicas <= wanted;
    let reserved = "the tenant's quota holds room for all of its pods";
    let reserved = at.condition(ConditionType::QuotaReserved, true, Reason::Reserved, reserved);
    let admitted = at.condition(ConditionType::Admitted, true, Reason::Admitted, "nothing stands in the way");
    let count = format!("{} of {wanted} pods of the newest version are ready", census.fresh_ready);
    let progress = |holds, reason, message: &str| at.condition(ConditionType::Progressing, holds, reason, message);
    let progressing = match (rolled, rollout.timed_out, function.surge) {
        (true, ..) => progress(false, Reason::RolledOut, "every pod is of the newest version"),
        (_, true, _) => progress(false, Reason::RolloutTimedOut, &count),
        (.., true) => progress(true, Reason::RollingOut, &count),
        (.., false) if census.stale == 0 => progress(true, Reason::RollingOut, &count),
        (.., false) => {
            let message = format!(
                "{count}; there is no room for one more meanwhile, so each is ended before its successor starts"
            );
            progress(true, Reason::ReplacingInPlace, &message)
        }
    };
    let (phase, holds, reason, message) = ready(function, rollout, census, &count);
    let ready = at.condition(ConditionType::Ready, holds, reason, &message);
    (phase, vec![reserved, admitted, progressing, ready])
}

fn ready(function: &ValidFunction, rollout: &Rollout, census: &Census, count: &str) -> (Phase, bool, Reason, String) {
    let wanted = function.replicas as i32;
    if let Some(reason) = function.suspension {
        let whose = if reason == Reason::TenantSuspended { "the tenant is suspended" } else { "spec.suspend is set" };
        return (Phase::Suspended, false, reason, format!("{whose}: no pods run"));
    }
    if wanted == 0 {
        return (Phase::Idle, true, Reason::ScaledToZero, "no pods are asked for".to_owned());
    }
    if census.fresh_ready >= wanted {
        return (Phase::Running, true, Reason::AllReady, format!("all {wanted} pods are ready"));
    }
    let serving = match census.ready - census.fresh_ready {
        0 => String::new(),
        n => format!("; {n} of the version before still serve"),
    };
    let trouble = census.trouble.clone().filter(|trouble| is_final(trouble.reason));
    let trouble = trouble.or_else(|| refused_pods(rollout)).or_else(|| census.trouble.clone());
    let trouble = trouble.or_else(|| {
        let message = format!("{count}, and no more came in the time a roll-out may take");
        rollout.timed_out.then(|| Refusal::new(Reason::RolloutTimedOut, message))
    });
    match trouble {
        Some(trouble) => {
            let phase = if is_final(trouble.reason) || rollout.timed_out { Phase::Failed } else { Phase::Pending };
            (phase, false, trouble.reason, format!("{}{serving}", trouble.message))
        }
        None if census.fresh_ready > 0 => (Phase::Pending, false, Reason::PartlyReady, format!("{count}{serving}")),
        None => (Phase::Pending, false, Reason::Starting, format!("{count}{serving}")),
    }
}

/// Why the API server refuses the function's pods, if it does.
fn refused_pods(rollout: &Rollout) -> Option<Refusal> {
    let message = rollout.failure.as_ref()?;
    let reason = if message.contains("exceeded quota") { Reason::QuotaExceeded } else { Reason::PodRefused };
    Some(Refusal::new(reason, format!("pods were refused: {message}")))
}
