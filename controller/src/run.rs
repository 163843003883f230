//! Start, leadership, work, shutdown. Watches run from the start, so that a candidate that becomes leader knows
//! everything; work is done by the leader alone.

use std::sync::Arc;
use std::time::Duration;

use eventflow_api::labels;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use crate::admin::{self, Admin};
use crate::admission::cover::Reader;
use crate::admission::quiet::Quiet;
use crate::apply::Applier;
use crate::cidr::Cidr;
use crate::config::{Config, NetworkConfig};
use crate::desired::Surroundings;
use crate::events::Events;
use crate::lease::Candidate;
use crate::metrics::Metrics;
use crate::queue::Next;
use crate::reconcile::{Context, reconcile};
use crate::telemetry::chain;
use crate::watch;
use crate::world::{Key, World};

/// Longest time one reconcile may take.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between attempts of what must succeed before work can start.
const START_RETRY: Duration = Duration::from_millis(500);
/// Never reachable for functions: link-local addresses, among them cloud metadata.
const METADATA: [&str; 2] = ["169.254.0.0/16", "fd00:ec2::254/128"];

/// Why the controller ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address for health and metrics cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Another controller leads, or the Lease could not be renewed in time.
    #[error("the lease was lost; another controller may lead now")]
    LeaseLost,
}

/// Runs until `stop` completes. Then work under way is finished, within the configured time, and the lease is
/// given back.
///
/// # Errors
/// If the admin address cannot be used, or the lease is lost; whoever started this starts it again.
pub async fn run(config: Config, client: Client, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let (world, metrics) = (Arc::new(World::default()), Arc::new(Metrics::default()));
    let address = config.admin.admin_listen;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let mut background = watch::start(&client, &world, &metrics, config.work.watch_timeout);
    background.spawn(admin::serve(listener, Admin { metrics: metrics.clone(), world: world.clone() }));
    let mut candidate = Candidate::new(client.clone(), config.lease.clone());
    let (events, sending) = Events::new(client.clone(), candidate.identity());
    background.spawn(sending);
    let mut stop = std::pin::pin!(stop);
    let tenure = candidate.tenure();
    let epoch = tokio::select! {
        epoch = candidate.acquire() => epoch,
        () = &mut stop => return Ok(()),
    };
    tracing::info!(identity = candidate.identity(), epoch, "This controller leads");
    metrics.leads(true);
    let mut workers = JoinSet::new();
    let outcome = tokio::select! {
        never = async {
            let surroundings = surroundings(&client, &config).await;
            synced(&world).await;
            world.enqueue_all();
            let applier = Applier::new(client.clone(), world.clone());
            let reader = Reader::new(client.clone(), world.clone());
            let (world, metrics, max_pass) = (world.clone(), metrics.clone(), config.work.max_pass);
            let context = Arc::new(Context {
                client,
                world,
                applier,
                reader,
                events,
                surroundings,
                epoch,
                tenure,
                max_pass,
                quiet: Quiet::default(),
                metrics,
            });
            for _ in 0..config.work.concurrency {
                workers.spawn(work(context.clone()));
            }
            std::future::pending().await
        } => never,
        () = candidate.keep() => Err(RunError::LeaseLost),
        () = &mut stop => Ok(()),
    };
    metrics.leads(false);
    if outcome.is_ok() {
        drain(&world, &mut workers, config.work.drain_timeout, &mut candidate).await;
        candidate.release().await;
    }
    outcome
}

/// Lets work under way end, while the lease is kept.
async fn drain(world: &World, workers: &mut JoinSet<()>, limit: Duration, candidate: &mut Candidate) {
    world.queue.close();
    let ended = async { while workers.join_next().await.is_some() {} };
    tokio::select! {
        ended = timeout(limit, ended) => {
            if ended.is_err() {
                tracing::warn!("Work under way did not end in time and was given up");
            }
        }
        () = candidate.keep() => tracing::warn!("The lease was lost while work was ending"),
    }
    workers.shutdown().await;
}

async fn work(context: Arc<Context>) {
    while let Some(key) = context.world.queue.take().await {
        let span = match &key {
            Key::Tenant(id) | Key::Admission(id) => tracing::info_span!("reconcile", tenant.id = id),
            Key::Function(name) => {
                tracing::info_span!("reconcile", namespace = name.namespace, function.name = name.name)
            }
            Key::Invocation(name) => {
                tracing::info_span!("reconcile", namespace = name.namespace, invocation.name = name.name)
            }
        };
        let next = once(&context, &key).instrument(span).await;
        context.world.queue.done(&key, next);
    }
}

async fn once(context: &Context, key: &Key) -> Next {
    if !context.tenure.holds() {
        // This process was paused, and another may lead by now. Whoever keeps the lease will tell.
        return Next::Failed;
    }
    let start = Instant::now();
    let result = timeout(RECONCILE_TIMEOUT, reconcile(context, key)).await;
    let next = match result {
        Ok(Ok(next)) => next,
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "An object could not be brought in order; it is tried again");
            Next::Failed
        }
        Err(_) => {
            tracing::warn!("An object could not be brought in order in time; it is tried again");
            Next::Failed
        }
    };
    context.metrics.reconciled(key, start.elapsed(), next == Next::Failed);
    next
}

/// Waits until every kind has been listed.
async fn synced(world: &World) {
    while !world.tables().synced() {
        sleep(Duration::from_millis(20)).await;
    }
}

async fn surroundings(client: &Client, config: &Config) -> Surroundings {
    let api_server = loop {
        match api_server_addresses(client).await {
            Ok(addresses) => break addresses,
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "The API server's addresses cannot be read; no work without them"
                );
                sleep(START_RETRY).await;
            }
        }
    };
    let NetworkConfig { gateway_cidrs, protected_cidrs } = &config.network;
    let metadata = METADATA.into_iter().filter_map(|cidr| cidr.parse().ok());
    let mut protected: Vec<Cidr> = metadata.chain(protected_cidrs.iter().copied()).chain(api_server).collect();
    protected.sort_unstable();
    protected.dedup();
    let progress_deadline = config.work.progress_deadline.as_secs();
    Surroundings {
        protected,
        gateways: gateway_cidrs.clone(),
        progress_deadline_seconds: i32::try_from(progress_deadline).unwrap_or(i32::MAX),
        runner: config.work.runner_image.clone(),
    }
}

/// Addresses of the API server: of its Service, and of what is behind it.
async fn api_server_addresses(client: &Client) -> Result<Vec<Cidr>, kube::Error> {
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let service = services.get_opt("kubernetes").await?;
    let of_it = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    let behind = slices.list(&of_it).await?.items.into_iter().flat_map(|slice| slice.endpoints);
    let own = service.and_then(|service| service.spec).and_then(|spec| spec.cluster_ips).unwrap_or_default();
    let addresses = own.into_iter().chain(behind.flat_map(|endpoint| endpoint.addresses));
    Ok(addresses.filter_map(|address| address.parse().ok()).map(Cidr::single).collect())
}

/// Completes once the process is asked to end.
pub async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!(
            manager = labels::CONTROLLER_MANAGER,
            "Signals cannot be heard; only killing ends this process"
        );
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => (), _ = interrupt.recv() => () }
}
