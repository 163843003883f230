//! What a tenant has and asks for at one moment, as far as its quota is concerned. Reads the tables only.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use eventflow_api::condition::{ConditionStatus, ConditionType, Reason, find};
use eventflow_api::ledger::LEDGER_NAME;
use jiff::Timestamp;

use crate::desired::{Surroundings, deployment};
use crate::observe::{self, ObservedFunction, ObservedInvocation};
use crate::validate::{self, Refusal, ValidFunction, ValidRun};
use crate::world::child::{ChildKind, Rollout};
use crate::world::ledger::LedgerView;
use crate::world::table::Seen;
use crate::world::views::PodView;
use crate::world::{Key, Name, World};
use quota::demand::{Demand, RUN_GENERATION};
use quota::ledger::{Claim, Ledger, Live};
use quota::limits::excesses;
use quota::queue::Waiting;
use quota::uid::Uid;
use quota::vector::{Vector, VectorError};

/// What was decided about a function, for its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// About which object.
    pub uid: Uid,
    /// About which generation of its spec.
    pub generation: u64,
    /// For programs.
    pub reason: Reason,
    /// Whether all of it is reserved.
    pub admitted: bool,
    /// For people.
    pub message: String,
}

/// What a tenant has and asks for.
#[derive(Debug)]
pub struct Survey {
    /// The tenant's namespace.
    pub namespace: String,
    /// Its limits.
    pub hard: Vector,
    /// Its ledger, as last seen.
    pub found: Option<Arc<Seen<LedgerView>>>,
    /// Its functions and runs, but for those that cannot be run: these keep what they hold.
    pub members: Vec<Member>,
    /// Who holds something and seems to be gone.
    pub orphans: Vec<Uid>,
    /// Who is gone: its reservation is marked as ending.
    pub ending: Vec<Uid>,
    /// How long one that waits may be passed.
    pub max_pass: Duration,
    /// When this was taken.
    pub now: Timestamp,
}

impl Survey {
    /// Name of the tenant's ledger.
    #[must_use]
    pub fn ledger_name(&self) -> Name {
        Name { namespace: self.namespace.clone(), name: LEDGER_NAME.to_owned() }
    }

    /// Who holds what, unless there is no ledger or it cannot be read.
    #[must_use]
    pub fn ledger(&self) -> Option<Ledger> {
        self.found.as_ref()?.view.ledger.clone().ok()
    }
}

/// One function of the tenant, or one run of one.
#[derive(Debug, Clone)]
pub struct Member {
    /// Which.
    pub key: Key,
    /// Its name.
    pub name: Name,
    /// Its identity.
    pub uid: Uid,
    /// The generation of its spec.
    pub generation: u64,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Higher goes first.
    pub priority: i32,
    /// What it asks for, and holds while its tenant is suspended too.
    pub demand: Demand,
    /// Pods that run now: what is asked for, unless it or its tenant is suspended.
    pub runs: u32,
    /// Why nothing more may be reserved for it, whatever room there is.
    pub barred: Option<Refusal>,
    /// Since when it has waited.
    pub waiting_since: Option<Timestamp>,
    /// Its Deployment.
    pub rollout: Option<Rollout>,
    /// Its Deployment is of another version, or there is none.
    pub new_template: bool,
    /// Its pods, those that are ending too.
    pub pods: usize,
}

impl Member {
    /// What people are told that it is.
    #[must_use]
    pub fn told_as(&self) -> String {
        match self.key {
            Key::Invocation(_) => format!("run {}", self.name.name),
            _ => self.name.name.clone(),
        }
    }

    /// What is found of it when a ledger is rebuilt.
    #[must_use]
    pub fn live(&self) -> Live {
        let generation = self.rollout.as_ref().and_then(|r| r.generation).unwrap_or_default();
        Live { uid: self.uid, generation, running: self.charged() }
    }

    /// Its wish, if it does not hold what it needs and may.
    #[must_use]
    pub fn waiting(&self, ledger: &Ledger, now: Timestamp) -> Option<Waiting> {
        let claim = self.claim(self.demand.steady().ok()?);
        let covered = ledger.covers(self.uid, self.generation, &claim.wants);
        if self.barred.is_some() || covered || ledger.is_stale(&claim) {
            return None;
        }
        Some(Waiting { claim, priority: self.priority, created: self.created, waited: self.waited(now) })
    }

    /// Why it is not admitted, if that is not for want of room.
    #[must_use]
    pub fn refusal(&self, ledger: &Ledger) -> Option<&Refusal> {
        let wants = self.demand.steady().ok()?;
        self.barred.as_ref().filter(|_| !ledger.covers(self.uid, self.generation, &wants))
    }

    /// How long it has waited by now for what it wants.
    #[must_use]
    pub fn waited(&self, now: Timestamp) -> Duration {
        self.waiting_since.map_or(Duration::ZERO, |since| seconds_since(since, now))
    }

    /// A claim for what is wanted now.
    fn claim(&self, wants: Vector) -> Claim {
        Claim { uid: self.uid, generation: self.generation, wants }
    }

    /// A wish for room for one more pod, if a roll-out is about to start that could use it.
    #[must_use]
    pub fn surge_claim(&self, ledger: &Ledger) -> Option<Claim> {
        let (steady, wants) = (self.demand.steady().ok()?, self.surge().ok()?);
        let admitted = ledger.covers(self.uid, self.generation, &steady);
        (self.is_about_to_roll() && admitted).then(|| self.claim(wants))
    }

    /// Whether a roll-out of this may run one pod more: that is reserved before it starts, and kept to its end.
    #[must_use]
    pub fn may_surge(&self, ledger: &Ledger) -> bool {
        let Some(rollout) = &self.rollout else { return false };
        let rolls = if rollout.generation == Some(self.generation) && !self.new_template {
            rollout.surge && !self.is_settled(rollout)
        } else {
            self.is_about_to_roll()
        };
        rolls && self.surge().is_ok_and(|wants| ledger.covers(self.uid, self.generation, &wants))
    }

    /// Whether every pod of a Deployment that is in order is to be replaced.
    fn is_about_to_roll(&self) -> bool {
        let rolls = |rollout: &Rollout| self.new_template && self.is_settled(rollout) && rollout.replicas > 0;
        self.runs > 0 && self.rollout.as_ref().is_some_and(rolls)
    }

    /// What its Deployment may charge once it is written for this generation.
    pub fn charge(&self, surge: bool) -> Result<Vector, VectorError> {
        if surge { self.surge() } else { self.demand.steady() }
    }

    /// What a roll-out with one more pod may charge: the old pods and a new one, or all new ones and one more.
    fn surge(&self) -> Result<Vector, VectorError> {
        let one = Vector::of_pod(&self.demand.resources);
        // A roll-out under way may have its one pod more already.
        let extra = self.rollout.as_ref().is_some_and(|rollout| rollout.surge);
        let old = self.charged_but(u64::from(extra)).unwrap_or(Vector::ZERO).checked_add(&one)?;
        Ok(old.max(&self.demand.with_surge()?))
    }

    /// How many pods to write into the Deployment now. More pods never come in the same write as other pods, and
    /// not before the other pods are there: a Deployment would make more of the old ones first.
    #[must_use]
    pub fn replicas_now(&self) -> u32 {
        let wanted = self.runs;
        let Some((rollout, (running, _))) = self.rollout.as_ref().and_then(|r| Some((r, r.size?))) else {
            return wanted;
        };
        let mixed = self.new_template || rollout.updated != rollout.replicas || !rollout.observed;
        if wanted > running && running > 0 && mixed { running } else { wanted }
    }

    /// The most pods of its Deployment that `held` pays for, and what they charge, if the Deployment asks for more.
    #[must_use]
    pub fn excess(&self, held: &Vector) -> Option<(u32, Vector)> {
        let (asked, _) = self.rollout.as_ref()?.size?;
        let paid = |replicas| self.charge_of(replicas).filter(|charge| charge.fits_within(held));
        let most = (0..=asked).rev().find_map(|replicas| Some((replicas, paid(replicas)?)))?;
        (most.0 < asked).then_some(most)
    }

    /// No pods of its Deployment, and what is charged then, if the Deployment asks for any.
    #[must_use]
    pub fn stop(&self) -> Option<(u32, Vector)> {
        let (asked, _) = self.rollout.as_ref()?.size?;
        (asked > 0).then_some((0, self.charge_of(0)?))
    }

    /// What so many pods of its Deployment charge.
    fn charge_of(&self, replicas: u32) -> Option<Vector> {
        let (_, resources) = self.rollout.as_ref()?.size?;
        Demand { replicas, resources, ..self.demand }.steady().ok()
    }

    /// What its Deployment may charge as it is written now.
    fn charged(&self) -> Option<Vector> {
        self.charged_but(0)
    }

    /// The same without so many of the pods that there are beyond those asked for.
    fn charged_but(&self, extra: u64) -> Option<Vector> {
        let rollout = self.rollout.as_ref()?;
        let (replicas, resources) = rollout.size?;
        let there = u64::try_from(rollout.replicas).unwrap_or_default().saturating_sub(extra);
        let pods = u64::from(replicas).max(there);
        Vector::of_pod(&resources).checked_mul(pods).ok()?.checked_add(&self.demand.fixed).ok()
    }

    /// Whether it has the pods that its Deployment asks for, all of one version, and no others.
    fn is_settled(&self, rollout: &Rollout) -> bool {
        let asked = rollout.size.map_or(0, |(replicas, _)| i64::from(replicas));
        let pods = i64::try_from(self.pods).unwrap_or(i64::MAX);
        let counts = [i64::from(rollout.updated), i64::from(rollout.replicas)];
        rollout.observed && counts == [asked; 2] && pods <= asked
    }

    /// The smaller reservation that is enough, once everything beyond it is gone and cannot come again.
    #[must_use]
    pub fn shrinks(&self, ledger: &Ledger) -> Option<Claim> {
        let held = ledger.reservations().get(&self.uid)?;
        let wants = self.demand.steady().ok()?;
        let too_much = held.generation == self.generation && wants.fits_within(&held.vector) && wants != held.vector;
        let down = self.rollout.as_ref().is_some_and(|rollout| {
            let same_size = rollout.size.is_some_and(|(replicas, resources)| {
                replicas <= self.demand.replicas && (replicas == 0 || resources == self.demand.resources)
            });
            let written = rollout.generation == Some(self.generation) && !rollout.surge && same_size;
            written && self.is_settled(rollout)
        });
        (too_much && down).then(|| self.claim(wants))
    }
}

/// Looks at the tenant `id`; nothing if it cannot have a ledger now.
#[must_use]
pub fn take(world: &World, id: &str, max_pass: Duration) -> Option<Survey> {
    let observed = observe::tenant(world, id).filter(|observed| !observed.tenant.view.deleting)?;
    let valid = validate::tenant(&observed).ok()?;
    let tier = observed.tier.as_ref().and_then(|tier| tier.view.spec.as_ref().ok())?;
    let namespace = valid.id.namespace();
    let tables = world.tables();
    if !tables.context(id).is_some_and(|context| context.ready) {
        return None;
    }
    // Before the functions: who is in it and not among these is gone, or very new.
    let found = tables.ledgers.get(&Name { namespace: namespace.clone(), name: LEDGER_NAME.to_owned() });
    let names = tables.functions.group(&Key::Tenant(id.to_owned()));
    let runs = tables.invocations.group(&Key::Tenant(id.to_owned()));
    drop(tables);
    let (mut members, mut alive) = (Vec::new(), HashSet::new());
    for name in &names {
        let Some((uid, member)) = member(world, name) else { continue };
        alive.insert(uid);
        members.extend(member.map(|(valid, member)| {
            let over = excesses(&valid.spec, tier).first().map(|excess| {
                Refusal::new(
                    Reason::ExceedsTierLimits,
                    format!("the tier {} does not allow it: {excess}", tier_name(&observed)),
                )
            });
            Member { barred: member.barred.or(over), ..member }
        }));
    }
    for name in &runs {
        let Some((uid, member)) = run(world, name) else { continue };
        alive.insert(uid);
        members.extend(member);
    }
    let ledger = found.as_ref().and_then(|seen| seen.view.ledger.as_ref().ok());
    let held = ledger.into_iter().flat_map(Ledger::reservations);
    let (mut orphans, mut ending) = (Vec::new(), Vec::new());
    for (uid, reservation) in held {
        match reservation.is_ending() {
            true => ending.push(*uid),
            false if !alive.contains(uid) => orphans.push(*uid),
            false => (),
        }
    }
    let (hard, now) = (valid.hard, Timestamp::now());
    Some(Survey { namespace, hard, found, members, orphans, ending, max_pass, now })
}

fn tier_name(observed: &observe::ObservedTenant) -> &str {
    observed.tenant.view.spec.as_ref().map_or("", |spec| spec.tier.as_str())
}

/// Seconds since a time, none if it lies ahead.
fn seconds_since(time: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(time)).unwrap_or_default()
}

/// A function as a member, or only its uid if it cannot be run.
fn member(world: &World, name: &Name) -> Option<(Uid, Option<(ValidFunction, Member)>)> {
    let observed = observe::function(world, name)?;
    let uid = observed.function.uid.parse().ok()?;
    let valid = validate::function(&observed).ok().filter(|_| !observed.function.view.deleting);
    Some((uid, valid.and_then(|valid| of(world, name, &observed, &valid).map(|member| (valid, member)))))
}

/// A run that is not over as a member, or only its uid if it cannot be started; nothing of one that is over, which is
/// gone as far as quota is concerned: what is said to be over never changes again.
fn run(world: &World, name: &Name) -> Option<(Uid, Option<Member>)> {
    let observed = observe::invocation(world, name)?;
    let view = &observed.invocation.view;
    if view.status.phase.is_final() {
        return None;
    }
    let uid = observed.invocation.uid.parse().ok()?;
    let wanted = !view.deleting && !view.cancel;
    let valid = validate::invocation(&observed).ok().filter(|_| wanted);
    Some((uid, valid.and_then(|valid| of_run(name, &observed, &valid))))
}

/// A run as a member.
#[must_use]
pub fn of_run(name: &Name, observed: &ObservedInvocation, valid: &ValidRun) -> Option<Member> {
    let view = &observed.invocation.view;
    let waiting = find(&view.status.conditions, ConditionType::QuotaReserved);
    let waiting = waiting.filter(|c| c.status == ConditionStatus::False);
    Some(Member {
        key: Key::Invocation(name.clone()),
        name: name.clone(),
        uid: observed.invocation.uid.parse().ok()?,
        generation: RUN_GENERATION,
        created: view.created.map_or(0, Timestamp::as_second),
        priority: view.priority,
        demand: Demand::of_run(&valid.function.spec.resources, 1),
        runs: 1,
        barred: valid.barred.clone(),
        waiting_since: waiting.and_then(|c| c.last_transition_time.parse().ok()),
        rollout: None,
        new_template: false,
        pods: observed.pods.iter().filter(|(_, pod)| pod.ended.is_none()).count(),
    })
}

/// A function as a member.
#[must_use]
pub fn of(world: &World, name: &Name, observed: &ObservedFunction, valid: &ValidFunction) -> Option<Member> {
    let (uid, view) = (observed.function.uid.parse().ok()?, &observed.function.view);
    let demand = Demand::of_function(&valid.spec);
    let barred = (valid.suspension == Some(Reason::TenantSuspended)).then(|| {
        let message = "the tenant is suspended: nothing is admitted until it is resumed";
        Refusal::new(Reason::TenantSuspended, message)
    });
    let tables = world.tables();
    let own = Name { namespace: name.namespace.clone(), name: valid.name.object_name() };
    let found = tables.children(ChildKind::Deployment).get(&own);
    let found = found.filter(|seen| seen.view.is_owned_by(&valid.uid));
    let waiting = find(&view.status.conditions, ConditionType::QuotaReserved);
    let waiting = waiting.filter(|c| c.status == ConditionStatus::False);
    let pods = tables.pods.members(&Key::Function(name.clone()));
    let ours = |seen: &Seen<PodView>| seen.view.function.as_ref() == Some(&valid.uid);
    let rollout = found.and_then(|seen| seen.view.rollout.clone());
    // The template is the same whatever the surroundings are.
    let new_template = rollout.as_ref().is_none_or(|rollout| {
        let wanted = deployment::desired(valid, &Surroundings::default());
        rollout.template.as_deref() != deployment::template_digest(&wanted)
    });
    Some(Member {
        key: Key::Function(name.clone()),
        name: name.clone(),
        uid,
        generation: valid.generation,
        created: view.created.map_or(0, Timestamp::as_second),
        priority: view.priority,
        demand,
        runs: valid.replicas,
        barred,
        waiting_since: waiting.and_then(|c| c.last_transition_time.parse().ok()),
        rollout,
        new_template,
        pods: pods.iter().filter(|(_, seen)| !seen.view.ended && ours(seen)).count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventflow_api::function::FunctionSpec;
    use serde_json::json;

    #[test]
    fn a_roll_out_keeps_its_one_pod_more_to_its_end() {
        let spec: FunctionSpec = serde_json::from_value(json!({"image": "a:1", "replicas": 2})).unwrap();
        let demand = Demand::of_function(&spec.parse().unwrap());
        let name = Name { namespace: "tenant-a".into(), name: "f".into() };
        let settled = Rollout {
            observed: true,
            replicas: 2,
            updated: 2,
            size: Some((2, demand.resources)),
            generation: Some(1),
            ..Rollout::default()
        };
        let member = |generation, new_template, pods, rollout| Member {
            key: Key::Function(name.clone()),
            name: name.clone(),
            uid: Uid::from_bits(1),
            generation,
            created: 0,
            priority: 0,
            demand,
            runs: 2,
            barred: None,
            waiting_since: None,
            rollout: Some(rollout),
            new_template,
            pods,
        };
        let hard = demand.steady().unwrap().checked_mul(9).unwrap();
        let starts = member(2, true, 2, settled.clone());
        let ledger = Ledger::new(hard, 1).admit(1, &[starts.claim(demand.steady().unwrap())]).unwrap();
        assert!(!starts.may_surge(&ledger), "not reserved");
        let claim = starts.surge_claim(&ledger).unwrap();
        assert_eq!(claim.wants.pods, 3);
        let ledger = ledger.admit(1, &[claim]).unwrap();
        assert!(starts.may_surge(&ledger));
        // Old pods, new pods, in whatever numbers its controller tells: what was reserved is enough to the end.
        for (replicas, updated) in [(2, 0), (3, 1), (3, 2), (2, 1)] {
            let rollout = Rollout { replicas, updated, surge: true, generation: Some(2), ..settled.clone() };
            assert!(member(2, false, 3, rollout).may_surge(&ledger), "{replicas} pods, {updated} new");
        }
        let done = Rollout { surge: true, generation: Some(2), ..settled };
        assert!(!member(2, false, 2, done).may_surge(&ledger), "it is over");
    }
}
