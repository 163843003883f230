//! Runs of functions: rows become Invocation objects, their status is read from the watch cache, and what ended is
//! written down before its object leaves the cluster.

use std::sync::Arc;
use std::time::Duration;

use eventflow_api::admission::Admission;
use eventflow_api::condition::{self, Condition, ConditionStatus, ConditionType, Reason};
use eventflow_api::invocation::{Invocation, InvocationStatus};
use eventflow_api::names::TenantId;
use eventflow_api::resources::PodResources;
use kube::Api;
use quota::demand::Demand;
use quota::verdict::Verdict;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::{Applied, Cluster, Inner, watch as cache};
use crate::store::InvocationRow;

/// The object that a row asks for.
mod object;
/// Rows to objects, and objects that are over out of the cluster.
mod projector;
/// What ended, into its row.
mod recorder;
/// What a run gave back, from what it wrote.
mod outcome;
/// What is counted of runs.
mod metrics;

pub(super) use projector::run as project;
pub(super) use recorder::{Recorder, run as record, sweep};

/// Longest wait for the caches to agree with the controller's word: they come by different watches.
const AGREE_WAIT: Duration = Duration::from_millis(300);

/// Takes away what nobody reads: inputs, which may be large.
pub(super) fn trim(invocation: &mut Invocation) {
    invocation.spec.input = None;
    invocation.spec.env.clear();
    invocation.metadata.managed_fields = None;
}

/// Watches for ever.
pub(super) async fn watch(inner: Arc<Inner>) {
    let observe = |seen: cache::Seen<Invocation>| match seen {
        cache::Seen::Changed(invocation) => inner.recorder.changed(&invocation),
        cache::Seen::Gone(invocation) => inner.recorder.gone(&invocation),
        cache::Seen::Listed => inner.recorder.listed(),
    };
    inner.runs.run(Api::all(inner.client.clone()), observe).await;
}

impl Cluster {
    /// Carries a run to the cluster now, within 2 s. Never an error: what cannot be done now is done by the projector.
    /// Goes on when the caller goes away.
    pub async fn invocation_apply(&self, row: &InvocationRow) -> Applied {
        let (inner, row) = (Arc::clone(&self.inner), row.clone());
        let task = tokio::spawn(async move { projector::carry_now(&inner, &row, super::HANDLER_DEADLINE).await });
        task.await.unwrap_or_else(|error| Applied::Pending(error.to_string()))
    }

    /// How a run stands, from the watch cache. `None` when no object of it was seen.
    #[must_use]
    pub fn invocation_status(&self, tenant: &TenantId, id: Uuid) -> Option<InvocationStatus> {
        self.object(tenant, id)?.status.clone()
    }

    /// The verdict on a run whose pod asks for these resources, with its numbers; waits for the controller's word at
    /// most for `deadline`.
    pub async fn invocation_admission(
        &self,
        row: &InvocationRow,
        resources: &PodResources,
        deadline: Duration,
    ) -> Admission {
        let mut changes = self.inner.runs.changes();
        let word = async {
            loop {
                if let Some(word) = self.run_word(row) {
                    return Some(word);
                }
                changes.changed().await.ok()?;
            }
        };
        let Some(word) = tokio::time::timeout(deadline, word).await.ok().flatten() else {
            let why = "the controller has not decided yet; read the run again in a moment".to_owned();
            return Admission::Undecided { why };
        };
        let mut changes = self.inner.ledgers.changes();
        let agreed = async {
            loop {
                let word = self.run_word(row).unwrap_or_else(|| word.clone());
                if let Some(admission) = self.run_numbers(row, &word, resources) {
                    return Some(admission);
                }
                changes.changed().await.ok()?;
            }
        };
        let agreed = tokio::time::timeout(AGREE_WAIT, agreed).await.ok().flatten();
        agreed.unwrap_or(Admission::Undecided { why: word.message })
    }

    /// The controller's word with the caches' numbers, if they agree.
    fn run_numbers(&self, row: &InvocationRow, word: &Condition, resources: &PodResources) -> Option<Admission> {
        if word.status == ConditionStatus::True {
            let steady = Demand::of_run(resources, 1).steady().ok()?;
            return Some(Admission::Admitted { reserved: steady.amounts() });
        }
        let uid = self.object(&row.tenant, row.id)?.metadata.uid.as_deref()?.parse().ok()?;
        let view = self.quota(&row.tenant).ok()?;
        let verdict = view.verdict_of_run(uid)?;
        let agree = match &verdict {
            Verdict::Exceeds { .. } => word.reason == Reason::ExceedsMaxQuota,
            Verdict::Queued { .. } => word.reason == Reason::WaitingForQuota,
            Verdict::Admitted { .. } => false,
        };
        agree.then(|| view.tell(&verdict))
    }

    /// The controller's word on whether the run may start, if it has spoken.
    fn run_word(&self, row: &InvocationRow) -> Option<Condition> {
        let invocation = self.object(&row.tenant, row.id)?;
        let status = invocation.status.as_ref()?;
        let admitted = condition::find(&status.conditions, ConditionType::Admitted)?;
        let transient = matches!(admitted.reason, Reason::TenantNotReady | Reason::Terminating);
        (!transient || status.phase.is_final()).then(|| admitted.clone())
    }

    /// Announces runs whose record was made, from now on.
    #[must_use]
    pub fn invocations_recorded(&self) -> broadcast::Receiver<Uuid> {
        self.inner.recorder.recorded()
    }

    /// Whether the run was seen to be over, recorded or not.
    #[must_use]
    pub fn invocation_is_over(&self, tenant: &TenantId, id: Uuid) -> bool {
        self.invocation_status(tenant, id).is_some_and(|status| status.phase.is_final())
    }

    /// Adds what is counted of runs to `registry`.
    pub fn register_runs(&self, registry: &mut prometheus_client::registry::Registry) {
        self.inner.recorder.metrics.register(registry);
    }

    /// The run's object, from the watch cache, if it is this very run's.
    fn object(&self, tenant: &TenantId, id: Uuid) -> Option<Arc<Invocation>> {
        let invocation = self.inner.runs.get(&tenant.namespace(), &id.to_string())?;
        (object::invocation_id(&invocation) == Some(id)).then_some(invocation)
    }
}
