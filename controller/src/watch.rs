//! One watch per kind into the world, each with its own back-off: a kind that cannot be watched holds up no
//! other. Decides nothing.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use eventflow_api::function::Function;
use eventflow_api::invocation::Invocation;
use eventflow_api::labels;
use eventflow_api::ledger::QuotaLedger;
use eventflow_api::tenant::Tenant;
use eventflow_api::tier::Tier;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, Pod, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::telemetry::chain;
use crate::world::child::{Child, see};
use crate::world::table::Seen;
use crate::world::{Change, Name, World, ledger, run, views};

/// Starts every watch; they end with the returned set.
#[must_use]
pub fn start(client: &Client, world: &Arc<World>, metrics: &Arc<Metrics>, timeout: Duration) -> JoinSet<()> {
    let mut set = JoinSet::new();
    let source = Source { client: client.clone(), metrics: metrics.clone(), timeout };
    let untyped = |resource: ApiResource| -> Api<DynamicObject> { Api::all_with(client.clone(), &resource) };
    let (all, ours) = (String::new(), format!("{}={}", labels::MANAGED_BY, labels::MANAGED_BY_VALUE));
    let to = world.clone();
    let tiers = untyped(ApiResource::erase::<Tier>(&()));
    set.spawn(source.clone().follow(("Tier", tiers), all.clone(), views::tier, move |change| to.tiers(change)));
    let to = world.clone();
    let tenants = untyped(ApiResource::erase::<Tenant>(&()));
    set.spawn(source.clone().follow(("Tenant", tenants), all.clone(), views::tenant, move |change| to.tenants(change)));
    let to = world.clone();
    let functions = untyped(ApiResource::erase::<Function>(&()));
    set.spawn(source.clone().follow(("Function", functions), all, views::function, move |change| to.functions(change)));
    let to = world.clone();
    let invocations = untyped(ApiResource::erase::<Invocation>(&()));
    let name = ("Invocation", invocations);
    set.spawn(source.clone().follow(name, String::new(), run::invocation, move |change| to.invocations(change)));
    let of_runs = format!("{}={},{ours}", labels::APP, labels::APP_RUN);
    let (to, jobs) = (world.clone(), Api::<Job>::all(client.clone()));
    let read = |job: Job| run::job(&job);
    set.spawn(source.clone().follow(("Job", jobs), of_runs.clone(), read, move |change| to.jobs(change)));
    let (to, pods) = (world.clone(), Api::<Pod>::all(client.clone()));
    set.spawn(source.clone().follow(("RunPod", pods), of_runs, run::pod, move |change| to.run_pods(change)));
    let to = world.clone();
    let ledgers = untyped(ApiResource::erase::<QuotaLedger>(&()));
    set.spawn(source.clone().follow(("QuotaLedger", ledgers), String::new(), ledger::read, move |c| to.ledgers(c)));
    let to = world.clone();
    let pods: Api<Pod> = Api::all(client.clone());
    let of_functions = format!("{}={},{ours}", labels::APP, labels::APP_VALUE);
    set.spawn(source.clone().follow(("Pod", pods), of_functions, views::pod, move |change| to.pods(change)));
    set.spawn(source.clone().follow_child::<Namespace>(world.clone(), ours.clone()));
    set.spawn(source.clone().follow_child::<ResourceQuota>(world.clone(), ours.clone()));
    set.spawn(source.clone().follow_child::<LimitRange>(world.clone(), ours.clone()));
    set.spawn(source.clone().follow_child::<NetworkPolicy>(world.clone(), ours.clone()));
    set.spawn(source.clone().follow_child::<ServiceAccount>(world.clone(), ours.clone()));
    set.spawn(source.clone().follow_child::<Deployment>(world.clone(), ours.clone()));
    set.spawn(source.follow_child::<Service>(world.clone(), ours));
    set
}

/// Where watches come from.
#[derive(Clone)]
struct Source {
    client: Client,
    metrics: Arc<Metrics>,
    timeout: Duration,
}

impl Source {
    async fn follow_child<K: Child>(self, world: Arc<World>, selector: String) {
        let api: Api<K> = Api::all(self.client.clone());
        let kind = K::kind(&()).into_owned();
        let read = |object: K| see(&object);
        self.follow((&kind, api), selector, read, move |change| world.children(K::KIND, change)).await;
    }

    async fn follow<K, V>(
        self,
        (kind, api): (&str, Api<K>),
        selector: String,
        read: impl Fn(K) -> (Name, Seen<V>),
        take: impl Fn(Change<V>),
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let timeout = u32::try_from(self.timeout.as_secs()).unwrap_or(u32::MAX);
        let config = watcher::Config::default().timeout(timeout).labels(&selector);
        let mut stream = std::pin::pin!(watcher::watcher(api, config).default_backoff());
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => take(change(event, &read)),
                Err(error) => {
                    self.metrics.watch_failed(kind);
                    tracing::warn!(kind, error = chain(&error), "A watch was interrupted; it goes on by itself");
                }
            }
        }
    }
}

fn change<K: Resource, V>(event: watcher::Event<K>, read: &impl Fn(K) -> (Name, Seen<V>)) -> Change<V> {
    match event {
        watcher::Event::Init => Change::Init,
        watcher::Event::InitApply(object) => {
            let (name, seen) = read(object);
            Change::Listed(name, seen)
        }
        watcher::Event::InitDone => Change::Done,
        watcher::Event::Apply(object) => {
            let (name, seen) = read(object);
            Change::Applied(name, seen)
        }
        watcher::Event::Delete(object) => Change::Deleted(Name::of(object.meta()), object.uid().unwrap_or_default()),
    }
}
