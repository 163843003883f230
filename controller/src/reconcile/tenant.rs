//! Brings one tenant in order: its namespace, and in it quota, defaults, network policy and service account.

use eventflow_api::condition::Reason;
use eventflow_api::ledger::LEDGER_NAME;
use jiff::Timestamp;

use super::{Context, ReconcileError, UNWATCHED};
use crate::apply::Applied;
use crate::desired::{self, TenantObjects};
use crate::observe::{self, ObservedTenant};
use crate::queue::Next;
use crate::status::{self, Moment};
use crate::validate::{self, Refusal};
use crate::world::{Key, Name, cluster_name};
use quota::ledger::Ledger;

/// Brings the tenant `id` in order. Nothing is to be done for one that is going: what it owns goes with it.
pub(super) async fn reconcile(context: &Context, id: &str) -> Result<Next, ReconcileError> {
    let Some(observed) = observe::tenant(&context.world, id).filter(|o| !o.tenant.view.deleting) else {
        return Ok(Next::Settled);
    };
    let (namespace, outcome) = match validate::tenant(&observed) {
        Err(refusal) => (observed.tenant.view.status.namespace.clone(), Err(refusal)),
        Ok(valid) => {
            let objects = desired::tenant(&valid, &context.surroundings);
            (Some(valid.id.namespace()), apply(context, &objects).await?)
        }
    };
    report(context, &observed, namespace.as_deref(), outcome.as_ref()).await?;
    context.world.queue.add(Key::Admission(id.to_owned()));
    Ok(match outcome {
        Err(refusal) if refusal.reason == Reason::NamespaceConflict => Next::After(UNWATCHED),
        _ => Next::Settled,
    })
}

async fn apply(context: &Context, objects: &TenantObjects) -> Result<Result<(), Refusal>, ReconcileError> {
    let applier = &context.applier;
    match applier.ensure(&objects.namespace).await? {
        Applied::InPlace(_) => (),
        Applied::Foreign => {
            let message = "a namespace of the tenant's name exists, and this tenant did not make it";
            return Ok(Err(Refusal::new(Reason::NamespaceConflict, message)));
        }
        Applied::Leaving => {
            let message = "the namespace is being deleted; it is made anew once it is gone";
            return Ok(Err(Refusal::new(Reason::Terminating, message)));
        }
    }
    applier.ensure(&objects.quota).await?;
    applier.ensure(&objects.limits).await?;
    applier.ensure(&objects.network_policy).await?;
    applier.ensure(&objects.account).await?;
    Ok(Ok(()))
}

/// Whether more is reserved than the tenant's quota; unknown before there is a ledger.
fn over_quota(context: &Context, namespace: Option<&str>) -> Option<bool> {
    let name = Name { namespace: namespace?.to_owned(), name: LEDGER_NAME.to_owned() };
    let ledger = context.world.tables().ledgers.get(&name)?;
    ledger.view.ledger.as_ref().ok().map(Ledger::is_over_quota)
}

async fn report(
    context: &Context,
    observed: &ObservedTenant,
    namespace: Option<&str>,
    outcome: Result<&(), &Refusal>,
) -> Result<(), ReconcileError> {
    let (uid, view) = (&observed.tenant.uid, &observed.tenant.view);
    let at = Moment { generation: view.generation, now: Timestamp::now() };
    let status = status::tenant::compute(&view.status, namespace, outcome.copied(), over_quota(context, namespace), at);
    if status != view.status {
        let name = cluster_name(&observed.name);
        status::write::tenant(&context.client, &context.world, (&name, uid), &status).await?;
        context.events.tenant(&name, uid, &view.status.conditions, &status.conditions);
    }
    Ok(())
}
