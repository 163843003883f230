//! Every version of what matters in one namespace, as the watch tells it, in the order of resourceVersions.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use controller::world::child::{Child, pod_resources};
use eventflow_api::condition::{ConditionType, Reason, find};
use eventflow_api::function::Function;
use eventflow_api::ledger::QuotaLedger;
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use quota::ledger::Ledger;
use quota::packed;
use quota::uid::Uid;
use quota::vector::Vector;
use serde::de::DeserializeOwned;
use tokio::task::{AbortHandle, JoinSet};

/// What became of something at a version.
#[derive(Debug, Clone)]
pub enum Event {
    /// The ledger; nothing if it is gone or somebody wrote nonsense into it.
    Ledger(Option<Ledger>),
    /// What a Deployment of that name may charge, for which function; nothing once it is gone.
    Deployment(String, Option<(Uid, Vector)>),
    /// A ReplicaSet of that uid is there, or is not any more.
    Set(String, bool),
    /// What a pod of that name charges; nothing once it is gone or going.
    Pod(String, Option<Charge>),
    /// A function; nothing once it is gone.
    Function(String, Option<Told>),
}

/// What matters of a pod.
#[derive(Debug, Clone)]
pub struct Charge {
    /// The function whose it is.
    pub function: Uid,
    /// Uid of the ReplicaSet that made it.
    pub set: String,
    pub vector: Vector,
}

/// What matters of a function.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    pub uid: Uid,
    pub created: i64,
    /// The spec of this generation waits, as it was told.
    pub waits: bool,
}

/// A recording under way.
pub struct Recording {
    events: Arc<Mutex<BTreeMap<(u64, String), Event>>>,
    watches: JoinSet<()>,
    handles: Vec<AbortHandle>,
}

impl Recording {
    /// Starts to record a namespace.
    pub fn start(client: &Client, namespace: &str) -> Self {
        let mut recording = Self { events: Arc::default(), watches: JoinSet::new(), handles: Vec::new() };
        recording.follow::<QuotaLedger>(client, namespace, |ledger, there| {
            Event::Ledger(there.then(|| packed::decode(&ledger.spec.packed).ok()).flatten())
        });
        recording.follow::<Deployment>(client, namespace, |deployment, there| {
            Event::Deployment(deployment.name_any(), there.then(|| charge(deployment)).flatten())
        });
        recording.follow::<ReplicaSet>(client, namespace, |set, there| Event::Set(set.uid().unwrap(), there));
        recording.follow::<Pod>(client, namespace, |pod, there| {
            let there = there && pod.metadata.deletion_timestamp.is_none();
            Event::Pod(pod.name_any(), there.then(|| pod_charge(pod)).flatten())
        });
        recording.follow::<Function>(client, namespace, |function, there| {
            Event::Function(function.name_any(), there.then(|| told(function)).flatten())
        });
        recording
    }

    fn follow<K>(&mut self, client: &Client, namespace: &str, read: fn(&K, bool) -> Event)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        let (api, events) = (Api::<K>::namespaced(client.clone(), namespace), self.events.clone());
        let handle = self.watches.spawn(async move {
            let mut stream = pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
            let mut lists = 0;
            while let Some(event) = stream.next().await {
                let (object, there) = match event {
                    Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => (object, true),
                    Ok(watcher::Event::Delete(object)) => (object, false),
                    Ok(watcher::Event::Init) => {
                        lists += 1;
                        // Between two lists versions are missing, and a history with gaps proves nothing.
                        assert!(lists < 2, "the record of {} has a gap", K::kind(&()));
                        continue;
                    }
                    // The API server may be away for a while.
                    Ok(watcher::Event::InitDone) | Err(_) => continue,
                };
                let version = object.resource_version().unwrap().parse().unwrap();
                let key = (version, format!("{} {}", K::kind(&()), object.name_any()));
                events.lock().unwrap().insert(key, read(&object, there));
            }
        });
        self.handles.push(handle);
    }

    /// Everything up to now, oldest first.
    ///
    /// # Panics
    /// If versions were missed.
    pub fn events(&self) -> Vec<(u64, Event)> {
        assert!(self.handles.iter().all(|watch| !watch.is_finished()), "a watch ended: the record has gaps");
        let events = self.events.lock().unwrap();
        events.iter().map(|((version, _), event)| (*version, event.clone())).collect()
    }
}

fn uid<K: Resource>(object: &K) -> Option<Uid> {
    object.labels().get(controller::desired::UID)?.parse().ok()
}

fn charge(deployment: &Deployment) -> Option<(Uid, Vector)> {
    let rollout = deployment.rollout()?;
    let (replicas, resources) = rollout.size?;
    let most = u64::from(replicas) + u64::from(rollout.surge && replicas > 0);
    Some((uid(deployment)?, Vector::of_pod(&resources).checked_mul(most).unwrap()))
}

fn pod_charge(pod: &Pod) -> Option<Charge> {
    let set = pod.owner_references().first()?.uid.clone();
    Some(Charge { function: uid(pod)?, set, vector: Vector::of_pod(&pod_resources(pod.spec.as_ref()?)?) })
}

fn told(function: &Function) -> Option<Told> {
    let status = function.status.clone().unwrap_or_default();
    let generation = function.metadata.generation?;
    let reserved = find(&status.conditions, ConditionType::QuotaReserved);
    let waits = reserved.is_some_and(|c| c.reason == Reason::WaitingForQuota && c.observed_generation == generation);
    let created = function.creation_timestamp()?.0.as_second();
    Some(Told { uid: function.uid()?.parse().ok()?, created, waits })
}
