//! Brings one tenant's ledger in order: follows the tier's limits, gives back what is no longer needed, and admits
//! as many of those that wait as fit, all in one compare-and-swap. The only writer of ledgers. One at a time per
//! tenant, since the queue gives a key to one worker; two controllers are kept apart by the swap and the epoch.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use eventflow_api::labels;
use eventflow_api::ledger::{LEDGER_NAME, QuotaLedger, QuotaLedgerSpec};
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;

use crate::queue::Next;
use crate::reconcile::{Context, ReconcileError};
use crate::world::Key;
use crate::world::ledger::see;
use quota::ledger::{Ledger, Live, Refusal};
use quota::queue::{Selection, take_while_fits};
use quota::uid::Uid;
use quota::vector::{Vector, VectorError};
use quota::verdict::Verdict;

/// What the tenant has and asks for.
pub mod survey;
/// Whether a reservation covers what is about to be written.
pub mod cover;
/// What is really gone.
pub mod gone;
/// For how long it has been.
pub mod quiet;
/// A ledger that was lost, found again.
pub mod refound;

use quiet::QUIET;
use survey::{Member, Survey, Told};

/// Passes over one ledger before others get their turn.
const PASSES: usize = 8;
/// Wait before looking again whether the pods of a function that is gone are gone too.
const PODS_GOING: Duration = Duration::from_secs(1);

/// A ledger that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The API server refused or could not be asked.
    #[error("cannot {verb} {namespace}")]
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

/// What the API server itself says, as far as it matters for this pass.
#[derive(Default)]
struct Facts {
    /// What runs, if the ledger was lost.
    refound: Option<Vec<Live>>,
    /// Who holds something and is gone for good.
    gone: Vec<Uid>,
    /// Whose end is marked, and of whom nothing is left, for a while now.
    ended: Vec<Uid>,
    /// The same, but not for long enough.
    ending: bool,
    /// Pods of those that could hold less.
    pods: BTreeMap<Uid, usize>,
}

/// What is to become of a ledger.
struct Plan {
    next: Ledger,
    selection: Selection,
    /// Somebody holds more than it needs, and the rest is about to go.
    waits_for_pods: bool,
}

/// Brings the ledger of the tenant `id` in order.
///
/// # Errors
/// If the API server refuses something, or others keep writing the ledger.
pub async fn reconcile(context: &Context, id: &str) -> Result<Next, ReconcileError> {
    let mut namespace = String::new();
    for _ in 0..PASSES {
        let Some(survey) = survey::take(&context.world, id, context.max_pass) else { return Ok(Next::Settled) };
        let Some(facts) = facts(context, &survey).await? else { continue };
        let before = survey.ledger();
        let plan = match plan(before.as_ref(), context.epoch, &survey, &facts) {
            Ok(plan) => plan,
            Err(Refusal::Deposed { .. }) => return Ok(Next::Settled),
            Err(refusal) => return Err(AdmissionError::from(refusal).into()),
        };
        let told = survey.found.as_ref().map(|seen| seen.view.queued);
        let queued = i64::try_from(plan.selection.blocked.len()).unwrap_or(i64::MAX);
        let news = before.as_ref() != Some(&plan.next) || told != Some(queued);
        if news && !swap(context, &survey, &plan.next, queued).await? {
            context.metrics.ledger_conflict();
            namespace = survey.namespace;
            continue;
        }
        tell(context, id, &survey, &plan, before.as_ref());
        if facts.gone.is_empty() {
            let waits = plan.waits_for_pods || plan.next.reservations().values().any(|r| r.is_ending());
            return Ok(match waits {
                _ if facts.ending => Next::After(QUIET),
                true => Next::After(PODS_GOING),
                false => Next::Settled,
            });
        }
        // Their end is marked now: whether anything is left of them counts only from here on.
    }
    if namespace.is_empty() { Ok(Next::After(PODS_GOING)) } else { Err(AdmissionError::Contended(namespace).into()) }
}

/// Asks the API server what no watch can be trusted with; nothing if the ledger turned out to be another one.
async fn facts(context: &Context, survey: &Survey) -> Result<Option<Facts>, ReconcileError> {
    let namespace = survey.namespace.as_str();
    let Some(ledger) = survey.ledger() else {
        return match context.reader.read(namespace).await? {
            Some(_) => Ok(None),
            None => {
                let refound = Some(refound::everything(context, namespace).await?);
                Ok(Some(Facts { refound, ..Facts::default() }))
            }
        };
    };
    let gone = gone::of(context, namespace, &survey.orphans).await?;
    let nothing_left = gone::entirely(context, namespace, &survey.ending).await?;
    let ended = context.quiet.lasted(namespace, &nothing_left, Instant::now());
    let ending = ended.len() < nothing_left.len();
    let less: Vec<Uid> = survey.members.iter().filter(|m| m.shrinks(&ledger).is_some()).map(|m| m.uid).collect();
    let pods = gone::pods_of(context, namespace, &less).await?;
    Ok(Some(Facts { refound: None, gone, ended, ending, pods }))
}

/// The ledger as it should be: limits followed, the unneeded given back, those that fit admitted. Pure.
fn plan(before: Option<&Ledger>, epoch: u64, survey: &Survey, facts: &Facts) -> Result<Plan, Refusal> {
    let lost = Ledger::new(survey.hard, 0);
    let mut ledger = before.unwrap_or(&lost).clone();
    if ledger.epoch() < epoch {
        let cached = || survey.members.iter().map(Member::live).collect();
        let live: Vec<Live> = facts.refound.clone().unwrap_or_else(cached);
        ledger = ledger.rebuild(epoch, &live)?.ledger;
    }
    ledger = ledger.with_hard(epoch, survey.hard)?;
    for uid in &facts.gone {
        ledger = ledger.end(epoch, *uid)?;
    }
    for uid in &facts.ended {
        ledger = ledger.release(epoch, *uid)?;
    }
    let mut waits_for_pods = false;
    for member in &survey.members {
        let Some(claim) = member.shrinks(&ledger).filter(|_| facts.refound.is_none()) else { continue };
        if facts.pods.get(&member.uid).is_none_or(|pods| *pods <= member.demand.replicas as usize) {
            ledger = ledger.resize(epoch, &claim)?;
        } else {
            waits_for_pods = true;
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
    Ok(Plan { next: ledger, selection, waits_for_pods })
}

/// Writes the ledger over the version that was read; false if that is not the newest, which is then known.
async fn swap(context: &Context, survey: &Survey, next: &Ledger, queued: i64) -> Result<bool, AdmissionError> {
    let api: Api<QuotaLedger> = Api::namespaced(context.client.clone(), &survey.namespace);
    let version = survey.found.as_ref().map(|seen| seen.resource_version);
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
            match api.get_opt(LEDGER_NAME).await.map_err(call("read the ledger of", &survey.namespace))? {
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
            Err(call("write the ledger of", &survey.namespace)(source))
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

/// Tells functions what was decided about them, and the tenant whether it is over its quota.
fn tell(context: &Context, id: &str, survey: &Survey, plan: &Plan, before: Option<&Ledger>) {
    let name_of: HashMap<Uid, String> = survey.members.iter().map(|m| (m.uid, m.told_as())).collect();
    let named = |uid: Uid| name_of.get(&uid).cloned();
    for member in &survey.members {
        let (told, label) = decision(member, plan, named);
        let admitted = told.admitted;
        if context.world.tell(&member.key, told) {
            context.metrics.admission(label, admitted.then(|| member.waited(survey.now)));
        }
        let held = |ledger: &Ledger| ledger.reservations().get(&member.uid).copied();
        if before.and_then(held) != held(&plan.next) {
            context.world.queue.add(member.key.clone());
        }
    }
    if before.map(Ledger::is_over_quota) != Some(plan.next.is_over_quota()) {
        context.world.queue.add(Key::Tenant(id.to_owned()));
    }
}

/// What was decided about one function, for its status and, in one word, for the metrics.
fn decision(member: &Member, plan: &Plan, named: impl Fn(Uid) -> Option<String>) -> (Told, &'static str) {
    let told =
        |reason, admitted, message| Told { uid: member.uid, generation: member.generation, reason, admitted, message };
    if let Some(refusal) = member.refusal(&plan.next) {
        return (told(refusal.reason, false, refusal.message.clone()), "refused");
    }
    let verdict = Verdict::of(&plan.next, &plan.selection, member.uid, &member.demand);
    let admitted = matches!(verdict, Verdict::Admitted { .. });
    (told(verdict.reason(), admitted, verdict.message(named)), verdict.label())
}

/// A call about a namespace that failed.
fn call(verb: &'static str, namespace: &str) -> impl FnOnce(kube::Error) -> AdmissionError {
    let namespace = namespace.to_owned();
    move |source| AdmissionError::Call { verb, namespace, source: Box::new(source) }
}

/// What runs cannot be added up.
fn too_large(error: VectorError) -> AdmissionError {
    AdmissionError::Refused(Refusal::Overflow(error))
}
