//! Policies in the path of requests: what is in force, asked once per request and swapped as a whole.
//!
//! A request set judges every call of a tenant right after its token is verified, on the worker that serves it; an
//! admission set judges every change of a function, on a bounded number of threads beside. Whatever a policy does, it
//! costs the requests that it judged and nothing else: no set yet, a policy that cannot be loaded and a policy that
//! fails all refuse with 503 and the policy's name, unless its binding says otherwise.
//!
//! Operators' own routes are never judged, so that nobody can lock them out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use eventflow_api::names::TenantId;
use eventflow_api::policy::{LoadProblem, Scope, World};
use policy_engine::set::Role;
use policy_engine::types::{Amounts, TenantView};
use policy_engine::{Cache, Counters, PolicyEngine, PolicySet};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::App;
use crate::store::Store;

/// Modules and policies, compiled once and kept as long as they are near.
mod shelf;
/// From rows to the set in force, and the sign of life.
mod loader;
/// What the gateway ships with.
mod builtin;
/// What a policy is told about a tenant.
mod facts;
/// Requests.
mod request;
/// What they may do, and what policies change about them.
mod permit;
/// Changes of functions.
mod admission;
/// Invocations of each tenant that are under way.
mod in_flight;
/// The last requests, to try a new revision on.
mod samples;
/// What was decided: metrics, the decision log, the counts of trials.
mod recorder;
/// A revision that fails in use is taken back.
mod guard;
/// From the bytes of an upload to a revision.
mod intake;
/// Counters and histograms.
mod metrics;

pub(crate) use admission::Matter;
pub use admission::{Proposal, Said, function_object};
pub use builtin::ShipError;
pub use in_flight::InFlight;
pub use intake::{Intake, Question, Refusal};
pub use metrics::PolicyMetrics;
pub use permit::{PRIORITY, Permit};
pub(crate) use request::refusal;
pub use request::{Asker, action, is_invocation, write_rates};

use guard::Guard;
use in_flight::Crowd;
use loader::Pulse;
use recorder::Recorder;
use samples::Samples;
use shelf::Shelf;

/// Admission decisions at once; each may take half a second, and waits for its turn.
const ADMISSIONS: usize = 8;
/// Uploads, evaluations and smoke tests at once.
const WORKS: usize = 2;
/// Longest wait for one of these places.
const WAIT: Duration = Duration::from_secs(2);

/// Where compiled policies are kept, and what is shipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Private folder of compiled modules; without one every start compiles anew.
    pub cache: Option<PathBuf>,
    /// Folder of the components that are shipped.
    pub builtins: Option<PathBuf>,
    /// What operators see this replica called.
    pub replica: String,
}

/// The policies. Cheap to clone.
#[derive(Clone)]
pub struct Policies {
    inner: Arc<Inner>,
}

struct Inner {
    counters: Arc<Counters>,
    /// None until the first set is loaded: then nothing is let through.
    sets: ArcSwapOption<Sets>,
    shelf: Shelf,
    store: Store,
    metrics: PolicyMetrics,
    recorder: Recorder,
    guard: Guard,
    samples: Samples,
    crowd: Crowd,
    admissions: Semaphore,
    works: Semaphore,
    /// Wakes the loader.
    due: Notify,
    pulse: Pulse,
    replica: Uuid,
    config: PolicyConfig,
}

/// Everything that is in force together, under one revision.
struct Sets {
    revision: i64,
    request: PolicySet,
    admission: PolicySet,
    /// Bindings in each, without which nothing needs to be asked.
    bound: (usize, usize),
    broken: Vec<Broken>,
    problems: Vec<LoadProblem>,
}

/// A binding whose policy cannot be loaded, and whose failure mode is to refuse.
struct Broken {
    binding: String,
    world: World,
    scope: Scope,
    message: String,
}

impl Sets {
    /// The first binding that would have judged this tenant's request and cannot.
    fn broken(&self, world: World, tenant: &TenantView) -> Option<&Broken> {
        self.broken.iter().filter(|broken| broken.world == world).find(|broken| match &broken.scope {
            Scope::Everyone => true,
            Scope::Tier(tier) => *tier == tenant.tier,
            Scope::Tenant(id) => *id == tenant.id,
        })
    }
}

impl Policies {
    /// Starts the loader, the recorder and the guard; all end soon after `shutdown` is cancelled. The database does not
    /// need to be up: until it was, nothing is let through.
    #[must_use]
    pub fn start(
        engine: PolicyEngine,
        store: Store,
        config: PolicyConfig,
        shutdown: CancellationToken,
    ) -> (Self, JoinSet<()>) {
        let cache = config.cache.as_deref().and_then(|folder| {
            Cache::open(folder)
                .inspect_err(|error| {
                    let error = crate::error::chain(error);
                    tracing::warn!(error, "Policies are compiled at every start, for want of a cache.");
                })
                .ok()
        });
        let metrics = PolicyMetrics::new(engine.fallbacks());
        let (recorder, records) = Recorder::new();
        let (guard, trips) = Guard::new();
        let inner = Arc::new(Inner {
            shelf: Shelf::new(engine, cache),
            counters: Arc::default(),
            sets: ArcSwapOption::empty(),
            store,
            metrics,
            recorder,
            guard,
            samples: Samples::default(),
            crowd: Crowd::default(),
            admissions: Semaphore::new(ADMISSIONS),
            works: Semaphore::new(WORKS),
            due: Notify::new(),
            pulse: Pulse::default(),
            replica: Uuid::now_v7(),
            config,
        });
        let mut tasks = JoinSet::new();
        let mut start = |task: futures::future::BoxFuture<'static, ()>| {
            let shutdown = shutdown.clone();
            tasks.spawn(async move {
                let _: Option<()> = shutdown.run_until_cancelled(task).await;
            });
        };
        start(Box::pin(loader::run(Arc::clone(&inner))));
        start(Box::pin(builtin::run(Arc::clone(&inner))));
        start(Box::pin(recorder::run(Arc::clone(&inner), records)));
        start(Box::pin(guard::run(Arc::clone(&inner), trips)));
        let leaving = Arc::clone(&inner);
        tasks.spawn(async move {
            shutdown.cancelled().await;
            // Others take over its share of the limits at once.
            if let Err(error) = leaving.store.replica_leave(leaving.replica).await {
                tracing::debug!(error = crate::error::chain(&error), "The replica's row stays until it is stale.");
            }
        });
        (Self { inner }, tasks)
    }

    /// The set of policies that this replica runs; none until the first is loaded.
    #[must_use]
    pub fn running(&self) -> Option<i64> {
        self.inner.sets.load().as_ref().map(|sets| sets.revision)
    }

    /// Whether a set is loaded.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.running().is_some()
    }

    /// What cannot be put in force here. It refuses requests in its scope, or lets them through, as its binding says;
    /// everything else works.
    #[must_use]
    pub fn problems(&self) -> Vec<LoadProblem> {
        self.inner.sets.load().as_ref().map(|sets| sets.problems.clone()).unwrap_or_default()
    }

    /// Makes the loader look at once: something was changed here.
    pub fn hurry(&self) {
        self.inner.due.notify_one();
    }

    /// Live replicas, this one among them, as of the last sign of life.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        self.inner.pulse.replicas()
    }

    /// Counters and histograms.
    #[must_use]
    pub fn metrics(&self) -> &PolicyMetrics {
        &self.inner.metrics
    }

    /// An invocation of this tenant begins; it ends when the value goes.
    #[must_use]
    pub fn enter(&self, tenant: &TenantId) -> InFlight {
        self.inner.crowd.enter(tenant)
    }

    /// What a policy is told about this tenant: who it is, what it uses, and what it may use at most.
    #[must_use]
    pub fn about(&self, app: &App, tenant: &TenantId) -> (TenantView, (Amounts, Amounts)) {
        (facts::tenant(app, tenant), facts::amounts(app, tenant))
    }

    /// Checks modules and settings for operators.
    #[must_use]
    pub fn intake(&self) -> Intake {
        Intake::new(Arc::clone(&self.inner))
    }
}

/// A role as metrics and the decision log call it.
fn role_word(role: Role) -> &'static str {
    match role {
        Role::Active => "active",
        Role::Canary => "canary",
        Role::Shadow => "shadow",
    }
}
