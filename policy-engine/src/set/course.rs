//! One pass over a set, of either world: who is asked in which order, what a refusal or failure ends, what a trial sees.

use std::sync::Arc;

use crate::counters::{Bucket, Lane, Owner};
use crate::run::{Call, Decision, Failure};
use crate::set::{Binding, Entry, GroupKind, PolicySet, RateState, Refused, Role, Step, Trial, TrialMode};
use crate::snapshot::Policy;
use crate::types::{Denial, FailureMode, Rate, TenantView};
use crate::verdict::InvalidAnswer;

/// What a policy of either world says.
pub(super) enum Opinion<C> {
    Allow,
    Change(C),
    Rate(Rate),
    Deny(Denial),
}

/// The matter at hand in one of the two worlds.
pub(super) trait Docket {
    /// What policies of this world can change.
    type Change: std::fmt::Debug;
    /// Who asks.
    fn tenant(&self) -> &TenantView;
    /// The request's id, which chooses the canary.
    fn request_id(&self) -> &str;
    /// Asks one policy about the matter as it is now.
    fn ask(&self, policy: &Policy, call: &Call) -> Decision<Opinion<Self::Change>>;
    /// Changes the matter. Not called for shadows.
    fn accept(&mut self, change: Self::Change) -> Result<(), NotAccepted>;
}

/// A change that was not made.
pub(super) enum NotAccepted {
    /// It is not within what policies may change, or the result is not valid.
    Invalid(InvalidAnswer),
    /// Nothing may change any more.
    Settled,
}

/// A binding that does not refuse.
enum Passage {
    /// Its policy allowed, or failed and is bound to fail open.
    Allowed,
    /// Nothing of it decides for this request: a revision is only tried out.
    Unasked,
}

/// What a binding came to.
enum Effect<C> {
    Allow,
    Change(C),
    Deny(Denial),
    RateLimited(RateState),
    Failed(Failure),
}

/// A pass under way.
pub(super) struct Course<'a, D> {
    pub call: &'a Call,
    pub docket: D,
    pub steps: Vec<Step>,
    pub rates: Vec<RateState>,
}

impl<D: Docket> Course<'_, D> {
    /// Asks every policy of the set that covers the tenant, until one refuses.
    pub fn run(&mut self, set: &PolicySet) -> Result<(), Refused> {
        set.entries.iter().try_for_each(|entry| match entry {
            Entry::One(binding) if binding.scope.covers(self.docket.tenant()) => self.binding(binding).map(drop),
            Entry::One(_) => Ok(()),
            Entry::Group(group) => self.group(group.kind, &group.members),
        })
    }

    fn group(&mut self, kind: GroupKind, members: &[Binding]) -> Result<(), Refused> {
        let tenant = self.docket.tenant().clone();
        let covering = members.iter().filter(|member| member.scope.covers(&tenant));
        let mut refusal = Ok(());
        for member in covering {
            match (kind, self.binding(member)) {
                // Tried out only, or allowed where all must allow: the next one is asked.
                (_, Ok(Passage::Unasked)) | (GroupKind::All, Ok(Passage::Allowed)) => {}
                (GroupKind::Any | GroupKind::FirstMatch, Ok(Passage::Allowed)) => return Ok(()),
                (GroupKind::All | GroupKind::FirstMatch, Err(refused)) => return Err(refused),
                // The first refusal stands, if no other member allows.
                (GroupKind::Any, refused) => refusal = refusal.and(refused.map(drop)),
            }
        }
        refusal
    }

    /// Asks the policy that decides for this request, and the shadow beside it.
    fn binding(&mut self, binding: &Binding) -> Result<Passage, Refused> {
        let Chosen { decides, shadow } = chosen(binding, self.docket.request_id(), &self.docket.tenant().id);
        // A shadow judges the matter as the enforced policy found it, once.
        let shadow = shadow.filter(|_| self.call.lane != Lane::Settled);
        let shadow = shadow.map(|policy| self.ask(binding, policy, Role::Shadow));
        let mut enforced_text = "allow".to_owned();
        let mut result = Ok(Passage::Unasked);
        if let Some((policy, role)) = decides {
            let (effect, step) = self.ask(binding, policy, role);
            enforced_text = text(&effect);
            self.steps.push(step);
            result = self.enforce(binding, policy, effect).map(|()| Passage::Allowed);
        }
        if let Some((effect, mut step)) = shadow {
            let shadow_text = text(&effect);
            step.difference = (shadow_text != enforced_text).then(|| (cut(enforced_text), cut(shadow_text)));
            self.steps.push(step);
        }
        result
    }

    fn ask(&mut self, binding: &Binding, policy: &Policy, role: Role) -> (Effect<D::Change>, Step) {
        let mut call = self.call.clone();
        if role == Role::Shadow && call.lane == Lane::Enforced {
            call.lane = Lane::Shadow;
        }
        let decision = self.docket.ask(policy, &call);
        let effect = match decision.outcome {
            Ok(Opinion::Allow) => Effect::Allow,
            Ok(Opinion::Change(change)) => Effect::Change(change),
            Ok(Opinion::Deny(denial)) => Effect::Deny(denial),
            Ok(Opinion::Rate(rate)) => self.withdraw(&call, policy, rate),
            Err(failure) => Effect::Failed(failure),
        };
        let (verdict, failure) = match &effect {
            Effect::Allow => ("allow", None),
            Effect::Change(_) => ("change", None),
            Effect::Deny(_) => ("deny", None),
            Effect::RateLimited(_) => ("rate-limited", None),
            Effect::Failed(failure) => ("failed", Some(failure.clone())),
        };
        let step = Step {
            binding: binding.name.clone(),
            policy: policy.name().clone(),
            digest: policy.digest(),
            role,
            verdict,
            failure,
            difference: None,
            elapsed: decision.elapsed,
            memory_bytes: decision.memory_bytes,
            log: decision.log,
            log_dropped: decision.log_dropped,
        };
        (effect, step)
    }

    fn withdraw(&mut self, call: &Call, policy: &Policy, rate: Rate) -> Effect<D::Change> {
        let owner = Owner { tenant: call.tenant.clone(), policy: policy.name().clone() };
        // Named limits and the guest's own counters are different buckets even if the names agree.
        let key = format!("limit/{}/{}", rate.name, rate.key);
        let bucket =
            Bucket { key: &key, cost: rate.cost, limit: rate.limit, burst: rate.burst, window_ms: rate.window_ms };
        let taken = call.counters.take(&owner, call.lane, &bucket);
        let state = RateState {
            name: rate.name,
            limit: rate.limit,
            window_ms: rate.window_ms,
            burst: rate.burst,
            remaining: taken.remaining,
            retry_after_ms: taken.retry_after_ms,
        };
        if !taken.allowed {
            return Effect::RateLimited(state);
        }
        if call.lane != Lane::Shadow {
            self.rates.push(state);
        }
        Effect::Allow
    }

    fn enforce(&mut self, binding: &Binding, policy: &Policy, effect: Effect<D::Change>) -> Result<(), Refused> {
        let name = binding.name.clone();
        let failure = match effect {
            Effect::Allow => return Ok(()),
            Effect::Deny(denial) => return Err(Refused::Denied { binding: name, denial }),
            Effect::RateLimited(rate) => return Err(Refused::RateLimited { binding: name, rate }),
            Effect::Change(change) => match self.docket.accept(change) {
                Ok(()) => return Ok(()),
                Err(NotAccepted::Settled) => return Err(Refused::Unsettled { binding: name }),
                Err(NotAccepted::Invalid(answer)) => self.note_invalid(answer),
            },
            Effect::Failed(failure) => failure,
        };
        match binding.failure {
            FailureMode::Open => Ok(()),
            FailureMode::Closed => Err(Refused::Failed { binding: name, policy: policy.name().clone(), failure }),
        }
    }

    /// The step just taken turns out to be a failure.
    fn note_invalid(&mut self, answer: InvalidAnswer) -> Failure {
        let failure = Failure::Invalid(answer);
        if let Some(step) = self.steps.last_mut() {
            step.verdict = "failed";
            step.failure = Some(failure.clone());
        }
        failure
    }
}

/// Which policies of a binding judge a request.
struct Chosen<'a> {
    decides: Option<(&'a Arc<Policy>, Role)>,
    /// Only noted.
    shadow: Option<&'a Arc<Policy>>,
}

fn chosen<'a>(binding: &'a Binding, request_id: &str, tenant: &str) -> Chosen<'a> {
    let active = binding.active.as_ref().map(|policy| (policy, Role::Active));
    match &binding.trial {
        None => Chosen { decides: active, shadow: None },
        Some(Trial { policy, mode: TrialMode::Shadow }) => Chosen { decides: active, shadow: Some(policy) },
        Some(Trial { policy, mode: TrialMode::Canary { basis_points, tenants } }) => {
            let picked = tenants.contains(tenant) || share(request_id, &binding.name) < u64::from(*basis_points);
            Chosen { decides: if picked { Some((policy, Role::Canary)) } else { active }, shadow: None }
        }
    }
}

/// A request's place among 10,000, different for every binding, so that trials do not all meet the same requests.
fn share(request_id: &str, binding: &str) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = request_id.as_bytes().iter().chain(binding.as_bytes()).fold(0xcbf2_9ce4_8422_2325, fnv);
    // The low bits of FNV are its weakest; a multiplication spreads the rest over them.
    let spread = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (spread >> 32) % 10_000
}

/// An effect in a few words, by which a shadow's and the enforced one are compared.
fn text<C: std::fmt::Debug>(effect: &Effect<C>) -> String {
    match effect {
        Effect::Allow => "allow".to_owned(),
        Effect::Change(change) => format!("change {change:?}"),
        Effect::Deny(denial) => format!("deny {} {}", denial.status, denial.code),
        Effect::RateLimited(rate) => format!("rate-limited {}", rate.name),
        Effect::Failed(failure) => format!("failed {}", failure.kind()),
    }
}

/// For people to read: a change can be as large as an answer may be.
fn cut(mut text: String) -> String {
    const MOST: usize = 1_000;
    if text.len() > MOST {
        text.truncate(text.floor_char_boundary(MOST));
        text.push_str(" ...");
    }
    text
}
