//! A ledger that was lost, found again in what there is. Whoever read a Deployment before is kept from writing it
//! first, by a new mark on each; only then is counted.

use std::collections::{BTreeMap, BTreeSet};

use eventflow_api::labels;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use quota::demand::RUN_GENERATION;
use quota::ledger::Live;
use quota::uid::Uid;
use quota::vector::{Vector, VectorError};

use super::call;
use super::gone::uid_of;
use crate::reconcile::{Context, ReconcileError};
use crate::world::child::{Child, Rollout, pod_resources};
use crate::world::run;

/// What runs in a namespace, by function, whether that still exists or not: the larger of what its Deployment may
/// charge and what its pods do.
///
/// # Errors
/// If the API server refuses or cannot be asked.
pub async fn everything(context: &Context, namespace: &str) -> Result<Vec<Live>, ReconcileError> {
    let both = format!("{} in ({},{})", labels::APP, labels::APP_VALUE, labels::APP_RUN);
    let ours = ListParams::default().labels(&both);
    let mut lives: BTreeMap<Uid, (u64, Vector)> = BTreeMap::new();
    let mut runs = BTreeSet::new();
    let api: Api<Job> = Api::namespaced(context.client.clone(), namespace);
    let found = api.list(&ours).await.map_err(call("read the Jobs in", namespace))?;
    for job in found.items {
        let Some(uid) = uid_of(job.labels()) else { continue };
        if run::job(&job).1.view.end.is_some() {
            continue;
        }
        runs.insert(uid);
        let Some(touched) = context.applier.touch_job(&job).await? else { continue };
        let pod = touched.spec.as_ref().and_then(|spec| pod_resources(spec.template.spec.as_ref()?));
        let live = lives.entry(uid).or_default();
        live.0 = live.0.max(RUN_GENERATION);
        live.1 = live.1.max(&pod.map(|resources| Vector::of_pod(&resources)).unwrap_or_default());
    }
    let api: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
    let found = api.list(&ours).await.map_err(call("read the Deployments in", namespace))?;
    for deployment in found.items {
        let Some(uid) = uid_of(deployment.labels()) else { continue };
        let Some(touched) = context.applier.touch(&deployment).await? else { continue };
        let rollout = touched.rollout().unwrap_or_default();
        let live = lives.entry(uid).or_default();
        live.0 = live.0.max(rollout.generation.unwrap_or_default());
        live.1 = live.1.max(&charge(&rollout).map_err(super::too_large)?);
    }
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let found = api.list(&ours).await.map_err(call("read the pods in", namespace))?;
    let mut pods: BTreeMap<Uid, Vector> = BTreeMap::new();
    let is_run = |labels: &BTreeMap<String, String>| labels.get(labels::APP).is_some_and(|app| app == labels::APP_RUN);
    runs.extend(found.items.iter().filter(|pod| is_run(pod.labels())).filter_map(|pod| uid_of(pod.labels())));
    for pod in found.items.iter().filter(|pod| !has_ended(pod)) {
        let (Some(uid), Some(spec)) = (uid_of(pod.labels()), &pod.spec) else { continue };
        let one = pod_resources(spec).map(|resources| Vector::of_pod(&resources));
        let sum = pods.entry(uid).or_default();
        *sum = sum.checked_add(&one.unwrap_or_default()).map_err(super::too_large)?;
    }
    for (uid, sum) in pods {
        let live = lives.entry(uid).or_default();
        live.1 = live.1.max(&sum);
    }
    let one = Vector { functions: 1, ..Vector::ZERO };
    let live = |(uid, (generation, vector)): (Uid, (u64, Vector))| {
        // A run takes no place among the functions.
        let vector = if runs.contains(&uid) { vector } else { vector.max(&one) };
        Live { uid, generation, running: Some(vector) }
    };
    Ok(lives.into_iter().map(live).collect())
}

/// The most that a Deployment may charge as it is written.
fn charge(rollout: &Rollout) -> Result<Vector, VectorError> {
    let Some((replicas, resources)) = rollout.size else { return Ok(Vector::ZERO) };
    let most = u64::from(replicas) + u64::from(rollout.surge && replicas > 0);
    Vector::of_pod(&resources).checked_mul(most)
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
