//! What is really gone. Asked of the API server itself: a reservation is never given back on what a watch may not
//! have seen yet.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use quota::uid::Uid;

use super::{AdmissionError, call};
use crate::desired::UID;
use crate::reconcile::{Context, ReconcileError};
use crate::status::write::functions;
use crate::world::Name;

/// Functions asked about in one call.
const ASKED_AT_ONCE: usize = 50;
/// Pods that still charge: not ended, but maybe ending.
const CHARGING: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Those of `uids` that no Function of the namespace has: gone for good, as a uid never comes again.
///
/// # Errors
/// If the API server refuses or cannot be asked.
pub async fn functions_of(context: &Context, namespace: &str, uids: &[Uid]) -> Result<Vec<Uid>, AdmissionError> {
    if uids.is_empty() {
        return Ok(Vec::new());
    }
    let api = functions(context.client.clone(), namespace);
    let list = api.list_metadata(&ListParams::default()).await.map_err(call("read the functions in", namespace))?;
    let alive: HashSet<Uid> = list.items.iter().filter_map(|item| item.uid()?.parse().ok()).collect();
    Ok(uids.iter().copied().filter(|uid| !alive.contains(uid)).collect())
}

/// Those of `uids`, all of them marked as ending, of which no Deployment, ReplicaSet or pod is left. What is left of
/// Deployments is deleted, in case nobody else does. Deployments first, then ReplicaSets: each makes the next.
///
/// # Errors
/// If the API server refuses or cannot be asked.
pub async fn entirely(context: &Context, namespace: &str, uids: &[Uid]) -> Result<Vec<Uid>, ReconcileError> {
    let mut gone = Vec::new();
    for uids in uids.chunks(ASKED_AT_ONCE) {
        let mut left = BTreeSet::new();
        let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
        let found = deployments.list_metadata(&of(uids)).await.map_err(call("read the Deployments in", namespace))?;
        for deployment in &found.items {
            left.extend(uid_of(deployment.labels()));
            if deployment.metadata.deletion_timestamp.is_none() {
                let name = Name::of(&deployment.metadata);
                let uid = deployment.uid().unwrap_or_default();
                context.applier.delete::<Deployment>(&name, &uid).await?;
            }
        }
        let sets: Api<ReplicaSet> = Api::namespaced(context.client.clone(), namespace);
        let found = sets.list_metadata(&of(uids)).await.map_err(call("read the ReplicaSets in", namespace))?;
        left.extend(found.items.iter().filter_map(|set| uid_of(set.labels())));
        left.extend(pods_of(context, namespace, uids).await?.into_keys());
        gone.extend(uids.iter().copied().filter(|uid| !left.contains(uid)));
    }
    Ok(gone)
}

/// How many pods of each of `uids` still charge something.
///
/// # Errors
/// If the API server refuses or cannot be asked.
pub async fn pods_of(context: &Context, namespace: &str, uids: &[Uid]) -> Result<BTreeMap<Uid, usize>, AdmissionError> {
    let mut count = BTreeMap::new();
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    for uids in uids.chunks(ASKED_AT_ONCE) {
        let charging = of(uids).fields(CHARGING);
        let found = pods.list_metadata(&charging).await.map_err(call("read the pods in", namespace))?;
        for uid in found.items.iter().filter_map(|pod| uid_of(pod.labels())) {
            *count.entry(uid).or_default() += 1;
        }
    }
    Ok(count)
}

fn of(uids: &[Uid]) -> ListParams {
    let uids: Vec<String> = uids.iter().map(ToString::to_string).collect();
    ListParams::default().labels(&format!("{UID} in ({})", uids.join(",")))
}

/// The function whose an object of the platform's is.
pub(super) fn uid_of(labels: &BTreeMap<String, String>) -> Option<Uid> {
    labels.get(UID)?.parse().ok()
}
