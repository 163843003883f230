//! Brings one tenant's ledger in order: follows the tier's limits, gives back what is no longer needed, and admits
//! as many of those that wait as fit, all in one compare-and-swap. The only writer of ledgers. One at a time per
//! tenant, since the queue gives a key to one worker; two controllers are kept apart by the swap and the epoch.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use eventflow_api::labels;
use eventflow_api::ledger::{LEDGER_NAME, QuotaLedger, QuotaLedgerSpec};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, PostParams};

use crate::desired::UID;
use crate::queue::Next;
use crate::reconcile::{Context, ReconcileError};
use crate::world::ledger::see;
use crate::world::{Key, Name};
use quota::ledger::{Claim, Ledger, Live, Refusal};
use quota::queue::{Selection, take_while_fits};
use quota::uid::Uid;
use quota::vector::Vector;
use quota::verdict::Verdict;

/// What the tenant has and asks for.
pub mod survey;

use survey::{Member, Survey};

/// Attempts to swap before others get their turn.
const SWAP_ATTEMPTS: usize = 8;
/// Wait before looking again whether the pods of a function that is gone are gone too.
const PODS_GOING: Duration = Duration::from_secs(1);

/// A ledger that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The API server refused or could not be asked.
    #[error("cannot {verb} the ledger of {namespace}")]
    Call {
        /// What was tried.
        verb: &'static str,
        /// Where.
        namespace: String,
        /// What went wrong.
        source: Box<kube::Error>,
    },
    /// Others kept writing it.
    #[error("the ledger of {0} was written by others each time")]
    Contended(String),
    /// The ledger does not allow what was planned.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// What is to become of a ledger.
struct Plan {
    next: Ledger,
    selection: Selection,
}

/// Brings the ledger of the tenant `id` in order.
///
/// # Errors
/// If the API server refuses something, or others keep writing the ledger.
pub async fn reconcile(context: &Context, id: &str) -> Result<Next, ReconcileError> {
    let Some(survey) = survey::take(&context.world, id) else { return Ok(Next::Settled) };
    let going = still_going(context, &survey).await?;
    for _ in 0..SWAP_ATTEMPTS {
        let found = context.world.tables().ledgers.get(&survey.ledger_name());
        let before = found.as_ref().and_then(|seen| seen.view.ledger.clone().ok());
        let plan = match plan(before.as_ref(), context.epoch, &survey, &going) {
            Ok(plan) => plan,
            Err(Refusal::Deposed { .. }) => return Ok(Next::Settled),
            Err(refusal) => return Err(AdmissionError::from(refusal).into()),
        };
        let version = found.as_ref().map(|seen| seen.resource_version);
        let told = found.as_ref().map(|seen| seen.view.queued);
        let queued = i64::try_from(plan.selection.blocked.len()).unwrap_or(i64::MAX);
        let news = before.as_ref() != Some(&plan.next) || told != Some(queued);
        if news && !swap(context, &survey, version, &plan.next, queued).await? {
            context.metrics.ledger_conflict();
            continue;
        }
        tell(context, id, &survey, &plan, before.as_ref());
        return Ok(if going.is_empty() { Next::Settled } else { Next::After(PODS_GOING) });
    }
    Err(AdmissionError::Contended(survey.namespace).into())
}

/// The ledger as it should be: limits followed, the unneeded given back, those that fit admitted. Pure.
fn plan(before: Option<&Ledger>, epoch: u64, survey: &Survey, going: &[Uid]) -> Result<Plan, Refusal> {
    let lost = Ledger::new(survey.hard, 0);
    let mut ledger = before.unwrap_or(&lost).clone();
    if ledger.epoch() < epoch {
        let live: Vec<Live> = survey.members.iter().map(Member::live).collect();
        ledger = ledger.rebuild(epoch, &live)?.ledger;
    }
    ledger = ledger.with_hard(epoch, survey.hard)?;
    for uid in survey.orphans.iter().filter(|uid| !going.contains(uid)) {
        ledger = ledger.release(epoch, *uid)?;
    }
    for member in &survey.members {
        if let Some(claim) = member.shrinks(&ledger) {
            ledger = ledger.resize(epoch, &claim)?;
        }
    }
    let waiting: Vec<_> = survey.members.iter().filter_map(|m| m.waiting(&ledger, survey.now)).collect();
    let selection = take_while_fits(&ledger, &waiting, survey.max_pass);
    ledger = ledger.admit(epoch, &selection.picked)?;
    // Room for one more pod during a roll-out comes last, and not at all while somebody waits.
    let news: HashSet<Uid> = selection.picked.iter().map(|claim| claim.uid).collect();
    let starting = survey.members.iter().filter(|m| news.contains(&m.uid) && selection.blocked.is_empty());
    for claim in starting.filter_map(|m| m.surge_claim(&ledger)).collect::<Vec<_>>() {
        if ledger.sum_with(ledger.sum(), &claim).is_ok() {
            ledger = ledger.admit(epoch, &[claim])?;
        }
    }
    Ok(Plan { next: ledger, selection })
}

/// Writes the ledger over the version that was read; false if that is not the newest, which is then known.
async fn swap(
    context: &Context,
    survey: &Survey,
    version: Option<u64>,
    next: &Ledger,
    queued: i64,
) -> Result<bool, AdmissionError> {
    let api: Api<QuotaLedger> = Api::namespaced(context.client.clone(), &survey.namespace);
    let failed = |verb| {
        let namespace = survey.namespace.clone();
        move |source| AdmissionError::Call { verb, namespace, source: Box::new(source) }
    };
    let mut object = QuotaLedger::new(LEDGER_NAME, spec(next, queued));
    object.metadata.labels = Some([(labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_VALUE.to_owned())].into());
    object.metadata.resource_version = version.map(|version| version.to_string());
    let params = PostParams { field_manager: Some(labels::CONTROLLER_MANAGER.to_owned()), dry_run: false };
    let written = match version {
        None => api.create(&params, &object).await,
        Some(_) => api.replace(LEDGER_NAME, &params, &object).await,
    };
    match written {
        Ok(written) => {
            let (name, seen) = see(&written);
            context.world.record_ledger(name, seen);
            Ok(true)
        }
        Err(kube::Error::Api(status))
            if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
        {
            match api.get_opt(LEDGER_NAME).await.map_err(failed("get"))? {
                Some(found) => {
                    let (name, seen) = see(&found);
                    context.world.record_ledger(name, seen);
                }
                None => context.world.forget_ledger(&survey.ledger_name()),
            }
            Ok(false)
        }
        // Whatever became of it is read again before anything is decided.
        Err(source) => {
            context.world.forget_ledger(&survey.ledger_name());
            Err(failed("write")(source))
        }
    }
}

fn spec(ledger: &Ledger, queued: i64) -> QuotaLedgerSpec {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let amounts = |vector: &Vector| vector.amounts().into_iter().map(|(d, amount)| (d.to_string(), amount)).collect();
    QuotaLedgerSpec {
        packed: quota::packed::encode(ledger),
        epoch: number(ledger.epoch()),
        seq: number(ledger.seq()),
        hard: amounts(ledger.hard()),
        reserved: amounts(ledger.sum()),
        queued,
    }
}

/// Those that hold something, are gone, and whose pods are not. Asked of the API server itself: a reservation is
/// never given back on what a watch may not have seen yet. ReplicaSets first, for they make pods.
async fn still_going(context: &Context, survey: &Survey) -> Result<Vec<Uid>, AdmissionError> {
    let mut going = Vec::new();
    for uid in &survey.orphans {
        let of_it = ListParams::default().labels(&format!("{UID}={uid}")).limit(1);
        let failed = |source| AdmissionError::Call {
            verb: "read the pods in",
            namespace: survey.namespace.clone(),
            source: Box::new(source),
        };
        let sets: Api<ReplicaSet> = Api::namespaced(context.client.clone(), &survey.namespace);
        let pods: Api<Pod> = Api::namespaced(context.client.clone(), &survey.namespace);
        let busy = survey.deployed.contains(uid)
            || !sets.list_metadata(&of_it).await.map_err(failed)?.items.is_empty()
            || !pods.list_metadata(&of_it).await.map_err(failed)?.items.is_empty();
        if busy {
            going.push(*uid);
        }
    }
    Ok(going)
}

/// Tells functions what was decided about them, and the tenant whether it is over its quota.
fn tell(context: &Context, id: &str, survey: &Survey, plan: &Plan, before: Option<&Ledger>) {
    let name_of: HashMap<Uid, &Name> = survey.members.iter().map(|m| (m.uid, &m.name)).collect();
    let named = |uid: Uid| name_of.get(&uid).map(|name| name.name.clone());
    for member in &survey.members {
        let demand = member.demand;
        let verdict = Verdict::of(&plan.next, &plan.selection, member.uid, &demand);
        let told = survey::Told {
            uid: member.uid,
            generation: member.generation,
            reason: verdict.reason(),
            admitted: matches!(verdict, Verdict::Admitted { .. }),
            message: verdict.message(named),
        };
        if context.world.tell(&member.name, told) {
            context.metrics.admission(verdict.label());
        }
        let held = |ledger: &Ledger| ledger.reservations().get(&member.uid).copied();
        if before.and_then(held) != held(&plan.next) {
            context.world.queue.add(Key::Function(member.name.clone()));
        }
    }
    if before.map(Ledger::is_over_quota) != Some(plan.next.is_over_quota()) {
        context.world.queue.add(Key::Tenant(id.to_owned()));
    }
}

/// A claim for what is wanted now.
fn claim(member: &Member, wants: Vector) -> Claim {
    Claim { uid: member.uid, generation: member.generation, wants }
}

/// Seconds since a time, none if it lies ahead.
fn seconds_since(time: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(time)).unwrap_or_default()
}
