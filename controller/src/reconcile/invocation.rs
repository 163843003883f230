//! Brings one run in order: reserved, then its input and its Job, then its status; and its end, if it is not wanted.

use std::time::Duration;

use eventflow_api::condition::Reason;
use eventflow_api::function::Function;
use eventflow_api::invocation::{Invocation, InvocationStatus, RunPhase, RunReason};
use eventflow_api::labels;
use eventflow_api::ledger::LEDGER_NAME;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use quota::demand::RUN_GENERATION;

use super::function::ask_for_admission;
use super::{Context, ReconcileError};
use crate::admission::AdmissionError;
use crate::admission::cover::Cover;
use crate::admission::survey::{self, Member, Told};
use crate::apply::job::Started;
use crate::desired::job;
use crate::observe::{self, ObservedInvocation};
use crate::queue::Next;
use crate::status::invocation::{Computed, Outcome, compute, differs_in_words_only};
use crate::status::{self, Moment};
use crate::validate::{self, Unfit, ValidRun};
use crate::world::run::{JobView, RunPodView};
use crate::world::{Key, Name, run};

/// Wait before looking again whether pods are gone, or whether something is there by now.
const SOON: Duration = Duration::from_secs(1);
/// How long a run may be there before its function: they come by different ways.
const FUNCTION_WITHIN: SignedDuration = SignedDuration::from_secs(30);
/// Attempts while others write the same Job.
const ATTEMPTS: usize = 5;
/// Time in which changes of mere words are gathered into one write of the status.
const GATHER: SignedDuration = SignedDuration::from_secs(5);

/// Brings a run in order. Nothing is to be done for one that is over or going but to see what it held be given back.
pub(super) async fn reconcile(context: &Context, name: &Name) -> Result<Next, ReconcileError> {
    for _ in 0..ATTEMPTS {
        if let Some(next) = attempt(context, name).await? {
            return Ok(next);
        }
    }
    Err(ReconcileError::Contended(name.clone()))
}

async fn attempt(context: &Context, name: &Name) -> Result<Option<Next>, ReconcileError> {
    let Some(observed) = observe::invocation(&context.world, name).filter(|o| !o.invocation.view.deleting) else {
        ask_for_admission(context, name);
        return Ok(Some(Next::Settled));
    };
    let view = &observed.invocation.view;
    if view.status.phase.is_final() {
        give_back(context, name, &observed);
        return Ok(Some(Next::Settled));
    }
    let own = observed.job.as_ref().filter(|job| job.view.owner.as_ref() == Some(&observed.invocation.uid));
    let job = own.map(|job| &job.view);
    if let Some(job) = job.filter(|job| job.end.is_some() || (!job.suspended && !view.cancel && !job.deleting)) {
        return follow(context, name, &observed, job).await.map(Some);
    }
    if view.cancel {
        return end(context, name, &observed).await.map(Some);
    }
    if job.is_none() && matches!(view.status.phase, RunPhase::Starting | RunPhase::Running) {
        return missing(context, name, &observed).await;
    }
    let valid = match validate::invocation(&observed) {
        Ok(valid) => valid,
        Err(unfit) => return unfit_now(context, name, &observed, unfit).await.map(Some),
    };
    match leave(context, name, &observed, &valid) {
        Leave::Given(member) => start(context, name, &observed, (&valid, &member)).await,
        Leave::Refused(told) if told.reason == Reason::ExceedsMaxQuota => {
            let outcome = Outcome::Over(RunPhase::Failed, RunReason::ExceedsMaxQuota, told.message);
            report(context, name, &observed, &outcome).await.map(Some)
        }
        Leave::Refused(told) => report(context, name, &observed, &Outcome::Waiting(&told)).await.map(Some),
        Leave::Unknown => Ok(Some(Next::Settled)),
    }
}

/// What a run that is over held is given back; nothing is asked for that was given back already.
fn give_back(context: &Context, name: &Name, observed: &ObservedInvocation) {
    let ledger = Name { namespace: name.namespace.clone(), name: LEDGER_NAME.to_owned() };
    let ledger = context.world.tables().ledgers.get(&ledger);
    let ledger = ledger.and_then(|seen| seen.view.ledger.clone().ok());
    let uid = observed.invocation.uid.parse().ok();
    if ledger.is_none_or(|ledger| uid.is_some_and(|uid| ledger.reservations().contains_key(&uid))) {
        ask_for_admission(context, name);
    }
}

/// A run that cannot be started, or not yet.
async fn unfit_now(
    context: &Context,
    name: &Name,
    observed: &ObservedInvocation,
    unfit: Unfit,
) -> Result<Next, ReconcileError> {
    match unfit {
        Unfit::Yet(refusal) => report(context, name, observed, &Outcome::Held(&refusal)).await,
        Unfit::Ever(reason, message) => {
            report(context, name, observed, &Outcome::Over(RunPhase::Failed, reason, message)).await
        }
        Unfit::NoFunction(function) => {
            let since = observed.invocation.view.created.unwrap_or(Timestamp::UNIX_EPOCH);
            let api: Api<Function> = Api::namespaced(context.client.clone(), &name.namespace);
            let wait = Timestamp::now() < since + FUNCTION_WITHIN;
            if wait || api.get_metadata_opt(&function).await.map_err(call("read a function in", name))?.is_some() {
                return Ok(Next::After(SOON));
            }
            let message = format!("there is no function {function}");
            report(context, name, observed, &Outcome::Over(RunPhase::Failed, RunReason::FunctionUnusable, message))
                .await
        }
    }
}

/// Whether a run may start.
enum Leave {
    /// Its pod is reserved.
    Given(Box<Member>),
    /// It is not, and why.
    Refused(Told),
    /// That is about to be decided.
    Unknown,
}

fn leave(context: &Context, name: &Name, observed: &ObservedInvocation, valid: &ValidRun) -> Leave {
    let Some(member) = survey::of_run(name, observed, valid) else { return Leave::Unknown };
    let (ledger, told) = {
        let tables = context.world.tables();
        let ledger = tables.ledgers.get(&Name { namespace: name.namespace.clone(), name: LEDGER_NAME.to_owned() });
        let told = tables.told(&Key::Invocation(name.clone())).cloned();
        (ledger.and_then(|seen| seen.view.ledger.clone().ok()), told)
    };
    let ledger = ledger.filter(|ledger| ledger.epoch() == context.epoch);
    let steady = member.demand.steady();
    if ledger.is_some_and(|ledger| steady.is_ok_and(|steady| ledger.covers(member.uid, RUN_GENERATION, &steady))) {
        return Leave::Given(Box::new(member));
    }
    ask_for_admission(context, name);
    match told.filter(|told| told.uid == member.uid && !told.admitted) {
        Some(told) => Leave::Refused(told),
        None => Leave::Unknown,
    }
}

/// Makes a run start; nothing if others wrote meanwhile.
async fn start(
    context: &Context,
    name: &Name,
    observed: &ObservedInvocation,
    (valid, member): (&ValidRun, &Member),
) -> Result<Option<Next>, ReconcileError> {
    if valid.has_input {
        let api: Api<Invocation> = Api::namespaced(context.client.clone(), &name.namespace);
        let whole = api.get_opt(&name.name).await.map_err(call("read a run in", name))?;
        let same = |whole: &Invocation| whole.metadata.uid.as_ref() == Some(&observed.invocation.uid);
        let Some(whole) = whole.filter(same) else { return Ok(Some(Next::After(SOON))) };
        context.applier.carry_input(&job::input(valid, whole.spec.input.unwrap_or_default())).await?;
    }
    let charge = member.demand.steady().map_err(|error| AdmissionError::Refused(error.into()))?;
    let (reader, namespace, epoch) = (&context.reader, name.namespace.as_str(), context.epoch);
    let cover = Cover { reader, namespace, uid: member.uid, generation: RUN_GENERATION, charge, epoch };
    match context.applier.start_job(&job::desired(valid, &context.surroundings), &cover).await? {
        Started::Runs(job) => {
            let outcome = Outcome::Started { job: &job, timeout: job::timeout(valid) };
            report(context, name, observed, &outcome).await.map(Some)
        }
        Started::Foreign => {
            let message = format!("a Job named {} exists that does not belong to this run", job::name(&name.name));
            let outcome = Outcome::Over(RunPhase::Failed, RunReason::InvalidSpec, message);
            report(context, name, observed, &outcome).await.map(Some)
        }
        Started::Overtaken => {
            ask_for_admission(context, name);
            Ok(None)
        }
    }
}

/// Tells how a run stands whose Job was started. That it is over is told from its pods as the API server has them: they
/// come by another watch than the Job.
async fn follow(
    context: &Context,
    name: &Name,
    observed: &ObservedInvocation,
    job: &JobView,
) -> Result<Next, ReconcileError> {
    let timeout = validate::invocation(observed).map_or(0, |valid| job::timeout(&valid));
    let outcome = Outcome::Started { job, timeout };
    if job.end.is_none() {
        return report(context, name, observed, &outcome).await;
    }
    let pods = pods_now(context, name, &observed.invocation.uid).await?;
    report(context, name, &ObservedInvocation { pods, ..observed.clone() }, &outcome).await
}

/// The run's pods as the API server has them, oldest first.
async fn pods_now(context: &Context, name: &Name, uid: &str) -> Result<Vec<(String, RunPodView)>, ReconcileError> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &name.namespace);
    let of_it = ListParams::default().labels(&format!("{}={}", labels::INVOCATION, name.name));
    let list = api.list(&of_it).await.map_err(call("read the pods in", name))?;
    let pods = list.items.into_iter().map(run::pod).map(|(name, seen)| (name.name, seen.view));
    let mut pods: Vec<_> = pods.filter(|(_, pod)| pod.invocation.as_deref() == Some(uid)).collect();
    pods.sort_by(|(a, one), (b, other)| (one.created, a).cmp(&(other.created, b)));
    Ok(pods)
}

/// A run that is not wanted any more: its Job and its pods go first.
async fn end(context: &Context, name: &Name, observed: &ObservedInvocation) -> Result<Next, ReconcileError> {
    if let Some(job) = &observed.job
        && job.view.owner.as_ref() == Some(&observed.invocation.uid)
    {
        if !job.view.deleting {
            let own = Name { namespace: name.namespace.clone(), name: job::name(&name.name) };
            context.applier.delete_job(&own, &job.uid).await?;
        }
        return Ok(Next::After(SOON));
    }
    if observed.pods.iter().any(|(_, pod)| pod.ended.is_none()) {
        return Ok(Next::After(SOON));
    }
    let message = "it was cancelled".to_owned();
    report(context, name, observed, &Outcome::Over(RunPhase::Cancelled, RunReason::Cancelled, message)).await
}

/// A run whose Job is not there although it was; nothing if it is after all.
async fn missing(
    context: &Context,
    name: &Name,
    observed: &ObservedInvocation,
) -> Result<Option<Next>, ReconcileError> {
    let own = Name { namespace: name.namespace.clone(), name: job::name(&name.name) };
    if let Some(found) = context.applier.get_job(&own).await? {
        let (name, seen) = run::job(&found);
        context.world.record_job(name, seen);
        return Ok(None);
    }
    let message = "its Job was deleted in the cluster".to_owned();
    report(context, name, observed, &Outcome::Over(RunPhase::Failed, RunReason::Removed, message)).await.map(Some)
}

/// Writes the status if it differs, and says when to look again.
async fn report(
    context: &Context,
    name: &Name,
    observed: &ObservedInvocation,
    outcome: &Outcome<'_>,
) -> Result<Next, ReconcileError> {
    let (uid, view) = (&observed.invocation.uid, &observed.invocation.view);
    let at = Moment { generation: view.generation, now: Timestamp::now() };
    let Computed { status, look_again } = compute(&view.status, outcome, &observed.pods, at);
    let next = look_again.map_or(Next::Settled, |due| Next::After(until(due, at.now)));
    if status == view.status {
        return Ok(next);
    }
    if let Some(wait) = gathering(&view.status, &status, at.now) {
        return Ok(Next::After(wait));
    }
    status::write::invocation(&context.client, &context.world, (name, uid), &status).await?;
    if status.phase.is_final() {
        ask_for_admission(context, name);
    }
    Ok(next)
}

/// How long to wait for more of the same, if only words differ: each that leaves the queue moves all behind it.
fn gathering(old: &InvocationStatus, new: &InvocationStatus, now: Timestamp) -> Option<Duration> {
    if new.phase != RunPhase::Queued || !differs_in_words_only(old, new) {
        return None;
    }
    // In step for all of a tenant's, so that none is told more often than the others.
    let into = now.as_second().rem_euclid(GATHER.as_secs());
    (into != 0).then(|| Duration::from_secs(u64::try_from(GATHER.as_secs() - into).unwrap_or_default()))
}

fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or_default() + Duration::from_millis(50)
}

fn call(verb: &'static str, name: &Name) -> impl FnOnce(kube::Error) -> AdmissionError {
    let namespace = name.namespace.clone();
    move |source| AdmissionError::Call { verb, namespace, source: Box::new(source) }
}
