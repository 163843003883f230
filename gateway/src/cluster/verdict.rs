//! The verdict on a function: the controller's word, waited for on the watch, with the caches' numbers.

use std::sync::Arc;
use std::time::Duration;

use eventflow_api::admission::Admission;
use eventflow_api::condition::{self, Condition, ConditionStatus, ConditionType, Reason};
use eventflow_api::function::Function;
use eventflow_api::ledger::LEDGER_NAME;
use eventflow_api::names::TenantId;
use eventflow_api::tenant::Tenant as TenantObject;
use kube::ResourceExt;
use quota::demand::Demand;
use quota::packed;
use quota::vector::Vector;
use quota::verdict::Verdict;

use super::{Cluster, object};
use crate::store::FunctionRow;

/// Longest wait for a tenant's object that was made just now.
const TENANT_WAIT: Duration = Duration::from_millis(500);
/// Longest wait for the caches to agree with the controller's word: they come by different watches.
const AGREE_WAIT: Duration = Duration::from_millis(300);

impl Cluster {
    /// The tenant's object, for which a caller who came for the first time waits a moment.
    pub async fn tenant_soon(&self, id: &TenantId) -> Option<Arc<TenantObject>> {
        let mut changes = self.inner.tenants.changes();
        let seen = async {
            loop {
                if let Some(tenant) = self.tenant(id) {
                    return Some(tenant);
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(TENANT_WAIT, seen).await.ok().flatten()
    }

    /// The verdict on this generation of the row, with its numbers; waits for it at most for `deadline`. What the
    /// ledger holds is admitted, and nobody need wait until the function is told so; anything else is the controller's
    /// word.
    pub async fn admission(&self, row: &FunctionRow, deadline: Duration) -> Admission {
        let (mut functions, mut ledgers) = (self.inner.functions.changes(), self.inner.ledgers.changes());
        let mut known = None;
        let verdict = async {
            loop {
                if let Some(reserved) = self.reserved(row, &mut known) {
                    return Some(Ok(Admission::Admitted { reserved: reserved.amounts() }));
                }
                if let Some(word) = self.word(row) {
                    return Some(Err(word));
                }
                tokio::select! {
                    changed = functions.changed() => changed.ok()?,
                    changed = ledgers.changed() => changed.ok()?,
                }
            }
        };
        match tokio::time::timeout(deadline, verdict).await.ok().flatten() {
            Some(Ok(admitted)) => admitted,
            Some(Err(word)) => self.agreed(row, word).await,
            None => {
                let why = "the controller has not decided yet; read the function again in a moment".to_owned();
                Admission::Undecided { why }
            }
        }
    }

    /// The controller's word with its numbers, once the caches agree with it.
    async fn agreed(&self, row: &FunctionRow, word: Condition) -> Admission {
        let mut changes = self.inner.ledgers.changes();
        let agreed = async {
            loop {
                let word = self.word(row).unwrap_or_else(|| word.clone());
                if let Some(admission) = self.numbers(row, &word) {
                    return Some(admission);
                }
                changes.changed().await.ok()?;
            }
        };
        let agreed = tokio::time::timeout(AGREE_WAIT, agreed).await.ok().flatten();
        agreed.unwrap_or(Admission::Undecided { why: word.message })
    }

    /// What the ledger holds for this generation of the row, if that is all it needs. `known` is the version of the
    /// ledger that did not, so that each is read once.
    fn reserved(&self, row: &FunctionRow, known: &mut Option<String>) -> Option<Vector> {
        let function = self.current(row)?;
        let ledger = self.inner.ledgers.get(&row.tenant.namespace(), LEDGER_NAME)?;
        let version = ledger.resource_version();
        if known.is_some() && *known == version {
            return None;
        }
        *known = version;
        let uid = function.metadata.uid.as_deref()?.parse().ok()?;
        let generation = u64::try_from(function.metadata.generation?).ok()?;
        let steady = Demand::of_function(&row.spec.parse().ok()?).steady().ok()?;
        packed::decode(&ledger.spec.packed).ok()?.covers(uid, generation, &steady).then_some(steady)
    }

    /// The controller's word with the caches' numbers, if they agree.
    fn numbers(&self, row: &FunctionRow, word: &Condition) -> Option<Admission> {
        if word.status == ConditionStatus::True {
            let steady = row.spec.parse().ok().and_then(|spec| Demand::of_function(&spec).steady().ok())?;
            return Some(Admission::Admitted { reserved: steady.amounts() });
        }
        let view = self.quota(&row.tenant).ok()?;
        let verdict = view.verdict(&row.name)?;
        let agree = match (&verdict, word.reason) {
            (Verdict::Exceeds { .. }, reason) => reason == Reason::ExceedsMaxQuota,
            (Verdict::Queued { .. }, reason) => {
                matches!(reason, Reason::WaitingForQuota | Reason::ScaleUpPending | Reason::UpdatePending)
            }
            (Verdict::Admitted { .. }, _) => false,
        };
        agree.then(|| view.tell(&verdict))
    }

    /// The controller's word on this generation of the row, if it has spoken.
    fn word(&self, row: &FunctionRow) -> Option<Condition> {
        let function = self.current(row)?;
        let admitted = condition::find(&function.status.as_ref()?.conditions, ConditionType::Admitted)?;
        let transient = matches!(admitted.reason, Reason::TenantNotReady | Reason::Terminating);
        let current = Some(admitted.observed_generation) == function.metadata.generation;
        (current && !transient).then(|| admitted.clone())
    }

    /// The row's object, if the cache knows this generation of it.
    fn current(&self, row: &FunctionRow) -> Option<Arc<Function>> {
        let function = self.inner.functions.get(&row.tenant.namespace(), row.name.as_str())?;
        let current =
            object::function_id(&function) == Some(row.id) && object::generation(&function) >= Some(row.generation);
        current.then_some(function)
    }
}
