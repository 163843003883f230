//! Brings one function in order: its Deployment, its Service, its status.

use std::time::Duration;

use eventflow_api::condition::Reason;
use eventflow_api::function::{FunctionStatus, Phase};
use eventflow_api::ledger::LEDGER_NAME;
use eventflow_api::names::TenantId;
use jiff::Timestamp;

use super::{Context, ReconcileError, UNWATCHED};
use crate::admission::AdmissionError;
use crate::admission::cover::Cover;
use crate::admission::survey::{self, Member, Told};
use crate::apply::Applied;
use crate::desired::deployment::template_digest;
use crate::desired::{self, FunctionObjects};
use crate::observe::{self, ObservedFunction};
use crate::queue::Next;
use crate::status::function::{Computed, Outcome, compute, differs_in_numbers_only};
use crate::status::{self, Moment};
use crate::validate::{self, Refusal, ValidFunction};
use crate::world::child::{ChildKind, Rollout};
use crate::world::{Key, Name};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use quota::vector::Vector;

/// Time in which changes of mere numbers are gathered into one write of the status.
const GATHER: Duration = Duration::from_secs(1);
/// The same for those that wait for quota: each that is served moves all behind it.
const GATHER_QUEUED: Duration = Duration::from_secs(5);

/// Wait before looking again whether old pods are gone.
const PODS_GOING: Duration = Duration::from_secs(1);
/// Attempts while others write the same Deployment.
const ATTEMPTS: usize = 5;

/// Brings a function in order. Nothing is to be done for one that is going but to see what it held be given back:
/// what it owns goes with it.
pub(super) async fn reconcile(context: &Context, name: &Name) -> Result<Next, ReconcileError> {
    for _ in 0..ATTEMPTS {
        if let Some(next) = attempt(context, name).await? {
            return Ok(next);
        }
    }
    Err(ReconcileError::Contended(name.clone()))
}

/// One attempt; nothing if its Deployment is not what it was: everything is to be looked at again.
async fn attempt(context: &Context, name: &Name) -> Result<Option<Next>, ReconcileError> {
    let Some(observed) = observe::function(&context.world, name).filter(|o| !o.function.view.deleting) else {
        ask_for_admission(context, name);
        return Ok(Some(Next::Settled));
    };
    let valid = match validate::function(&observed) {
        Ok(valid) => valid,
        Err(refusal) => return report(context, name, &observed, &Outcome::Refused(&refusal)).await.map(Some),
    };
    let (valid, member) = match leave(context, name, &observed, &valid) {
        Leave::Given(valid, member) => (valid, member),
        Leave::Refused(told, member) => {
            return wait(context, name, &observed, &valid, (&told, &member)).await.map(Some);
        }
        Leave::Unknown => return Ok(Some(Next::Settled)),
    };
    if member.rollout.is_none() && member.pods > 0 {
        // Somebody deleted its Deployment: what that left is charged until it is gone.
        report(context, name, &observed, &Outcome::Refused(&leaving("pods"))).await?;
        return Ok(Some(Next::After(PODS_GOING)));
    }
    let now = ValidFunction { replicas: member.replicas_now(), ..valid.clone() };
    let objects = desired::function(&now, &context.surroundings);
    let charge = member.charge(now.surge).map_err(|error| AdmissionError::Refused(error.into()))?;
    match apply(context, name, &now, &objects, &cover(context, &member, member.generation, charge)).await? {
        Made::Overtaken => {
            ask_for_admission(context, name);
            Ok(None)
        }
        Made::Refused(refusal) => {
            report(context, name, &observed, &Outcome::Refused(&refusal)).await?;
            Ok(Some(Next::After(UNWATCHED)))
        }
        Made::InPlace(rollout) => {
            let template = template_digest(&objects.deployment).unwrap_or_default();
            let outcome = Outcome::Applied { function: &valid, template, rollout: &rollout };
            report(context, name, &observed, &outcome).await.map(Some)
        }
    }
}

fn cover<'a>(context: &'a Context, member: &'a Member, generation: u64, charge: Vector) -> Cover<'a> {
    let namespace = &member.name.namespace;
    Cover { reader: &context.reader, namespace, uid: member.uid, generation, charge, epoch: context.epoch }
}

/// Whether a function may run as it asks to.
enum Leave {
    /// It holds what it needs; as it may be written now.
    Given(ValidFunction, Member),
    /// It does not, and why.
    Refused(Told, Member),
    /// That is about to be decided.
    Unknown,
}

fn leave(context: &Context, name: &Name, observed: &ObservedFunction, valid: &ValidFunction) -> Leave {
    let Some(member) = survey::of(&context.world, name, observed, valid) else { return Leave::Unknown };
    let (ledger, told) = {
        let tables = context.world.tables();
        let ledger = tables.ledgers.get(&Name { namespace: name.namespace.clone(), name: LEDGER_NAME.to_owned() });
        let told = tables.told(&Key::Function(name.clone())).cloned();
        (ledger.and_then(|seen| seen.view.ledger.clone().ok()), told)
    };
    let ledger = ledger.filter(|ledger| ledger.epoch() == context.epoch);
    let steady = member.demand.steady();
    let held = ledger.filter(|ledger| steady.is_ok_and(|steady| ledger.covers(member.uid, member.generation, &steady)));
    let Some(ledger) = held else {
        ask_for_admission(context, name);
        let about_this = |told: &Told| told.uid == member.uid && told.generation == member.generation && !told.admitted;
        return match told.filter(about_this) {
            Some(told) => Leave::Refused(told, member),
            None => Leave::Unknown,
        };
    };
    if member.shrinks(&ledger).is_some() {
        ask_for_admission(context, name);
    }
    let surge = member.may_surge(&ledger);
    Leave::Given(ValidFunction { surge, ..valid.clone() }, member)
}

/// Has the ledger of the tenant looked at.
pub(super) fn ask_for_admission(context: &Context, name: &Name) {
    if let Some(tenant) = TenantId::from_namespace(&name.namespace) {
        context.world.queue.add(Key::Admission(tenant.into()));
    }
}

/// What runs, runs on, but never more than is reserved; and not at all while the tenant is suspended.
async fn wait(
    context: &Context,
    name: &Name,
    observed: &ObservedFunction,
    function: &ValidFunction,
    (told, member): (&Told, &Member),
) -> Result<Next, ReconcileError> {
    let ledger_name = Name { namespace: name.namespace.clone(), name: LEDGER_NAME.to_owned() };
    let ledger = context.world.tables().ledgers.get(&ledger_name);
    let held = ledger.and_then(|seen| seen.view.ledger.as_ref().ok()?.reservations().get(&member.uid).copied());
    let stopped = function.suspension == Some(Reason::TenantSuspended);
    if let Some(held) = held
        && let Some((replicas, charge)) = if stopped { member.stop() } else { member.excess(&held.vector) }
    {
        let own = Name { namespace: name.namespace.clone(), name: function.name.object_name() };
        context.applier.scale_down(&own, replicas, &cover(context, member, held.generation, charge)).await?;
    }
    let outcome = Outcome::Waiting { told, rollout: member.rollout.as_ref() };
    report(context, name, observed, &outcome).await
}

/// What became of a function's objects.
enum Made {
    /// They are as they should be.
    InPlace(Rollout),
    /// Something is in the way.
    Refused(Refusal),
    /// Others wrote meanwhile.
    Overtaken,
}

/// The Service first, so that whoever sees a pod ready can reach it.
async fn apply(
    context: &Context,
    name: &Name,
    function: &ValidFunction,
    objects: &FunctionObjects,
    cover: &Cover<'_>,
) -> Result<Made, ReconcileError> {
    let applier = &context.applier;
    if let Some(service) = &objects.service {
        match applier.ensure(service).await? {
            Applied::InPlace(_) => (),
            Applied::Foreign => return Ok(Made::Refused(conflict("Service", function))),
            Applied::Leaving => return Ok(Made::Refused(leaving("Service"))),
        }
    }
    let rollout = match applier.deploy(&objects.deployment, cover).await? {
        Some(Applied::InPlace(seen)) => seen.view.rollout.clone().unwrap_or_default(),
        Some(Applied::Foreign) => return Ok(Made::Refused(conflict("Deployment", function))),
        Some(Applied::Leaving) => return Ok(Made::Refused(leaving("Deployment"))),
        None => return Ok(Made::Overtaken),
    };
    remove_orphans(context, name, function, objects.service.is_some()).await?;
    Ok(Made::InPlace(rollout))
}

/// What carries the function's label and belongs to it, but is not wanted (any more).
async fn remove_orphans(
    context: &Context,
    name: &Name,
    function: &ValidFunction,
    service: bool,
) -> Result<(), ReconcileError> {
    let own = function.name.object_name();
    let orphans = |kind: ChildKind, keep: bool| {
        let members = context.world.tables().children(kind).members(&Key::Function(name.clone()));
        let wanted = |child: &Name| keep && child.name == own;
        let orphans = members
            .into_iter()
            .filter(|(child, seen)| seen.view.is_owned_by(&function.uid) && !seen.view.deleting && !wanted(child));
        orphans.collect::<Vec<_>>()
    };
    let (deployments, services) = (orphans(ChildKind::Deployment, true), orphans(ChildKind::Service, service));
    for (child, seen) in deployments {
        context.applier.delete::<Deployment>(&child, &seen.uid).await?;
    }
    for (child, seen) in services {
        context.applier.delete::<Service>(&child, &seen.uid).await?;
    }
    Ok(())
}

fn conflict(kind: &str, function: &ValidFunction) -> Refusal {
    let message =
        format!("a {kind} named {} exists that does not belong to this function", function.name.object_name());
    Refusal::new(Reason::NameConflict, message)
}

fn leaving(kind: &str) -> Refusal {
    Refusal::new(Reason::Terminating, format!("the function's old {kind} must be gone first; a new one follows"))
}

/// Writes the status if it differs, and says when to look again.
async fn report(
    context: &Context,
    name: &Name,
    observed: &ObservedFunction,
    outcome: &Outcome<'_>,
) -> Result<Next, ReconcileError> {
    let (uid, view) = (&observed.function.uid, &observed.function.view);
    let pods = observe::pods(&context.world, name);
    let at = Moment { generation: view.generation, now: Timestamp::now() };
    let Computed { mut status, look_again } = compute(&name.name, &view.status, outcome, &pods, at);
    let look_again = look_again.map(|due| Next::After(until(due, at.now)));
    if status == view.status {
        return Ok(look_again.unwrap_or(Next::Settled));
    }
    if let Some(wait) = gathering(&view.status, &status, at.now) {
        return Ok(Next::After(wait));
    }
    status.last_updated = Some(status::time(at.now));
    status::write::function(&context.client, &context.world, (name, uid), &status).await?;
    context.events.function(name, uid, &view.status.conditions, &status.conditions);
    Ok(look_again.unwrap_or(Next::Settled))
}

/// How long to wait for more of the same, if only numbers differ and the last write was just now.
fn gathering(old: &FunctionStatus, new: &FunctionStatus, now: Timestamp) -> Option<Duration> {
    let written: Timestamp = old.last_updated.as_ref()?.parse().ok()?;
    let gather = if new.phase == Phase::Queued { GATHER_QUEUED } else { GATHER };
    let wait = until(written.checked_add(gather).ok()?, now);
    let just_now = now.duration_since(written).unsigned_abs() < gather + GATHER;
    (just_now && differs_in_numbers_only(old, new)).then_some(wait)
}

fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or_default() + Duration::from_millis(50)
}
