//! All that a handler may touch, and the life of the program: wire, serve, drain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use kube::client::ClientBuilder;
use policy_engine::{EngineError, EngineOptions, PolicyEngine};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequestLayer;

use crate::auth::Auth;
use crate::cluster::Cluster;
use crate::config::{Config, Limits};
use crate::forward::Forward;
use crate::metrics::{ClusterLabels, Metrics};
use crate::policy::Policies;
use crate::routes::invocations::Waits;
use crate::server::{self, Drained};
use crate::store::{Store, StoreError};
use crate::streams::Streams;
use crate::{admin, metering, stack, webhook};

/// How long the outcome of the readiness checks is good for: probes must not become load.
const READINESS_KEPT: Duration = Duration::from_secs(1);

/// Why the gateway cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store cannot be set up.
    #[error("the database URL cannot be used")]
    Store(#[source] StoreError),
    /// No way to the API server is configured.
    #[error("no Kubernetes configuration was found; pass --kubeconfig, or run inside a cluster")]
    Kubeconfig(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address cannot be listened on.
    #[error("cannot listen on {0}; choose another address, or stop what uses it")]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
    /// No WebAssembly can run here.
    #[error("policies cannot run on this machine")]
    Engine(#[source] EngineError),
    /// The system refuses to report signals.
    #[error("signals cannot be watched")]
    Signals(#[source] std::io::Error),
}

/// All that a handler may touch. Shared by every request.
pub struct App {
    /// From tokens to tenants.
    pub auth: Auth,
    /// Intent and history.
    pub store: Store,
    /// The cluster, by watch caches and the projector.
    pub cluster: Cluster,
    /// The way to functions' pods.
    pub forward: Forward,
    /// What operators let tenants do.
    pub policies: Policies,
    /// Counters.
    pub metrics: Metrics,
    /// Sizes and deadlines.
    pub limits: Limits,
    /// Streams of logs that are open.
    pub log_streams: Arc<Streams>,
    /// Callers that wait for the results of runs.
    pub waits: Arc<Waits>,
    /// Streams of events that are open.
    pub event_streams: Arc<Streams>,
    draining: CancellationToken,
    readiness: Mutex<Option<(Instant, Vec<Check>)>>,
}

/// One named check of readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was checked: `database`, a watch cache, `serving`.
    pub name: &'static str,
    /// Whether it can be used.
    pub ok: bool,
}

impl App {
    /// Puts the parts together. Starts nothing.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "its parts, each once")]
    pub fn new(
        auth: Auth,
        store: Store,
        cluster: Cluster,
        forward: Forward,
        policies: Policies,
        limits: Limits,
    ) -> Self {
        Self {
            auth,
            store,
            cluster,
            forward,
            policies,
            metrics: Metrics::default(),
            limits,
            log_streams: Arc::default(),
            waits: Arc::default(),
            event_streams: Arc::default(),
            draining: CancellationToken::new(),
            readiness: Mutex::new(None),
        }
    }

    /// Makes readiness fail from now on, so that nobody sends new work here.
    pub fn start_draining(&self) {
        self.draining.cancel();
    }

    /// Cancelled once the drain begins: streams that can go on elsewhere end then.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Every check of readiness, by name.
    pub async fn readiness(&self) -> Vec<Check> {
        let mut kept = self.readiness.lock().await;
        let fresh = kept.as_ref().filter(|(at, _)| at.elapsed() < READINESS_KEPT).map(|(_, checks)| checks.clone());
        let mut checks = match fresh {
            Some(checks) => checks,
            None => {
                let mut checks = vec![Check { name: "database", ok: self.store.ping().await.is_ok() }];
                checks.extend(self.cluster.ready().into_iter().map(|(name, ok)| Check { name, ok }));
                *kept = Some((Instant::now(), checks.clone()));
                checks
            }
        };
        checks.push(Check { name: "policies", ok: self.policies.ready() });
        checks.push(Check { name: "serving", ok: !self.draining.is_cancelled() });
        checks
    }
}

/// Runs the gateway until a signal stops it: readiness fails first, then connections drain under a deadline; a second
/// signal cuts them.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config) -> Result<(), AppError> {
    let (stop, abort) = signals()?;
    let shutdown = CancellationToken::new();
    let store = Store::new(&config.store).map_err(AppError::Store)?;
    let requests = Family::default();
    let client = client(&config, requests.clone()).await?;
    let (cluster, mut tasks) = Cluster::start(client.clone(), store.clone(), shutdown.clone());
    let limits = config.limits;
    let forward = Forward::new(config.functions_domain, limits.max_invocations);
    let engine = PolicyEngine::new(EngineOptions::default()).map_err(AppError::Engine)?;
    let (policies, mut policy_tasks) = Policies::start(engine, store.clone(), config.policies, shutdown.clone());
    let mut app = App::new(Auth::new(config.auth), store, cluster, forward, policies, limits);
    app.metrics.cluster_requests = requests;
    let app = Arc::new(app);
    tasks.spawn(metering::run(Arc::clone(&app.forward.meter), app.store.clone(), shutdown.clone()));
    if let Some(wanted) = config.webhook {
        let listener = bind(wanted.listen).await?;
        let (app, shutdown) = (Arc::clone(&app), shutdown.clone());
        tasks.spawn(async move {
            let outcome = shutdown.run_until_cancelled(webhook::run(app, client, listener, wanted)).await;
            if let Some(Err(error)) = outcome {
                tracing::error!(error = crate::error::chain(&error), "Policies do not judge what kubectl does.");
            }
        });
    }
    let listener = bind(config.listen).await?;
    let admin_listener = bind(config.admin_listen).await?;

    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(server::serve(
        admin_listener,
        admin::service(Arc::clone(&app)),
        Limits { drain_timeout: Duration::ZERO, ..limits },
        (admin_stop.clone().cancelled_owned(), abort.clone().cancelled_owned()),
    ));
    tracing::info!(listen = %config.listen, admin_listen = %config.admin_listen, "The gateway serves.");
    let draining = begin_drain(Arc::clone(&app), stop, abort.clone());
    let drained = server::serve(listener, stack::stack(app), limits, (draining, abort.cancelled_owned())).await;
    match drained {
        Drained::Clean => tracing::info!("Every connection ended by itself."),
        Drained::Cut(connections) => tracing::warn!(connections, "Connections were cut at the end of the drain."),
    }
    shutdown.cancel();
    admin_stop.cancel();
    end_tasks(&mut tasks).await;
    end_tasks(&mut policy_tasks).await;
    // The admin port has nothing to lose: its task is only awaited so that the port is free when we exit.
    let _ = admin.await;
    Ok(())
}

/// Waits for the signal, makes readiness fail, and leaves balancers the time to see it.
async fn begin_drain(app: Arc<App>, stop: CancellationToken, abort: CancellationToken) {
    stop.cancelled().await;
    app.start_draining();
    tracing::info!(
        drain_delay_ms = app.limits.drain_delay.as_millis() as u64,
        "Stopping; readiness fails from now on."
    );
    tokio::select! {
        () = tokio::time::sleep(app.limits.drain_delay) => {}
        () = abort.cancelled() => {}
    }
}

async fn end_tasks(tasks: &mut JoinSet<()>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(5), all).await.is_err() {
        tracing::warn!("Background work did not end in time; the next start takes it up.");
        tasks.abort_all();
    }
}

async fn bind(address: std::net::SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|error| AppError::Listen(address, error))
}

async fn client(config: &Config, requests: Family<ClusterLabels, Counter>) -> Result<Client, AppError> {
    let kube_config = match &config.kubeconfig {
        Some(path) => {
            let kubeconfig =
                kube::config::Kubeconfig::read_from(path).map_err(|error| AppError::Kubeconfig(error.into()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
                .await
                .map_err(|error| AppError::Kubeconfig(error.into()))?
        }
        None => kube::Config::infer().await.map_err(|error| AppError::Kubeconfig(error.into()))?,
    };
    let builder = ClientBuilder::try_from(kube_config).map_err(|error| AppError::Kubeconfig(error.into()))?;
    let count = MapRequestLayer::new(move |request: http::Request<kube::client::Body>| {
        requests.get_or_create(&ClusterLabels::of(request.method(), request.uri().query())).inc();
        request
    });
    Ok(builder.with_layer(&count).build())
}

/// Two tokens: the first signal to stop cancels the first, the next one the second.
fn signals() -> Result<(CancellationToken, CancellationToken), AppError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Signals)?;
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    let (first, second) = (stop.clone(), abort.clone());
    tokio::spawn(async move {
        for token in [first, second] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    });
    Ok((stop, abort))
}
