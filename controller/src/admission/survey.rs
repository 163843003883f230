//! What a tenant has and asks for at one moment, as far as its quota is concerned. Reads the tables only.

use std::collections::HashSet;
use std::time::Duration;

use eventflow_api::condition::{ConditionStatus, ConditionType, Reason, find};
use eventflow_api::ledger::LEDGER_NAME;
use jiff::Timestamp;

use super::{claim, seconds_since};
use crate::desired::{Surroundings, deployment};
use crate::observe::{self, ObservedFunction};
use crate::validate::{self, ValidFunction};
use crate::world::child::{ChildKind, Rollout};
use crate::world::{Key, Name, Tables, World};
use quota::demand::Demand;
use quota::ledger::{Claim, Ledger, Live};
use quota::queue::{MAX_PASS_DEFAULT, Waiting};
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
    /// Its functions, but for those that cannot be run.
    pub members: Vec<Member>,
    /// Who holds something and is gone.
    pub orphans: Vec<Uid>,
    /// Those of them that still own a Deployment.
    pub deployed: HashSet<Uid>,
    /// Who lives, though it cannot be run: it keeps what it holds.
    pub kept: HashSet<Uid>,
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
}

/// One function of the tenant.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: Name,
    /// Its identity.
    pub uid: Uid,
    /// The generation of its spec.
    pub generation: u64,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// What it asks for.
    pub demand: Demand,
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
    /// What is found of it when a ledger is rebuilt.
    #[must_use]
    pub fn live(&self) -> Live {
        let generation = self.rollout.as_ref().and_then(|r| r.generation).unwrap_or_default();
        Live { uid: self.uid, generation, running: self.charged() }
    }

    /// Its wish, if it does not hold what it needs.
    #[must_use]
    pub fn waiting(&self, ledger: &Ledger, now: Timestamp) -> Option<Waiting> {
        let wants = self.demand.steady().ok()?;
        if ledger.covers(self.uid, self.generation, &wants) {
            return None;
        }
        let waited = self.waiting_since.map_or(Duration::ZERO, |since| seconds_since(since, now));
        Some(Waiting { claim: claim(self, wants), priority: 0, created: self.created, waited })
    }

    /// A wish for room for one more pod, if a roll-out is about to start that could use it.
    #[must_use]
    pub fn surge_claim(&self, ledger: &Ledger) -> Option<Claim> {
        let (steady, wants) = (self.demand.steady().ok()?, self.surge().ok()?);
        let admitted = ledger.covers(self.uid, self.generation, &steady);
        (self.is_about_to_roll() && admitted).then(|| claim(self, wants))
    }

    /// Whether a roll-out of this may run one pod more: that is reserved before it starts, and kept to its end.
    #[must_use]
    pub fn may_surge(&self, ledger: &Ledger) -> bool {
        let Some(rollout) = &self.rollout else { return false };
        if rollout.generation == Some(self.generation) && !self.new_template {
            return rollout.surge && !self.is_settled(rollout);
        }
        self.is_about_to_roll() && self.surge().is_ok_and(|wants| ledger.covers(self.uid, self.generation, &wants))
    }

    /// Whether every pod of a Deployment that is in order is to be replaced.
    fn is_about_to_roll(&self) -> bool {
        let rolls = |rollout: &Rollout| self.new_template && self.is_settled(rollout) && rollout.replicas > 0;
        self.demand.replicas > 0 && self.rollout.as_ref().is_some_and(rolls)
    }

    /// What a roll-out with one more pod may charge: the old pods and a new one, or all new ones and one more.
    fn surge(&self) -> Result<Vector, VectorError> {
        let one = Vector::of_pod(&self.demand.resources);
        let old = self.charged().unwrap_or(Vector::ZERO).checked_add(&one)?;
        Ok(old.max(&self.demand.with_surge()?))
    }

    /// How many pods to write into the Deployment now. More pods never come in the same write as other pods, and
    /// not before the other pods are there: a Deployment would make more of the old ones first.
    #[must_use]
    pub fn replicas_now(&self) -> u32 {
        let wanted = self.demand.replicas;
        let Some((rollout, (running, _))) = self.rollout.as_ref().and_then(|r| Some((r, r.size?))) else {
            return wanted;
        };
        let mixed = self.new_template || rollout.updated != rollout.replicas || !rollout.observed;
        if wanted > running && running > 0 && mixed { running } else { wanted }
    }

    /// The most pods of its Deployment that `held` pays for, if the Deployment asks for more than that.
    #[must_use]
    pub fn excess(&self, held: &Vector) -> Option<u32> {
        let (asked, resources) = self.rollout.as_ref()?.size?;
        let charge = |replicas| Demand { replicas, resources, ..self.demand }.steady();
        let paid = |replicas: &u32| charge(*replicas).is_ok_and(|vector| vector.fits_within(held));
        let most = (0..=asked).rev().find(paid).unwrap_or_default();
        (most < asked).then_some(most)
    }

    /// What its Deployment may charge as it is written now.
    fn charged(&self) -> Option<Vector> {
        let rollout = self.rollout.as_ref()?;
        let (replicas, resources) = rollout.size?;
        let pods = u64::from(replicas).max(u64::try_from(rollout.replicas).unwrap_or_default());
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
        let down = match &self.rollout {
            None => self.pods == 0,
            Some(rollout) => {
                let same_size = rollout.size.is_some_and(|(replicas, resources)| {
                    replicas == self.demand.replicas && (replicas == 0 || resources == self.demand.resources)
                });
                let written = rollout.generation == Some(self.generation) && !rollout.surge && same_size;
                written && self.is_settled(rollout)
            }
        };
        (too_much && down).then(|| claim(self, wants))
    }
}

/// Looks at the tenant `id`; nothing if it cannot have a ledger now.
#[must_use]
pub fn take(world: &World, id: &str) -> Option<Survey> {
    let observed = observe::tenant(world, id).filter(|observed| !observed.tenant.view.deleting)?;
    let valid = validate::tenant(&observed).ok()?;
    let namespace = valid.id.namespace();
    let tables = world.tables();
    if !tables.context(id).is_some_and(|context| context.ready) {
        return None;
    }
    let names = tables.functions.group(&Key::Tenant(id.to_owned()));
    drop(tables);
    let (mut members, mut kept) = (Vec::new(), HashSet::new());
    for name in &names {
        match member(world, name) {
            Some((_, Some(member))) => members.push(member),
            Some((uid, None)) => drop(kept.insert(uid)),
            None => (),
        }
    }
    let tables = world.tables();
    let ledger = tables.ledgers.get(&Name { namespace: namespace.clone(), name: LEDGER_NAME.to_owned() });
    let ledger = ledger.and_then(|seen| seen.view.ledger.clone().ok());
    let alive: HashSet<Uid> = members.iter().map(|m| m.uid).chain(kept.iter().copied()).collect();
    let held = ledger.iter().flat_map(|ledger| ledger.reservations().keys().copied());
    let orphans: Vec<Uid> = held.filter(|uid| !alive.contains(uid)).collect();
    let deployed = if orphans.is_empty() { HashSet::new() } else { owners(&tables, &namespace) };
    drop(tables);
    let (hard, now) = (valid.hard, Timestamp::now());
    Some(Survey { namespace, hard, members, orphans, deployed, kept, max_pass: MAX_PASS_DEFAULT, now })
}

/// Who owns a Deployment in a namespace.
fn owners(tables: &Tables, namespace: &str) -> HashSet<Uid> {
    let inside = |group: &Key| matches!(group, Key::Function(name) if name.namespace == namespace);
    let found = tables.children(ChildKind::Deployment).find(|seen| inside(&seen.group));
    found.iter().filter_map(|(_, seen)| seen.view.owner.as_ref()?.uid.parse().ok()).collect()
}

/// A function as a member, or only its uid if it cannot be run.
fn member(world: &World, name: &Name) -> Option<(Uid, Option<Member>)> {
    let observed = observe::function(world, name)?;
    let uid = observed.function.uid.parse().ok()?;
    let valid = validate::function(&observed).ok().filter(|_| !observed.function.view.deleting);
    Some((uid, valid.and_then(|valid| of(world, name, &observed, &valid))))
}

/// A function as a member.
#[must_use]
pub fn of(world: &World, name: &Name, observed: &ObservedFunction, valid: &ValidFunction) -> Option<Member> {
    let (uid, view) = (observed.function.uid.parse().ok()?, &observed.function.view);
    let demand = Demand { replicas: valid.replicas, ..Demand::of_function(&valid.spec) };
    let tables = world.tables();
    let own = Name { namespace: name.namespace.clone(), name: valid.name.object_name() };
    let found = tables.children(ChildKind::Deployment).get(&own);
    let found = found.filter(|seen| seen.view.is_owned_by(&valid.uid));
    let waiting = find(&view.status.conditions, ConditionType::QuotaReserved);
    let waiting = waiting.filter(|c| c.status == ConditionStatus::False);
    let pods = tables.pods.members(&Key::Function(name.clone()));
    let rollout = found.and_then(|seen| seen.view.rollout.clone());
    // The template is the same whatever the surroundings are.
    let wanted = deployment::desired(valid, &Surroundings::default());
    let new_template = rollout.as_ref().and_then(|r| r.template.as_deref()) != deployment::template_digest(&wanted);
    Some(Member {
        name: name.clone(),
        uid,
        generation: valid.generation,
        created: view.created.map_or(0, Timestamp::as_second),
        demand,
        waiting_since: waiting.and_then(|c| c.last_transition_time.parse().ok()),
        rollout,
        new_template,
        pods: pods.iter().filter(|(_, seen)| !seen.view.ended).count(),
    })
}
