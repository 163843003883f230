//! What is really gone. Asked of the API server itself: a reservation is never given back on what a watch may not
//! have seen yet.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use quota::uid::Uid;

use super::{AdmissionError, call};
use crate::desired::UID;
use crate::reconcile::{Context, ReconcileError};
use crate::status::write::{functions, invocations};
use crate::world::{Name, run};

/// Functions asked about in one call.
const ASKED_AT_ONCE: usize = 50;
/// Pods that still charge: not ended, but maybe ending.
const CHARGING: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Those of `uids` that no Function of the namespace has, and no Invocation that is not over: gone for good, as a uid
/// never comes again, and what is over stays so.
///
/// # Errors
/// If the API server refuses or cannot be asked.
pub async fn of(context: &Context, namespace: &str, uids: &[Uid]) -> Result<Vec<Uid>, AdmissionError> {
    if uids.is_empty() {
        return Ok(Vec::new());
    }
    let api = functions(context.client.clone(), namespace);
    let list = api.list_metadata(&ListParams::default()).await.map_err(call("read the functions in", namespace))?;
    let mut alive: HashSet<Uid> = list.items.iter().filter_map(|item| item.uid()?.parse().ok()).collect();
    let api = invocations(context.client.clone(), namespace);
    let list = api.list_metadata(&ListParams::default()).await.map_err(call("read the runs in", namespace))?;
    let tables = context.world.tables();
    for run in &list.items {
        let known =
            tables.invocations.get(&Name::of(&run.metadata)).filter(|known| Some(&known.uid) == run.uid().as_ref());
        if !known.is_some_and(|known| known.view.status.phase.is_final()) {
            alive.extend(run.uid().and_then(|uid| uid.parse::<Uid>().ok()));
        }
    }
    Ok(uids.iter().copied().filter(|uid| !alive.contains(uid)).collect())
}

/// Those of `uids`, all of them marked as ending, of which no Deployment, ReplicaSet, unfinished Job or pod is left. What
/// is left of Deployments and Jobs is deleted, in case nobody else does. Deployments first, then ReplicaSets: each makes
/// the next. A Job that is over makes no pods; it stays, with what its pods wrote, until its run goes.
///
/// # Errors
/// If the API server refuses or cannot be asked.
pub async fn entirely(context: &Context, namespace: &str, uids: &[Uid]) -> Result<Vec<Uid>, ReconcileError> {
    let mut gone = Vec::new();
    for uids in uids.chunks(ASKED_AT_ONCE) {
        let mut left = BTreeSet::new();
        let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
        let found =
            deployments.list_metadata(&labelled(uids)).await.map_err(call("read the Deployments in", namespace))?;
        for deployment in &found.items {
            left.extend(uid_of(deployment.labels()));
            if deployment.metadata.deletion_timestamp.is_none() {
                let name = Name::of(&deployment.metadata);
                let uid = deployment.uid().unwrap_or_default();
                context.applier.delete::<Deployment>(&name, &uid).await?;
            }
        }
        let sets: Api<ReplicaSet> = Api::namespaced(context.client.clone(), namespace);
        let found = sets.list_metadata(&labelled(uids)).await.map_err(call("read the ReplicaSets in", namespace))?;
        left.extend(found.items.iter().filter_map(|set| uid_of(set.labels())));
        left.extend(unfinished_jobs_of(context, namespace, uids).await?);
        left.extend(pods_of(context, namespace, uids).await?.into_keys());
        gone.extend(uids.iter().copied().filter(|uid| !left.contains(uid)));
    }
    Ok(gone)
}

/// Who of `uids` has a Job that may make pods; it is deleted.
async fn unfinished_jobs_of(context: &Context, namespace: &str, uids: &[Uid]) -> Result<Vec<Uid>, ReconcileError> {
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), namespace);
    let found = jobs.list(&labelled(uids)).await.map_err(call("read the Jobs in", namespace))?;
    let mut left = Vec::new();
    for job in &found.items {
        let (name, seen) = run::job(job);
        if seen.view.end.is_some() {
            continue;
        }
        left.extend(uid_of(job.labels()));
        if !seen.view.deleting {
            context.applier.delete_job(&name, &seen.uid).await?;
        }
    }
    Ok(left)
}

/// How many pods of each of `uids` still charge something.
///
/// # Errors
/// If the API server refuses or cannot be asked.
pub async fn pods_of(context: &Context, namespace: &str, uids: &[Uid]) -> Result<BTreeMap<Uid, usize>, AdmissionError> {
    let mut count = BTreeMap::new();
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    for uids in uids.chunks(ASKED_AT_ONCE) {
        let charging = labelled(uids).fields(CHARGING);
        let found = pods.list_metadata(&charging).await.map_err(call("read the pods in", namespace))?;
        for uid in found.items.iter().filter_map(|pod| uid_of(pod.labels())) {
            *count.entry(uid).or_default() += 1;
        }
    }
    Ok(count)
}

fn labelled(uids: &[Uid]) -> ListParams {
    let uids: Vec<String> = uids.iter().map(ToString::to_string).collect();
    ListParams::default().labels(&format!("{UID} in ({})", uids.join(",")))
}

/// The function or run whose an object of the platform's is.
pub(super) fn uid_of(labels: &BTreeMap<String, String>) -> Option<Uid> {
    labels.get(UID)?.parse().ok()
}
