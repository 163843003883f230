//! From rows to the set in force, and the sign of life. Driven by what the store says now, not by what happened: a poll
//! is the truth, a change made here only makes it come sooner. A set is published when everything in it is at hand or
//! known to fail; until then the one before goes on, and a newer one is not held up by a slow older one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eventflow_api::policy::{Binding, FailureMode, GroupKind, LoadProblem, Scope, TrialMode, World};
use policy_engine::set::{self, Entry, Group, Trial};
use policy_engine::{Policy, PolicySet};

use super::shelf::{Item, Shelf, Want};
use super::{Broken, Inner, Sets};
use crate::error::chain;
use crate::store::{Beat, Heart, InForce, StoreError};

/// Between two looks at the store: half of the time in which all replicas are to agree.
const POLL: Duration = Duration::from_millis(800);
/// How long the very first set waits for a policy; then what it would judge is refused, and the rest is served.
const FIRST_WAIT: Duration = Duration::from_millis(1500);
/// Sets whose policies stay compiled after they are replaced.
const RECENT: usize = 6;

/// What the last sign of life brought.
#[derive(Default)]
pub(super) struct Pulse {
    replicas: AtomicU32,
    webhook_ca: Mutex<Option<String>>,
    trusted: Mutex<Vec<String>>,
}

impl Pulse {
    pub(super) fn replicas(&self) -> u32 {
        self.replicas.load(Ordering::Relaxed).max(1)
    }

    fn hear(&self, heart: &Heart) {
        self.replicas.store(heart.replicas, Ordering::Relaxed);
        *self.trusted.lock().unwrap_or_else(PoisonError::into_inner) = heart.webhook_cas.clone();
    }
}

impl super::Policies {
    /// Says from now on that this replica's webhooks have this certificate authority.
    pub fn announce_webhook_ca(&self, pem: String) {
        *self.inner.pulse.webhook_ca.lock().unwrap_or_else(PoisonError::into_inner) = Some(pem);
        self.hurry();
    }

    /// The certificate authorities of all replicas' webhooks, as of the last sign of life.
    #[must_use]
    pub fn webhook_cas(&self) -> Vec<String> {
        self.inner.pulse.trusted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Works for ever.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut loader = Loader { inner, begun: Instant::now(), built: None, recent: VecDeque::new() };
    loop {
        if let Err(error) = loader.step().await {
            tracing::warn!(error = chain(&error), "What policies are to run cannot be read now.");
        }
        // Woken: something was changed here, or came from the compiler.
        let _ = tokio::time::timeout(POLL, loader.inner.due.notified()).await;
    }
}

struct Loader {
    inner: Arc<Inner>,
    begun: Instant,
    /// The set's revision and the shelf's version that were published last.
    built: Option<(i64, u64)>,
    recent: VecDeque<HashSet<Want>>,
}

impl Loader {
    async fn step(&mut self) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        let heart = inner.store.replica_beat(&beat(&inner)).await?;
        inner.pulse.hear(&heart);
        inner.counters.set_replicas(heart.replicas);
        if self.built == Some((heart.set_revision, inner.shelf.version())) {
            return Ok(());
        }
        let in_force = inner.store.policies_in_force().await?;
        let wants = wants(&in_force);
        Shelf::order(&inner, &wants, &in_force.near);
        let version = inner.shelf.version();
        let coming = wants.iter().any(|want| matches!(inner.shelf.policy(want), Item::Coming));
        let first = inner.sets.load().is_none();
        if coming && !(first && self.begun.elapsed() > FIRST_WAIT) {
            return Ok(());
        }
        let sets = build(&inner.shelf, &in_force, coming);
        // What fails is looked at again, now and then.
        let settled = !coming && sets.problems.is_empty();
        let before = inner.sets.swap(Some(Arc::new(sets)));
        if before.is_none_or(|before| before.revision != in_force.set_revision) {
            tracing::info!(policies.revision = in_force.set_revision, "A set of policies is in force.");
            // Others see at once what runs here.
            inner.store.replica_beat(&beat(&inner)).await?;
        }
        inner.metrics.keep(&in_force.bindings);
        inner.metrics.set_revision.set(in_force.set_revision);
        self.built = settled.then_some((in_force.set_revision, version));
        self.remember(wants, &in_force);
        Ok(())
    }

    /// What was in force lately stays at hand, so that going back takes no time.
    fn remember(&mut self, wants: Vec<Want>, in_force: &InForce) {
        let now: HashSet<Want> = wants.iter().cloned().collect();
        if self.recent.back() != Some(&now) {
            self.recent.retain(|set| *set != now);
            self.recent.push_back(now);
        }
        while self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        let recent: HashSet<Want> = self.recent.iter().flatten().cloned().collect();
        self.inner.shelf.keep(&wants, &in_force.near, &recent);
    }
}

fn beat(inner: &Inner) -> Beat {
    let sets = inner.sets.load();
    Beat {
        id: inner.replica,
        name: inner.config.replica.clone(),
        set_revision: sets.as_ref().map_or(-1, |sets| sets.revision),
        problems: sets.as_ref().map(|sets| sets.problems.clone()).unwrap_or_default(),
        webhook_ca: inner.pulse.webhook_ca.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    }
}

fn engine_world(world: World) -> policy_engine::World {
    match world {
        World::Request => policy_engine::World::Request,
        World::Admission => policy_engine::World::Admission,
    }
}

fn active_want(binding: &Binding) -> Option<Want> {
    Some(Want {
        policy: binding.policy.clone(),
        number: binding.active?,
        digest: binding.active_digest.clone()?,
        world: engine_world(binding.world),
        settings: binding.settings.to_string(),
    })
}

fn trial_want(binding: &Binding) -> Option<Want> {
    let trial = binding.trial.as_ref()?;
    Some(Want {
        policy: binding.policy.clone(),
        number: trial.revision,
        digest: trial.digest.clone(),
        world: engine_world(binding.world),
        settings: trial.settings.to_string(),
    })
}

fn wants(in_force: &InForce) -> Vec<Want> {
    in_force.bindings.iter().flat_map(|binding| active_want(binding).into_iter().chain(trial_want(binding))).collect()
}

/// Puts together what is at hand. `coming`: what is not there yet is taken to fail, for now.
fn build(shelf: &Shelf, in_force: &InForce, coming: bool) -> Sets {
    let mut builder = Builder { shelf, coming, broken: Vec::new(), problems: Vec::new() };
    let mut members: HashMap<&str, Vec<set::Binding>> = HashMap::new();
    let mut entries = (Vec::new(), Vec::new());
    let mut bound = (0, 0);
    for binding in &in_force.bindings {
        let Some(made) = builder.binding(binding) else { continue };
        let (list, count) = match binding.world {
            World::Request => (&mut entries.0, &mut bound.0),
            World::Admission => (&mut entries.1, &mut bound.1),
        };
        *count += 1;
        match &binding.group {
            Some(group) => members.entry(group.as_str()).or_default().push(made),
            None => list.push(Entry::One(made)),
        }
    }
    for group in &in_force.groups {
        let Some(mut members) = members.remove(group.name.as_str()) else { continue };
        members.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        let kind = match group.kind {
            GroupKind::All => set::GroupKind::All,
            GroupKind::Any => set::GroupKind::Any,
            GroupKind::FirstMatch => set::GroupKind::FirstMatch,
        };
        let made = Entry::Group(Group { name: group.name.as_str().into(), order: group.order, kind, members });
        match group.world {
            World::Request => entries.0.push(made),
            World::Admission => entries.1.push(made),
        }
    }
    let revision = u64::try_from(in_force.set_revision).unwrap_or(0);
    let request = builder.set(revision, World::Request, entries.0);
    let admission = builder.set(revision, World::Admission, entries.1);
    let Builder { broken, problems, .. } = builder;
    Sets { revision: in_force.set_revision, request, admission, bound, broken, problems }
}

struct Builder<'a> {
    shelf: &'a Shelf,
    coming: bool,
    broken: Vec<Broken>,
    problems: Vec<LoadProblem>,
}

impl Builder<'_> {
    fn binding(&mut self, binding: &Binding) -> Option<set::Binding> {
        let active = match active_want(binding).map(|want| self.policy(&want)) {
            None => None,
            Some(Ok(policy)) => Some(policy),
            Some(Err(message)) => {
                self.problem(binding, &message);
                if binding.failure_mode == FailureMode::Closed {
                    self.break_off(&binding.name, binding.world, binding.scope.clone(), message);
                }
                return None;
            }
        };
        let trial = match (trial_want(binding).map(|want| self.policy(&want)), &binding.trial) {
            (Some(Ok(policy)), Some(trial)) => Some(Trial { policy, mode: mode(trial) }),
            // What decides decides on, and the trial is not one.
            (Some(Err(message)), _) => {
                self.problem(binding, &format!("the revision that is tried out: {message}"));
                None
            }
            _ => None,
        };
        if active.is_none() && trial.is_none() {
            return None;
        }
        Some(set::Binding {
            name: binding.name.as_str().into(),
            scope: match &binding.scope {
                Scope::Everyone => set::Scope::Everyone,
                Scope::Tier(tier) => set::Scope::Tier(tier.clone()),
                Scope::Tenant(id) => set::Scope::Tenant(id.clone()),
            },
            order: binding.order,
            failure: match binding.failure_mode {
                FailureMode::Closed => policy_engine::FailureMode::Closed,
                FailureMode::Open => policy_engine::FailureMode::Open,
            },
            active,
            trial,
        })
    }

    fn policy(&self, want: &Want) -> Result<Arc<Policy>, String> {
        match self.shelf.policy(want) {
            Item::Ready(policy) => Ok(policy),
            Item::Failed(message, _) => Err(message),
            Item::Coming if self.coming => Err("it is still being compiled".to_owned()),
            Item::Coming => Err("it went while the set was put together".to_owned()),
        }
    }

    /// A set of these entries. If they make none, everyone is refused rather than let through unjudged.
    fn set(&mut self, revision: u64, world: World, entries: Vec<Entry>) -> PolicySet {
        PolicySet::new(revision, engine_world(world), entries).unwrap_or_else(|error| {
            let message = error.to_string();
            self.problems.push(LoadProblem { binding: String::new(), policy: String::new(), message: message.clone() });
            self.break_off("", world, Scope::Everyone, message);
            PolicySet::new(revision, engine_world(world), Vec::new()).expect("a set of nothing breaks no rule")
        })
    }

    fn problem(&mut self, binding: &Binding, message: &str) {
        self.problems.push(LoadProblem {
            binding: binding.name.clone(),
            policy: binding.policy.clone(),
            message: message.to_owned(),
        });
    }

    fn break_off(&mut self, binding: &str, world: World, scope: Scope, message: String) {
        self.broken.push(Broken { binding: binding.to_owned(), world, scope, message });
    }
}

fn mode(trial: &eventflow_api::policy::Trial) -> set::TrialMode {
    match trial.mode {
        TrialMode::Shadow => set::TrialMode::Shadow,
        TrialMode::Canary => set::TrialMode::Canary {
            // From hundredths, by way of percent, and back: exact within what was written.
            basis_points: (trial.percent * 100.0).round().clamp(0.0, 10_000.0) as u16,
            tenants: trial.tenants.iter().cloned().collect(),
        },
    }
}
