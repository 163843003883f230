//! Modules and policies, compiled once and kept as long as something runs them or might soon. Loading never blocks
//! whoever asks: what is not there yet is being made, and the loader is woken when it is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use policy_engine::{Cache, Capability, Module, Policy, PolicyEngine, World};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::Inner;
use crate::error::chain;
use crate::store::StoreError;

/// How long a failure is believed before it is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// A policy as something wants it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Want {
    pub(super) policy: String,
    pub(super) number: i32,
    pub(super) digest: String,
    pub(super) world: World,
    /// JSON text.
    pub(super) settings: String,
}

/// Something on the shelf.
#[derive(Clone)]
pub(super) enum Item<T> {
    /// It is being made.
    Coming,
    /// Here it is.
    Ready(T),
    /// It cannot be made; why, and when that was found.
    Failed(String, Instant),
}

/// See the module.
pub(super) struct Shelf {
    engine: PolicyEngine,
    cache: Option<Cache>,
    goods: Mutex<Goods>,
    /// Few compilations at a time, so that requests keep a core; more than one, so that a slow one holds up nobody.
    compiling: Arc<Semaphore>,
    version: AtomicU64,
}

#[derive(Default)]
struct Goods {
    modules: HashMap<String, Item<Arc<Module>>>,
    policies: HashMap<Want, Item<Arc<Policy>>>,
}

impl Shelf {
    pub(super) fn new(engine: PolicyEngine, cache: Option<Cache>) -> Self {
        Self {
            engine,
            cache,
            goods: Mutex::default(),
            compiling: Arc::new(Semaphore::new(2)),
            version: AtomicU64::new(0),
        }
    }

    /// Counts what came and what got better.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn policy(&self, want: &Want) -> Item<Arc<Policy>> {
        self.goods().policies.get(want).cloned().unwrap_or(Item::Coming)
    }

    /// Has what is not there yet made; `near` are modules that may be wanted soon.
    pub(super) fn order(inner: &Arc<Inner>, wants: &[Want], near: &[(String, i32, String)]) {
        let shelf = &inner.shelf;
        let stale = |at: &Instant| at.elapsed() > RETRY;
        let mut goods = shelf.goods();
        for want in wants {
            let order = match goods.policies.get(want) {
                None => true,
                Some(Item::Failed(_, at)) => stale(at),
                Some(_) => false,
            };
            if order {
                goods.policies.insert(want.clone(), Item::Coming);
                tokio::spawn(make_policy(Arc::clone(inner), want.clone()));
            }
        }
        for (policy, number, digest) in near {
            // Those that are wanted with settings bring their modules along.
            let wanted = wants.iter().any(|want| want.digest == *digest);
            if !wanted && !goods.modules.contains_key(digest) {
                goods.modules.insert(digest.clone(), Item::Coming);
                tokio::spawn(make_module(Arc::clone(inner), policy.clone(), *number, digest.clone()));
            }
        }
    }

    /// Lets go of what nobody wants any more.
    pub(super) fn keep(&self, wants: &[Want], near: &[(String, i32, String)], recent: &HashSet<Want>) {
        let mut goods = self.goods();
        let wanted: HashSet<&Want> = wants.iter().chain(recent).collect();
        goods.policies.retain(|want, item| matches!(item, Item::Coming) || wanted.contains(want));
        let digests: HashSet<&str> = near
            .iter()
            .map(|(_, _, digest)| digest.as_str())
            .chain(wants.iter().chain(recent).map(|want| want.digest.as_str()))
            .collect();
        goods.modules.retain(|digest, item| matches!(item, Item::Coming) || digests.contains(digest.as_str()));
    }

    /// A module that was just accepted, so that it need not be loaded again.
    pub(super) fn put_module(&self, module: &Arc<Module>) {
        self.goods().modules.insert(module.digest().to_string(), Item::Ready(Arc::clone(module)));
    }

    /// The module of that digest, if it is at hand.
    pub(super) fn module(&self, digest: &str) -> Option<Arc<Module>> {
        match self.goods().modules.get(digest) {
            Some(Item::Ready(module)) => Some(Arc::clone(module)),
            _ => None,
        }
    }

    /// Compiles a module, when it is its turn.
    pub(super) async fn compile(&self, bytes: Arc<Vec<u8>>) -> Result<Arc<Module>, Vec<policy_engine::Problem>> {
        let turn = Arc::clone(&self.compiling).acquire_owned().await;
        let (engine, cache) = (self.engine.clone(), self.cache.clone());
        let load = move || {
            let _turn = turn;
            let granted: BTreeSet<Capability> = Capability::ALL.into();
            Module::load(&engine, &bytes, &granted, cache.as_ref())
        };
        match tokio::task::spawn_blocking(load).await {
            Ok(loaded) => loaded.map_err(|error| error.problems),
            Err(_) => {
                Err(vec![policy_engine::Problem { code: "compile", message: "the compiler gave up on it".to_owned() }])
            }
        }
    }

    fn goods(&self) -> MutexGuard<'_, Goods> {
        self.goods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn came(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// Why something cannot be made; the text is for operators.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error("its module cannot be read from the store")]
    Store(#[source] StoreError),
    #[error("{0}")]
    Refused(String),
}

async fn make_module(inner: Arc<Inner>, policy: String, number: i32, digest: String) {
    let made = fetch_module(&inner, &policy, number, &digest).await;
    let item = match made {
        Ok((module, _)) => Item::Ready(module),
        Err(error) => Item::Failed(chain(&error), Instant::now()),
    };
    inner.shelf.goods().modules.insert(digest, item);
}

/// The module, and its bytes if they had to be fetched.
async fn fetch_module(
    inner: &Inner,
    policy: &str,
    number: i32,
    digest: &str,
) -> Result<(Arc<Module>, Option<Arc<Vec<u8>>>), MakeError> {
    if let Some(module) = inner.shelf.module(digest) {
        return Ok((module, None));
    }
    let bytes = Arc::new(inner.store.policy_module(policy, number).await.map_err(MakeError::Store)?);
    let module = inner.shelf.compile(Arc::clone(&bytes)).await.map_err(|problems| {
        MakeError::Refused(problems.iter().map(|p| p.message.as_str()).collect::<Vec<_>>().join("; "))
    })?;
    if module.digest().to_string() != digest {
        return Err(MakeError::Refused("the stored module is not the one that was accepted".to_owned()));
    }
    inner.shelf.put_module(&module);
    Ok((module, Some(bytes)))
}

/// Puts the policy on the shelf, and a moment later its frozen form, which decides faster.
async fn make_policy(inner: Arc<Inner>, want: Want) {
    let made = configured(&inner, &want).await;
    let (policy, module, bytes) = match made {
        Ok(made) => made,
        Err(error) => {
            let error = chain(&error);
            tracing::error!(policy = want.policy, revision = want.number, error, "A policy cannot be loaded.");
            inner.shelf.goods().policies.insert(want, Item::Failed(error, Instant::now()));
            inner.shelf.came();
            inner.due.notify_one();
            return;
        }
    };
    // From the cache this takes no longer than loading did, so the first set is fast at once; otherwise the plain form
    // is in force while an image is made.
    inner.shelf.goods().policies.insert(want.clone(), Item::Ready(Arc::clone(&policy)));
    inner.shelf.came();
    inner.due.notify_one();
    match freeze(&inner, &want, (policy, module, bytes)).await {
        Ok(frozen) => {
            if let Some(item) = inner.shelf.goods().policies.get_mut(&want) {
                *item = Item::Ready(Arc::new(frozen));
            }
            inner.shelf.came();
            inner.due.notify_one();
        }
        Err(error) => {
            tracing::info!(policy = want.policy, error, "A policy configures itself in every decision.");
        }
    }
}

type Made = (Arc<Policy>, Arc<Module>, Option<Arc<Vec<u8>>>);

async fn configured(inner: &Inner, want: &Want) -> Result<Made, MakeError> {
    let (module, bytes) = fetch_module(inner, &want.policy, want.number, &want.digest).await?;
    let (for_configure, world, settings) = (Arc::clone(&module), want.world, want.settings.clone());
    let configure = move || {
        let settings: Value = serde_json::from_str(&settings).unwrap_or(Value::Null);
        Policy::configure(&for_configure, world, &settings)
    };
    let configured = tokio::task::spawn_blocking(configure).await;
    let configured = configured.map_err(|error| MakeError::Refused(error.to_string()))?;
    let policy = configured.map_err(|error| MakeError::Refused(error.to_string()))?;
    Ok((Arc::new(policy), module, bytes))
}

async fn freeze(inner: &Inner, want: &Want, (policy, module, bytes): Made) -> Result<Policy, String> {
    let bytes = match bytes {
        Some(bytes) => bytes,
        None => Arc::new(inner.store.policy_module(&want.policy, want.number).await.map_err(|e| chain(&e))?),
    };
    let turn = Arc::clone(&inner.shelf.compiling).acquire_owned().await;
    let cache = inner.shelf.cache.clone();
    let freeze = move || {
        let _turn = turn;
        policy.freeze(&module, &bytes, cache.as_ref())
    };
    let frozen = tokio::task::spawn_blocking(freeze).await.map_err(|error| error.to_string())?;
    frozen.map_err(|error| error.to_string())
}
